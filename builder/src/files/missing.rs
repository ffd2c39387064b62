//! The error for a source that is not there: what was asked for, what is there instead, and which
//! line of `.dockerignore` hides it.

use std::fmt;
use std::path::{Path, PathBuf};

use frontend::did_you_mean;

use super::meta;
use super::root::{End, READ_DIRECTORY};
use super::select::{Source, clean};

/// A source that is not there.
#[derive(Debug)]
pub struct Missing {
    /// As it was written.
    asked: String,
    /// The path that does not exist.
    path: PathBuf,
    /// What the source is called.
    label: String,
    /// The line of `.dockerignore` that hides it.
    hidden_by: Option<(usize, String)>,
    /// The innermost directory that does exist, and some of the names in it.
    nearest: Option<(PathBuf, Vec<String>)>,
}

/// How many names an error shows.
const SHOWN: usize = 8;

impl Missing {
    pub(crate) fn explain(source: &Source<'_>, asked: &str, path: &Path) -> Self {
        let hidden_by = source
            .ignore
            .and_then(|ignore| ignore.hidden_by(&path.to_string_lossy()))
            .map(|pattern| (pattern.line(), pattern.text().to_owned()));
        Self {
            asked: asked.to_owned(),
            path: Path::new("/").join(path),
            label: source.label.to_owned(),
            nearest: nearest(source, path),
            hidden_by,
        }
    }

    /// The same if the instruction asked for `word`, which may lead out of the context.
    pub(crate) fn help_outside(&self, word: &str) -> Option<String> {
        let is_it = Path::new("/").join(clean(word)) == self.path;
        let mut depth = 0;
        let leaves = word.split('/').any(|name| {
            depth += match name {
                "" | "." => 0,
                ".." => -1,
                _ => 1,
            };
            depth < 0
        });
        (is_it && leaves).then(|| {
            format!(
                "`{word}` is outside of {}, and COPY takes nothing from there: build with a directory \
                 above it as the context and `-f`, or name the other one with `--build-context \
                 NAME=DIRECTORY` and write `COPY --from=NAME`",
                self.label
            )
        })
    }

    /// What to do about it.
    pub(crate) fn help(&self) -> Option<String> {
        if let Some((line, text)) = &self.hidden_by {
            return Some(format!("`{text}` in .dockerignore:{line} hides it"));
        }
        let (dir, names) = self.nearest.as_ref()?;
        let dir = Path::new("/").join(dir);
        let wanted = self.path.strip_prefix(&dir).ok()?.iter().next()?.to_string_lossy();
        let like = did_you_mean(&wanted, names.iter().map(String::as_str));
        let shown = names.iter().take(SHOWN).map(|name| format!("`{name}`"));
        let shown = shown.collect::<Vec<_>>().join(", ");
        let more = if names.len() > SHOWN { ", …" } else { "" };
        Some(match like {
            Some(like) => format!("did you mean `{}`?", dir.join(like).display()),
            None if names.is_empty() => format!("`{}` is empty", dir.display()),
            None => format!("in `{}` there is {shown}{more}", dir.display()),
        })
    }
}

/// The innermost directory on the way to `path` that exists, and the names in it that can be seen.
fn nearest(source: &Source<'_>, path: &Path) -> Option<(PathBuf, Vec<String>)> {
    let mut above = path;
    let place = loop {
        above = above.parent()?;
        let place = source.root.resolve(above, None).ok()?;
        if matches!(place.end, End::Directory) {
            break place;
        }
    };
    let real = place.path();
    let dir = source.root.open_found(&real, READ_DIRECTORY).ok()?;
    let names = meta::names(&dir).ok()?;
    let visible = |name: &std::ffi::OsString| {
        let path = real.join(name);
        !source.ignore.is_some_and(|ignore| ignore.excludes(&path.to_string_lossy()))
    };
    let names = names.iter().filter(|name| visible(name));
    Some((above.to_owned(), names.map(|name| name.to_string_lossy().into_owned()).collect()))
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\": not found in {}", self.path.display(), self.label)?;
        let asked = Path::new("/").join(self.asked.trim_start_matches("./").trim_end_matches('/'));
        if asked != self.path {
            write!(f, " (from `{}`)", self.asked)?;
        }
        Ok(())
    }
}
