//! The bytes of a core that legitimately differ from run to run, and nothing else.
//!
//! | what | where | why |
//! |---|---|---|
//! | `pr_utime`, `pr_stime`, `pr_cutime`, `pr_cstime` | NT_PRSTATUS | CPU time used |
//! | the 16 bytes that AT_RANDOM points to | stack | fresh random bytes for every execve |
//! | bit 1 (SSE) of XSTATE_BV | NT_X86_XSTATE | may be set for registers in their initial state |
//! | order of the threads after the first | PT_NOTE | order of arrival: sorted by TID here |
//!
//! PIDs need no mask: those in a core are of the crasher's own PID namespace,
//! where the tests choose them.
use std::ops::Range;

const NT_PRSTATUS: u32 = 1;
const NT_PRPSINFO: u32 = 3;
const NT_AUXV: u32 = 6;
const AT_RANDOM: u64 = 25;
const NT_X86_XSTATE: u32 = 0x202;
const NT_X86_XSAVE_LAYOUT: u32 = 0x205;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// Offsets in struct elf_prstatus of x86-64: four struct timeval after the PIDs.
const PRSTATUS_PID: usize = 32;
const PRSTATUS_TIMES: Range<usize> = 48..112;
/// Offset of `pr_flag` in struct elf_prpsinfo of x86-64, and PF_SUPERPRIV
/// (0x100) in its second byte.
const PRPSINFO_FLAG: usize = 8;
const PF_SUPERPRIV_SECOND_BYTE: u8 = 0x01;
/// Offset of XSTATE_BV in the XSAVE area (Intel SDM, volume 1, 13.4.2), and the bit whose value is
/// up to the processor (13.6, "XINUSE\[1\]").
const XSTATE_BV: usize = 512;
const XSTATE_BV_SSE: u8 = 1 << 1;

/// True for an ELF file of type ET_CORE.
pub fn is_core(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF") && bytes.get(16..18) == Some(&[4, 0])
}

/// The core with those bytes zeroed. A truncated one is masked as far as it goes; what
/// is no core stays as it is.
pub fn masked(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if !is_core(&bytes) {
        return bytes;
    }
    let segments = segments(&bytes);
    if let Some(notes) = segments.iter().find(|segment| segment.kind == PT_NOTE) {
        let whole = notes.offset.saturating_add(notes.size) <= bytes.len();
        let found = notes_in(&bytes, notes.offset, notes.size);
        for note in found.iter().filter(|note| note.kind == NT_PRSTATUS) {
            clear(&mut bytes, note.start + PRSTATUS_TIMES.start, PRSTATUS_TIMES.len());
        }
        for note in found.iter().filter(|note| note.kind == NT_X86_XSTATE) {
            if let Some(byte) = bytes.get_mut(note.start + XSTATE_BV) {
                *byte &= !XSTATE_BV_SSE;
            }
        }
        if let Some(at) = random_bytes(&bytes, &found, &segments) {
            clear(&mut bytes, at, 16);
        }
        if whole {
            // After the last thread's comes one that describes the layout of them all.
            let last =
                found.iter().find(|note| note.kind == NT_X86_XSAVE_LAYOUT).map(|note| note.header);
            sort_threads(&mut bytes, &found, last.unwrap_or(notes.offset + notes.size));
        }
    }
    bytes
}

/// True for a core that has all that its headers promise.
pub fn whole(bytes: &[u8]) -> bool {
    is_core(bytes)
        && segments(bytes).iter().all(|segment| segment.offset + segment.size <= bytes.len())
}

/// Clears PF_SUPERPRIV in NT_PRPSINFO.
pub fn clear_privilege(bytes: &mut [u8]) {
    let notes = segments(bytes).into_iter().find(|segment| segment.kind == PT_NOTE);
    let all = notes.map(|notes| notes_in(bytes, notes.offset, notes.size)).unwrap_or_default();
    if let Some(info) = all.iter().find(|note| note.kind == NT_PRPSINFO) {
        bytes[info.start + PRPSINFO_FLAG + 1] &= !PF_SUPERPRIV_SECOND_BYTE;
    }
}

