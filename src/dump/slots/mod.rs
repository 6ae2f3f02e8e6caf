//! A container's slots: the few dumps that it may have at a time, and what is remembered of it
//! between its crashes.
//!
//! ```text
//! /run/oci-coredump/limits/<account>/   locked by whoever reads or changes what is in it
//!   slot-<n>       locked by the writer that has it, and by every other child that works for that
//!                  crash: one that hangs keeps the slot
//!   memory         tokens, cores, dumps on their way
//! /run/oci-coredump/limits/.host/       the same slots, of all containers together;
//!                                       in .forwarded, of everybody else
//! ```
//!
//! A container's slots 0 to 3 are private. A higher one also takes one of the slots that all
//! containers share, which bounds the dumps of all of them together. If all shared slots are taken,
//! a container waits for one of its private slots, so no container waits for another one. Crashes
//! outside of registered containers have no private slots, and wait for a shared one.
//!
//! How many crashes are worked on at a time is bounded elsewhere, too: by `server::queue` for those
//! that come through the socket, `forward::admission` for the earlier handler, `after::released`
//! for summaries.

mod request;
mod slot;

pub(super) use request::{Pool, SlotAnswer, SlotRequest, free_slot, slot_for};
pub(super) use slot::Slot;
