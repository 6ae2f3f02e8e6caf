//! A hostile core, and a hostile file for each of its modules. Run with `cargo fuzz run corefile`; any core and its executable, glued together behind the
//! size of the core (4 bytes, little-endian), are a good seed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci_coredump::corefile::{Bytes, overview, stacks};

fuzz_target!(|data: &[u8]| {
    let Some((size, rest)) = data.split_first_chunk::<4>() else { return };
    let (core, file) = rest.split_at(rest.len().min(u32::from_le_bytes(*size) as usize));
    let core = core.to_vec();
    let Ok(said) = overview(&core) else { return };
    let bytes = vec![Bytes { file: Some(file), debug: Some(file) }; said.modules.len()];
    let _ = stacks(&core, &bytes, &mut |_| Ok(()));
});
