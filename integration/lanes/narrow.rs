//! The bytes of a 32-bit core that differ from run to run: as in `core_bytes`, at the offsets
//! of the narrow structures.

use object::Endianness;
use object::read::elf::{ElfFile32, ProgramHeader};
use std::ops::Range;

const NT_PRSTATUS: u32 = 1;
/// `pr_utime` to `pr_cstime` of struct compat_elf_prstatus: four pairs of
/// 32-bit words behind the IDs.
const TIMES: Range<usize> = 40..72;
const NT_X86_XSTATE: u32 = 0x202;
/// XSTATE_BV, of which the SSE bit is up to the processor.
const XSTATE_BV: usize = 512;

/// The core with those bytes zeroed.
pub fn masked(core: &[u8]) -> Vec<u8> {
    let elf = ElfFile32::<Endianness>::parse(core).expect("a 32-bit ELF file");
    let endian = elf.endian();
    let mut masked = core.to_vec();
    for notes in elf
        .elf_program_headers()
        .iter()
        .filter_map(|header| header.notes(endian, core).expect("notes"))
    {
        for note in notes.map(Result::unwrap) {
            let start = note.desc().as_ptr() as usize - core.as_ptr() as usize;
            match note.n_type(endian).0 {
                NT_PRSTATUS => masked[start..][TIMES].fill(0),
                NT_X86_XSTATE => masked[start + XSTATE_BV] &= !2,
                _ => {}
            }
        }
    }
    masked
}
