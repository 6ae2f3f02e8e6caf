//! What happens where a core's name exists already. Pure.

use serde::{Deserialize, Serialize};

/// What happens where the name that the pattern gives exists already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// The new core takes the name, as with the kernel.
    #[default]
    Replace,
    /// The first core stays, and the new one is not written.
    Keep,
    /// The new core gets a number: `core.1`, `core.1.2`, `core.1.3`.
    Number,
}

impl Existing {
    pub(crate) const ALL: [Existing; 3] = [Existing::Replace, Existing::Keep, Existing::Number];

    /// The word for it in the configuration and the annotation.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Existing::Replace => "replace",
            Existing::Keep => "keep",
            Existing::Number => "number",
        }
    }
}

/// The highest number that a name gets.
pub(crate) const LAST: u32 = 1024;

/// A path or a name with a number, which stands before the ending `ending`; 1 is the name without
/// a number.
pub(crate) fn numbered(path: &[u8], number: u32, ending: &[u8]) -> Vec<u8> {
    if number < 2 {
        return path.to_vec();
    }
    let (stem, ending) = match path.strip_suffix(ending) {
        Some(stem) => (stem, ending),
        None => (path, &b""[..]),
    };
    [stem, format!(".{number}").as_bytes(), ending].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_before_the_ending() {
        for (path, number, ending, is) in [
            ("/d/core-eci.1", 1, "", "/d/core-eci.1"),
            ("/d/core-eci.1", 2, "", "/d/core-eci.1.2"),
            ("core.zst", 12, ".zst", "core.12.zst"),
            ("core.zst", 12, "", "core.zst.12"),
            ("core", 3, ".zst", "core.3"),
        ] {
            let got = numbered(path.as_bytes(), number, ending.as_bytes());
            assert_eq!(String::from_utf8(got).unwrap(), is);
        }
    }

    #[test]
    fn words_are_what_serde_writes() {
        for one in Existing::ALL {
            assert_eq!(serde_json::to_value(one).unwrap(), one.as_str());
        }
    }
}
