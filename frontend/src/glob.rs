//! Path patterns: Go's `filepath.Match`, and the same with `**`.
//!
//! A pattern becomes tokens; matching keeps the set of tokens that could be next, so that its time
//! is bounded by pattern times path and the same walk answers whether anything below a directory
//! could still match.

/// One piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A character.
    Char(char),
    /// `?`: any character but `/`.
    Any,
    /// `*`: any characters but `/`.
    Star,
    /// `[a-c]`.
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// `**` at the end: any characters but a newline.
    Anything,
    /// `**` elsewhere: nothing, or any characters up to a `/`.
    Elements,
    /// Stands behind each [`Token::Elements`]: inside of what that one takes.
    InsideElements,
}

/// A pattern that no path can match: an unfinished class or escape, or an empty class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadPattern;

/// Reads a pattern. `double_star` gives `**` its meaning; without, it is two `*`.
pub(crate) fn tokens(pattern: &str, double_star: bool) -> Result<Vec<Token>, BadPattern> {
    let mut tokens = Vec::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '*' if double_star && rest.starts_with('*') => {
                rest = &rest[1..];
                rest = rest.strip_prefix('/').unwrap_or(rest);
                if rest.is_empty() {
                    tokens.push(Token::Anything);
                } else {
                    tokens.extend([Token::Elements, Token::InsideElements]);
                }
            }
            '*' => tokens.push(Token::Star),
            '?' => tokens.push(Token::Any),
            '[' => tokens.push(class(&mut rest)?),
            '\\' => tokens.push(Token::Char(next(&mut rest)?)),
            c => tokens.push(Token::Char(c)),
        }
    }
    Ok(tokens)
}

/// Reads a class behind its `[`.
fn class(rest: &mut &str) -> Result<Token, BadPattern> {
    let negated = rest.starts_with('^');
    if negated {
        *rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    while ranges.is_empty() || !rest.starts_with(']') {
        let low = class_character(rest)?;
        let high = match rest.strip_prefix('-') {
            Some(behind) => {
                *rest = behind;
                class_character(rest)?
            }
            None => low,
        };
        ranges.push((low, high));
    }
    *rest = &rest[1..];
    Ok(Token::Class { negated, ranges })
}

fn class_character(rest: &mut &str) -> Result<char, BadPattern> {
    match next(rest)? {
        '-' | ']' => Err(BadPattern),
        '\\' => next(rest),
        c => Ok(c),
    }
}

fn next(rest: &mut &str) -> Result<char, BadPattern> {
    let c = rest.chars().next().ok_or(BadPattern)?;
    *rest = &rest[c.len_utf8()..];
    Ok(c)
}

/// Whether `tokens` match all of `path`.
pub(crate) fn matches(tokens: &[Token], path: &str) -> bool {
    if refused_at_an_end(tokens, path) {
        return false;
    }
    walk(tokens, path)[tokens.len()]
}

/// Whether `tokens` match some path that begins with `prefix`.
pub(crate) fn could_begin_with(tokens: &[Token], prefix: &str) -> bool {
    // The last place alone is a match that has ended: nothing can follow.
    walk(tokens, prefix).contains(&true)
}

/// Most patterns begin or end with characters that most paths don't have there.
fn refused_at_an_end(tokens: &[Token], path: &str) -> bool {
    let differs = |(token, c): (&Token, Option<char>)| match token {
        Token::Char(wanted) => Some(c != Some(*wanted)),
        Token::Any | Token::Star | Token::Class { .. } => None,
        Token::Anything | Token::Elements | Token::InsideElements => None,
    };
    let forward = tokens.iter().zip(path.chars().map(Some).chain(std::iter::repeat(None)));
    let backward =
        tokens.iter().rev().zip(path.chars().rev().map(Some).chain(std::iter::repeat(None)));
    forward.map_while(differs).any(|differs| differs)
        || backward.map_while(differs).any(|differs| differs)
}

/// Returns the places in `tokens` that a walk over `path` can have reached.
fn walk(tokens: &[Token], path: &str) -> Vec<bool> {
    let mut reached = vec![false; tokens.len() + 1];
    reached[0] = true;
    pass_optional(tokens, &mut reached);
    let mut following = vec![false; tokens.len() + 1];
    for c in path.chars() {
        following.fill(false);
        for (place, token) in tokens.iter().enumerate().filter(|(place, _)| reached[*place]) {
            match token {
                Token::Char(wanted) => following[place + 1] |= c == *wanted,
                Token::Any => following[place + 1] |= c != '/',
                Token::Star => following[place] |= c != '/',
                Token::Class { negated, ranges } => {
                    let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
                    following[place + 1] |= inside != *negated;
                }
                Token::Anything | Token::InsideElements => {
                    following[place] |= c != '\n';
                    following[place + 1] |= c == '/' && *token == Token::InsideElements;
                }
                Token::Elements => {}
            }
        }
        pass_optional(tokens, &mut following);
        std::mem::swap(&mut reached, &mut following);
    }
    reached
}

/// Adds the places that are reached without a character.
fn pass_optional(tokens: &[Token], reached: &mut [bool]) {
    for (place, token) in tokens.iter().enumerate() {
        if !reached[place] {
            continue;
        }
        match token {
            Token::Star | Token::Anything => reached[place + 1] = true,
            Token::Elements => {
                reached[place + 1] = true;
                reached[place + 2] = true;
            }
            Token::Char(_) | Token::Any | Token::Class { .. } | Token::InsideElements => {}
        }
    }
}
