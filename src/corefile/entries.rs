//! Entries of debug information (DIEs) and how they refer to each other: within a unit, to another
//! unit, to what dwz moved out, to a unit of one type. The number of entries that are read is
//! bounded, since they may refer to each other in a circle.

use addr2line::gimli::{
    self, AttributeValue, DebugInfoOffset, DebugTypeSignature, DebuggingInformationEntry, DwAt,
    DwTag, Dwarf, EndianSlice, LittleEndian, Unit, UnitHeader, UnitOffset, UnitRef, UnitType,
};
use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::sync::Arc;

/// The bytes of a section.
pub(super) type Slice<'d> = EndianSlice<'d, LittleEndian>;

/// Most entries that are read of one module.
const MOST: u32 = 4 << 20;
/// Most units that another one may refer to.
const UNITS: usize = 1 << 18;
/// Longest name, in bytes.
const LONGEST: usize = 512;

/// The units of one file, parsed when something refers to them.
struct Units<'b> {
    dwarf: Arc<Dwarf<Slice<'b>>>,
    headers: Vec<(usize, UnitHeader<Slice<'b>>)>,
    parsed: Vec<OnceCell<Option<Unit<Slice<'b>>>>>,
    /// Units of one type, by signature: the index, and the offset of the type.
    types: HashMap<u64, (usize, UnitOffset)>,
}

impl<'b> Units<'b> {
    fn new(dwarf: Arc<Dwarf<Slice<'b>>>) -> Self {
        let (mut headers, mut types) = (Vec::new(), HashMap::new());
        let mut add = |header: UnitHeader<Slice<'b>>, offset: usize| {
            if let UnitType::Type { type_signature, type_offset }
            | UnitType::SplitType { type_signature, type_offset } = header.type_()
            {
                types.insert(type_signature.0, (headers.len(), type_offset));
            }
            headers.push((offset, header));
            headers.len() < UNITS
        };
        let mut units = dwarf.units();
        while let Ok(Some(header)) = units.next() {
            let offset = header.debug_info_offset().map_or(0, |o| o.0);
            if !add(header, offset) {
                break;
            }
        }
        // Before version 5 they have a section of their own, to which nothing refers by an offset.
        let mut units = dwarf.type_units();
        while let Ok(Some(header)) = units.next() {
            if !add(header, usize::MAX) {
                break;
            }
        }
        let parsed = headers.iter().map(|_| OnceCell::new()).collect();
        Units { dwarf, headers, parsed, types }
    }

    fn unit(&self, i: usize) -> Option<UnitRef<'_, Slice<'b>>> {
        let parse = || self.dwarf.unit(self.headers.get(i)?.1).ok();
        let unit = self.parsed.get(i)?.get_or_init(parse).as_ref()?;
        Some(UnitRef::new(&self.dwarf, unit))
    }

    fn at(&self, offset: DebugInfoOffset) -> Option<(UnitRef<'_, Slice<'b>>, UnitOffset)> {
        let after = self.headers.partition_point(|(start, _)| *start <= offset.0);
        let unit = self.unit(after.checked_sub(1)?)?;
        Some((unit, offset.to_unit_offset(&unit.unit.header)?))
    }
}

/// The debug information of a module.
pub(super) struct Entries<'b> {
    own: OnceCell<Units<'b>>,
    common: OnceCell<Option<Units<'b>>>,
    dwarf: Arc<Dwarf<Slice<'b>>>,
    left: Cell<u32>,
}

/// An entry.
#[derive(Clone)]
pub(super) struct Die<'u, 'b> {
    info: &'u Entries<'b>,
    /// The unit that it is in.
    pub unit: UnitRef<'u, Slice<'b>>,
    entry: DebuggingInformationEntry<Slice<'b>>,
}

impl<'b> Entries<'b> {
    /// Reads nothing yet.
    pub(super) fn new(dwarf: Arc<Dwarf<Slice<'b>>>) -> Self {
        let left = Cell::new(MOST);
        Entries { own: OnceCell::new(), common: OnceCell::new(), dwarf, left }
    }

    /// The entry of a unit, which may be of another file: of split DWARF.
    pub(super) fn entry<'u>(
        &'u self,
        unit: UnitRef<'u, Slice<'b>>,
        offset: UnitOffset,
    ) -> Option<Die<'u, 'b>> {
        self.spend()?;
        let entry = unit.unit.entry(offset).ok()?;
        Some(Die { info: self, unit, entry })
    }

    fn spend(&self) -> Option<()> {
        self.left.set(self.left.get().checked_sub(1)?);
        Some(())
    }

    fn own(&self) -> &Units<'b> {
        self.own.get_or_init(|| Units::new(self.dwarf.clone()))
    }

    fn common(&self) -> Option<&Units<'b>> {
        let read = || Some(Units::new(self.dwarf.sup.clone()?));
        self.common.get_or_init(read).as_ref()
    }

    fn of_signature(&self, signature: DebugTypeSignature) -> Option<Die<'_, 'b>> {
        let units = self.own();
        let (i, offset) = units.types.get(&signature.0)?;
        self.entry(units.unit(*i)?, *offset)
    }
}

impl<'u, 'b> Die<'u, 'b> {
    /// Its tag.
    pub(super) fn tag(&self) -> DwTag {
        self.entry.tag()
    }

    /// Its place in its unit.
    pub(super) fn offset(&self) -> UnitOffset {
        self.entry.offset()
    }

