//! `--call`: what can be said of a Dockerfile instead of building it.
//!
//! Three questions: [`check`](fn@check) looks for mistakes, [`outline`](fn@outline) tells what a
//! target takes (arguments, secrets, ssh agents), [`targets`](fn@targets) lists the stages. The
//! answers are plain data that serialise to the JSON that other programs read, which is BuildKit's:
//! the order of its members is the order of ours.
//!
//! What can't be known from the text is asked for as in planning, by [`Calling::Needs`]; but files
//! that ADD would download are never asked for.

mod check;
mod outline;
mod targets;
#[cfg(test)]
mod tests;

pub use check::{BuildError, Check, CheckedSource, Finding, check};
pub use outline::{Outline, OutlinedArg, OutlinedMount, outline};
pub use targets::{Stage, Targets, targets};

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use oci::Digest;
use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::plan::{Examination, Scope, examine};
use crate::{
    Dockerfile, Pinned, PinnedCommit, Pins, PlanRequest, Source, SourceRef, Span, without_secrets,
};

/// One step of answering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Calling<T> {
    /// Look these up and ask again. With each, the instruction that names it.
    Needs(BTreeMap<SourceRef, Span>),
    /// The answer.
    Ready(T),
}

/// The lines of an instruction, if any is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location(pub Option<RangeInclusive<usize>>);

impl Location {
    /// The first line, from 1; 0 where no line is meant.
    pub fn first_line(&self) -> usize {
        self.0.as_ref().map_or(0, |lines| *lines.start())
    }
}

impl From<RangeInclusive<usize>> for Location {
    fn from(lines: RangeInclusive<usize>) -> Self {
        Self(Some(lines))
    }
}

impl Serialize for Location {
    /// One range for each line.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Position {
            line: usize,
        }
        #[derive(Serialize)]
        struct Range {
            start: Position,
            end: Position,
        }
        let range = |line| Range { start: Position { line }, end: Position { line } };
        let mut location = serializer.serialize_struct("Location", 1)?;
        match &self.0 {
            Some(lines) => {
                let ranges: Vec<Range> = lines.clone().map(range).collect();
                location.serialize_field("ranges", &ranges)?;
            }
            None => location.skip_field("ranges")?,
        }
        location.end()
    }
}

/// The text of a Dockerfile as JSON holds it.
fn encoded(source: &Source) -> String {
    BASE64.encode(without_secrets(&source.text))
}

/// As [`examine`], for any file that would be downloaded: only its content is not known.
fn examine_without_downloads(
    dockerfile: &Dockerfile,
    request: &PlanRequest,
    pins: &Pins,
    scope: Scope,
) -> Examination {
    let mut pins = pins.clone();
    loop {
        let examination = examine(dockerfile, request, &pins, scope);
        let files: Vec<_> = examination.needs.keys().filter_map(any_file).collect();
        if files.is_empty() {
            return examination;
        }
        pins.extend(files);
    }
}

/// A file to stand for one that would be downloaded.
fn any_file(source: &SourceRef) -> Option<(SourceRef, Pinned)> {
    match source {
        SourceRef::Http { url, .. } => {
            Some((source.clone(), Pinned::File { digest: Digest::of(url.reveal()), modified: 0 }))
        }
        SourceRef::Git { remote, .. } => Some((
            source.clone(),
            Pinned::Commit(PinnedCommit { id: Digest::of(remote.reveal()).hex(), name: None }),
        )),
        SourceRef::GitTime { .. } => Some((source.clone(), Pinned::Time(0))),
        SourceRef::Image { .. } | SourceRef::OciLayout { .. } => None,
    }
}
