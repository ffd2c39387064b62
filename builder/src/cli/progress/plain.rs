//! Lines of text in BuildKit's format, for logs and for programs that read it.
//!
//! ```text
//! #5 [2/3] RUN make
//! #5 0.312 compiling
//! #5 ...
//!
//! #6 [other 2/2] COPY a b
//! #6 CACHED
//! ```
//!
//! One step has the screen. What other steps have to say waits until they end, or until that one
//! has ended or has been silent; so the output of two steps alternates in blocks, not in lines.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use super::lines::{Line, Lines};
use super::steps::{Step, Steps, Transfer, between};
use super::text::{self, Screen};
use super::{Ending, Renderer};
use crate::cli::visible::{visible, visible_lines};
use crate::event::{Event, EventKind, StepId};
use crate::output::Reader;

/// A step that is silent for so long gives the screen to those that wait.
const SILENCE: Duration = Duration::from_secs(5);

/// Nobody waits longer than this.
const PATIENCE: Duration = Duration::from_secs(10);

/// A line that has not ended after so long is shown as far as it is.
const UNFINISHED: Duration = Duration::from_secs(1);

/// How seldom the same transfer is reported.
const REPORT: Duration = Duration::from_secs(5);

/// Writes blocks of lines.
pub(super) struct Plain<W> {
    out: W,
    blocks: HashMap<StepId, Block>,
    /// Steps that have something to say, those that have waited longest first.
    waiting: Vec<StepId>,
    /// The running step that has the screen. It keeps it while a step that has ended cuts in.
    owner: Option<StepId>,
    /// When the owner was last heard of.
    heard: Option<SystemTime>,
    /// The step whose block is open on the screen.
    open: Option<StepId>,
    numbers: usize,
    /// What is on the screen already of a line of the open block that has not ended.
    unfinished: Vec<u8>,
    /// Whether the screen ends with a part of a very long line.
    in_long_line: bool,
    screen: Screen,
}

/// What a step has to say and has not said.
#[derive(Default)]
struct Block {
    /// Given when it is first printed.
    number: Option<usize>,
    /// Since when it has waited.
    since: Option<SystemTime>,
    said: Vec<Said>,
    /// Whether it has just begun, which its name on the screen tells.
    begins: bool,
    /// Its output: as far as it is on the screen it has been read, and no further.
    output: Option<Reader>,
    lines: Lines,
    reported: HashMap<String, Report>,
}

/// What is said of a step, not by it.
struct Said {
    text: String,
    /// How much the step had printed by then.
    after: u64,
    /// Whether it prints nothing any more.
    ends: bool,
}

/// What was last said of a transfer.
struct Report {
    at: SystemTime,
    current: u64,
    done: bool,
}

impl<W: Write + Send> Plain<W> {
    pub(super) fn new(out: W, screen: Screen) -> Self {
        Self {
            out,
            blocks: HashMap::new(),
            waiting: vec![],
            owner: None,
            heard: None,
            open: None,
            numbers: 0,
            unfinished: vec![],
            in_long_line: false,
            screen,
        }
    }

    /// Shows what may be shown by now.
    fn settle(&mut self, steps: &Steps, now: SystemTime) -> io::Result<()> {
        if let Some(owner) = self.owner {
            if let Some(block) = self.blocks.get_mut(&owner)
                && block.has_more()
            {
                block.since.get_or_insert(now);
            }
            self.print(steps, owner, now)?;
        }
        for id in self.waiting.clone() {
            if has_ended(steps, id) {
                self.print(steps, id, now)?;
            }
        }
        if let Some(&first) = self.waiting.first()
            && self.may_own(first, now)
        {
            self.owner = Some(first);
            self.print(steps, first, now)?;
        }
        Ok(())
    }

    /// Whether the step that has waited longest may have the screen.
    fn may_own(&self, first: StepId, now: SystemTime) -> bool {
        if self.owner.is_none() {
            return true;
        }
        let silent = self.heard.is_none_or(|heard| between(heard, now) >= SILENCE);
        let waits = self.blocks.get(&first).and_then(|block| block.since);
        silent || waits.is_some_and(|since| between(since, now) >= PATIENCE)
    }

