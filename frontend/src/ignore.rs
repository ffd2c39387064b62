//! `.dockerignore` files and the pattern language that they share with `--exclude` and `--parents`.
//!
//! Patterns are anchored at the root (unlike those of `.gitignore`) and a pattern that matches a
//! directory holds for all that is below. The last pattern that matches decides: this is why a
//! [`Verdict`] is no more than the place of that pattern, and why a walk that hands the verdict of
//! each directory to its entries need only try the patterns behind it.
//!
//! ```
//! use frontend::ignore::Ignore;
//!
//! let ignore = Ignore::parse("*.log\n!keep.log\n")?;
//! assert!(ignore.excludes("build.log"));
//! assert!(!ignore.excludes("keep.log"));
//! # Ok::<(), frontend::ignore::IgnoreError>(())
//! ```

#[cfg(test)]
mod tests;

use crate::glob::{self, Token};

/// The patterns of an ignore file, ready to match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

/// Why an ignore file, or a list of patterns, is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IgnoreError(pub String);

/// One pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    line: usize,
    negated: bool,
    matcher: Matcher,
}

/// How a pattern is compared. The kinds are not only faster than a glob: `**x` matches any path
/// that ends so, also in the middle of a name, while `**x*` begins at a `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Matcher {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Glob(Vec<Token>),
}

/// What the patterns say about a path and, where it is a directory, about all below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// One more than the place of the last pattern that matches; 0 if none does.
    decided_by: usize,
    excluded: bool,
}

impl Verdict {
    /// Whether the path is excluded.
    pub fn excluded(self) -> bool {
        self.excluded
    }
}

impl Pattern {
    /// The pattern, cleaned, with its `!`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The line (from 1) of the ignore file, or the place in the list of patterns.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Whether it brings back what an earlier pattern excludes: `!`.
    pub fn negated(&self) -> bool {
        self.negated
    }

    fn new(text: &str, line: usize) -> Result<Self, IgnoreError> {
        let (pattern, negated) = match text.strip_prefix('!') {
            Some("") => return Err(IgnoreError("illegal exclusion pattern: \"!\"".to_owned())),
            Some(pattern) => (pattern, true),
            None => (text, false),
        };
        let matcher =
            Matcher::new(pattern).map_err(|glob::BadPattern| IgnoreError(bad_pattern(pattern)))?;
        Ok(Self { text: text.to_owned(), line, negated, matcher })
    }

    fn matches(&self, path: &str) -> bool {
        match &self.matcher {
            Matcher::Exact(exact) => path == exact,
            Matcher::Prefix(prefix) => path.starts_with(prefix),
            Matcher::Suffix(suffix) => {
                path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path)
            }
            Matcher::Glob(tokens) => glob::matches(tokens, path),
        }
    }

    fn matches_path_or_parent(&self, path: &str) -> bool {
        self.matches(path) || path.match_indices('/').any(|(end, _)| self.matches(&path[..end]))
    }

    /// Whether it could match anything below the directory `dir/`.
    fn could_match_below(&self, dir: &str) -> bool {
        match &self.matcher {
            Matcher::Exact(exact) => exact.starts_with(dir),
            Matcher::Prefix(prefix) => prefix.starts_with(dir) || dir.starts_with(prefix),
            Matcher::Suffix(_) => true,
            Matcher::Glob(tokens) => glob::could_begin_with(tokens, dir),
        }
    }
}

fn bad_pattern(pattern: &str) -> String {
    format!("syntax error in pattern `{pattern}`")
}

impl Matcher {
    fn new(pattern: &str) -> Result<Self, glob::BadPattern> {
        let tokens = glob::tokens(pattern, true)?;
        let plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
        if plain(pattern) {
            return Ok(Self::Exact(pattern.to_owned()));
        }
        match (pattern.strip_suffix("**"), pattern.strip_prefix("**")) {
            (_, Some(suffix)) if plain(suffix) => Ok(Self::Suffix(suffix.to_owned())),
            (Some(prefix), _) if plain(prefix) => Ok(Self::Prefix(prefix.to_owned())),
            _ => Ok(Self::Glob(tokens)),
        }
    }
}

