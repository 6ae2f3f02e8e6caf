//! The memory of the process: what the core has, and what of the mapped files cannot have changed.

use super::binary::Binary;
use super::memory::Memory;
use super::modules::LoadedModule;
use super::symbols::demangled;

/// Bytes of a page; memory is there or not by the page.
const PAGE: u64 = 4096;

/// The memory of the process, by address.
#[derive(Clone, Copy)]
pub(super) struct DumpedMemory<'p> {
    memory: &'p Memory<'p>,
    modules: &'p [LoadedModule],
    binaries: &'p [Binary<'p>],
}

impl<'p> DumpedMemory<'p> {
    /// Of a core, its modules and their files.
    pub(super) fn new(
        memory: &'p Memory<'p>,
        modules: &'p [LoadedModule],
        binaries: &'p [Binary<'p>],
    ) -> Self {
        DumpedMemory { memory, modules, binaries }
    }

    fn module(&self, address: u64) -> Option<(&'p Binary<'p>, u64)> {
        let inside = |m: &LoadedModule| (m.module.start..m.module.end).contains(&address);
        let i = self.modules.iter().position(inside)?;
        Some((self.binaries.get(i)?, address.wrapping_sub(self.modules[i].bias)))
    }

    /// Fills the whole buffer, or returns `None`. The kernel leaves read-only parts of files out of
    /// a core: those are read from the file.
    pub(super) fn read(&self, address: u64, buffer: &mut [u8]) -> Option<()> {
        if self.memory.read(address, buffer).is_some() {
            return Some(());
        }
        let (binary, at) = self.module(address)?;
        buffer.copy_from_slice(binary.constant(at, buffer.len() as u64)?);
        Some(())
    }

    /// A little-endian number of 8 bytes.
    pub(super) fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Some(u64::from_le_bytes(bytes))
    }

    /// At most `most` bytes, up to the first that is not there; `None` if that is the first.
    pub(super) fn up_to(&self, address: u64, most: usize) -> Option<Vec<u8>> {
        let mut all = Vec::new();
        while all.len() < most {
            let at = address.checked_add(all.len() as u64)?;
            let n = (most - all.len()).min((PAGE - at % PAGE) as usize);
            let mut bytes = vec![0; n];
            if self.read(at, &mut bytes).is_none() {
                break;
            }
            all.extend(bytes);
        }
        (most == 0 || !all.is_empty()).then_some(all)
    }

    /// The symbol that covers an address.
    pub(super) fn symbol(&self, address: u64) -> Option<String> {
        let (binary, at) = self.module(address)?;
        binary.symbol(at).map(demangled)
    }
}
