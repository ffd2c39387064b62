//! What people see of a step: `[build 2/5] RUN make`.

use crate::ast::Escape;
use crate::expand;

/// Numbers the steps of one stage.
#[derive(Debug)]
pub(crate) struct StepNames {
    /// Platform and stage, each followed by a blank.
    place: String,
    total: usize,
    made: usize,
}

impl StepNames {
    /// Names `total` steps; `platform` and `stage` are shown where there are several of them.
    pub(crate) fn new(platform: Option<String>, stage: Option<String>, total: usize) -> Self {
        let place = [platform, stage].into_iter().flatten().map(|word| word + " ").collect();
        Self { place, total, made: 0 }
    }

    /// Names the next step.
    pub(crate) fn next(&mut self, text: &str) -> String {
        self.made += 1;
        let Self { place, total, made } = self;
        let width = total.to_string().len();
        format!("[{place}{made:width$}/{total}] {text}")
    }
}

/// Writes the first word of an instruction in upper case.
pub(crate) fn upper_keyword(text: &str) -> String {
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    text[..end].to_uppercase() + &text[end..]
}

/// What a heredoc is about: its first line.
pub(crate) fn summary(heredoc: &str) -> String {
    let mut lines = heredoc.trim().lines();
    let first = lines.next().unwrap_or_default();
    format!("{first}{}", if lines.next().is_some() { "..." } else { "" })
}

/// How long a name may become by the values in it, in bytes.
const LONGEST: usize = 16 << 10;

/// Replaces `$name`, `${name}` and `${name:-word}` by their values, for people: quotes stay, and so
/// does everything without a value, or behind more than anybody reads.
pub(crate) fn with_values<'v>(
    text: &str,
    escape: Escape,
    value: impl Fn(&str) -> Option<&'v str>,
) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    let (mut single, mut double) = (false, false);
    while let Some(c) = rest.chars().next() {
        if c == '$'
            && !single
            && shown.len() < LONGEST
            && let Some((name, length)) = variable(rest)
            && value(name).is_some()
            && let Ok(expanded) =
                expand(&rest[..length], escape, &|name| value(name).map(str::to_owned))
        {
            shown.push_str(&expanded.text);
            rest = &rest[length..];
            continue;
        }
        let mut taken = c.len_utf8();
        match c {
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            c if c == escape.0 && !single => {
                taken += rest[taken..].chars().next().map_or(0, char::len_utf8);
            }
            _ => {}
        }
        shown.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    shown
}

/// The variable that `text` begins with, and how many bytes name it.
fn variable(text: &str) -> Option<(&str, usize)> {
    let after = text.strip_prefix('$')?;
    let braces = after.starts_with('{');
    let name = &after[usize::from(braces)..];
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
    let name = &name[..end.unwrap_or(name.len())];
    let length = if braces { closing_brace(after)? + 2 } else { 1 + name.len() };
    (!name.is_empty()).then_some((name, length))
}

/// Where the brace closes that `text` begins with.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    text.char_indices().find_map(|(at, c)| {
        match c {
            '{' => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        (open == 0).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_wide_as_the_total() {
        let mut names = StepNames::new(Some("linux/arm64".to_owned()), Some("a".to_owned()), 10);
        assert_eq!(names.next("RUN x"), "[linux/arm64 a  1/10] RUN x");
        assert_eq!(StepNames::new(None, None, 1).next("RUN x"), "[1/1] RUN x");
    }

    #[test]
    fn only_what_has_a_value_is_replaced() {
        let value = |name: &str| (name == "A").then_some("1");
        let shown = |text: &str| with_values(text, Escape::default(), value);
        assert_eq!(
            shown(r#"RUN "$A" '$A' ${A}b \$A $B "a\b" $ "it's $A""#),
            r#"RUN "1" '$A' 1b \$A $B "a\b" $ "it's 1""#
        );
        assert_eq!(shown("${A:-x} ${A:+${B:-{y\\}}} ${B:-$A} ${A"), "1 {y} ${B:-1} ${A");
    }

    #[test]
    fn a_summary_has_dots_only_where_more_follows() {
        assert_eq!(summary("\nmake\n"), "make");
        assert_eq!(summary("make\ntest\n"), "make...");
        assert_eq!(upper_keyword("run make"), "RUN make");
    }
}
