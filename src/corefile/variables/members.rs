//! The members of structures: where they are in the value, and how to find one by its name.

use super::location::ValueLocation;
use super::types;
use crate::corefile::entries::Die;
use crate::corefile::process_memory::DumpedMemory;
use addr2line::gimli::{self, Operation};

/// Most members of a structure.
const MOST: usize = 256;
/// How deep a named member may be.
const DEPTH: usize = 6;

/// The members and base classes of a structure, without static ones.
pub(super) fn of<'u, 'b>(ty: &Die<'u, 'b>) -> Vec<Die<'u, 'b>> {
    let is_member = |d: &Die<'_, '_>| match d.tag() {
        gimli::DW_TAG_inheritance => true,
        gimli::DW_TAG_member => !d.has(gimli::DW_AT_external) && !d.has(gimli::DW_AT_declaration),
        _ => false,
    };
    ty.children(MOST).into_iter().filter(is_member).collect()
}

/// The offset of a member, in bytes. That of a virtual base class is in memory, and not known.
pub(super) fn offset(member: &Die<'_, '_>) -> Option<u64> {
    if member.has(gimli::DW_AT_virtuality) && member.tag() == gimli::DW_TAG_inheritance {
        return None;
    }
    let Some(value) = member.attr(gimli::DW_AT_data_member_location) else {
        return Some(member.number(gimli::DW_AT_data_bit_offset).unwrap_or(0) / 8);
    };
    if let Some(expression) = value.exprloc_value() {
        let mut all = expression.operations(member.unit.unit.encoding());
        return match (all.next().ok()??, all.next().ok()?) {
            (Operation::PlusConstant { value }, None) => Some(value),
            _ => None,
        };
    }
    value.udata_value()
}

/// The number in a member of a few bits.
pub(super) fn bits(
    member: &Die<'_, '_>,
    whole: &ValueLocation,
    process: &DumpedMemory<'_>,
) -> Option<Result<i128, super::location::Missing>> {
    let size = member.number(gimli::DW_AT_bit_size).filter(|n| (1..=64).contains(n))?;
    let first = match member.number(gimli::DW_AT_data_bit_offset) {
        Some(first) => first,
        // Before version 4: from the most significant bit of the storage unit.
        None => {
            let unit = member.number(gimli::DW_AT_byte_size);
            let unit = unit.or_else(|| types::size(&member.type_of()?))?.checked_mul(8)?;
            let from_top = member.number(gimli::DW_AT_bit_offset).unwrap_or(0);
            let below = unit.checked_sub(from_top)?.checked_sub(size)?;
            offset(member)?.checked_mul(8)?.checked_add(below)?
        }
    };
    let ty = types::peeled(&member.type_of()?)?;
    let bytes = usize::try_from((first % 8 + size).div_ceil(8)).ok()?;
    let read = whole.part(first / 8).read(process, bytes);
    Some(read.map(|bytes| {
        let mut all = [0; 16];
        all[..bytes.len()].copy_from_slice(&bytes);
        let value = (u128::from_le_bytes(all) >> (first % 8)) & ((1 << size) - 1);
        let encoding = ty.attr(gimli::DW_AT_encoding);
        let is_signed = matches!(
            encoding,
            Some(gimli::AttributeValue::Encoding(gimli::DW_ATE_signed | gimli::DW_ATE_signed_char))
        );
        let value = value as i128;
        if is_signed && value >> (size - 1) == 1 { value - (1 << size) } else { value }
    }))
}

/// A member with this name, also of a member or base class.
pub(super) fn named<'u, 'b>(
    ty: &Die<'u, 'b>,
    location: &ValueLocation,
    name: &str,
) -> Option<(Die<'u, 'b>, ValueLocation)> {
    find(ty, location, 0, &|_, member| member.is_some_and(|m| m == name))
}

/// The first member that is a pointer.
pub(super) fn pointer<'u, 'b>(
    ty: &Die<'u, 'b>,
    location: &ValueLocation,
) -> Option<(Die<'u, 'b>, ValueLocation)> {
    find(ty, location, 0, &|ty, _| ty.tag() == gimli::DW_TAG_pointer_type)
}

/// Whether a member is such, by its type and name, also one of a member or base class.
pub(super) fn has<'u, 'b>(
    ty: &Die<'u, 'b>,
    location: &ValueLocation,
    is: &dyn Fn(&Die<'u, 'b>, Option<&str>) -> bool,
) -> bool {
    find(ty, location, 0, is).is_some()
}

fn find<'u, 'b>(
    ty: &Die<'u, 'b>,
    location: &ValueLocation,
    depth: usize,
    is: &dyn Fn(&Die<'u, 'b>, Option<&str>) -> bool,
) -> Option<(Die<'u, 'b>, ValueLocation)> {
    let ty = types::peeled(ty)?;
    let members = of(&ty);
    let at = |member: &Die<'u, 'b>| {
        Some((types::peeled(&member.type_of()?)?, location.part(offset(member)?)))
    };
    for member in &members {
        if let Some((ty, location)) = at(member)
            && is(&ty, member.name().as_deref())
        {
            return Some((ty, location));
        }
    }
    if depth == DEPTH {
        return None;
    }
    members.iter().filter_map(at).find_map(|(ty, location)| find(&ty, &location, depth + 1, is))
}

/// An unsigned number of at most 8 bytes.
pub(super) fn unsigned(
    ty: &Die<'_, '_>,
    location: &ValueLocation,
    process: &DumpedMemory<'_>,
) -> Option<u64> {
    let size = usize::try_from(types::size(ty)?).ok().filter(|n| (1..=8).contains(n))?;
    let mut bytes = location.read(process, size).ok()?;
    bytes.resize(8, 0);
    Some(u64::from_le_bytes(*bytes.first_chunk()?))
}