    /// Prints all that a step has to say.
    fn print(&mut self, steps: &Steps, id: StepId, now: SystemTime) -> io::Result<()> {
        let Some(step) = steps.get(id) else { return Ok(()) };
        let waits = self.blocks.get_mut(&id).and_then(|block| block.since.take()).is_some();
        if !waits {
            return Ok(());
        }
        self.waiting.retain(|waiting| *waiting != id);
        let mut block = self.blocks.remove(&id).unwrap_or_default();
        let printed = self.print_block(id, step, &mut block);
        self.blocks.insert(id, block);
        printed?;
        if self.owner == Some(id) {
            self.heard = Some(now);
        }
        if has_ended(steps, id) {
            self.open = None;
            self.owner.take_if(|owner| *owner == id);
        }
        Ok(())
    }

    fn print_block(&mut self, id: StepId, step: &Step, block: &mut Block) -> io::Result<()> {
        if std::mem::take(&mut block.begins) {
            self.switch_to(id, step, block)?;
        }
        for said in std::mem::take(&mut block.said) {
            self.print_output(id, step, block, said.after)?;
            if said.ends
                && let Some(line) = block.lines.end()
            {
                self.print_line(id, step, block, &line)?;
            }
            let number = self.switch_to(id, step, block)?;
            self.leave_line()?;
            writeln!(self.out, "#{number} {}", said.text)?;
        }
        let length = block.output.as_ref().map_or(0, Reader::length);
        self.print_output(id, step, block, length)
    }

    /// Prints the lines that end in the next bytes of the output, up to a place in it.
    fn print_output(
        &mut self,
        id: StepId,
        step: &Step,
        block: &mut Block,
        end: u64,
    ) -> io::Result<()> {
        while let Some(output) = &mut block.output
            && output.offset() < end
            && let Some(piece) = output.next_piece()
        {
            for line in block.lines.add(&piece) {
                self.print_line(id, step, block, &line)?;
            }
        }
        Ok(())
    }

    /// Prints a line, or what is missing of it.
    fn print_line(
        &mut self,
        id: StepId,
        step: &Step,
        block: &mut Block,
        line: &Line,
    ) -> io::Result<()> {
        let number = self.switch_to(id, step, block)?;
        let text = self.screen.shown(&line.text);
        if !(line.continues && self.in_long_line) {
            let text = log_line(step.since_start(line.at), &text);
            match text.strip_prefix(self.unfinished.as_slice()) {
                Some(rest) if !self.unfinished.is_empty() => self.out.write_all(rest)?,
                _ => {
                    self.leave_line()?;
                    self.print_start(number, &text)?;
                }
            }
        } else {
            self.out.write_all(&text)?;
        }
        self.unfinished.clear();
        self.in_long_line = !line.ends;
        if line.ends { self.out.write_all(b"\n") } else { Ok(()) }
    }

    fn print_start(&mut self, number: usize, line: &[u8]) -> io::Result<()> {
        write!(self.out, "#{number} ")?;
        self.out.write_all(line)
    }

    /// Shows a line of the open block that has waited for its end for long, such as a question.
    fn print_unfinished(&mut self, steps: &Steps, now: SystemTime) -> io::Result<()> {
        let Some(id) = self.open else { return Ok(()) };
        let Some(step) = steps.get(id) else { return Ok(()) };
        let Some(block) = self.blocks.get(&id) else { return Ok(()) };
        let Some((at, partial)) = block.lines.partial() else { return Ok(()) };
        // Of a bar that is drawn over and over the end will do.
        if block.lines.is_drawn_over() || between(at, now) < UNFINISHED {
            return Ok(());
        }
        let line = log_line(step.since_start(at), &self.screen.shown(partial));
        let Some(rest) = line.strip_prefix(self.unfinished.as_slice()) else { return Ok(()) };
        match self.unfinished.is_empty() {
            true => {
                let number = block.number.unwrap_or_default();
                self.print_start(number, rest)?;
            }
            false => self.out.write_all(rest)?,
        }
        self.unfinished = line;
        Ok(())
    }

