//! Running steps at the bottom of a terminal, finished ones above.
//!
//! ```text
//!  => CACHED [1/3] FROM docker.io/library/alpine                       0.0s
//! [+] Building 3.2s (4/7)
//!  => [2/3] RUN make                                                   3.1s
//!  => => # compiling main.c
//!  => exporting to image                                               0.4s
//!  => => sha256:0a1b 12.00MB / 40.00MB 8.11MB/s                        1.5s
//! ```
//!
//! What is below the finished steps is one frame, made by a pure function of what is known, the
//! time and the size of the terminal, and never higher than that. `indicatif` paints it: it erases
//! the last frame and puts finished lines above.

use std::io::{self, Stderr, Write};
use std::time::{Duration, SystemTime};

use console::{Style, Term};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::steps::{State, Step, Steps, Transfer, between};
use super::text::{self, Screen};
use super::{Ending, Renderer, TICK};
use crate::cli::visible::{for_terminal, visible, visible_lines};
use crate::event::{Event, EventKind, StepId};

/// Lines of output shown for each running step, where there is room.
const OUTPUT_LINES: usize = 6;

/// Of its output, how much is looked at for them.
const OUTPUT_BYTES: u64 = 16 << 10;

/// Paints frames.
pub(super) struct Tty {
    out: Stderr,
    bar: ProgressBar,
    /// What belongs above the frame and is not on the screen yet.
    above: Vec<Above>,
    painted: Option<SystemTime>,
}

/// Something that stays on the screen.
enum Above {
    /// The line of a step that has ended.
    Ended(StepId),
    Text(String),
}

impl Above {
    fn text(self, steps: &Steps, canvas: Canvas) -> Option<String> {
        match self {
            Self::Ended(id) => ended_line(steps.get(id)?, canvas),
            Self::Text(text) => Some(text),
        }
    }
}

/// What there is to draw on.
#[derive(Clone, Copy)]
struct Canvas {
    rows: usize,
    columns: usize,
    colours: bool,
}

impl Tty {
    pub(super) fn new(out: Stderr) -> Self {
        let target = ProgressDrawTarget::term(Term::stderr(), 20);
        let bar = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("{msg}").expect("the template is valid");
        bar.set_style(style);
        Self { out, bar, above: vec![], painted: None }
    }

    fn canvas() -> Canvas {
        let (rows, columns) = Term::stderr().size();
        let colours = console::colors_enabled_stderr();
        Canvas { rows: rows.into(), columns: columns.into(), colours }
    }

    /// Takes the cursor to the beginning of its line. Beyond the end of a line, where `indicatif`
    /// leaves it, the `^C` that a terminal echoes would begin another one, and the first line of the
    /// frame would stay for ever.
    fn rest_cursor(&mut self) -> io::Result<()> {
        self.out.write_all(b"\r")?;
        self.out.flush()
    }

    /// Puts what stays above the frame. There must be a frame: `indicatif` ends the last line of what
    /// it prints only if something follows, and the next frame would take that line's place.
    fn scroll(&mut self, steps: &Steps, canvas: Canvas) {
        let above = std::mem::take(&mut self.above).into_iter();
        let lines: Vec<_> = above.filter_map(|above| above.text(steps, canvas)).collect();
        if !lines.is_empty() {
            self.bar.println(lines.join("\n"));
        }
    }
}

impl Renderer for Tty {
    fn event(&mut self, steps: &Steps, event: &Event) -> io::Result<()> {
        match &event.kind {
            EventKind::Cached | EventKind::Done | EventKind::Stopped | EventKind::Failed(_) => {
                self.above.push(Above::Ended(event.step));
            }
            EventKind::Reason(text) => {
                let name = steps.get(event.step).map_or("", |step| step.name.as_str());
                let (name, text) = (visible(name), visible_lines(text));
                self.above.push(Above::Text(format!(" => {name}\n      runs: {text}")));
            }
            EventKind::Warning(text) => {
                let style = style(Self::canvas().colours).yellow();
                let line = style.apply_to(format!(" => WARN: {}", visible_lines(text)));
                self.above.push(Above::Text(line.to_string()));
            }
            EventKind::Planned { .. }
            | EventKind::Started
            | EventKind::Progress { .. }
            | EventKind::Finding(_)
            | EventKind::Output(_) => {}
        }
        Ok(())
    }

