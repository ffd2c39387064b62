//! How numbers, times and error blocks are written.

use std::borrow::Cow;
use std::io::{self, Write};
use std::time::Duration;

use super::lines::Line;
use super::steps::{LAST_BYTES, LAST_LINES, Step, Transfer};
use crate::cli::visible::{for_terminal, visible};

/// Bytes with two decimals in decimal units: `137B`, `1.05MB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}

/// Seconds since the start of a step, always about five characters.
pub(super) fn offset(since_start: Duration) -> String {
    let seconds = since_start.as_secs_f64();
    match seconds {
        ..10.0 => format!("{seconds:.3}"),
        10.0..100.0 => format!("{seconds:.2}"),
        _ => format!("{seconds:.1}"),
    }
}

/// How long something took: `3.2s`.
pub(super) fn duration(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// How far a transfer is: ` 1.05MB / 3.62MB`, or nothing if it moves no bytes.
pub(super) fn amount(transfer: &Transfer) -> String {
    match (transfer.current, transfer.total) {
        (0, 0) => String::new(),
        (current, 0) => format!(" {}", bytes(current)),
        (current, total) => format!(" {} / {}", bytes(current), bytes(total)),
    }
}

/// What is written to: what a RUN printed goes to a terminal without all that would act upon it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    /// A terminal.
    Terminal,
    /// A pipe or a file.
    Pipe,
}

impl Screen {
    /// A line, or a part of one, that a RUN printed.
    pub(super) fn shown(self, text: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::Terminal => Cow::Owned(for_terminal(text)),
            Self::Pipe => Cow::Borrowed(text),
        }
    }
}

/// What failed steps printed last: a block for each that printed something, and where all of it is.
pub(super) fn error_blocks<'a>(
    out: &mut dyn Write,
    failed: impl Iterator<Item = &'a Step>,
    screen: Screen,
) -> io::Result<()> {
    const RULE: &[u8] = b"------\n";
    for step in failed {
        let Some(output) = step.output.as_ref().filter(|output| output.length() > 0) else {
            continue;
        };
        out.write_all(RULE)?;
        writeln!(out, " > {}:", visible(without_script(&step.name)))?;
        for line in step.last_lines(LAST_LINES, LAST_BYTES) {
            write_line(out, step, &line, screen)?;
        }
        out.write_all(RULE)?;
        if let Some(log) = output.whole_log() {
            writeln!(out, "the whole log: {}", visible(&log.to_string_lossy()))?;
        }
    }
    Ok(())
}

/// The name of a step without the words of its command, which the error shows as they were written.
fn without_script(name: &str) -> &str {
    let is_placed = name.starts_with('[');
    let place = name.find("] ").filter(|_| is_placed).map_or(0, |end| end + "] ".len());
    match name[place..].starts_with("RUN ") {
        true => &name[..place + "RUN".len()],
        false => name,
    }
}

fn write_line(out: &mut dyn Write, step: &Step, line: &Line, screen: Screen) -> io::Result<()> {
    if !line.continues {
        write!(out, "{} ", offset(step.since_start(line.at)))?;
    }
    out.write_all(&screen.shown(&line.text))?;
    if line.ends { out.write_all(b"\n") } else { Ok(()) }
}

/// What the build checks found.
pub(super) fn findings(out: &mut dyn Write, findings: &[String]) -> io::Result<()> {
    let count = match findings.len() {
        0 => return Ok(()),
        1 => "1 warning".to_owned(),
        several => format!("{several} warnings"),
    };
    writeln!(out, "\n {count} found (run rbuild --check to see the lines):")?;
    findings.iter().try_for_each(|finding| writeln!(out, " - {}", visible(finding)))?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_counted_and_listed() {
        let text = |findings: &[&str]| {
            let mut out = vec![];
            let findings: Vec<_> = findings.iter().map(|&text| text.to_owned()).collect();
            super::findings(&mut out, &findings).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(&[]), "");
        let one = "\n 1 warning found (run rbuild --check to see the lines):\n - A: b (line 1)\n\n";
        assert_eq!(text(&["A: b (line 1)"]), one);
        assert!(text(&["a", "b"]).starts_with("\n 2 warnings found ("));
    }

    #[test]
    fn a_step_is_called_by_its_place_and_its_kind() {
        assert_eq!(without_script("[a 2/3] RUN make"), "[a 2/3] RUN");
        assert_eq!(without_script("RUN make ] RUN x"), "RUN");
        assert_eq!(without_script("[2/3] COPY a RUN b"), "[2/3] COPY a RUN b");
    }

    #[test]
    fn bytes_have_decimal_units() {
        let shown = [0, 137, 999, 1000, 1_048_576, 3_620_000_000].map(bytes);
        assert_eq!(shown, ["0B", "137B", "999B", "1.00kB", "1.05MB", "3.62GB"]);
    }

    #[test]
    fn offsets_keep_their_width() {
        let shown =
            [0.3121, 9.9994, 12.414, 99.99, 100.04].map(Duration::from_secs_f64).map(offset);
        assert_eq!(shown, ["0.312", "9.999", "12.41", "99.99", "100.0"]);
    }
}
