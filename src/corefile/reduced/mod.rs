//! Small cores: the registers, stacks and notes of a core, what a debugger needs to find the
//! libraries, and the pages that registers and stacks point to, as an ELF core of its own.
//!
//! ```text
//! CoreHead, Image --select--> Spans    which memory is kept
//!                   --layout--> Layout   the head of the small core, and where each part goes
//! ```
//!
//! Everything here is a function of what the core says and of its memory, which is hostile: what is
//! chosen is bounded, whatever is there.

mod candidates;
#[cfg(any(test, fuzzing))]
pub(crate) mod invariants;
mod layout;
mod linker;
mod select;
mod stacks;
#[cfg(test)]
mod tests;
mod threads;

use super::head::CoreHead;
use super::image::CoreImage;
use crate::config::KeptMemory;
use crate::elf::Source;
use crate::elf::spans::Spans;
use anyhow::Result;
use layout::CoreLayout;

/// A small core that is to be written.
pub(crate) struct SmallCore<'s> {
    image: CoreImage<'s>,
    layout: CoreLayout,
}

impl<'s> SmallCore<'s> {
    /// Chooses what is kept of a core file.
    ///
    /// # Errors
    /// It is not a core that can be read.
    pub(crate) fn of_file(core: &'s dyn Source, keep: KeptMemory) -> Result<Self> {
        let head = CoreHead::read(core)?;
        let image = CoreImage::of(&head, core)?;
        Ok(Self::new(&head, image, keep))
    }

    /// The same of a core with this head, where `memory` has the memory by its addresses.
    ///
    /// # Errors
    /// It has no thread.
    pub(crate) fn by_address(
        head: &CoreHead,
        memory: &'s dyn Source,
        keep: KeptMemory,
    ) -> Result<Self> {
        Ok(Self::new(head, CoreImage::by_address(head, memory)?, keep))
    }

    fn new(head: &CoreHead, image: CoreImage<'s>, keep: KeptMemory) -> Self {
        let spans = select::select(head, &image, keep);
        let layout = CoreLayout::new(head, &image, &spans);
        SmallCore { image, layout }
    }

    /// Gives `put` the bytes of its file, in order.
    ///
    /// # Errors
    /// Those of `put`.
    pub(crate) fn write<E>(&self, put: &mut dyn FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.layout.write(&self.image.memory, put)
    }
}

/// What of a core with this head may be kept, before any of its memory is read: spans of addresses
/// in whole pages, sorted. For where the memory comes through a pipe, past which nothing is read
/// again.
///
/// # Errors
/// It has no thread.
pub(crate) fn candidates(head: &CoreHead) -> Result<Spans> {
    let nothing = Vec::new();
    Ok(candidates::candidates(head, &CoreImage::by_address(head, &nothing)?))
}