    fn tick(&mut self, steps: &Steps, now: SystemTime) -> io::Result<()> {
        let begun = *self.painted.get_or_insert(now);
        if between(begun, now) < TICK {
            return Ok(());
        }
        self.painted = Some(now);
        let canvas = Self::canvas();
        self.bar.set_message(frame(steps, now, canvas).join("\n"));
        self.scroll(steps, canvas);
        self.rest_cursor()
    }

    fn end(&mut self, steps: &Steps, ending: Ending) -> io::Result<()> {
        let canvas = Self::canvas();
        self.bar.finish_and_clear();
        if steps.len() == 0 {
            return Ok(());
        }
        for above in std::mem::take(&mut self.above) {
            if let Some(text) = above.text(steps, canvas) {
                writeln!(self.out, "{text}")?;
            }
        }
        let end = steps.latest.unwrap_or(SystemTime::UNIX_EPOCH);
        writeln!(self.out, "{}", last_title(steps, end, ending))?;
        let (out, screen) = (&mut self.out, Screen::Terminal);
        text::error_blocks(out, steps.failed(), screen)?;
        text::findings(&mut self.out, steps.findings())?;
        self.out.flush()
    }
}

/// All that moves: at most as many lines as the terminal has rows, without the last one.
fn frame(steps: &Steps, now: SystemTime, canvas: Canvas) -> Vec<String> {
    let room = canvas.rows.saturating_sub(1).max(1);
    let running: Vec<_> = steps.running().collect();
    let fits = running.len() < room;
    let shown = if fits { running.len() } else { room.saturating_sub(2) };
    let mut rest = room.saturating_sub(1 + shown + usize::from(!fits));
    let mut lines = vec![cut(&title(steps, now), canvas)];
    for (index, step) in running[..shown].iter().enumerate() {
        lines.push(timed(&format!(" => {}", visible(&step.name)), step.ran_until(now), canvas));
        // Each gets its share of what those before it have left.
        let share = rest / (shown - index);
        let details = details(step, now, share, canvas);
        rest -= details.len();
        lines.extend(details);
    }
    if shown < running.len() && lines.len() < room {
        lines.push(cut(&format!(" => {} more steps are running", running.len() - shown), canvas));
    }
    lines
}

/// The transfers of a running step and the last lines of its output.
fn details(step: &Step, now: SystemTime, room: usize, canvas: Canvas) -> Vec<String> {
    let moving = step.transfers.iter().filter(|transfer| transfer.ended.is_none());
    let mut lines: Vec<_> =
        moving.take(room).map(|transfer| transfer_line(transfer, now, canvas)).collect();
    let room = (room - lines.len()).min(OUTPUT_LINES);
    let dim = style(canvas.colours).dim();
    lines.extend(step.last_lines(room, OUTPUT_BYTES).iter().map(|line| {
        let line = cut(&format!(" => => # {}", printable(&line.text, canvas)), canvas);
        dim.apply_to(line).to_string()
    }));
    lines
}

fn transfer_line(transfer: &Transfer, now: SystemTime, canvas: Canvas) -> String {
    let took = transfer.took(now);
    let rate = transfer.current as f64 / took.as_secs_f64();
    let rate = match transfer.current > 0 && rate.is_finite() {
        // A rate is never near the end of u64.
        true => format!(" {}/s", text::bytes(rate as u64)),
        false => String::new(),
    };
    let id = with_short_digests(&visible(&transfer.id));
    let (percent, amount) = (percent(transfer), text::amount(transfer));
    let forms = [
        format!(" => => {id}{percent}{amount}{rate}"),
        format!(" => => {id}{percent}{amount}"),
        format!(" => => {id}{percent}"),
    ];
    // What says less goes first where there is little room.
    let room = canvas.columns.saturating_sub(text::duration(took).len() + 2);
    let fits = |form: &&String| console::measure_text_width(form) <= room;
    timed(forms.iter().find(fits).unwrap_or(&forms[2]), took, canvas)
}

/// How much of it is there, if it is known how much there will be.
fn percent(transfer: &Transfer) -> String {
    let done = u128::from(transfer.current) * 100;
    match done.checked_div(transfer.total.into()) {
        Some(percent) => format!(" {}%", percent.min(100)),
        None => String::new(),
    }
}

/// Whole digests would leave no room for numbers.
fn with_short_digests(id: &str) -> String {
    let mark = "sha256:";
    let mut parts = id.split(mark);
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(part.len());
        let (digits, rest) = part.split_at(digits);
        text.extend([mark, digits.get(..12).unwrap_or(digits), rest]);
    }
    text
}

