//! What has no parts, as gdb writes it: numbers, characters, true and false, enumerators.

use super::types;
use crate::corefile::entries::Die;
use addr2line::gimli::{self, AttributeValue, DwAte};

/// Most enumerators of a type.
const ENUMERATORS: usize = 4096;

/// The number of a pointer's eight bytes.
pub(super) fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
}

/// The low `size` bytes of a number.
pub(super) fn masked(value: u64, size: u64) -> u64 {
    if size >= 8 { value } else { value & ((1 << (8 * size)) - 1) }
}

fn encoding(ty: &Die<'_, '_>) -> Option<DwAte> {
    match ty.attr(gimli::DW_AT_encoding)? {
        AttributeValue::Encoding(encoding) => Some(encoding),
        _ => None,
    }
}

/// Whether a type has only true and false.
pub(super) fn is_boolean(ty: &Die<'_, '_>) -> bool {
    encoding(ty) == Some(gimli::DW_ATE_boolean)
}

/// A number, a character, or true or false.
pub(super) fn base(ty: &Die<'_, '_>, bytes: &[u8]) -> Option<String> {
    let encoding = encoding(ty)?;
    if bytes.is_empty() {
        // Rust's `()`.
        return Some("()".to_owned());
    }
    let mut all = [0; 16];
    all.get_mut(..bytes.len())?.copy_from_slice(bytes);
    let unsigned = u128::from_le_bytes(all);
    let bits = 8 * bytes.len();
    let signed = ((unsigned << (128 - bits)) as i128) >> (128 - bits);
    Some(match encoding {
        gimli::DW_ATE_boolean => match unsigned {
            0 => "false".into(),
            1 => "true".into(),
            n => n.to_string(),
        },
        gimli::DW_ATE_float => float(bytes)?,
        gimli::DW_ATE_signed_char => format!("{signed} {}", character(unsigned)),
        gimli::DW_ATE_unsigned_char => format!("{unsigned} {}", character(unsigned)),
        gimli::DW_ATE_UTF => match char::from_u32(unsigned as u32).filter(|c| !c.is_control()) {
            Some(c) => format!("{unsigned} '{c}'"),
            None => unsigned.to_string(),
        },
        gimli::DW_ATE_signed => signed.to_string(),
        gimli::DW_ATE_unsigned => unsigned.to_string(),
        gimli::DW_ATE_address => format!("{unsigned:#x}"),
        gimli::DW_ATE_complex_float => {
            let (real, imaginary) = bytes.split_at(bytes.len() / 2);
            format!("{} + {}i", float(real)?, float(imaginary)?)
        }
        _ => format!("{unsigned:#x}"),
    })
}

fn float(bytes: &[u8]) -> Option<String> {
    let text = match bytes.len() {
        4 => format!("{:?}", f32::from_le_bytes(*bytes.first_chunk()?)),
        8 => format!("{:?}", f64::from_le_bytes(*bytes.first_chunk()?)),
        16 => {
            // The x87 format: 64 bits of mantissa with its first bit, 15 of exponent, and a sign.
            let mantissa = u64::from_le_bytes(*bytes.first_chunk()?);
            let top = u16::from_le_bytes([bytes[8], bytes[9]]);
            let exponent = i32::from(top & 0x7fff) - 16383 - 63;
            let value = (mantissa as f64) * 2f64.powi(exponent);
            format!("{:?}", if top >> 15 == 1 { -value } else { value })
        }
        _ => return None,
    };
    Some(text.strip_suffix(".0").map_or(text.clone(), str::to_owned))
}

/// A character in quotes, as C writes it.
fn character(code: u128) -> String {
    match u32::try_from(code).ok().and_then(char::from_u32) {
        Some('\'') => "'\\''".into(),
        Some('\\') => "'\\\\'".into(),
        Some('\n') => "'\\n'".into(),
        Some('\t') => "'\\t'".into(),
        Some('\r') => "'\\r'".into(),
        Some(c) if code < 0x7f && !c.is_control() || code >= 0x100 && !c.is_control() => {
            format!("'{c}'")
        }
        _ => format!("'\\{code:03o}'"),
    }
}

/// The name of a number in an enumeration; several, where its values are bits.
pub(super) fn enumerator(ty: &Die<'_, '_>, number: u64) -> String {
    let size = types::size(ty).unwrap_or(8).min(8);
    let all: Vec<(String, u64)> = ty
        .children(ENUMERATORS)
        .into_iter()
        .filter(|d| d.tag() == gimli::DW_TAG_enumerator)
        .filter_map(|d| Some((d.name()?, masked(d.number(gimli::DW_AT_const_value)?, size))))
        .collect();
    let scope = ty.name().filter(|_| ty.has(gimli::DW_AT_enum_class));
    let scope = scope.map_or_else(String::new, |name| name + "::");
    if let Some((name, _)) = all.iter().find(|(_, value)| *value == number) {
        return scope + name;
    }
    let (mut rest, mut names) = (number, Vec::new());
    for (name, value) in &all {
        if value.is_power_of_two() && rest & value != 0 {
            names.push(scope.clone() + name);
            rest &= !value;
        }
    }
    match (names.is_empty(), rest) {
        (false, 0) if all.iter().all(|(_, v)| *v == 0 || v.is_power_of_two()) => {
            format!("({})", names.join(" | "))
        }
        _ => number.to_string(),
    }
}
