//! The one reader of ELF files and cores, for the dispatcher and for the reader of cores. The bytes
//! are not trusted: every read is bounded, a damaged value gives nothing or an error, and nothing
//! here panics.

mod build_id;
mod file_table;
mod head;
mod segments;
mod source;
pub(crate) mod spans;

pub(crate) use build_id::{build_id, build_id_in_notes, hex, note_of};
pub(crate) use file_table::{FileTable, MappedFile, starts_of_files};
pub(crate) use head::Head;
pub(crate) use segments::{Load, read_program_headers};
pub(crate) use source::{Source, i32_at, u64_at};
