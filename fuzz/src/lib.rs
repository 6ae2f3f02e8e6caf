//! The fuzz targets are the readers of `oci_coredump::hostile`, by name.

pub mod mutate;

/// Gives one input to one reader.
///
/// # Panics
/// The reader does: that is what is looked for. Or there is none of this name.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = oci_coredump::hostile::TARGETS.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("no target {name}"));
    target(data);
}
