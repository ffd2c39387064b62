//! JSON from strangers, read within bounds.
//!
//! Some bytes of JSON can become a hundred times as many in memory: `{},` is an entry of an image's
//! history. How deep values may be nested is limited by `serde_json` already, how many there are is
//! limited here.

use serde::Deserialize;
use serde::de::Error as _;

/// No document of an image that was ever seen has a tenth of them.
const MOST_VALUES: usize = 250_000;

/// Reads a document; refuses one of too many values before any of them is made.
pub(crate) fn from_slice<'de, T: Deserialize<'de>>(
    bytes: &'de [u8],
) -> Result<T, serde_json::Error> {
    if has_more_values(bytes, MOST_VALUES) {
        let what = format!("it consists of more than {MOST_VALUES} values");
        return Err(serde_json::Error::custom(what));
    }
    serde_json::from_slice(bytes)
}

/// Counts what separates and begins values, outside of texts.
fn has_more_values(bytes: &[u8], most: usize) -> bool {
    let (mut found, mut in_text, mut escaped) = (0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => found += 1,
            _ => {}
        }
        if found > most {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_texts() {
        let json = br#"{"a,[{": [1, "\\", "\",{[", {}]}"#;
        assert!(!has_more_values(json, 6));
        assert!(has_more_values(json, 5));
    }
}
