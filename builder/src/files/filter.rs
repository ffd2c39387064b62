//! What of a directory is taken: `.dockerignore`, `--exclude` and the pattern of `--parents` at once.
//!
//! All three are the same pattern language. `.dockerignore` counts from the root of the context,
//! the other two from the directory that is copied; `--parents` takes what its pattern matches,
//! which is to leave out everything (`**`) but that.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use frontend::ignore::{self, Ignore};

use super::error::FilesError;
use super::meta::Kind;

/// How an entry is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Whether it is a directory that counts only if something below it does.
    pub(crate) only_for_below: bool,
    /// Whether that is because of the copy's patterns, not of the context's.
    pub(crate) implied: bool,
}

/// What of a directory is taken.
#[derive(Clone)]
pub(crate) struct Filter<'a> {
    patterns: Vec<Patterns<'a>>,
    /// The directory that is copied, from the root of its source.
    top: PathBuf,
}

/// One of the lists of patterns, with what it said of each directory on the way here.
#[derive(Clone)]
struct Patterns<'a> {
    ignore: Cow<'a, Ignore>,
    /// Whether they are the context's, with paths from the root of the source.
    of_context: bool,
    above: Vec<ignore::Verdict>,
    last: ignore::Verdict,
}

impl<'a> Filter<'a> {
    /// Puts the context's patterns together with those of `--exclude` and of `--parents`.
    pub(crate) fn of(
        ignore: Option<&'a Ignore>,
        exclude: &[String],
        include: Option<&str>,
    ) -> Result<Self, FilesError> {
        let patterns = |ignore, of_context| Patterns {
            ignore,
            of_context,
            above: vec![],
            last: ignore::Verdict::default(),
        };
        let of_copy = |lines: &[String]| {
            let bad = |_| FilesError::Pattern { pattern: lines.join(" ") };
            Ok(patterns(Cow::Owned(Ignore::from_patterns(lines).map_err(bad)?), false))
        };
        let mut all = vec![];
        all.extend(ignore.map(|ignore| patterns(Cow::Borrowed(ignore), true)));
        if !exclude.is_empty() {
            all.push(of_copy(exclude)?);
        }
        // No pattern is the whole tree.
        if let Some(pattern) = include.filter(|pattern| !pattern.is_empty()) {
            all.push(of_copy(&["**".to_owned(), format!("!{pattern}")])?);
        }
        Ok(Self { patterns: all, top: PathBuf::new() })
    }

    /// Begins a walk below `top`.
    pub(crate) fn start(&mut self, top: &Path) {
        self.top = top.to_owned();
        for patterns in &mut self.patterns {
            let mut said = ignore::Verdict::default();
            if patterns.of_context {
                let mut path = PathBuf::new();
                for name in top {
                    path.push(name);
                    said = patterns.ignore.judge(&path.to_string_lossy(), said);
                }
            }
            patterns.above = vec![said];
        }
    }

    /// Judges the entry at `path`, from the root of the source, in the directory entered last.
    /// `None`: neither it nor anything below it is taken.
    pub(crate) fn judge(&mut self, path: &Path, kind: Kind) -> Option<Taken> {
        let mut taken = Taken::default();
        for patterns in &mut self.patterns {
            let top = if patterns.of_context { Path::new("") } else { &self.top };
            let path = path.strip_prefix(top).unwrap_or(path).to_string_lossy();
            let above = patterns.above.last().copied().unwrap_or_default();
            let said = patterns.ignore.judge(&path, above);
            patterns.last = said;
            if !said.excluded() {
                continue;
            }
            if kind != Kind::Directory || !patterns.ignore.may_include_below_judged(&path, said) {
                return None;
            }
            taken.only_for_below = true;
            taken.implied |= !patterns.of_context;
        }
        Some(taken)
    }

    /// Goes on in the directory that was judged last.
    pub(crate) fn enter(&mut self) {
        for patterns in &mut self.patterns {
            patterns.above.push(patterns.last);
        }
    }

    /// Goes back to the directory above.
    pub(crate) fn leave(&mut self) {
        for patterns in &mut self.patterns {
            patterns.above.pop();
        }
    }
}
