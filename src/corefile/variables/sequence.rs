//! Containers whose elements lie one after the other in memory: vectors and slices.

use super::language::Language;
use super::location::ValueLocation;
use super::{members, types};
use crate::corefile::entries::Die;
use crate::corefile::process_memory::DumpedMemory;
use addr2line::gimli;

/// Elements that lie one after the other.
pub(super) struct Sequence<'u, 'b> {
    pub element: Die<'u, 'b>,
    pub address: u64,
    pub length: u64,
}

impl<'u, 'b> Sequence<'u, 'b> {
    /// The elements that a structure points to. `None` of what is no container, or not a known one.
    pub(super) fn of(
        ty: &Die<'u, 'b>,
        location: &ValueLocation,
        process: &DumpedMemory<'_>,
        language: Language,
    ) -> Option<Self> {
        let name = ty.name()?;
        let number = |(ty, location): (Die<'_, '_>, ValueLocation)| {
            members::unsigned(&ty, &location, process)
        };
        if language == Language::Go && name.starts_with("[]") {
            let (array, at) = members::named(ty, location, "array")?;
            let length = number(members::named(ty, location, "len")?)?;
            let address = number((array.clone(), at))?;
            return Some(Sequence { element: array.type_of()?, address, length });
        }
        if name.starts_with("vector<") && language != Language::Rust {
            let (start, at) = members::named(ty, location, "_M_start")?;
            let end = number(members::named(ty, location, "_M_finish")?)?;
            let (address, element) = (number((start.clone(), at))?, start.type_of()?);
            let size = types::size(&element).filter(|n| *n > 0)?;
            let length = end.checked_sub(address)? / size;
            return Some(Sequence { element, address, length });
        }
        if language != Language::Rust {
            return None;
        }
        if name.starts_with("&[") || name.starts_with("&mut [") {
            let (array, at) = members::named(ty, location, "data_ptr")?;
            let length = number(members::named(ty, location, "length")?)?;
            let address = number((array.clone(), at))?;
            return Some(Sequence { element: array.type_of()?, address, length });
        }
        if name.starts_with("Vec<") {
            let (array, at) = members::pointer(ty, location)?;
            let length = number(members::named(ty, location, "len")?)?;
            let is_element = |d: &Die<'_, '_>| {
                d.tag() == gimli::DW_TAG_template_type_parameter && d.name().as_deref() == Some("T")
            };
            let element = ty.children(64).into_iter().find(is_element)?.type_of()?;
            let address = number((array, at))?;
            return Some(Sequence { element, address, length });
        }
        None
    }
}
