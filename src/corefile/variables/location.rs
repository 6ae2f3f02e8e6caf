//! Where a variable is: evaluates a location expression with the registers of a frame.

use super::registers::FrameRegisters;
use crate::corefile::entries::Slice;
use crate::corefile::process_memory::DumpedMemory;
use addr2line::gimli::{
    Encoding, EvaluationResult, Expression, Location, Piece, UnitOffset, UnitRef, Value, ValueType,
};

/// Most operations of an expression.
const OPERATIONS: u32 = 10_000;
/// Most bytes of a variable that is not in memory.
const LARGEST: usize = 64 << 10;

/// Why a value is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// No location is known that has it.
    OptimizedOut,
    /// The memory at this address is not in the core.
    NotInCore(u64),
}

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ValueLocation {
    /// In memory from this address on.
    Memory(u64),
    /// Here, except for the bytes that are nowhere.
    Bytes(Vec<Option<u8>>),
    /// It would be a pointer to another variable, but is nowhere.
    Synthetic,
}

impl ValueLocation {
    /// A value of which all bytes are known.
    pub(super) fn of(bytes: &[u8]) -> Self {
        ValueLocation::Bytes(bytes.iter().copied().map(Some).collect())
    }

    /// The location of a part, so many bytes from its start.
    pub(super) fn part(&self, offset: u64) -> Self {
        match self {
            ValueLocation::Memory(address) => ValueLocation::Memory(address.wrapping_add(offset)),
            ValueLocation::Bytes(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                ValueLocation::Bytes(bytes[from..].to_vec())
            }
            ValueLocation::Synthetic => ValueLocation::Bytes(Vec::new()),
        }
    }

    /// So many of its first bytes.
    pub(super) fn read(&self, process: &DumpedMemory<'_>, size: usize) -> Result<Vec<u8>, Missing> {
        match self {
            ValueLocation::Memory(address) => {
                let mut bytes = vec![0; size];
                let read = process.read(*address, &mut bytes);
                read.map(|()| bytes).ok_or(Missing::NotInCore(*address))
            }
            ValueLocation::Bytes(bytes) => {
                let known = bytes.get(..size).and_then(|b| b.iter().copied().collect());
                known.ok_or(Missing::OptimizedOut)
            }
            ValueLocation::Synthetic => Err(Missing::OptimizedOut),
        }
    }
}

/// What an expression may ask for.
#[derive(Clone, Copy)]
pub(super) struct FrameContext<'f, 'b> {
    pub registers: &'f FrameRegisters,
    pub process: DumpedMemory<'b>,
    /// Canonical frame address.
    pub cfa: Option<u64>,
    /// Frame base of the function.
    pub base: Option<u64>,
    /// Load bias of the module.
    pub bias: u64,
}

/// Something that the caller of a function knows.
#[derive(Clone, Copy)]
pub(super) enum Passed<'b> {
    /// What a register had at the call: an expression that is no more than the register.
    Register(Expression<Slice<'b>>),
    /// A parameter that was left out of the call (`DW_OP_GNU_parameter_ref`), by its entry.
    Parameter(UnitOffset),
}

/// Its value.
pub(super) type EntryValue<'e, 'b> = &'e dyn Fn(Passed<'b>) -> Option<u64>;

/// The address, or value, that an expression of unwind tables gives.
pub(super) fn address(
    expression: Expression<Slice<'_>>,
    encoding: Encoding,
    frame: &FrameContext<'_, '_>,
    initial: Option<u64>,
) -> Option<u64> {
    match pieces(expression, encoding, frame, initial, None, &|_| None)?.as_slice() {
        [Piece { location: Location::Address { address }, .. }] => Some(*address),
        [Piece { location: Location::Register { register }, .. }] => {
            frame.registers.word(register.0)
        }
        [Piece { location: Location::Value { value }, .. }] => value.to_u64(u64::MAX).ok(),
        _ => None,
    }
}

/// The location that an expression of a unit gives; `None` if it is nowhere.
pub(super) fn of_expression<'b>(
    expression: Expression<Slice<'b>>,
    unit: UnitRef<'_, Slice<'b>>,
    frame: &FrameContext<'_, '_>,
    entry: EntryValue<'_, 'b>,
) -> Option<ValueLocation> {
    if expression.0.is_empty() {
        return None;
    }
    let pieces = pieces(expression, unit.unit.encoding(), frame, None, Some(unit), entry)?;
    match pieces.as_slice() {
        [Piece { location: Location::Address { address }, size_in_bits: None, .. }] => {
            return Some(ValueLocation::Memory(*address));
        }
        [Piece { location: Location::ImplicitPointer { .. }, .. }] => {
            return Some(ValueLocation::Synthetic);
        }
        _ => {}
    }
    let mut all = Vec::new();
    for piece in &pieces {
        let bytes = part(piece, frame);
        match piece.size_in_bits {
            None => all.extend(bytes.unwrap_or_default().into_iter().map(Some)),
            // Parts of bytes are nowhere: no compiler makes them for a whole variable.
            Some(bits) => {
                let size = usize::try_from(bits / 8).unwrap_or(LARGEST);
                let room = LARGEST.saturating_sub(all.len());
                let bytes = bytes.filter(|b| b.len() >= size && bits % 8 == 0);
                match bytes {
                    Some(bytes) => all.extend(bytes[..size].iter().copied().map(Some)),
                    None => all.extend(std::iter::repeat_n(None, size.min(room))),
                }
            }
        }
        if all.len() >= LARGEST {
            break;
        }
    }
    (!all.is_empty()).then_some(ValueLocation::Bytes(all))
}

