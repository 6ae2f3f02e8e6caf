//! Where the variables of a stack's frames are, also those that are only known by what the caller
//! passed: the value of a register at the call (`DW_OP_entry_value`), from the call site.

use super::callers::CallerState;
use super::location::{self, FrameContext, Passed, ValueLocation};
use crate::corefile::call_sites;
use crate::corefile::entries::{Die, Slice};
use crate::corefile::names::{ModuleNames, RawFrame};
use crate::corefile::process_memory::DumpedMemory;
use addr2line::gimli::{self, AttributeValue, DwAt, Expression, Operation};

/// How often a value may come from a caller's caller.
const DEPTH: usize = 4;
/// Most ranges of a location list.
const RANGES: usize = 1 << 16;

/// The frames of a stack.
pub(super) struct Stack<'s, 'b> {
    pub raw: &'s [RawFrame],
    pub states: &'s [CallerState],
    pub names: &'s ModuleNames<'b>,
    pub process: DumpedMemory<'b>,
}

impl<'s, 'b> Stack<'s, 'b> {
    fn bias(&self, i: usize) -> u64 {
        self.raw[i].module.map_or(0, |module| self.names.modules[module].bias)
    }

    /// Where a frame is, in the file's image.
    pub(super) fn address(&self, i: usize) -> u64 {
        self.raw[i].lookup.wrapping_sub(self.bias(i))
    }

    /// The function that the code of a frame belongs to.
    fn function(&self, i: usize) -> Option<Die<'s, 'b>> {
        self.names.functions(self.raw.get(i)?)?.pop()?
    }

    /// Where a variable of a frame is.
    pub(super) fn location(
        &self,
        i: usize,
        variable: &Die<'_, 'b>,
        depth: usize,
    ) -> Option<ValueLocation> {
        if let Some(constant) = variable.attr(gimli::DW_AT_const_value) {
            return constant_place(&constant);
        }
        let expression = self.expression(i, variable, gimli::DW_AT_location)?;
        self.evaluate(i, variable, expression, depth)
    }

    fn evaluate(
        &self,
        i: usize,
        die: &Die<'_, 'b>,
        expression: Expression<Slice<'b>>,
        depth: usize,
    ) -> Option<ValueLocation> {
        let state = self.states.get(i)?;
        // Where gcc says that a variable is in a register at a call, no called function changes it.
        let certain = (!die.is_by("GNU ")).then(|| state.registers.certain());
        let mut frame = FrameContext {
            registers: certain.as_ref().unwrap_or(&state.registers),
            process: self.process,
            cfa: state.cfa,
            base: None,
            bias: self.bias(i),
        };
        if uses_frame_base(expression, die) {
            frame.base = self.base(i, &frame);
        }
        let entry = |passed: Passed<'b>| self.passed(i, die, passed, depth + 1);
        location::of_expression(expression, die.unit, &frame, &entry)
    }

    fn base(&self, i: usize, frame: &FrameContext<'_, '_>) -> Option<u64> {
        let function = self.function(i)?;
        let base = self.expression(i, &function, gimli::DW_AT_frame_base)?;
        location::address(base, function.unit.unit.encoding(), frame, None)
    }