    /// Opens the block of the step; returns its number.
    fn switch_to(&mut self, id: StepId, step: &Step, block: &mut Block) -> io::Result<usize> {
        let number = *block.number.get_or_insert_with(|| {
            self.numbers += 1;
            self.numbers
        });
        if self.open == Some(id) {
            return Ok(number);
        }
        self.leave_line()?;
        if let Some(other) = self.open.replace(id)
            && let Some(number) = self.blocks.get(&other).and_then(|block| block.number)
        {
            writeln!(self.out, "#{number} ...")?;
        }
        if number > 1 || self.numbers > 1 {
            self.out.write_all(b"\n")?;
        }
        writeln!(self.out, "#{number} {}", visible(&step.name))?;
        Ok(number)
    }

    /// Ends the line that the screen ends with, if it has not ended.
    fn leave_line(&mut self) -> io::Result<()> {
        let is_begun = !std::mem::take(&mut self.unfinished).is_empty();
        match std::mem::take(&mut self.in_long_line) || is_begun {
            true => self.out.write_all(b"\n"),
            false => Ok(()),
        }
    }
}

impl<W: Write + Send> Renderer for Plain<W> {
    fn event(&mut self, steps: &Steps, event: &Event) -> io::Result<()> {
        let Some(step) = steps.get(event.step) else { return Ok(()) };
        let block = self.blocks.entry(event.step).or_default();
        match &event.kind {
            EventKind::Planned { .. } | EventKind::Finding(_) => return Ok(()),
            EventKind::Started => block.begins = true,
            EventKind::Output(output) => {
                block.output.get_or_insert_with(|| output.reader());
            }
            EventKind::Progress { id, .. } => block.report(step, id, event.at),
            EventKind::Reason(text) => block.say(format!("WHY: {}", visible_lines(text))),
            EventKind::Warning(text) => block.say(format!("WARN: {}", visible_lines(text))),
            EventKind::Cached => block.end("CACHED"),
            EventKind::Done => {
                block.end(format!("DONE {}", text::duration(step.ran_until(event.at))));
            }
            EventKind::Failed(message) => {
                block.end(format!("ERROR: {}", visible_lines(message)));
            }
            EventKind::Stopped if step.started.is_none() => return Ok(()),
            EventKind::Stopped => block.end("CANCELED"),
        }
        let says_nothing = block.said.is_empty() && !block.begins && !block.has_more();
        if !says_nothing && block.since.is_none() {
            block.since = Some(event.at);
            self.waiting.push(event.step);
        }
        Ok(())
    }

    fn tick(&mut self, steps: &Steps, now: SystemTime) -> io::Result<()> {
        self.settle(steps, now)?;
        self.print_unfinished(steps, now)?;
        self.out.flush()
    }

    fn end(&mut self, steps: &Steps, _ending: Ending) -> io::Result<()> {
        let now = steps.latest.unwrap_or(SystemTime::UNIX_EPOCH);
        self.settle(steps, now)?;
        for id in self.waiting.clone() {
            self.print(steps, id, now)?;
        }
        self.leave_line()?;
        text::error_blocks(&mut self.out, steps.failed(), self.screen)?;
        text::findings(&mut self.out, steps.findings())?;
        self.out.flush()
    }
}

impl Block {
    fn say(&mut self, text: impl Into<String>) {
        let after = self.output.as_ref().map_or(0, Reader::length);
        self.said.push(Said { text: text.into(), after, ends: false });
    }

    /// Says the last of a step, for now: it may begin again.
    fn end(&mut self, text: impl Into<String>) {
        self.say(text);
        self.said.last_mut().into_iter().for_each(|said| said.ends = true);
    }

    /// Whether it has printed what is not on the screen.
    fn has_more(&self) -> bool {
        self.output.as_ref().is_some_and(|output| output.offset() < output.length())
    }

