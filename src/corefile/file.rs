//! The ELF files that are read with a core.

use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::elf::ElfFile;

/// A 64-bit little-endian ELF file.
pub(super) type Elf<'d> = ElfFile<'d, FileHeader64<LittleEndian>>;