/// What is at an offset of the file, for a reader of the differences.
pub fn describe(bytes: &[u8], offset: usize) -> String {
    for segment in segments(bytes) {
        let Some(within) =
            offset.checked_sub(segment.offset).filter(|within| *within < segment.size)
        else {
            continue;
        };
        if segment.kind == PT_LOAD {
            return format!("memory at {:#x}", segment.address + within as u64);
        }
        let notes = notes_in(bytes, segment.offset, segment.size);
        if let Some(note) = notes.iter().rev().find(|note| note.header <= offset) {
            return format!(
                "note of type {:#x}, byte {} of its header and description",
                note.kind,
                offset - note.header
            );
        }
    }
    "headers".to_owned()
}

struct Segment {
    kind: u32,
    offset: usize,
    address: u64,
    size: usize,
}

struct Note {
    kind: u32,
    /// Of the header.
    header: usize,
    /// Of the description.
    start: usize,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn segments(bytes: &[u8]) -> Vec<Segment> {
    let count = bytes.get(56..58).map_or(0, |b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    let read = |index: usize| {
        let at = usize::try_from(u64_at(bytes, 32)?).ok()? + index * 56;
        Some(Segment {
            kind: u32_at(bytes, at)?,
            offset: usize::try_from(u64_at(bytes, at + 8)?).ok()?,
            address: u64_at(bytes, at + 16)?,
            size: usize::try_from(u64_at(bytes, at + 32)?).ok()?,
        })
    };
    (0..count).map_while(read).collect()
}

fn notes_in(bytes: &[u8], offset: usize, size: usize) -> Vec<Note> {
    let (mut at, mut notes) = (offset, Vec::new());
    while at < offset + size {
        let (Some(name), Some(length), Some(kind)) =
            (u32_at(bytes, at), u32_at(bytes, at + 4), u32_at(bytes, at + 8))
        else {
            break;
        };
        let start = at + 12 + (name as usize).next_multiple_of(4);
        notes.push(Note { kind, header: at, start });
        at = start + (length as usize).next_multiple_of(4);
    }
    notes
}

fn random_bytes(bytes: &[u8], notes: &[Note], segments: &[Segment]) -> Option<usize> {
    let mut at = notes.iter().find(|note| note.kind == NT_AUXV)?.start;
    while u64_at(bytes, at)? != AT_RANDOM {
        (u64_at(bytes, at)? != 0).then_some(())?;
        at += 16;
    }
    let address = u64_at(bytes, at + 8)?;
    let segment = segments.iter().find(|segment| {
        segment.kind == PT_LOAD
            && address >= segment.address
            && address - segment.address < segment.size as u64
    })?;
    Some(segment.offset + usize::try_from(address - segment.address).ok()?)
}

fn clear(bytes: &mut [u8], at: usize, length: usize) {
    let end = (at + length).min(bytes.len());
    if at < end {
        bytes[at..end].fill(0);
    }
}

fn sort_threads(bytes: &mut [u8], notes: &[Note], end: usize) {
    let starts: Vec<_> =
        notes.iter().filter(|note| note.kind == NT_PRSTATUS).map(|note| note.header).collect();
    let Some(first) = starts.get(1).copied() else { return };
    let ends = starts.iter().skip(2).copied().chain([end]);
    let mut threads: Vec<_> =
        starts[1..].iter().zip(ends).map(|(start, end)| bytes[*start..end].to_vec()).collect();
    // The header and the name "CORE" take 20 bytes.
    threads.sort_by_key(|thread| u32_at(thread, 20 + PRSTATUS_PID));
    bytes[first..end].copy_from_slice(&threads.concat());
}
