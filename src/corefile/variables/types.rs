//! Types: what is behind typedefs and qualifiers, how large a type is, and what it is called.

use crate::corefile::entries::Die;
use addr2line::gimli;

/// Longest chain of typedefs, qualifiers and pointers.
const CHAIN: usize = 64;
/// Longest name of a type, in characters.
const LONGEST: usize = 200;
/// Most dimensions of an array.
const DIMENSIONS: usize = 8;

/// Whether a type is a typedef or qualifier of another one.
fn is_thin(ty: &Die<'_, '_>) -> bool {
    matches!(
        ty.tag(),
        gimli::DW_TAG_typedef
            | gimli::DW_TAG_const_type
            | gimli::DW_TAG_volatile_type
            | gimli::DW_TAG_restrict_type
            | gimli::DW_TAG_atomic_type
    )
}

/// A type, and what is behind its typedefs and qualifiers, one after the other.
pub(super) fn chain<'u, 'b>(ty: &Die<'u, 'b>) -> impl Iterator<Item = Die<'u, 'b>> {
    let next = |ty: &Die<'u, 'b>| if is_thin(ty) { ty.type_of() } else { None };
    std::iter::successors(Some(ty.clone()), next).take(CHAIN)
}

/// What is behind typedefs and qualifiers; `None` for `void`, or if there is no end.
pub(super) fn peeled<'u, 'b>(ty: &Die<'u, 'b>) -> Option<Die<'u, 'b>> {
    let ty = chain(ty).find(|ty| !is_thin(ty))?;
    // A declaration in place of a type that has a unit of its own.
    let whole = ty.has(gimli::DW_AT_declaration).then(|| ty.refers(gimli::DW_AT_signature));
    Some(whole.flatten().unwrap_or(ty))
}

/// The number of elements in each dimension of an array; `None` for one that only the program
/// knows.
pub(super) fn dimensions(array: &Die<'_, '_>) -> Vec<Option<u64>> {
    let ranges =
        array.children(DIMENSIONS).into_iter().filter(|d| d.tag() == gimli::DW_TAG_subrange_type);
    let count = |range: Die<'_, '_>| {
        let upper = || range.number(gimli::DW_AT_upper_bound)?.checked_add(1);
        let plain = range.number(gimli::DW_AT_count).or_else(upper)?;
        plain.checked_sub(range.number(gimli::DW_AT_lower_bound).unwrap_or(0))
    };
    ranges.map(count).collect()
}

/// The size of a type, in bytes.
pub(super) fn size(ty: &Die<'_, '_>) -> Option<u64> {
    sized(ty, 0)
}

fn sized(ty: &Die<'_, '_>, depth: usize) -> Option<u64> {
    let ty = peeled(ty)?;
    if let Some(size) = ty.number(gimli::DW_AT_byte_size) {
        return Some(size);
    }
    match ty.tag() {
        gimli::DW_TAG_pointer_type
        | gimli::DW_TAG_reference_type
        | gimli::DW_TAG_rvalue_reference_type => Some(8),
        gimli::DW_TAG_array_type if depth < DIMENSIONS => {
            let element = sized(&ty.type_of()?, depth + 1)?;
            dimensions(&ty).into_iter().try_fold(element, |all, n| all.checked_mul(n?))
        }
        gimli::DW_TAG_enumeration_type if depth < DIMENSIONS => sized(&ty.type_of()?, depth + 1),
        _ => None,
    }
}

/// What a type is called, in C's way where it has no name of its own.
pub(super) fn name(ty: Option<&Die<'_, '_>>) -> String {
    let (mut before, mut after) = (String::new(), String::new());
    let mut ty = ty.cloned();
    for _ in 0..CHAIN {
        let Some(die) = &ty else {
            before.push_str("void");
            break;
        };
        match die.tag() {
            gimli::DW_TAG_const_type => before.push_str("const "),
            gimli::DW_TAG_volatile_type => before.push_str("volatile "),
            gimli::DW_TAG_restrict_type | gimli::DW_TAG_atomic_type => {}
            _ if die.name().is_some() => {
                before.push_str(&die.name().unwrap_or_default());
                break;
            }
            gimli::DW_TAG_pointer_type => after.insert(0, '*'),
            gimli::DW_TAG_reference_type => after.insert(0, '&'),
            gimli::DW_TAG_rvalue_reference_type => after.insert_str(0, "&&"),
            gimli::DW_TAG_array_type => {
                let text =
                    |n: Option<u64>| format!("[{}]", n.map_or(String::new(), |n| n.to_string()));
                after.extend(dimensions(die).into_iter().map(text));
            }
            tag => {
                before.push_str(match tag {
                    gimli::DW_TAG_subroutine_type => "function",
                    gimli::DW_TAG_structure_type => "struct",
                    gimli::DW_TAG_union_type => "union",
                    gimli::DW_TAG_class_type => "class",
                    gimli::DW_TAG_enumeration_type => "enum",
                    _ => "?",
                });
                break;
            }
        }
        ty = die.type_of();
    }
    let space = if after.is_empty() { "" } else { " " };
    (before + space + &after).chars().take(LONGEST).collect()
}
