//! All targets in one program, for CI, where each of them linked for itself would take too long: FUZZ_TARGET says which.
#![no_main]

use std::sync::LazyLock;

static TARGET: LazyLock<String> = LazyLock::new(|| std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET=<name of a target>"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| oci_coredump_fuzz::run(&TARGET, data));

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    oci_coredump_fuzz::mutate::mutate(&TARGET, data, size, max_size, seed)
});
