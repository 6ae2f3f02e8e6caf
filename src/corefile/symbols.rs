//! The functions of a module by address: from the symbol tables of its file, of its separate debug
//! information, and of the compressed table that Fedora's programs carry (`.gnu_debugdata`).

use super::file::Elf;
use addr2line::demangle_auto;
use lzma_rust2::XzReader;
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SymbolKind, elf};
use std::borrow::Cow;
use std::io::Read;

#[derive(Clone)]
struct Symbol<'d> {
    address: u64,
    size: u64,
    /// Among several names for one address the best known sorts last: local, weak, global.
    rank: u8,
    name: Cow<'d, [u8]>,
}

/// The functions of a module, sorted by address.
pub(super) struct Symbols<'d>(Vec<Symbol<'d>>);

impl<'d> Symbols<'d> {
    /// Reads the symbols of a module's file and of its debug information.
    pub(super) fn of(file: Option<&Elf<'d>>, debug: Option<&Elf<'d>>) -> Self {
        let mut all = Vec::new();
        for elf in [file, debug].into_iter().flatten() {
            add(elf, Cow::Borrowed, &mut all);
        }
        // It has nothing that separate debug information does not have.
        let small = file.filter(|_| debug.is_none()).and_then(debug_data);
        if let Some(Ok(elf)) = small.as_deref().map(Elf::parse) {
            add(&elf, |name| Cow::Owned(name.to_vec()), &mut all);
        }
        all.sort_by_key(|s| (s.address, s.rank));
        Symbols(all)
    }

    /// The name of the symbol that covers an address. A symbol without a size reaches to the next.
    pub(super) fn at(&self, address: u64) -> Option<&[u8]> {
        let end = self.0.partition_point(|s| s.address <= address);
        let near = &self.0[end.saturating_sub(64)..end];
        let covers = |s: &&Symbol<'d>| address - s.address < s.size;
        let sized = near.iter().rev().find(covers);
        let last = near.last().filter(|s| s.size == 0);
        sized.or(last).map(|s| &*s.name)
    }

    /// The address of the function with this name.
    pub(super) fn named(&self, name: &[u8]) -> Option<u64> {
        self.0.iter().filter(|s| *s.name == *name).max_by_key(|s| s.rank).map(|s| s.address)
    }
}

fn add<'d, 'e>(from: &Elf<'e>, keep: fn(&'e [u8]) -> Cow<'d, [u8]>, all: &mut Vec<Symbol<'d>>) {
    for s in from.symbols().chain(from.dynamic_symbols()) {
        if !s.is_definition() && !matches!(s.kind(), SymbolKind::Text | SymbolKind::Unknown) {
            continue;
        }
        // By its flags: in a file that has only debug information its bytes are left out, and its
        // type is that of uninitialized data (SHT_NOBITS).
        let in_code = s.section_index().and_then(|i| from.section_by_index(i).ok()).is_some_and(
            |s| matches!(s.flags(), SectionFlags::Elf { sh_flags, .. } if is_code(sh_flags)),
        );
        let Ok(name) = s.name_bytes() else { continue };
        // Mapping symbols of ARM ($x, $d) are not functions.
        if in_code && !name.is_empty() && !name.starts_with(b"$") {
            let rank = if s.is_local() { 0 } else { 1 + u8::from(!s.is_weak()) };
            all.push(Symbol { address: s.address(), size: s.size(), rank, name: keep(name) });
        }
    }
}

fn is_code(flags: elf::SectionFlags) -> bool {
    flags.0 & elf::SHF_EXECINSTR.0 != 0
}

/// Most bytes of a decompressed symbol table. The largest of Fedora's has about 10 MiB.
const MOST: u64 = 64 << 20;
/// Most memory of the decompressor in KiB: `xz` takes 64 MiB at its highest level.
const MEMORY: u32 = 80 << 10;

/// The symbol table in `.gnu_debugdata`: an ELF file, compressed with xz.
fn debug_data(file: &Elf<'_>) -> Option<Vec<u8>> {
    let packed = file.section_by_name(".gnu_debugdata")?.data().ok()?;
    let mut plain = Vec::new();
    let xz = XzReader::new_mem_limit(packed, false, MEMORY);
    // What came before damage, or before the bound, may still be an ELF file; its parser decides.
    let _ = xz.take(MOST).read_to_end(&mut plain);
    Some(plain)
}
/// The name of a symbol as the source has it. Only one that begins as compilers begin those of C++
/// and Rust is taken apart: else a function that is called `d` or `Sa` would be `double` or
/// `std::allocator`, which those are in mangled names.
pub(super) fn demangled(symbol: &[u8]) -> String {
    let symbol = String::from_utf8_lossy(symbol);
    let is_mangled = ["_Z", "_R", "_GLOBAL_"].iter().any(|start| symbol.starts_with(start));
    if is_mangled { demangle_auto(symbol, None).into_owned() } else { symbol.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mangled_names_are_taken_apart() {
        for plain in ["d", "v", "h", "i", "St", "Sa", "Pc", "PFivE", "main", "_d", "_start"] {
            assert_eq!(demangled(plain.as_bytes()), plain);
        }
        assert_eq!(demangled(b"_ZN4shop6Basket3sumEv"), "shop::Basket::sum()");
        assert_eq!(demangled(b"_RNvCs15kBYyAo9fc_7mycrate7example"), "mycrate::example");
    }
}
