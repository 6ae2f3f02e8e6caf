//! Arguments and local variables of the innermost frames, where debug information says where they
//! are.
//!
//! ```text
//! frames --callers--> registers of each   --scope--> the variables that are visible there
//!        --location (gimli), entry--> the location of each --shown, text--> what people read
//! ```
//!
//! Debug information and memory are hostile: the numbers of entries, operations, elements and bytes
//! are bounded, and so is how deep types are followed.

mod bounded_text;
mod callers;
mod entry;
mod language;
mod location;
mod members;
mod options;
mod registers;
mod scalar;
mod scope;
mod sequence;
mod shown;
mod text;
mod types;

pub(crate) use options::VariableOptions;

use super::entries::Die;
use super::names::{ModuleNames, RawFrame};
use super::notes::ThreadState;
use super::process_memory::DumpedMemory;
use super::results::Variable;
use super::segments::Machine;
use super::tail_calls;
use callers::Callers;
use entry::Stack;
use scope::Scope;
use shown::Shown;

/// Most variables of one frame.
const VARIABLES: usize = 128;
/// Most bytes that are shown of one variable, and of all.
const ONE: usize = 2048;
const ALL: usize = 1 << 20;

/// The variables of a thread's frames, by the index of the frame among those that
/// [`ModuleNames::stack`] gives for `raw`; `send` is called for each frame that has some.
///
/// # Errors
/// Those of `send`.
pub(super) fn of_thread<'b, E>(
    (machine, thread, raw): (Machine, &ThreadState, &[RawFrame]),
    names: &ModuleNames<'b>,
    process: DumpedMemory<'b>,
    options: &VariableOptions,
    send: &mut dyn FnMut(usize, Vec<Variable>) -> Result<(), E>,
) -> Result<(), E> {
    let callers = Callers { machine, process, modules: names.modules, binaries: names.binaries };
    let states = callers.states(thread, raw, options.frames.saturating_add(1));
    let stack = Stack { raw, states: &states, names, process };
    let (mut index, mut left) = (0, ALL);
    for (i, frame) in raw.iter().enumerate().take(states.len()) {
        let Some(functions) = names.functions(frame) else {
            index += tail_calls::stack(names, std::slice::from_ref(frame)).len();
            continue;
        };
        for die in &functions {
            if index >= options.frames {
                return Ok(());
            }
            let all = die.as_ref().map(|die| of_function(&stack, i, die, options, &mut left));
            if let Some(all) = all.filter(|all| !all.is_empty()) {
                send(index, all)?;
            }
            index += 1;
        }
        index += tail_calls::after(names, raw, i).len();
    }
    Ok(())
}

fn of_function<'b>(
    stack: &Stack<'_, 'b>,
    i: usize,
    function: &Die<'_, 'b>,
    options: &VariableOptions,
    left: &mut usize,
) -> Vec<Variable> {
    let address = stack.address(i);
    let shown = Shown::new(stack.process, options, function);
    let mut all = Vec::new();
    for found in Scope::of(function, address).variables {
        if all.len() >= VARIABLES || *left == 0 {
            break;
        }
        let Some(name) = found.die.name() else { continue };
        let ty = found.die.type_of();
        let value = match options.hides(&name) {
            true => shown::HIDDEN.to_owned(),
            false => shown.value(ty.as_ref(), stack.location(i, &found.die, 0), ONE.min(*left)),
        };
        *left = left.saturating_sub(value.len());
        all.push(Variable {
            name,
            kind: types::name(ty.as_ref()),
            value,
            argument: found.is_argument,
        });
    }
    all
}
