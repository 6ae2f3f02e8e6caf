#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| oci_coredump_fuzz::run("config", data));

libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    oci_coredump_fuzz::mutate::mutate("config", data, size, max_size, seed)
});
