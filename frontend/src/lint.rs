//! Build checks: what a Dockerfile should not do.

use crate::Span;

/// What a build check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The check, such as `StageNameCasing`.
    pub rule: &'static str,
    /// What it found.
    pub message: String,
    /// Where.
    pub span: Span,
}