/// The line that stays of a step. One that never started and was stopped leaves none.
fn ended_line(step: &Step, canvas: Canvas) -> Option<String> {
    let style = style(canvas.colours);
    let (word, style) = match &step.state {
        State::Waiting | State::Running => return None,
        State::Stopped if step.started.is_none() => return None,
        State::Cached => ("CACHED ", style.blue()),
        State::Done => ("", style.blue()),
        State::Stopped => ("CANCELED ", style.yellow()),
        State::Failed(_) => ("ERROR ", style.red()),
    };
    let took = step.ended.map_or(Duration::ZERO, |ended| step.ran_until(ended));
    let line = timed(&format!(" => {word}{}", visible(&step.name)), took, canvas);
    Some(style.apply_to(line).to_string())
}

fn title(steps: &Steps, now: SystemTime) -> String {
    let took = steps.begun.map_or(Duration::ZERO, |begun| between(begun, now));
    format!("[+] Building {} ({}/{})", text::duration(took), steps.ended, steps.len())
}

/// What stays of the title. A build that succeeds has done all its steps: those that it did not even
/// look at were not needed.
fn last_title(steps: &Steps, end: SystemTime, ending: Ending) -> String {
    let took = steps.begun.map_or(Duration::ZERO, |begun| between(begun, end));
    let (ended, word) = match ending {
        Ending::Finished => (steps.len(), "FINISHED"),
        Ending::Failed => (steps.ended, "FAILED"),
        Ending::Stopped => (steps.ended, "CANCELED"),
    };
    format!("[+] Building {} ({ended}/{}) {word}", text::duration(took), steps.len())
}

/// A line with a time at its right end.
fn timed(text: &str, took: Duration, canvas: Canvas) -> String {
    let took = text::duration(took);
    // The last column stays empty: writing to it may start a new line.
    let width = canvas.columns.saturating_sub(took.len() + 2);
    let text = console::truncate_str(text, width, "…");
    let gap = width.saturating_sub(console::measure_text_width(&text));
    format!("{text}{:gap$} {took}", "")
}

fn cut(text: &str, canvas: Canvas) -> String {
    console::truncate_str(text, canvas.columns.saturating_sub(1), "…").into_owned()
}

/// Output without anything that would move the cursor; with its colours where there are any.
fn printable(text: &[u8], canvas: Canvas) -> String {
    let text = for_terminal(text);
    let text = String::from_utf8_lossy(&text).replace('\t', "    ");
    if canvas.colours { text } else { console::strip_ansi_codes(&text).into_owned() }
}

