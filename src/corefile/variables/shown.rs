//! How the value of a variable is written: as gdb does in C, C++ and Go, and with Rust's own marks
//! in Rust.

use super::bounded_text::{BoundedText, OPTIMIZED_OUT};
use super::language::Language;
use super::location::{Missing, ValueLocation};
use super::options::VariableOptions;
use super::sequence::Sequence;
use super::{members, scalar, text, types};
use crate::corefile::entries::Die;
use crate::corefile::process_memory::DumpedMemory;
use addr2line::gimli;
use std::fmt::Write as _;

/// Stands for a value that has one of the hidden names.
pub(super) const HIDDEN: &str = "<hidden>";
/// Stands for contents that are not asked for.
const CONTENTS: &str = "<contents not shown>";
/// How deep structures in structures are shown.
const DEPTH: usize = 3;
/// Most elements of an array, and most members and variants of a type.
const ELEMENTS: u64 = 32;
const PARTS: usize = 4096;

/// Writes values.
pub(super) struct Shown<'s, 'b> {
    process: DumpedMemory<'b>,
    options: &'s VariableOptions,
    language: Language,
}

impl<'s, 'b> Shown<'s, 'b> {
    /// For the variables of a function.
    pub(super) fn new(
        process: DumpedMemory<'b>,
        options: &'s VariableOptions,
        function: &Die<'_, '_>,
    ) -> Self {
        Shown { process, options, language: Language::of(function) }
    }

    /// The value of a variable, in about `most` bytes; one without a location is optimized out.
    pub(super) fn value(
        &self,
        ty: Option<&Die<'_, '_>>,
        location: Option<ValueLocation>,
        most: usize,
    ) -> String {
        let Some(location) = location else { return OPTIMIZED_OUT.to_owned() };
        let mut out = BoundedText { text: String::new(), most };
        self.show(&mut out, ty, &location, 0);
        if out.text.len() > most {
            let end = (0..=most).rev().find(|i| out.text.is_char_boundary(*i)).unwrap_or(0);
            out.text.truncate(end);
            out.add("...");
        }
        out.text
    }

    fn show(
        &self,
        out: &mut BoundedText,
        ty: Option<&Die<'_, '_>>,
        location: &ValueLocation,
        depth: usize,
    ) {
        let Some(ty) = ty.and_then(types::peeled) else { return out.add("<unknown type>") };
        if *location == ValueLocation::Synthetic {
            return out.add("<synthetic pointer>");
        }
        if let Err(missing) = self.show_type(out, &ty, location, depth) {
            out.add_missing(&missing);
        }
    }

    fn show_type(
        &self,
        out: &mut BoundedText,
        ty: &Die<'_, '_>,
        location: &ValueLocation,
        depth: usize,
    ) -> Result<(), Missing> {
        match ty.tag() {
            gimli::DW_TAG_base_type => {
                let size = types::size(ty).and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                let bytes = location.read(&self.process, size.min(16))?;
                out.add(&scalar::base(ty, &bytes).unwrap_or_else(|| "<unknown type>".into()));
            }
            gimli::DW_TAG_pointer_type => self.pointer(out, ty, location)?,
            gimli::DW_TAG_reference_type | gimli::DW_TAG_rvalue_reference_type => {
                let address = scalar::word(&location.read(&self.process, 8)?);
                let _ = write!(out.text, "@{address:#x}");
                if depth < DEPTH {
                    out.add(": ");
                    self.show(
                        out,
                        ty.type_of().as_ref(),
                        &ValueLocation::Memory(address),
                        depth + 1,
                    );
                }
            }
            gimli::DW_TAG_structure_type | gimli::DW_TAG_class_type | gimli::DW_TAG_union_type => {
                self.structure(out, ty, location, depth)?
            }
            gimli::DW_TAG_array_type => {
                let dimensions = types::dimensions(ty);
                let element = ty.type_of().ok_or(Missing::OptimizedOut)?;
                self.array(out, &element, &dimensions, location, depth)?;
            }
            gimli::DW_TAG_enumeration_type => {
                let number = members::unsigned(ty, location, &self.process);
                let Some(number) = number else {
                    location.read(&self.process, 1)?;
                    return Err(Missing::OptimizedOut);
                };
                out.add(&scalar::enumerator(ty, number));
            }
            gimli::DW_TAG_ptr_to_member_type => {
                let address = scalar::word(&location.read(&self.process, 8)?);
                let _ = write!(out.text, "{address:#x}");
            }
            gimli::DW_TAG_unspecified_type => {
                let is_null = ty.name().is_some_and(|n| n.contains("nullptr"));
                out.add(if is_null { "0x0" } else { "<unspecified type>" });
            }
            _ => out.add("<unknown type>"),
        }
        Ok(())
    }

