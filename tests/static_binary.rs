//! Properties of the linked program: it needs nothing of the host, has no fixed address, and none
//! of its memory is both writable and executable.

use object::elf::{
    DF_1_NOW, DF_1_PIE, DF_BIND_NOW, DT_FLAGS, DT_FLAGS_1, DT_NEEDED, DT_RPATH, DT_RUNPATH,
    DT_TEXTREL, ET_DYN, PF_W, PF_X, PT_GNU_RELRO, PT_GNU_STACK, PT_INTERP, PT_LOAD,
};
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol};
use std::path::{Path, PathBuf};

/// The program that was built for the tests, and the one that is installed, where that is built:
/// `make test` does so first.
fn programs() -> Vec<PathBuf> {
    let debug = PathBuf::from(env!("CARGO_BIN_EXE_oci-coredump"));
    let release = debug.parent().unwrap().with_file_name("release").join("oci-coredump");
    assert!(
        std::env::var_os("CI").is_none() || release.exists(),
        "CI is set, and there is no {}",
        release.display()
    );
    [debug, release].into_iter().filter(|path| path.exists()).collect()
}

fn wrong(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap();
    let elf = ElfFile64::<Endianness>::parse(bytes.as_slice()).unwrap();
    let (endian, header, segments) = (elf.endian(), elf.elf_header(), elf.elf_program_headers());
    let mut wrong = Vec::new();
    let mut rule = |holds: bool, what: &str| {
        if !holds {
            wrong.push(format!("{}: {what}", path.display()));
        }
    };
    let of = |kind| segments.iter().filter(move |segment| segment.p_type(endian) == kind);
    rule(header.e_type(endian) == ET_DYN, "lies at a fixed address");
    rule(of(PT_INTERP).count() == 0, "asks for a dynamic linker");
    rule(
        of(PT_GNU_STACK).count() == 1
            && of(PT_GNU_STACK).all(|s| !s.p_flags(endian).contains(PF_X)),
        "has an executable stack",
    );
    rule(
        of(PT_LOAD).all(|s| !s.p_flags(endian).contains(PF_W | PF_X)),
        "has memory that is both writable and executable",
    );
    rule(of(PT_GNU_RELRO).count() == 1, "does not protect what was relocated");

    let dynamic = segments
        .iter()
        .find_map(|segment| segment.dynamic(endian, bytes.as_slice()).unwrap())
        .unwrap_or_default();
    let value =
        |tag| dynamic.iter().find(|entry| entry.tag(endian) == tag).map(|entry| entry.val(endian));
    let flags = |tag, flag: u64| value(tag).is_some_and(|set| set & flag == flag);
    rule(
        flags(DT_FLAGS, DF_BIND_NOW.0) && flags(DT_FLAGS_1, DF_1_NOW.0 | DF_1_PIE.0),
        "is not bound at its start (full RELRO), or no PIE",
    );
    for (tag, name) in [
        (DT_NEEDED, "DT_NEEDED"),
        (DT_RPATH, "DT_RPATH"),
        (DT_RUNPATH, "DT_RUNPATH"),
        (DT_TEXTREL, "DT_TEXTREL"),
    ] {
        rule(value(tag).is_none(), &format!("has {name}"));
    }
    // The first symbol of every table is none.
    rule(
        elf.dynamic_symbols().all(|symbol| !symbol.is_undefined() || symbol.index().0 == 0),
        "has undefined symbols",
    );
    wrong
}

#[test]
fn static_and_position_independent() {
    let wrong: Vec<_> = programs().iter().flat_map(|path| wrong(path)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The rules detect something: a dynamic program of the host breaks them.
#[test]
fn a_dynamic_program_breaks_the_rules() {
    let wrong = wrong(Path::new("/bin/sh")).join("\n");
    for what in ["dynamic linker", "DT_NEEDED", "undefined symbols"] {
        assert!(wrong.contains(what), "{what}: {wrong}");
    }
}
