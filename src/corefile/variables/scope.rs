//! The variables that are visible at an address of a function: its arguments, then its local
//! variables, those of the innermost block first.

use crate::corefile::entries::Die;
use addr2line::gimli;

/// Deepest nesting of blocks, and most children of one.
const DEPTH: usize = 64;
const CHILDREN: usize = 4096;

/// A variable of a function.
pub(super) struct FoundVariable<'u, 'b> {
    pub die: Die<'u, 'b>,
    pub is_argument: bool,
}

/// The variables of a function.
pub(super) struct Scope<'u, 'b> {
    pub variables: Vec<FoundVariable<'u, 'b>>,
}

impl<'u, 'b> Scope<'u, 'b> {
    /// Those that are visible at an address of the file's image.
    pub(super) fn of(function: &Die<'u, 'b>, address: u64) -> Self {
        let (mut arguments, mut blocks) = (Vec::new(), Vec::new());
        blocks_of(function, address, &mut arguments, &mut blocks, 0);
        // What an instance of the function has lost, and what all instances have in common, is only
        // in what it is an instance of.
        if let Some(origin) = function.refers(gimli::DW_AT_abstract_origin) {
            let (mut lost, mut shared) = (Vec::new(), Vec::new());
            let known: Vec<_> = arguments.iter().chain(blocks.iter().flatten()).collect();
            for die in origin.children(CHILDREN) {
                let is_known = known.iter().any(|k| k.origin().is_some_and(|o| o.is(&die)));
                match die.tag() {
                    _ if is_known => {}
                    gimli::DW_TAG_formal_parameter => lost.push(die),
                    gimli::DW_TAG_variable if die.has(gimli::DW_AT_location) => shared.push(die),
                    _ => {}
                }
            }
            arguments.extend(lost);
            blocks.insert(0, shared);
        }
        let found = |is_argument| move |die| FoundVariable { die, is_argument };
        let locals = blocks.into_iter().rev().flatten().map(found(false));
        Scope { variables: arguments.into_iter().map(found(true)).chain(locals).collect() }
    }
}

fn blocks_of<'u, 'b>(
    block: &Die<'u, 'b>,
    address: u64,
    arguments: &mut Vec<Die<'u, 'b>>,
    blocks: &mut Vec<Vec<Die<'u, 'b>>>,
    depth: usize,
) {
    let location = blocks.len();
    blocks.push(Vec::new());
    for die in block.children(CHILDREN) {
        match die.tag() {
            gimli::DW_TAG_formal_parameter => arguments.push(die),
            gimli::DW_TAG_variable if !die.is_flagged(gimli::DW_AT_declaration) => {
                blocks[location].push(die);
            }
            gimli::DW_TAG_lexical_block if depth < DEPTH && die.has_code_at(address) => {
                blocks_of(&die, address, arguments, blocks, depth + 1);
            }
            _ => {}
        }
    }
}
