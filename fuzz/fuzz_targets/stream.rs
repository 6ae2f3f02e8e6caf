#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| oci_coredump_fuzz::run("stream", data));
