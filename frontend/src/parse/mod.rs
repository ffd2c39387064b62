//! Text to AST.

use crate::{Diagnostic, Dockerfile, Source};

/// Parses a Dockerfile.
pub fn parse(source: Source) -> Result<Dockerfile, Diagnostic> {
    let _ = source;
    todo!("the parser")
}
