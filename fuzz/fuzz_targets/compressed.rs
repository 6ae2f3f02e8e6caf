#![no_main]

oci_coredump_fuzz::target!("compressed");
