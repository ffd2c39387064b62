//! Values such as `type=image,"name=a,b",push=true`: one CSV record of `key=value` fields.

/// Why a value is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CsvError {
    /// A field opens a quote and never closes it.
    #[error("unmatched quote in `{0}`")]
    Quote(String),
    /// A field is no pair.
    #[error("invalid field '{field}' must be a key=value pair")]
    Field {
        /// The field.
        field: String,
    },
}

/// Splits a record at its commas; a field that holds one is quoted whole.
pub(crate) fn fields(record: &str) -> Result<Vec<String>, CsvError> {
    let mut fields = vec![];
    let mut rest = record;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                quoted_field(quoted).ok_or_else(|| CsvError::Quote(record.to_owned()))?
            }
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None if after.is_empty() => return Ok(fields),
            None => return Err(CsvError::Quote(record.to_owned())),
        }
    }
}

/// The field up to its closing quote, `""` standing for one quote, and what follows.
fn quoted_field(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                rest = after;
            }
            None => return Some((field, after)),
        }
    }
}

/// The fields of a record as pairs; keys in lower case.
pub(crate) fn pairs(record: &str) -> Result<Vec<(String, String)>, CsvError> {
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => Ok((key.to_lowercase(), value.to_owned())),
        None => Err(CsvError::Field { field }),
    };
    fields(record)?.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_field_may_hold_commas_and_quotes() {
        assert_eq!(
            fields(r#"type=image,"name=a,b",x="#).unwrap(),
            ["type=image", "name=a,b", "x="]
        );
        assert_eq!(fields(r#""a""b""#).unwrap(), [r#"a"b"#]);
        assert!(fields(r#""a"#).is_err());
        assert!(fields(r#""a"b"#).is_err());
    }

    #[test]
    fn keys_are_lower_case_and_values_as_written() {
        assert_eq!(pairs("Type=OCI").unwrap(), [("type".to_owned(), "OCI".to_owned())]);
        assert!(pairs("x").is_err());
    }
}