impl Ignore {
    /// Reads an ignore file.
    pub fn parse(text: &str) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let patterns = text
            .split('\n')
            .enumerate()
            .filter_map(|(index, line)| Some((clean_line(line)?, index + 1)))
            .map(|(pattern, line)| {
                let wrong = |error| IgnoreError(format!("line {line}: {error}"));
                Pattern::new(&pattern, line).map_err(wrong)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { patterns })
    }

    /// Reads patterns that stand alone, those of `--exclude` for instance.
    pub fn from_patterns(patterns: &[String]) -> Result<Self, IgnoreError> {
        let patterns = patterns
            .iter()
            .enumerate()
            .map(|(index, pattern)| (pattern.trim(), index + 1))
            .filter(|(pattern, _)| !pattern.is_empty())
            .map(|(pattern, place)| Pattern::new(&clean_path(pattern), place))
            .collect::<Result<_, _>>()?;
        Ok(Self { patterns })
    }

    /// The patterns, in order.
    pub fn patterns(&self) -> &[Pattern] {
        &self.patterns
    }

    /// Whether there is no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether some pattern brings files back: `!`.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(Pattern::negated)
    }

    /// Whether `path` (relative, elements separated by `/`) is excluded.
    pub fn excludes(&self, path: &str) -> bool {
        self.hidden_by(path).is_some()
    }

    /// Returns the pattern that excludes `path`, the last that matches it or a directory above.
    pub fn hidden_by(&self, path: &str) -> Option<&Pattern> {
        let decisive = self.patterns.iter().rev().find(|p| p.matches_path_or_parent(path))?;
        (!decisive.negated).then_some(decisive)
    }

    /// Judges `path` with what is known about its directory; [`Verdict::default`] for the root's.
    pub fn judge(&self, path: &str, directory: Verdict) -> Verdict {
        let later = self.patterns.iter().enumerate().skip(directory.decided_by);
        match later.rev().find(|(_, pattern)| pattern.matches(path)) {
            Some((place, pattern)) => Verdict { decided_by: place + 1, excluded: !pattern.negated },
            None => directory,
        }
    }

    /// Whether a `!` pattern could bring back something below the excluded directory `dir`.
    pub fn may_include_below(&self, dir: &str) -> bool {
        let decisive = self.patterns.iter().rposition(|p| p.matches_path_or_parent(dir));
        self.exception_below(dir, decisive.map_or(0, |place| place + 1))
    }

    /// As [`Ignore::may_include_below`], with the verdict on `dir` that a walk has already.
    pub fn may_include_below_judged(&self, dir: &str, verdict: Verdict) -> bool {
        self.exception_below(dir, verdict.decided_by)
    }

    fn exception_below(&self, dir: &str, from: usize) -> bool {
        let later = &self.patterns[from..];
        let below = format!("{dir}/");
        later.iter().any(|pattern| pattern.negated && pattern.could_match_below(&below))
    }
}

/// Matches `name` with a pattern of COPY and ADD, as Go's `filepath.Match`: `*` and `?` never
/// match `/`, `[a-c]` and `[^a-c]` one character, `\` takes a special meaning away.
pub fn go_match(pattern: &str, name: &str) -> Result<bool, IgnoreError> {
    let tokens = glob::tokens(pattern, false)
        .map_err(|glob::BadPattern| IgnoreError(bad_pattern(pattern)))?;
    Ok(glob::matches(&tokens, name))
}

/// Returns the pattern that a line holds, with its `!`.
fn clean_line(line: &str) -> Option<String> {
    if line.starts_with('#') {
        return None;
    }
    let line = line.trim();
    let (mark, pattern) = match line.strip_prefix('!') {
        Some(pattern) => ("!", pattern.trim()),
        None => ("", line),
    };
    if line.is_empty() {
        return None;
    }
    if pattern.is_empty() {
        return Some(mark.to_owned());
    }
    let pattern = clean_path(pattern);
    let relative = pattern.strip_prefix('/').filter(|relative| !relative.is_empty());
    Some(format!("{mark}{}", relative.unwrap_or(&pattern)))
}

/// Removes what says nothing in a path: doubled and trailing slashes, `.`, and `x/..`.
fn clean_path(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut elements: Vec<&str> = Vec::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." if elements.last().is_some_and(|last| *last != "..") => {
                elements.pop();
            }
            ".." if rooted => {}
            other => elements.push(other),
        }
    }
    let joined = elements.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}
