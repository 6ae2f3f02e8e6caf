#![no_main]

oci_coredump_fuzz::target!("variables");
