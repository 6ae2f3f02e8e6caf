//! Calls, as debug information has them (`DW_TAG_call_site`): where they return to and what they
//! call.

use super::entries::Die;
use addr2line::gimli;

/// Deepest nesting of blocks that a call may be in, and most entries of one.
const BLOCKS: usize = 64;
const CHILDREN: usize = 1 << 16;
/// Most jumps of one function.
const JUMPS: usize = 256;

/// The call in a function that returns to an address. `address` is within the call.
pub(super) fn returning<'u, 'b>(
    function: &Die<'u, 'b>,
    address: u64,
    return_address: u64,
) -> Option<Die<'u, 'b>> {
    in_block(function, address, return_address, 0)
}

fn in_block<'u, 'b>(
    block: &Die<'u, 'b>,
    address: u64,
    return_address: u64,
    depth: usize,
) -> Option<Die<'u, 'b>> {
    for die in block.children(CHILDREN) {
        if is_call(&die) {
            if returns_to(&die) == Some(return_address) {
                return Some(die);
            }
        } else if is_block(&die) && depth < BLOCKS && die.has_code_at(address) {
            let found = in_block(&die, address, return_address, depth + 1);
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

/// The jumps of a function to others (tail calls); none where the debug information does not claim
/// to know all of them. `None` if there are too many.
pub(super) fn jumps<'u, 'b>(function: &Die<'u, 'b>) -> Option<Vec<Die<'u, 'b>>> {
    const COMPLETE: [gimli::DwAt; 4] = [
        gimli::DW_AT_call_all_calls,
        gimli::DW_AT_call_all_tail_calls,
        gimli::DW_AT_GNU_all_call_sites,
        gimli::DW_AT_GNU_all_tail_call_sites,
    ];
    if !COMPLETE.iter().any(|name| function.is_flagged(*name)) {
        return Some(Vec::new());
    }
    let (mut all, mut left) = (Vec::new(), vec![(function.clone(), 0)]);
    while let Some((block, depth)) = left.pop() {
        for die in block.children(CHILDREN) {
            if is_block(&die) && depth < BLOCKS {
                left.push((die, depth + 1));
            } else if is_call(&die) && is_jump(&die) {
                all.push(die);
            }
        }
    }
    (all.len() <= JUMPS).then_some(all)
}

/// The address behind a call or jump, in the file's image.
pub(super) fn returns_to(call: &Die<'_, '_>) -> Option<u64> {
    let returns = call.address(gimli::DW_AT_call_return_pc);
    returns.or_else(|| call.address(gimli::DW_AT_low_pc))
}

/// The function that is called, unless only the program knows it.
pub(super) fn called<'u, 'b>(call: &Die<'u, 'b>) -> Option<Die<'u, 'b>> {
    call.refers(gimli::DW_AT_call_origin).or_else(|| call.refers(gimli::DW_AT_abstract_origin))
}

/// Whether two entries are of one function: they are the same, or have the same name.
pub(super) fn is_same_function<'u, 'b>(a: &Die<'u, 'b>, b: &Die<'u, 'b>) -> bool {
    let is_same = |a: Option<String>, b: Option<String>| a.is_some() && a == b;
    a.is(b)
        || match (a.linkage_name(), b.linkage_name()) {
            (None, None) => is_same(a.name(), b.name()),
            (a, b) => is_same(a, b),
        }
}

fn is_call(die: &Die<'_, '_>) -> bool {
    matches!(die.tag(), gimli::DW_TAG_call_site | gimli::DW_TAG_GNU_call_site)
}

fn is_jump(call: &Die<'_, '_>) -> bool {
    [gimli::DW_AT_call_tail_call, gimli::DW_AT_GNU_tail_call]
        .iter()
        .any(|name| call.is_flagged(*name))
}

fn is_block(die: &Die<'_, '_>) -> bool {
    matches!(die.tag(), gimli::DW_TAG_lexical_block | gimli::DW_TAG_inlined_subroutine)
}
