//! Values such as `type=image,"name=a,b",push=true`: one CSV record of `key=value` fields.

use frontend::csv_fields;

/// Why a value is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PairsError {
    /// It can't be split.
    #[error(transparent)]
    Csv(#[from] frontend::CsvError),
    /// A field is no pair.
    #[error("invalid field '{field}' must be a key=value pair")]
    Field {
        /// The field.
        field: String,
    },
}

/// The fields of a record as pairs; keys in lower case.
pub(crate) fn pairs(record: &str) -> Result<Vec<(String, String)>, PairsError> {
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => Ok((key.to_lowercase(), value.to_owned())),
        None => Err(PairsError::Field { field }),
    };
    csv_fields(record)?.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_lower_case_and_values_as_written() {
        assert_eq!(pairs("Type=OCI").unwrap(), [("type".to_owned(), "OCI".to_owned())]);
        assert!(pairs("x").is_err());
    }
}