fn style(colours: bool) -> Style {
    Style::new().force_styling(colours)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Recording, at};
    use super::*;

    const SMALL: Canvas = Canvas { rows: 8, columns: 40, colours: false };

    fn drawn(recording: &Recording, seconds: f64, canvas: Canvas) -> String {
        let lines = frame(&recording.steps(), at(seconds), canvas);
        assert!(lines.len() < canvas.rows.max(2), "{lines:?}");
        for line in &lines {
            assert!(console::measure_text_width(line) < canvas.columns, "{line}");
        }
        lines.join("\n")
    }

    fn two_steps() -> Recording {
        Recording::default()
            .planned("[1/3] FROM alpine", &[])
            .planned("[2/3] RUN make -j all the things that there are", &[])
            .planned("[3/3] RUN pull", &[])
            .cached(0.0, "[1/3] FROM alpine")
            .started(1.0, "[2/3] RUN make -j all the things that there are")
            .started(1.5, "[3/3] RUN pull")
            .progress(
                2.0,
                "[3/3] RUN pull",
                "sha256:0123456789abcdef0123456789",
                (0, 9_000_000),
                false,
            )
            .progress(
                4.0,
                "[3/3] RUN pull",
                "sha256:0123456789abcdef0123456789",
                (4_000_000, 9_000_000),
                false,
            )
    }

    #[test]
    fn running_steps_have_time_transfers_and_output() {
        let make = "[2/3] RUN make -j all the things that there are";
        let recording = two_steps()
            .output(2.0, make, "first\nsecond\nthird\n\x1b[31mred\x1b[0m\tand")
            .output(2.1, make, " on");
        insta::assert_snapshot!(drawn(&recording, 4.0, SMALL), @r#"
        [+] Building 4.0s (1/3)
         => [2/3] RUN make -j all the thi… 3.0s
         => => # third
         => => # red    and on
         => [3/3] RUN pull                 2.5s
         => => sha256:0123456789ab 44%     2.0s
        "#);
    }

    #[test]
    fn a_push_shows_short_digests_percent_bytes_and_rate_where_there_is_room() {
        let id = format!("pushing sha256:{}", "0123456789abcdef".repeat(4));
        let name = "exporting to registry";
        let recording = Recording::default()
            .planned(name, &[])
            .started(0.0, name)
            .progress(0.0, name, &id, (0, 9_000_000), false)
            .progress(2.0, name, &id, (4_000_000, 9_000_000), false);
        let line = |columns| {
            let drawn = drawn(&recording, 2.0, Canvas { columns, ..SMALL });
            drawn.lines().nth(2).unwrap().to_owned()
        };
        let short = " => => pushing sha256:0123456789ab 44%";
        let [narrow, usual, wide] = [50, 80, 120].map(line);
        assert_eq!(narrow, format!("{short}       2.0s"));
        assert!(usual.starts_with(&format!("{short} 4.00MB / 9.00MB 2.00MB/s  ")), "{usual}");
        assert_eq!(
            usual.split_whitespace().collect::<Vec<_>>(),
            wide.split_whitespace().collect::<Vec<_>>()
        );
    }

    #[test]
    fn there_are_never_more_lines_than_rows() {
        let mut recording = two_steps();
        for number in 0..40 {
            let name = format!("[{number}/40] RUN sleep");
            recording = recording.planned(&name, &[]).started(2.0, &name).output(2.1, &name, "x\n");
        }
        insta::assert_snapshot!(drawn(&recording, 4.0, SMALL), @r#"
        [+] Building 4.0s (1/43)
         => [2/3] RUN make -j all the thi… 3.0s
         => [3/3] RUN pull                 2.5s
         => [0/40] RUN sleep               2.0s
         => [1/40] RUN sleep               2.0s
         => [2/40] RUN sleep               2.0s
         => 37 more steps are running
        "#);
        for rows in 0..60 {
            drawn(&recording, 4.0, Canvas { rows, ..SMALL });
        }
    }

    #[test]
    fn a_terminal_without_columns_is_no_reason_to_fail() {
        for columns in 0..12 {
            frame(&two_steps().steps(), at(4.0), Canvas { columns, ..SMALL });
        }
    }

    #[test]
    fn the_last_title_says_how_the_build_ended() {
        let steps = two_steps().done(5.0, "[3/3] RUN pull").steps();
        let title = |ending| last_title(&steps, at(5.0), ending);
        assert_eq!(title(Ending::Finished), "[+] Building 5.0s (3/3) FINISHED");
        assert_eq!(title(Ending::Failed), "[+] Building 5.0s (2/3) FAILED");
        assert_eq!(title(Ending::Stopped), "[+] Building 5.0s (2/3) CANCELED");
    }

    #[test]
    fn names_do_not_move_the_cursor() {
        let recording = Recording::default()
            .planned("RUN \x1b[2J\u{202e}", &[])
            .started(0.0, "RUN \x1b[2J\u{202e}")
            .output(0.0, "RUN \x1b[2J\u{202e}", "\x1b]0;title\x07\x1b[31mred\n");
        let steps = recording.steps();
        let canvas = Canvas { colours: true, columns: 80, ..SMALL };
        let text = frame(&steps, at(1.0), canvas).join("\n");
        assert!(text.contains("RUN \\u{1b}[2J\\u{202e} "), "{text}");
        assert!(text.contains("\x1b[31mred") && !text.contains("title"), "{text}");
    }

    #[test]
    fn steps_that_ended_leave_a_line() {
        let steps = two_steps()
            .failed(5.0, "[3/3] RUN pull", "no")
            .stopped(5.0, "[2/3] RUN make -j all the things that there are")
            .planned("[never]", &[])
            .stopped(5.0, "[never]")
            .steps();
        let line = |name| ended_line(steps.get(StepId::named(name)).unwrap(), SMALL);
        assert_eq!(line("[never]"), None);
        let lines = [
            "[1/3] FROM alpine",
            "[2/3] RUN make -j all the things that there are",
            "[3/3] RUN pull",
        ]
        .map(|name| line(name).unwrap());
        insta::assert_snapshot!(lines.join("\n"), @r#"
        => CACHED [1/3] FROM alpine       0.0s
        => CANCELED [2/3] RUN make -j al… 4.0s
        => ERROR [3/3] RUN pull           3.5s
        "#);
        assert_eq!(title(&steps, at(5.0)), "[+] Building 5.0s (4/4)");
    }
}