    /// Says how far a transfer is, unless that was said a moment ago.
    fn report(&mut self, step: &Step, id: &str, now: SystemTime) {
        let Some(transfer) = step.transfers.iter().find(|transfer| transfer.id == id) else {
            return;
        };
        let done = transfer.ended.is_some();
        if self.reported.get(id).is_some_and(|last| !last.is_outdated(transfer, now)) {
            return;
        }
        let took = transfer.took(now);
        let took = match took.as_secs_f64() > 0.01 {
            true => format!(" {}", text::duration(took)),
            false => String::new(),
        };
        let end = if done { " done" } else { "" };
        self.say(format!("{}{}{took}{end}", visible(id), text::amount(transfer)));
        let report = Report { at: now, current: transfer.current, done };
        self.reported.insert(id.to_owned(), report);
    }
}

impl Report {
    /// Whether there is news: its end, 5 % more, or 5 seconds.
    fn is_outdated(&self, transfer: &Transfer, now: SystemTime) -> bool {
        if transfer.ended.is_some() {
            return !self.done;
        }
        let moved = transfer.current.saturating_sub(self.current);
        let far = transfer.total > 0 && moved.saturating_mul(20) >= transfer.total;
        far || between(self.at, now) >= REPORT
    }
}

fn has_ended(steps: &Steps, id: StepId) -> bool {
    steps.get(id).is_some_and(|step| step.ended.is_some())
}

