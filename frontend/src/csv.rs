//! One CSV record, as the values of `--mount`, `--output` and `--secret` are.

/// Why a record can't be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// A quote is opened and never closed.
    #[error("missing closing quote")]
    Unclosed,
    /// A quoted field goes on.
    #[error("text after a closing quote")]
    AfterQuote,
}

/// Splits a record at its commas. A field that holds one is quoted whole; `""` in it is one quote.
pub fn csv_fields(record: &str) -> Result<Vec<String>, CsvError> {
    let mut fields = vec![];
    let mut rest = record;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None if after.is_empty() => return Ok(fields),
            None => return Err(CsvError::AfterQuote),
        }
    }
}

/// The field up to its closing quote, and what follows.
fn quoted_field(quoted: &str) -> Result<(String, &str), CsvError> {
    let mut field = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('"').ok_or(CsvError::Unclosed)?;
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Ok((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_field_may_hold_commas_and_quotes() {
        let fields = csv_fields(r#"type=image,"name=a,b",x="#).unwrap();
        assert_eq!(fields, ["type=image", "name=a,b", "x="]);
        assert_eq!(csv_fields(r#""a""b""#).unwrap(), [r#"a"b"#]);
        assert_eq!(csv_fields(r#""a"#), Err(CsvError::Unclosed));
        assert_eq!(csv_fields(r#""a"b"#), Err(CsvError::AfterQuote));
    }
}