    fn pointer(
        &self,
        out: &mut BoundedText,
        ty: &Die<'_, '_>,
        location: &ValueLocation,
    ) -> Result<(), Missing> {
        let address = scalar::word(&location.read(&self.process, 8)?);
        let _ = write!(out.text, "{address:#x}");
        let Some(target) = ty.type_of().as_ref().and_then(types::peeled) else { return Ok(()) };
        if target.tag() == gimli::DW_TAG_subroutine_type {
            if let Some(symbol) = self.process.symbol(address) {
                let _ = write!(out.text, " <{symbol}>");
            }
        } else if address != 0 && text::is_character(&target) {
            out.add(" ");
            self.text(out, address, || text::terminated(&self.process, address));
        }
        Ok(())
    }

    /// Text at an address, unless contents are not to be shown.
    fn text(&self, out: &mut BoundedText, address: u64, read: impl FnOnce() -> Option<String>) {
        let shown = if self.options.contents { read() } else { Some(CONTENTS.to_owned()) };
        match shown {
            Some(text) => out.add(&text),
            None => out.add_not_in_core(address),
        }
    }

    fn structure(
        &self,
        out: &mut BoundedText,
        ty: &Die<'_, '_>,
        location: &ValueLocation,
        depth: usize,
    ) -> Result<(), Missing> {
        if ty.has(gimli::DW_AT_declaration) {
            out.add("<incomplete type>");
            return Ok(());
        }
        if let Some((address, length)) = text::of_structure(ty, location, &self.process) {
            self.text(out, address, || text::counted(&self.process, address, length));
            return Ok(());
        }
        if let Some(sequence) = Sequence::of(ty, location, &self.process, self.language) {
            return self.elements_behind(out, &sequence, depth);
        }
        if depth >= DEPTH {
            out.add("{...}");
            return Ok(());
        }
        let parts = ty.children(PARTS);
        if let Some(part) = parts.iter().find(|d| d.tag() == gimli::DW_TAG_variant_part) {
            return self.variant(out, part, location, depth);
        }
        if ty.tag() == gimli::DW_TAG_union_type
            && let Some(instead) = self.instead_of_union(ty, location)
        {
            out.add(instead);
            return Ok(());
        }
        let all = members::of(ty);
        let names: Vec<Option<String>> = all.iter().map(Die::name).collect();
        let is_rust = self.language == Language::Rust;
        let is_tuple =
            is_rust && names.iter().all(|n| n.as_deref().is_some_and(|n| n.starts_with("__")));
        if is_rust {
            let name = ty.name().filter(|name| !name.starts_with('('));
            let name = name.as_deref().map_or("", |n| n.split('<').next().unwrap_or(n));
            out.add(name);
            if is_tuple && all.is_empty() {
                return Ok(());
            }
            out.add(if name.is_empty() || is_tuple { "" } else { " " });
        }
        let (open, is, close) = match (is_rust, is_tuple) {
            (true, true) => ("(", "", ")"),
            (true, false) => ("{", ": ", "}"),
            _ => ("{", " = ", "}"),
        };
        out.add(open);
        for (i, (member, name)) in all.iter().zip(&names).enumerate() {
            if i > 0 {
                out.add(", ");
            }
            if out.is_full() {
                out.add("...");
                break;
            }
            match name {
                _ if member.tag() == gimli::DW_TAG_inheritance => {
                    let _ = write!(out.text, "<{}> = ", types::name(member.type_of().as_ref()));
                }
                Some(name) if !is_tuple => {
                    let _ = write!(out.text, "{name}{is}");
                }
                _ => {}
            }
            self.member(out, member, name.as_deref(), location, depth);
        }
        out.add(close);
        Ok(())
    }