    /// The expression that an attribute has for where a frame is.
    fn expression(&self, i: usize, die: &Die<'_, 'b>, name: DwAt) -> Option<Expression<Slice<'b>>> {
        let value = die.attr(name)?;
        if let Some(expression) = value.exprloc_value() {
            return Some(expression);
        }
        let address = self.address(i);
        let mut list = die.unit.attr_locations(value).ok()??;
        for _ in 0..RANGES {
            let entry = list.next().ok()??;
            if (entry.range.begin..entry.range.end).contains(&address) {
                return Some(entry.data);
            }
        }
        None
    }

    /// What the caller of a frame's function passed, as the call site says.
    fn passed(&self, i: usize, die: &Die<'_, 'b>, passed: Passed<'b>, depth: usize) -> Option<u64> {
        if depth > DEPTH || self.raw.get(i)?.trampoline || self.raw.get(i + 1)?.trampoline {
            return None;
        }
        let wanted = match passed {
            Passed::Register(expression) => Some(register(expression, die)?),
            Passed::Parameter(_) => None,
        };
        let is_it = |p: &Die<'_, 'b>| match passed {
            Passed::Register(_) => {
                let location = p.attr(gimli::DW_AT_location).and_then(|v| v.exprloc_value());
                location.and_then(|e| register(e, p)) == wanted
            }
            Passed::Parameter(offset) => {
                let of_call = p.refers(gimli::DW_AT_call_parameter);
                let parameter = of_call.or_else(|| p.refers(gimli::DW_AT_abstract_origin));
                parameter.is_some_and(|parameter| parameter.is_at(die, offset))
            }
        };
        let caller = self.function(i + 1)?;
        let return_address = self.raw[i + 1].address.wrapping_sub(self.bias(i + 1));
        let site = call_sites::returning(&caller, self.address(i + 1), return_address)?;
        self.calls(i, &site, depth).then_some(())?;
        let parameter = site.children(64).into_iter().find(is_it)?;
        let value = [gimli::DW_AT_call_value, gimli::DW_AT_GNU_call_site_value]
            .into_iter()
            .find_map(|name| parameter.attr(name))?
            .exprloc_value()?;
        self.number(i + 1, &parameter, value, depth)
    }

    /// Whether a call goes to the function of a frame. That may have been reached by a jump
    /// instead, from what was called.
    fn calls(&self, i: usize, site: &Die<'_, 'b>, depth: usize) -> bool {
        let Some(function) = self.function(i) else { return false };
        if let Some(called) = call_sites::called(site) {
            return call_sites::is_same_function(&called, &function);
        }
        let target = [gimli::DW_AT_call_target, gimli::DW_AT_GNU_call_site_target]
            .into_iter()
            .find_map(|name| site.attr(name)?.exprloc_value());
        let target = target.and_then(|e| self.number(i + 1, site, e, depth));
        target.is_some_and(|target| function.has_code_at(target.wrapping_sub(self.bias(i))))
    }

    /// The number that an expression gives: an address stands for itself.
    fn number(
        &self,
        i: usize,
        die: &Die<'_, 'b>,
        expression: Expression<Slice<'b>>,
        depth: usize,
    ) -> Option<u64> {
        match self.evaluate(i, die, expression, depth)? {
            ValueLocation::Memory(address) => Some(address),
            location @ ValueLocation::Bytes(_) => {
                let bytes = location.read(&self.process, 8).ok()?;
                Some(u64::from_le_bytes(*bytes.first_chunk()?))
            }
            ValueLocation::Synthetic => None,
        }
    }
}

fn constant_place(value: &AttributeValue<Slice<'_>>) -> Option<ValueLocation> {
    let block = match value {
        AttributeValue::Block(b) | AttributeValue::String(b) => Some(b.slice()),
        AttributeValue::Exprloc(e) => Some(e.0.slice()),
        _ => None,
    };
    if let Some(block) = block {
        return Some(ValueLocation::of(&block[..block.len().min(4096)]));
    }
    if let AttributeValue::Data16(n) = value {
        return Some(ValueLocation::of(&n.to_le_bytes()));
    }
    let signed = value.sdata_value().map(|n| n as u64);
    Some(ValueLocation::of(&value.udata_value().or(signed)?.to_le_bytes()))
}

/// Whether an expression needs the frame base, which need not be known for others.
fn uses_frame_base(expression: Expression<Slice<'_>>, die: &Die<'_, '_>) -> bool {
    let mut all = expression.operations(die.unit.unit.encoding());
    (0..1000).map_while(|_| all.next().ok()?).any(|op| matches!(op, Operation::FrameOffset { .. }))
}

/// The register that an expression is no more than.
fn register(expression: Expression<Slice<'_>>, die: &Die<'_, '_>) -> Option<u16> {
    let mut all = expression.operations(die.unit.unit.encoding());
    let first = all.next().ok()??;
    match (first, all.next().ok()?) {
        (Operation::Register { register }, None) => Some(register.0),
        (Operation::RegisterOffset { register, offset: 0, .. }, None) => Some(register.0),
        _ => None,
    }
}
