//! Durations as Go writes them: `1m30s`, `1.5h`, `0`.

/// Reads a duration in nanoseconds.
pub(super) fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if unsigned == "0" {
        return Ok(0);
    }
    if unsigned.is_empty() {
        return Err(invalid());
    }
    let mut total: i64 = 0;
    let mut rest = unsigned;
    while !rest.is_empty() {
        let (number, behind) = split_where(rest, |c| !c.is_ascii_digit() && c != '.');
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let (unit, behind) = split_where(behind, |c| c.is_ascii_digit() || c == '.');
        let nanoseconds = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        total = scaled(whole, nanoseconds)
            .and_then(|whole| whole.checked_add(fraction_of(fraction, nanoseconds)))
            .and_then(|part| total.checked_add(part))
            .ok_or_else(invalid)?;
        rest = behind;
    }
    Ok(if negative { -total } else { total })
}

fn split_where(text: &str, end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(end).unwrap_or(text.len()))
}

fn scaled(whole: &str, unit: i64) -> Option<i64> {
    if whole.is_empty() {
        return Some(0);
    }
    whole.parse::<i64>().ok()?.checked_mul(unit)
}

/// Digits that are too small to count are left out.
fn fraction_of(digits: &str, unit: i64) -> i64 {
    let scale = 10_i64.pow(digits.len().min(12) as u32);
    let value: i64 = digits.get(..digits.len().min(12)).unwrap_or("").parse().unwrap_or(0);
    (i128::from(value) * i128::from(unit) / i128::from(scale)) as i64
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_what_go_reads() {
        let rows = [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("100µs", 100_000),
            ("-1ms", -1_000_000),
            ("0.100000000000000000000s", 100_000_000),
        ];
        for (text, expected) in rows {
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong_in_the_words_of_go() {
        let rows = [
            ("", "time: invalid duration \"\""),
            ("s", "time: invalid duration \"s\""),
            ("1.2.3s", "time: invalid duration \"1.2.3s\""),
            ("9999999999h", "time: invalid duration \"9999999999h\""),
            ("5", "time: missing unit in duration \"5\""),
            ("5x", "time: unknown unit \"x\" in duration \"5x\""),
        ];
        for (text, expected) in rows {
            assert_eq!(parse(text), Err(expected.to_owned()));
        }
    }
}
