//! Values such as `type=image,"name=a,b",push=true`: one CSV record of `key=value` fields.

use std::collections::BTreeSet;

use frontend::csv_fields;

/// Why a value is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PairsError {
    /// It can't be split.
    #[error(transparent)]
    Csv(#[from] frontend::CsvError),
    /// Only one value could count.
    #[error("`{0}` is given twice")]
    Twice(String),
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
    let pairs: Vec<_> = csv_fields(record)?.into_iter().map(pair).collect::<Result<_, _>>()?;
    let mut seen = BTreeSet::new();
    match pairs.iter().find(|(key, _)| !seen.insert(key)) {
        None => Ok(pairs),
        Some((key, _)) => Err(PairsError::Twice(key.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_lower_case_and_values_as_written() {
        assert_eq!(pairs("Type=OCI").unwrap(), [("type".to_owned(), "OCI".to_owned())]);
        assert!(pairs("x").is_err());
        assert!(pairs("dest=a,DEST=b").is_err_and(|error| error.to_string().contains("twice")));
    }
}
