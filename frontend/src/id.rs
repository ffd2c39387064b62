//! Ids of users and groups as text: in `USER`, `--chown`, mounts, `/etc/passwd` and `/etc/group`.
//!
//! A number is an id or an error, never a name. Image makers put a user `4294967296` into
//! `/etc/passwd`, other readers let the number wrap to 0, and either made root of it
//! (CVE-2024-40635, CVE-2026-46680).

/// A number that is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no user or group: ids must be in range 0-{highest}")]
pub struct IdError {
    text: String,
    highest: u32,
}

/// The highest id that a file can have: one more means "unchanged" to `chown`.
const HIGHEST: u32 = u32::MAX - 1;

/// The highest id that a command can run as, in every container runtime.
const HIGHEST_OF_COMMANDS: u32 = i32::MAX as u32;

/// Reads the id of a file's user or group; `None` if `text` is a name.
pub fn id(text: &str) -> Result<Option<u32>, IdError> {
    up_to(HIGHEST, text)
}

/// Reads the id of a command's user or group; `None` if `text` is a name.
pub fn id_of_command(text: &str) -> Result<Option<u32>, IdError> {
    up_to(HIGHEST_OF_COMMANDS, text)
}

fn up_to(highest: u32, text: &str) -> Result<Option<u32>, IdError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let id = text.parse::<i64>().ok().and_then(|id| u32::try_from(id).ok());
    let id = id.filter(|&id| id <= highest);
    id.map(Some).ok_or_else(|| IdError { text: text.to_owned(), highest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_ids_and_other_text_is_a_name() {
        for (text, expected) in [
            ("0", Some(0)),
            ("+5", Some(5)),
            ("007", Some(7)),
            ("-0", Some(0)),
            ("2147483647", Some(2_147_483_647)),
            ("", None),
            ("-", None),
            ("1a", None),
            ("root", None),
            ("1 ", None),
        ] {
            assert_eq!(id(text), Ok(expected), "{text}");
            assert_eq!(id_of_command(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_number_out_of_range_is_an_error_and_never_a_name() {
        for text in
            ["4294967295", "4294967296", "-1", "99999999999999999999", "-99999999999999999999"]
        {
            assert!(id(text).is_err() && id_of_command(text).is_err(), "{text}");
        }
        assert_eq!(id("4294967294"), Ok(Some(4_294_967_294)));
        let error = id_of_command("2147483648").unwrap_err().to_string();
        assert_eq!(error, "`2147483648` is no user or group: ids must be in range 0-2147483647");
    }
}
