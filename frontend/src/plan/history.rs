//! `created_by`: an instruction as an image's history shows it.
//!
//! Other tools read these texts, so they follow BuildKit's to the blank, Go's ways of printing
//! lists and durations included.

use std::collections::HashMap;
use std::fmt::Write;

use oci::Healthcheck;

use super::variables::Variables;

/// An ARG with its value, if it has one.
pub(crate) type DeclaredArg = (String, Option<String>);

/// What steps that run or copy end with.
pub(crate) const SUFFIX: &str = " # buildkit";

/// `RUN`: every ARG declared so far with what it stands for in the environment, then the command.
pub(crate) fn run(args: &[String], declared: &[DeclaredArg], env: &Variables) -> String {
    // By map: generated files have thousands of ARGs, and each RUN shows them all.
    let env: HashMap<&str, &str> =
        env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut shown: Vec<(&str, &str)> = vec![];
    for (name, value) in declared {
        let value = env.get(name.as_str()).copied().or(value.as_deref()).unwrap_or_default();
        let place = *places.entry(name).or_insert(shown.len());
        match shown.get_mut(place) {
            Some((_, known)) => *known = value,
            None => shown.push((name, value)),
        }
    }
    let mut text = "RUN ".to_owned();
    if !shown.is_empty() {
        write!(text, "|{} ", shown.len()).expect("a string takes everything");
    }
    for (name, value) in shown {
        text.extend([name, "=", value, " "]);
    }
    text + &args.join(" ") + SUFFIX
}

/// `ENV`, `LABEL`: names and values, unquoted.
pub(crate) fn pairs(keyword: &str, pairs: &[(String, String)]) -> String {
    let words = pairs.iter().map(|(name, value)| format!(" {name}={value}"));
    std::iter::once(keyword.to_owned()).chain(words).collect()
}

/// `ARG`: names, and values where there are some.
pub(crate) fn args(args: &[DeclaredArg]) -> String {
    let words = args.iter().map(|(name, value)| match value {
        Some(value) => format!(" {name}={value}"),
        None => format!(" {name}"),
    });
    std::iter::once("ARG".to_owned()).chain(words).collect()
}

/// `CMD`, `ENTRYPOINT`: a list of quoted strings.
pub(crate) fn command(keyword: &str, args: &[String]) -> String {
    let quoted: Vec<String> = args.iter().map(|arg| quote(arg)).collect();
    format!("{keyword} [{}]", quoted.join(" "))
}

/// `EXPOSE`, `VOLUME`, `SHELL`: a list of bare words.
pub(crate) fn list(keyword: &str, words: &[String]) -> String {
    format!("{keyword} [{}]", words.join(" "))
}

/// `HEALTHCHECK`: all fields, zero or not.
pub(crate) fn healthcheck(check: &Healthcheck) -> String {
    let Healthcheck { test, interval, timeout, start_period, start_interval, retries } = check;
    format!(
        "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{retries}}}",
        test.join(" "),
        duration(*interval),
        duration(*timeout),
        duration(*start_period),
        duration(*start_interval),
    )
}

/// Quotes a text as Go's `%q` does: on one line, whatever is in it.
pub fn quote(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            c if c < ' ' || c == '\x7f' => {
                write!(quoted, "\\x{:02x}", u32::from(c)).expect("a string takes everything");
            }
            c if c.is_control() || (c != ' ' && c.is_whitespace()) => {
                write!(quoted, "\\u{:04x}", u32::from(c)).expect("a string takes everything");
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// Prints nanoseconds as Go prints a duration: `1h30m0s`, `1.5s`, `100ms`.
fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let text = match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{total}ns"),
        1_000..1_000_000 => fraction(total, 1_000) + "µs",
        1_000_000..1_000_000_000 => fraction(total, 1_000_000) + "ms",
        _ => {
            const MINUTE: u64 = 60_000_000_000;
            let (hours, minutes) = (total / (60 * MINUTE), total / MINUTE % 60);
            let seconds = fraction(total % MINUTE, 1_000_000_000) + "s";
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

/// `amount / unit` with as many decimals as it takes.
fn fraction(amount: u64, unit: u64) -> String {
    let (whole, rest) = (amount / unit, amount % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let width = unit.ilog10() as usize;
    let decimals = format!("{rest:0width$}");
    format!("{whole}.{}", decimals.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_prints_them() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (300_000_000_000, "5m0s"),
            (1_500_000_000, "1.5s"),
            (100_000_000, "100ms"),
            (1_500, "1.5µs"),
            (3_600_000_000_000, "1h0m0s"),
            (5_400_500_000_000, "1h30m0.5s"),
        ] {
            assert_eq!(duration(nanoseconds), text);
        }
    }

    #[test]
    fn strings_are_quoted_as_go_quotes_them() {
        assert_eq!(quote("a \"b\" \\ \n\t\x01é"), r#""a \"b\" \\ \n\t\x01é""#);
    }

    #[test]
    fn run_shows_each_arg_once_with_its_value_in_the_environment() {
        let mut env = Variables::default();
        env.set("A", "env wins");
        let declared = [("A", Some("1")), ("B", None), ("A", Some("2"))]
            .map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
        let args = ["/bin/sh", "-c", "make"].map(str::to_owned);
        let shown = run(&args, &declared, &env);
        assert_eq!(shown, "RUN |2 A=env wins B= /bin/sh -c make # buildkit");
        assert_eq!(run(&args, &[], &env), "RUN /bin/sh -c make # buildkit");
    }
}