    /// Whether two are the same entry.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.is_at(other, other.offset())
    }

    /// Whether it is the entry at a place of the unit that `other` is in.
    pub(super) fn is_at(&self, other: &Self, offset: UnitOffset) -> bool {
        std::ptr::eq(self.unit.unit, other.unit.unit) && self.offset() == offset
    }

    /// An attribute of its own.
    pub(super) fn attr(&self, name: DwAt) -> Option<AttributeValue<Slice<'b>>> {
        self.entry.attr_value(name)
    }

    /// Whether it has an attribute of its own.
    pub(super) fn has(&self, name: DwAt) -> bool {
        self.entry.has_attr(name)
    }

    /// A number that is an attribute of its own.
    pub(super) fn number(&self, name: DwAt) -> Option<u64> {
        let value = self.attr(name)?;
        value.udata_value().or_else(|| value.sdata_value().map(|n| n as u64))
    }

    /// The entry that an attribute of its own refers to.
    pub(super) fn refers(&self, name: DwAt) -> Option<Die<'u, 'b>> {
        let info = self.info;
        let at = |found: Option<(UnitRef<'u, Slice<'b>>, UnitOffset)>| {
            let (unit, offset) = found?;
            info.entry(unit, offset)
        };
        match self.attr(name)? {
            AttributeValue::UnitRef(offset) => info.entry(self.unit, offset),
            // Where what dwz moved out refers to itself, its units are found there.
            AttributeValue::DebugInfoRef(offset) => {
                let in_common = info.common.get().and_then(Option::as_ref).filter(|common| {
                    std::ptr::eq(self.unit.dwarf, std::ptr::from_ref(&*common.dwarf))
                });
                at(in_common.unwrap_or_else(|| info.own()).at(offset))
            }
            AttributeValue::DebugInfoRefSup(offset) => at(info.common()?.at(offset)),
            AttributeValue::DebugTypesRef(signature) => info.of_signature(signature),
            _ => None,
        }
    }

    /// What it completes or is an instance of.
    pub(super) fn origin(&self) -> Option<Die<'u, 'b>> {
        self.refers(gimli::DW_AT_abstract_origin)
            .or_else(|| self.refers(gimli::DW_AT_specification))
    }

    /// What a question finds in it or in what it completes or is an instance of.
    fn inherited<T>(&self, ask: impl Fn(&Self) -> Option<T>) -> Option<T> {
        let mut die = self.clone();
        for _ in 0..4 {
            if let Some(found) = ask(&die) {
                return Some(found);
            }
            die = die.origin()?;
        }
        None
    }

    fn string(&self, name: DwAt) -> Option<String> {
        let text = self.unit.attr_string(self.attr(name)?).ok()?;
        let bytes = text.slice();
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST)]).into_owned();
        Some(text).filter(|text| !text.is_empty())
    }

    /// Its name, as the source has it.
    pub(super) fn name(&self) -> Option<String> {
        self.inherited(|die| die.string(gimli::DW_AT_name))
    }

    /// The name that the linker knows it by.
    pub(super) fn linkage_name(&self) -> Option<String> {
        self.inherited(|die| {
            die.string(gimli::DW_AT_linkage_name)
                .or_else(|| die.string(gimli::DW_AT_MIPS_linkage_name))
        })
    }

    /// Whether its unit is of a compiler whose name begins so.
    pub(super) fn is_by(&self, compiler: &str) -> bool {
        let unit = self.unit.unit;
        let root = self.info.entry(self.unit, unit.header.root_offset());
        root.and_then(|r| r.string(gimli::DW_AT_producer)).is_some_and(|p| p.starts_with(compiler))
    }

    /// Its type.
    pub(super) fn type_of(&self) -> Option<Die<'u, 'b>> {
        self.inherited(|die| die.refers(gimli::DW_AT_type))
    }

    /// Whether an attribute of it or its origin is there and true.
    pub(super) fn is_flagged(&self, name: DwAt) -> bool {
        self.inherited(|die| die.attr(name)) == Some(AttributeValue::Flag(true))
    }

    /// Its children, as many as `most`.
    pub(super) fn children(&self, most: usize) -> Vec<Die<'u, 'b>> {
        let mut all = Vec::new();
        let unit = self.unit.unit;
        let Ok(mut tree) = unit.entries_tree(Some(self.offset())) else { return all };
        let Ok(root) = tree.root() else { return all };
        let mut children = root.children();
        while let (Ok(Some(child)), true) = (children.next(), all.len() < most) {
            if self.info.spend().is_none() {
                break;
            }
            let entry = child.entry().clone();
            all.push(Die { info: self.info, unit: self.unit, entry });
        }
        all
    }

    /// Whether its code has an address of the file's image.
    pub(super) fn has_code_at(&self, address: u64) -> bool {
        let Ok(mut ranges) = self.unit.die_ranges(&self.entry) else { return false };
        for _ in 0..4096 {
            match ranges.next() {
                Ok(Some(range)) if (range.begin..range.end).contains(&address) => return true,
                Ok(Some(_)) => {}
                _ => return false,
            }
        }
        false
    }

    /// Where the first part of its code begins in the file's image.
    pub(super) fn first_address(&self) -> Option<u64> {
        Some(self.unit.die_ranges(&self.entry).ok()?.next().ok()??.begin)
    }

    /// Its address in the file's image.
    pub(super) fn address(&self, name: DwAt) -> Option<u64> {
        self.unit.attr_address(self.attr(name)?).ok()?
    }
}
