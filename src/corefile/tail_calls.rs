//! Functions that went on by a jump to another one (tail calls), as their last act: they have no
//! frame on the stack any more. Debug information has the calls and jumps of each function, so
//! where a call was not to the function that it led to, the jumps between are found, as gdb finds
//! them. Of several ways only what they have in common is shown.

use super::call_sites::{called, is_same_function, jumps, returning, returns_to};
use super::entries::Die;
use super::names::{ModuleNames, RawFrame};
use super::results::Frame;
use addr2line::gimli;

/// Most steps of one search.
const STEPS: usize = 512;

/// A jump: the address behind it in the image of a module's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Jump {
    module: usize,
    address: u64,
}

/// The functions of a stack, the innermost first.
pub(super) fn stack(names: &ModuleNames<'_>, raw: &[RawFrame]) -> Vec<Frame> {
    let all = raw.iter().enumerate();
    all.flat_map(|(i, frame)| {
        let mut frames = names.describe(frame);
        frames.extend(after(names, raw, i));
        frames
    })
    .collect()
}

/// The functions between a frame of the stack and its caller, the innermost first.
pub(super) fn after(names: &ModuleNames<'_>, raw: &[RawFrame], i: usize) -> Vec<Frame> {
    let Some(caller) = raw.get(i + 1) else { return Vec::new() };
    let jumps = common(names, &raw[i], caller).unwrap_or_default().into_iter().rev();
    jumps
        .flat_map(|jump| {
            let address = jump.address.wrapping_add(names.modules[jump.module].bias);
            let mut frames = names.describe(&RawFrame {
                address,
                lookup: address.wrapping_sub(1),
                module: Some(jump.module),
                ..RawFrame::default()
            });
            frames.last_mut().into_iter().for_each(|outer| outer.tail_call = true);
            frames
        })
        .collect()
}

/// The jumps that all ways have in common, the caller's first.
fn common(names: &ModuleNames<'_>, frame: &RawFrame, caller: &RawFrame) -> Option<Vec<Jump>> {
    // What a signal interrupted made no call there.
    if frame.trampoline || caller.trampoline || caller.lookup == caller.address {
        return None;
    }
    let module = caller.module?;
    let image = |address: u64| address.wrapping_sub(names.modules[module].bias);
    let reached = names.functions(frame)?.pop()??;
    let calling = names.functions(caller)?.pop()??;
    let call = returning(&calling, image(caller.lookup), image(caller.address))?;
    if is_same_function(&called(&call)?, &reached) {
        return None;
    }
    let reached = (frame.module?, start(&reached)?);
    let mut search = Search { names, reached, way: Vec::new(), found: None, steps: STEPS };
    search.follow(module, &call)?;
    search.found.map(|found| found.jumps())
}

/// Where a function begins.
fn start(function: &Die<'_, '_>) -> Option<u64> {
    function.address(gimli::DW_AT_low_pc).or_else(|| function.first_address())
}

/// All ways from a call to the function that was reached.
struct Search<'n, 'b> {
    names: &'n ModuleNames<'b>,
    reached: (usize, u64),
    /// The jumps to where the search is.
    way: Vec<Jump>,
    found: Option<Ways>,
    steps: usize,
}

impl<'n, 'b> Search<'n, 'b> {
    /// Goes where a call or jump of a module leads. `None` where that cannot be known: then there
    /// may be ways that nobody knows of, or there is none that is sure.
    fn follow(&mut self, module: usize, call: &Die<'n, 'b>) -> Option<()> {
        self.steps = self.steps.checked_sub(1)?;
        let (module, target) = self.target(module, call)?;
        if (module, start(&target)?) == self.reached {
            match &mut self.found {
                Some(found) => return found.intersect(&self.way),
                None => self.found = Some(Ways::of(&self.way)),
            }
            return Some(());
        }
        for call in jumps(&target)? {
            let jump = Jump { module, address: returns_to(&call)? };
            if self.way.contains(&jump) {
                continue;
            }
            self.way.push(jump);
            self.follow(module, &call)?;
            self.way.pop();
        }
        Some(())
    }

    /// The function that a call is to, with its module.
    fn target(&self, module: usize, call: &Die<'n, 'b>) -> Option<(usize, Die<'n, 'b>)> {
        let target = called(call)?;
        if start(&target).is_some() {
            return Some((module, target));
        }
        if !target.is_flagged(gimli::DW_AT_declaration) {
            return None;
        }
        let name = target.linkage_name().or_else(|| target.name())?;
        let (module, address) = self.names.defined(module, &name)?;
        let lookup = address.wrapping_add(self.names.modules[module].bias);
        let at = RawFrame { address: lookup, lookup, module: Some(module), ..RawFrame::default() };
        let function = self.names.functions(&at)?.pop()??;
        (start(&function) == Some(address)).then_some((module, function))
    }
}

/// One way, and how many of its first and last jumps all others have too.
struct Ways {
    one: Vec<Jump>,
    first: usize,
    last: usize,
}

impl Ways {
    fn of(way: &[Jump]) -> Self {
        Ways { one: way.to_vec(), first: way.len(), last: way.len() }
    }

    /// Takes another way into account. `None` if nothing is left in common.
    fn intersect(&mut self, other: &[Jump]) -> Option<()> {
        let first = self.one.iter().zip(other).take(self.first);
        let last = self.one.iter().rev().zip(other.iter().rev()).take(self.last);
        let counts =
            (first.take_while(|(a, b)| a == b).count(), last.take_while(|(a, b)| a == b).count());
        (self.first, self.last) = counts;
        (self.first + self.last > 0).then_some(())
    }

    fn jumps(self) -> Vec<Jump> {
        let length = self.one.len();
        if self.first == length {
            return self.one;
        }
        [&self.one[..self.first], &self.one[length - self.last..]].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(addresses: &[u64]) -> Vec<Jump> {
        addresses.iter().map(|address| Jump { module: 0, address: *address }).collect()
    }

    #[test]
    fn what_all_ways_have_in_common() {
        for (ways, common) in [
            (&[&[1, 2, 3][..]][..], Some(&[1, 2, 3][..])),
            (&[&[]], Some(&[])),
            (&[&[1, 2, 3], &[1, 4, 3]], Some(&[1, 3])),
            (&[&[1, 2, 3], &[1, 3]], Some(&[1, 3])),
            (&[&[1, 2, 3], &[4, 3], &[1, 3]], Some(&[3])),
            (&[&[1, 2], &[3, 4]], None),
        ] {
            let mut all = Ways::of(&way(ways[0]));
            let is_sure = ways[1..].iter().all(|other| all.intersect(&way(other)).is_some());
            let found = is_sure.then(|| all.jumps());
            assert_eq!(found, common.map(way), "{ways:?}");
        }
    }
}
