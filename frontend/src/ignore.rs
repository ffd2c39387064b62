//! `.dockerignore` files and the pattern language that they share with `--exclude` and `--parents`.

/// The patterns of an ignore file, ready to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {}

/// Why an ignore file, or a list of patterns, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IgnoreError(pub String);
