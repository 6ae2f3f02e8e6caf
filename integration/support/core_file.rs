//! What is in a core file, read by the `object` crate, and by gdb as a person would.
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use object::LittleEndian;
use object::elf::{ET_CORE, FileHeader64, NT_PRSTATUS, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

/// The crashing thread, as the first NT_PRSTATUS tells it.
#[derive(Debug, PartialEq, Eq)]
pub struct Crashed {
    pub signal: i32,
    /// In the PID namespace of the crasher.
    pub tid: i32,
}

/// Reads a core, which must be whole: every memory segment ends within the file.
pub fn read(path: &Path) -> Crashed {
    let data = fs::read(path).unwrap_or_else(|cause| panic!("{path:?}: {cause}"));
    let data = data.as_slice();
    let header = FileHeader64::<LittleEndian>::parse(data)
        .unwrap_or_else(|cause| panic!("{path:?}: {cause}"));
    assert_eq!(header.e_type(LittleEndian), ET_CORE, "{path:?}");
    let segments = header.program_headers(LittleEndian, data).unwrap();
    let end = segments
        .iter()
        .map(|segment| segment.p_offset(LittleEndian) + segment.p_filesz(LittleEndian))
        .max();
    assert!(
        segments.iter().any(|segment| segment.p_type(LittleEndian) == PT_LOAD),
        "{path:?} holds no memory"
    );
    assert_eq!(Some(data.len() as u64), end, "{path:?} does not end where its last segment does");
    let status = segments
        .iter()
        .filter_map(|segment| segment.notes(LittleEndian, data).unwrap())
        .find_map(|mut notes| {
            notes.next().unwrap().filter(|note| note.n_type(LittleEndian) == NT_PRSTATUS)
        })
        .expect("the first note is NT_PRSTATUS");
    // struct elf_prstatus: siginfo is 12 bytes, then pr_cursig; pr_pid at 32 on 64-bit machines.
    let desc = status.desc();
    let signal = i16::from_le_bytes(desc[12..14].try_into().unwrap());
    let tid = i32::from_le_bytes(desc[32..36].try_into().unwrap());
    Crashed { signal: signal.into(), tid }
}

/// Owner (host IDs) and permission bits.
pub fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let meta = path.symlink_metadata().unwrap_or_else(|cause| panic!("{path:?}: {cause}"));
    assert!(meta.is_file(), "{path:?} is no regular file");
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

/// gdb's backtrace: one line a frame.
pub fn backtrace(executable: &Path, core: &Path) -> String {
    let output = Command::new("gdb")
        .args(["--batch", "--nx", "-iex", "set debuginfod enabled off", "-ex", "backtrace"])
        .args([executable, core])
        .output()
        .expect("gdb is not installed");
    assert!(output.status.success(), "gdb: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