fn log_line(at: Duration, text: &[u8]) -> Vec<u8> {
    [text::offset(at).as_bytes(), b" ", text].concat()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Recording, cached_build, failing_build, play};
    use super::*;

    fn shown(recording: &Recording) -> String {
        let mut out = vec![];
        play(&mut Plain::new(&mut out, Screen::Pipe), recording);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_failing_build_ends_with_what_the_step_said_last() {
        insta::assert_snapshot!(shown(&failing_build()), @r#"
        #1 [internal] load build definition from Dockerfile
        #1 transferring dockerfile: 137B done
        #1 DONE 0.0s

        #2 [2/3] RUN make
        #2 0.312 compiling
        #2 ...

        #3 [other 2/2] COPY a b
        #3 CACHED

        #4 [third 2/2] RUN sleep 9
        #4 ...

        #2 [2/3] RUN make
        #2 12.41 linking
        #2 WARN: the linker is old
        #2 ERROR: process "/bin/sh -c make" did not complete successfully: exit code: 2

        #4 [third 2/2] RUN sleep 9
        #4 CANCELED
        ------
         > [2/3] RUN:
        0.312 compiling
        12.41 linking
        ------
        "#);
    }

    #[test]
    fn cached_steps_are_two_lines_each() {
        insta::assert_snapshot!(shown(&cached_build()), @r#"
        #1 [1/2] FROM alpine
        #1 CACHED

        #2 [2/2] RUN make
        #2 CACHED
        "#);
    }

    #[test]
    fn a_step_that_talks_keeps_the_screen_until_it_is_silent_or_others_have_waited_long() {
        let mut recording = Recording::default()
            .planned("RUN a", &[])
            .planned("RUN b", &[])
            .started(0.0, "RUN a")
            .started(0.1, "RUN b")
            .output(0.2, "RUN b", "b waits\n");
        for second in 1..12 {
            recording = recording.output(f64::from(second), "RUN a", &format!("a {second}\n"));
        }
        recording =
            recording.output(12.5, "RUN b", "b speaks\n").output(12.6, "RUN a", "a waits\n");
        recording = recording.done(19.0, "RUN b").done(20.0, "RUN a");
        insta::assert_snapshot!(shown(&recording), @r#"
        #1 RUN a
        #1 1.000 a 1
        #1 2.000 a 2
        #1 3.000 a 3
        #1 4.000 a 4
        #1 5.000 a 5
        #1 6.000 a 6
        #1 7.000 a 7
        #1 8.000 a 8
        #1 9.000 a 9
        #1 10.00 a 10
        #1 ...

        #2 RUN b
        #2 0.100 b waits
        #2 12.40 b speaks
        #2 ...

        #1 RUN a
        #1 11.00 a 11
        #1 12.60 a waits
        #1 ...

        #2 RUN b
        #2 DONE 18.9s

        #1 RUN a
        #1 DONE 20.0s
        "#);
    }

    #[test]
    fn a_transfer_is_reported_every_twentieth_or_five_seconds() {
        let mut recording = Recording::default().planned("pull", &[]).started(0.0, "pull");
        for tick in 0..100 {
            let bytes = (tick * 10_000, 1_000_000);
            recording = recording.progress(tick as f64 / 100.0, "pull", "sha256:abc", bytes, false);
        }
        recording = recording
            .progress(8.0, "pull", "sha256:abc", (990_100, 1_000_000), false)
            .progress(8.5, "pull", "sha256:abc", (1_000_000, 1_000_000), true)
            .progress(8.6, "pull", "extracting", (5_000, 0), true)
            .done(9.0, "pull");
        let shown = shown(&recording);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), 1 + 20 + 4, "{shown}");
        insta::assert_snapshot!(lines[20..].join("\n"), @r#"
        #1 sha256:abc 950.00kB / 1.00MB 0.9s
        #1 sha256:abc 990.10kB / 1.00MB 8.0s
        #1 sha256:abc 1.00MB / 1.00MB 8.5s done
        #1 extracting 5.00kB done
        #1 DONE 9.0s
        "#);
    }

    #[test]
    fn a_question_is_shown_before_its_line_ends_and_goes_on_in_place() {
        let recording = Recording::default()
            .planned("RUN ask", &[])
            .planned("RUN other", &[])
            .started(0.0, "RUN ask")
            .output(0.5, "RUN ask", "go on? ")
            .started(2.0, "RUN other")
            .output(3.0, "RUN ask", "yes\nagain? ")
            .done(5.0, "RUN other")
            .output(6.0, "RUN ask", "no\n")
            .done(6.5, "RUN ask");
        insta::assert_snapshot!(shown(&recording), @r#"
        #1 RUN ask
        #1 0.500 go on? yes
        #1 3.000 again? 
        #1 ...

        #2 RUN other
        #2 DONE 3.0s

        #1 RUN ask
        #1 3.000 again? no
        #1 DONE 6.5s
        "#);
    }

    #[test]
    fn control_characters_in_names_are_shown_and_output_to_a_pipe_is_as_it_was() {
        let recording = Recording::default()
            .planned("RUN \x1b[2J", &[])
            .started(0.0, "RUN \x1b[2J")
            .output(0.0, "RUN \x1b[2J", "\x1b[31mred\x1b[0m\x1b]0;title\x07\n")
            .warning(0.0, "RUN \x1b[2J", "w\x07")
            .failed(0.0, "RUN \x1b[2J", "f\u{9b}");
        let want = "#1 RUN \\u{1b}[2J\n#1 0.000 \x1b[31mred\x1b[0m\x1b]0;title\x07\n\
             #1 WARN: w\\u{7}\n#1 ERROR: f\\u{9b}\n------\n > RUN:\n\
             0.000 \x1b[31mred\x1b[0m\x1b]0;title\x07\n------\n";
        assert_eq!(shown(&recording), want);
        let mut out = vec![];
        play(&mut Plain::new(&mut out, Screen::Terminal), &recording);
        let on_a_terminal = want.replace("\x1b]0;title\x07", "");
        assert_eq!(String::from_utf8(out).unwrap(), on_a_terminal);
    }

    #[test]
    fn a_very_long_line_stays_one_line() {
        let text = "x".repeat(200_000);
        let recording = Recording::default()
            .planned("RUN long", &[])
            .started(0.0, "RUN long")
            .output(0.0, "RUN long", &text)
            .output(0.5, "RUN long", "\nend\n")
            .done(1.0, "RUN long");
        let want = format!("#1 RUN long\n#1 0.000 {text}\n#1 0.500 end\n#1 DONE 1.0s\n");
        assert!(shown(&recording) == want);
    }

    #[test]
    fn a_bar_that_draws_over_itself_is_one_line() {
        let recording = Recording::default()
            .planned("RUN curl", &[])
            .started(0.0, "RUN curl")
            .output(0.5, "RUN curl", "10%\r")
            .output(2.5, "RUN curl", "50%\r")
            .output(4.5, "RUN curl", "100%\r\n")
            .done(5.0, "RUN curl");
        insta::assert_snapshot!(shown(&recording), @r#"
        #1 RUN curl
        #1 0.500 100%
        #1 DONE 5.0s
        "#);
    }
}
