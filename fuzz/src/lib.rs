//! The fuzz targets are the readers of `oci_coredump::fuzzing`, by name.

pub mod mutate;

/// Gives one input to one reader.
///
/// # Panics
/// The reader does: that is what is looked for. Or there is none of this name.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = oci_coredump::fuzzing::TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .unwrap_or_else(|| panic!("no target {name}"));
    target(data);
}

/// A program that gives a fuzzer's inputs to the reader of this name.
#[macro_export]
macro_rules! target {
    ($name:expr) => {
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $crate::run($name, data));
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            $crate::mutate::mutate($name, data, size, max_size, seed)
        });
    };
}
