//! Tables of expected results that may lie beside the repository.

use serde::de::DeserializeOwned;

/// The text of a file of the tables; `None` where they are not there.
pub(crate) fn test_text(file: &str) -> Option<String> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/conformance/data");
    std::fs::read_to_string(format!("{directory}/{file}")).ok()
}

/// One table; `None` where they are not there.
pub(crate) fn test_data<T: DeserializeOwned>(file: &str) -> Option<T> {
    test_text(file).map(|text| serde_json::from_str(&text).expect("a table has one shape"))
}
