//! Any ignore file judges any path as its patterns do one by one, tried in the slowest way, and a
//! walk that leaves directories out misses nothing. The first line is the path, the rest the file.
#![no_main]

use frontend::ignore::{Ignore, Pattern, Verdict, go_match};
use libfuzzer_sys::fuzz_target;

/// The slowest way takes ages for long paths and for many stars.
const LONGEST: usize = 48;
const MOST_STARS: usize = 6;

fuzz_target!(|input: &str| {
    let (path, text) = input.split_once('\n').unwrap_or((input, ""));
    let elements: Vec<&str> =
        path.split('/').filter(|element| !matches!(*element, "" | "." | "..")).collect();
    let path = elements.join("/");
    let _ = go_match(text, &path);
    let Ok(ignore) = Ignore::parse(text) else { return };
    let stars = |pattern: &Pattern| pattern.text().matches('*').count();
    if path.len() > LONGEST || ignore.patterns().iter().any(|pattern| stars(pattern) > MOST_STARS) {
        return;
    }
    let mut walk = Walk { ignore: &ignore, verdict: Verdict::default(), pruned: false };
    for length in 1..=elements.len() {
        walk.enter(&elements[..length].join("/"));
    }
});

/// A walk from the root to a path.
struct Walk<'i> {
    ignore: &'i Ignore,
    verdict: Verdict,
    /// Whether a directory was left out.
    pruned: bool,
}

impl Walk<'_> {
    fn enter(&mut self, path: &str) {
        self.verdict = self.ignore.judge(path, self.verdict);
        let excluded = self.verdict.excluded();
        assert_eq!(excluded, self.ignore.excludes(path), "{path} in the walk and alone");
        assert_eq!(excluded, excluded_slowly(self.ignore.patterns(), path), "{path} slowly");
        assert!(excluded || !self.pruned, "{path} was left out");
        let open = self.ignore.may_include_below_judged(path, self.verdict);
        assert_eq!(open, self.ignore.may_include_below(path), "below {path}");
        self.pruned |= excluded && !open;
    }
}

/// The last pattern that matches the path or a directory above decides.
fn excluded_slowly(patterns: &[Pattern], path: &str) -> bool {
    let ends: Vec<usize> =
        path.match_indices('/').map(|(end, _)| end).chain([path.len()]).collect();
    patterns.iter().fold(false, |excluded, pattern| {
        let text = pattern.text().strip_prefix('!').unwrap_or(pattern.text());
        match ends.iter().any(|&end| matches_slowly(text, &path[..end])) {
            true => !pattern.negated(),
            false => excluded,
        }
    })
}

fn matches_slowly(pattern: &str, path: &str) -> bool {
    let plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
    match (pattern.strip_prefix("**"), pattern.strip_suffix("**")) {
        // Not only whole elements, as the glob would have it.
        (Some(suffix), _) if plain(suffix) => {
            path.ends_with(suffix)
                || format!("/{path}").ends_with(suffix) && suffix.len() > path.len()
        }
        (_, Some(prefix)) if plain(prefix) => path.starts_with(prefix),
        _ => glob(pattern, path),
    }
}

/// Tries every length for every star.
fn glob(pattern: &str, path: &str) -> bool {
    let mut chars = pattern.chars();
    let Some(first) = chars.next() else { return path.is_empty() };
    let rest = chars.as_str();
    match first {
        '*' => match rest.strip_prefix('*') {
            Some(rest) => {
                let rest = rest.strip_prefix('/').unwrap_or(rest);
                let line = path.split('\n').next().unwrap_or_default();
                match rest.is_empty() {
                    true => line.len() == path.len(),
                    false => {
                        let ends = line.match_indices('/').map(|(slash, _)| slash + 1);
                        ends.chain([0]).any(|end| glob(rest, &path[end..]))
                    }
                }
            }
            None => {
                let element = path.split('/').next().unwrap_or_default();
                let ends = element.char_indices().map(|(end, _)| end).chain([element.len()]);
                ends.into_iter().any(|end| glob(rest, &path[end..]))
            }
        },
        _ => {
            let Some(c) = path.chars().next() else { return false };
            let behind = &path[c.len_utf8()..];
            match first {
                '?' => c != '/' && glob(rest, behind),
                '[' => class(rest, c).is_some_and(|rest| glob(rest, behind)),
                '\\' => rest.starts_with(c) && glob(&rest[c.len_utf8()..], behind),
                first => first == c && glob(rest, behind),
            }
        }
    }
}

/// Returns what follows the class, if `c` is in it.
fn class(pattern: &str, c: char) -> Option<&str> {
    let (negated, pattern) = match pattern.strip_prefix('^') {
        Some(pattern) => (true, pattern),
        None => (false, pattern),
    };
    let mut chars = pattern.chars();
    let one = |chars: &mut std::str::Chars<'_>| match chars.next()? {
        '\\' => chars.next(),
        c => Some(c),
    };
    let mut found = false;
    while !chars.as_str().starts_with(']') {
        let low = one(&mut chars)?;
        let high = match chars.as_str().strip_prefix('-') {
            Some(behind) => {
                chars = behind.chars();
                one(&mut chars)?
            }
            None => low,
        };
        found |= (low..=high).contains(&c);
    }
    (found != negated).then_some(&chars.as_str()[1..])
}