/// The bytes of a piece, from its start on.
fn part(piece: &Piece<Slice<'_>>, frame: &FrameContext<'_, '_>) -> Option<Vec<u8>> {
    let skip = usize::try_from(piece.bit_offset.unwrap_or(0) / 8).ok()?;
    let bytes = match piece.location {
        Location::Empty | Location::ImplicitPointer { .. } => return None,
        Location::Register { register } => frame.registers.bytes(register.0)?,
        Location::Address { address } => {
            let size = usize::try_from(piece.size_in_bits? / 8).ok().filter(|n| *n <= LARGEST)?;
            let mut bytes = vec![0; size];
            frame.process.read(address.wrapping_add(skip as u64), &mut bytes)?;
            return Some(bytes);
        }
        Location::Value { value } => match value {
            Value::F32(n) => n.to_le_bytes().to_vec(),
            Value::F64(n) => n.to_le_bytes().to_vec(),
            Value::I8(n) => i64::from(n).to_le_bytes().to_vec(),
            Value::I16(n) => i64::from(n).to_le_bytes().to_vec(),
            Value::I32(n) => i64::from(n).to_le_bytes().to_vec(),
            Value::I64(n) => n.to_le_bytes().to_vec(),
            other => other.to_u64(u64::MAX).ok()?.to_le_bytes().to_vec(),
        },
        Location::Bytes { value } => value.slice().get(..value.len().min(LARGEST))?.to_vec(),
    };
    Some(bytes.get(skip..)?.to_vec())
}

fn pieces<'b>(
    expression: Expression<Slice<'b>>,
    encoding: Encoding,
    frame: &FrameContext<'_, '_>,
    initial: Option<u64>,
    unit: Option<UnitRef<'_, Slice<'b>>>,
    entry: EntryValue<'_, 'b>,
) -> Option<Vec<Piece<Slice<'b>>>> {
    let mut evaluation = expression.evaluation(encoding);
    evaluation.set_max_iterations(OPERATIONS);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial);
    }
    let value_type = |base: UnitOffset| match (base.0, unit) {
        (0, _) => Some(ValueType::Generic),
        (_, Some(unit)) => ValueType::from_entry(&unit.unit.entry(base).ok()?).ok()?,
        _ => None,
    };
    let mut result = evaluation.evaluate().ok()?;
    loop {
        let next = match result {
            EvaluationResult::Complete => return Some(evaluation.result()),
            EvaluationResult::RequiresRegister { register, base_type } => {
                let word = match frame.registers.word(register.0) {
                    Some(word) => word,
                    // The lower half of a register of 16 bytes.
                    None => {
                        let bytes = frame.registers.bytes(register.0)?;
                        u64::from_le_bytes(*bytes.first_chunk()?)
                    }
                };
                let kind = value_type(base_type)?;
                evaluation.resume_with_register(value_of(kind, word)?)
            }
            EvaluationResult::RequiresMemory { address, size, base_type, .. } => {
                let mut bytes = [0; 8];
                frame.process.read(address, bytes.get_mut(..size.into())?)?;
                let value = value_of(value_type(base_type)?, u64::from_le_bytes(bytes))?;
                evaluation.resume_with_memory(value)
            }
            EvaluationResult::RequiresFrameBase => evaluation.resume_with_frame_base(frame.base?),
            EvaluationResult::RequiresCallFrameCfa => {
                evaluation.resume_with_call_frame_cfa(frame.cfa?)
            }
            EvaluationResult::RequiresRelocatedAddress(address) => {
                evaluation.resume_with_relocated_address(address.wrapping_add(frame.bias))
            }
            EvaluationResult::RequiresIndexedAddress { index, relocate } => {
                let address = unit?.address(index).ok()?;
                let bias = if relocate { frame.bias } else { 0 };
                evaluation.resume_with_indexed_address(address.wrapping_add(bias))
            }
            EvaluationResult::RequiresBaseType(base) => {
                evaluation.resume_with_base_type(value_type(base)?)
            }
            EvaluationResult::RequiresEntryValue(expression) => {
                let value = entry(Passed::Register(expression))?;
                evaluation.resume_with_entry_value(Value::Generic(value))
            }
            EvaluationResult::RequiresParameterRef(parameter) => {
                evaluation.resume_with_parameter_ref(entry(Passed::Parameter(parameter))?)
            }
            EvaluationResult::RequiresTls(_) | EvaluationResult::RequiresAtLocation(_) => {
                return None;
            }
        };
        result = next.ok()?;
    }
}

/// A value with the bits of a register or of memory.
fn value_of(kind: ValueType, bits: u64) -> Option<Value> {
    Some(match kind {
        ValueType::F32 => Value::F32(f32::from_bits(bits as u32)),
        ValueType::F64 => Value::F64(f64::from_bits(bits)),
        kind => Value::from_u64(kind, bits).ok()?,
    })
}
