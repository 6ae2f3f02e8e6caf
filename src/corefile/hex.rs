//! Addresses as text in JSON, `0x7ffd12345678`: not every reader of JSON keeps all 64 bits of a
//! number. For serde's `with`.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// The text.
fn text(n: u64) -> String {
    format!("{n:#x}")
}

fn number<E: Error>(text: &str) -> Result<u64, E> {
    let digits = text.strip_prefix("0x").ok_or_else(|| E::custom("expected 0x"))?;
    u64::from_str_radix(digits, 16).map_err(E::custom)
}

/// Writes an address.
pub(crate) fn serialize<S: Serializer>(n: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&text(*n))
}

/// Reads an address.
pub(crate) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<u64, D::Error> {
    number(&String::deserialize(from)?)
}

/// An address that may be unknown: null.
pub(crate) mod option {
    use crate::corefile::hex::{number, text};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes it.
    pub(crate) fn serialize<S: Serializer>(n: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match n {
            Some(n) => to.serialize_some(&text(*n)),
            None => to.serialize_none(),
        }
    }

    /// Reads it.
    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Option<u64>, D::Error> {
        Option::<String>::deserialize(from)?.map(|text| number(&text)).transpose()
    }
}

/// Values with names, in their order: an object.
pub(crate) mod named {
    use crate::corefile::hex::{number, text};
    use serde::de::{MapAccess, Visitor};
    use serde::{Deserializer, Serializer};
    use std::fmt;

    /// Writes them.
    pub(crate) fn serialize<S: Serializer>(
        all: &[(String, u64)],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_map(all.iter().map(|(name, n)| (name, text(*n))))
    }

    /// Reads them.
    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(
        from: D,
    ) -> Result<Vec<(String, u64)>, D::Error> {
        from.deserialize_map(Named)
    }

    struct Named;

    impl<'d> Visitor<'d> for Named {
        type Value = Vec<(String, u64)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object of addresses")
        }

        fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some((name, text)) = map.next_entry::<String, String>()? {
                all.push((name, number(&text)?));
            }
            Ok(all)
        }
    }
}