    /// What is shown instead of a union, where one of its members may not be: all of them have the
    /// same bytes.
    fn instead_of_union(&self, ty: &Die<'_, '_>, location: &ValueLocation) -> Option<&'static str> {
        if members::has(ty, location, &|_, name| name.is_some_and(|n| self.options.hides(n))) {
            return Some(HIDDEN);
        }
        let has_text = || members::has(ty, location, &|ty, _| is_array_of_text(ty));
        (!self.options.contents && has_text()).then_some(CONTENTS)
    }

    /// The value of a member of the structure at `location`.
    fn member(
        &self,
        out: &mut BoundedText,
        member: &Die<'_, '_>,
        name: Option<&str>,
        location: &ValueLocation,
        depth: usize,
    ) {
        let of = member.type_of();
        if name.is_some_and(|name| self.options.hides(name)) {
            out.add(HIDDEN);
        } else if let Some(bits) = members::bits(member, location, &self.process) {
            let boolean = of.as_ref().and_then(types::peeled).filter(scalar::is_boolean);
            match (bits, boolean) {
                (Ok(n), Some(_)) => out.add(if n == 0 { "false" } else { "true" }),
                (Ok(n), None) => out.add(&n.to_string()),
                // The members after it may be there.
                (Err(missing), _) => out.add_missing(&missing),
            }
        } else if let Some(offset) = members::offset(member) {
            self.show(out, of.as_ref(), &location.part(offset), depth + 1);
        } else {
            out.add("<virtual base>");
        }
    }

    /// A variant of an enumeration of Rust's.
    fn variant(
        &self,
        out: &mut BoundedText,
        part: &Die<'_, '_>,
        location: &ValueLocation,
        depth: usize,
    ) -> Result<(), Missing> {
        let variants = part.children(PARTS);
        let discriminant = part.refers(gimli::DW_AT_discr);
        let number = match &discriminant {
            Some(member) => {
                let at = location.part(members::offset(member).unwrap_or(0));
                let ty = member.type_of().ok_or(Missing::OptimizedOut)?;
                let size = types::size(&ty).unwrap_or(0).min(8);
                at.read(&self.process, size as usize)?;
                members::unsigned(&ty, &at, &self.process).map(|n| (n, size))
            }
            None => None,
        };
        let is_it = |variant: &&Die<'_, '_>| {
            let value = variant.number(gimli::DW_AT_discr_value);
            number.zip(value).is_some_and(|((n, size), value)| n == scalar::masked(value, size))
        };
        let of_variants = || variants.iter().filter(|d| d.tag() == gimli::DW_TAG_variant);
        let chosen = of_variants()
            .find(is_it)
            .or_else(|| of_variants().find(|d| !d.has(gimli::DW_AT_discr_value)));
        let member = chosen.and_then(|variant| members::of(variant).into_iter().next());
        let Some(member) = member else {
            out.add("<unknown variant>");
            return Ok(());
        };
        let at = location.part(members::offset(&member).unwrap_or(0));
        self.show(out, member.type_of().as_ref(), &at, depth + 1);
        Ok(())
    }

    fn elements_behind(
        &self,
        out: &mut BoundedText,
        sequence: &Sequence<'_, '_>,
        depth: usize,
    ) -> Result<(), Missing> {
        let _ = write!(out.text, "{} elements ", sequence.length);
        if !self.options.contents {
            out.add(CONTENTS);
            return Ok(());
        }
        let location = ValueLocation::Memory(sequence.address);
        self.array(out, &sequence.element, &[Some(sequence.length)], &location, depth)
    }

    fn array(
        &self,
        out: &mut BoundedText,
        element: &Die<'_, '_>,
        dimensions: &[Option<u64>],
        location: &ValueLocation,
        depth: usize,
    ) -> Result<(), Missing> {
        let Some((count, inner)) = dimensions.split_first() else {
            self.show(out, Some(element), location, depth + 1);
            return Ok(());
        };
        let Some(count) = *count else {
            out.add("<variable length>");
            return Ok(());
        };
        if !self.options.contents && text::may_be_of_text(element) {
            out.add(CONTENTS);
            return Ok(());
        }
        let size = types::size(element);
        let size = inner.iter().try_fold(size.unwrap_or(0), |all, n| all.checked_mul((*n)?));
        let Some(size) = size.filter(|size| *size > 0 || count == 0) else {
            out.add("<unknown type>");
            return Ok(());
        };
        let is_text = inner.is_empty()
            && self.language != Language::Go
            && types::peeled(element).is_some_and(|ty| text::is_character(&ty));
        if is_text {
            let size = usize::try_from(count).unwrap_or(usize::MAX).min(text::LONGEST + 1);
            out.add(&text::in_array(&location.read(&self.process, size)?));
            return Ok(());
        }
        let (open, close) = if self.language == Language::Rust { ("[", "]") } else { ("{", "}") };
        if depth > DEPTH {
            let _ = write!(out.text, "{open}...{close}");
            return Ok(());
        }
        out.add(open);
        for i in 0..count {
            if i > 0 {
                out.add(", ");
            }
            if i == ELEMENTS || out.is_full() {
                out.add("...");
                break;
            }
            self.array(out, element, inner, &location.part(i.saturating_mul(size)), depth)?;
        }
        out.add(close);
        Ok(())
    }
}

/// Whether a type is an array that may hold text.
fn is_array_of_text(ty: &Die<'_, '_>) -> bool {
    ty.tag() == gimli::DW_TAG_array_type
        && ty.type_of().is_some_and(|element| text::may_be_of_text(&element))
}
