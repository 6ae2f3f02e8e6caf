//! The version of a record, as a value that has only this one.

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The version of the records, and of what is printed of them as JSON: 1. It stays the same when
/// keys are added; a key that changes its meaning or its type would have another version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Schema;

impl Schema {
    const NUMBER: u32 = 1;
}

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u32(Self::NUMBER)
    }
}

impl<'d> Deserialize<'d> for Schema {
    fn deserialize<D: Deserializer<'d>>(from: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(from).map(|_| Schema)
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Schema {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Schema".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "const": Self::NUMBER })
    }
}
