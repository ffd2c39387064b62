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

use super::steps::{LAST_LINES, Step, Steps, Transfer, between};
use super::{Renderer, text};
use crate::event::{Event, EventKind, StepId};

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
}

/// What a step has to say and has not said.
#[derive(Default)]
struct Block {
    /// Given when it is first printed.
    number: Option<usize>,
    /// Since when it has waited.
    since: Option<SystemTime>,
    lines: Vec<Vec<u8>>,
    /// Lines of its log that have been taken.
    seen: usize,
    reported: HashMap<String, Report>,
}

/// What was last said of a transfer.
struct Report {
    at: SystemTime,
    current: u64,
    done: bool,
}

impl<W: Write + Send> Plain<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            blocks: HashMap::new(),
            waiting: vec![],
            owner: None,
            heard: None,
            open: None,
            numbers: 0,
            unfinished: vec![],
        }
    }

    /// Shows what may be shown by now.
    fn settle(&mut self, steps: &Steps, now: SystemTime) -> io::Result<()> {
        if let Some(owner) = self.owner {
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
        let number = self.switch_to(id, step)?;
        let block = self.blocks.entry(id).or_default();
        for line in std::mem::take(&mut block.lines) {
            self.print_line(number, &line)?;
        }
        if self.owner == Some(id) {
            self.heard = Some(now);
        }
        if has_ended(steps, id) {
            self.open = None;
            self.owner.take_if(|owner| *owner == id);
        }
        Ok(())
    }

    /// Prints a line, or what is missing of it.
    fn print_line(&mut self, number: usize, line: &[u8]) -> io::Result<()> {
        let begun = std::mem::take(&mut self.unfinished);
        match line.strip_prefix(begun.as_slice()) {
            Some(rest) if !begun.is_empty() => self.out.write_all(rest)?,
            Some(_) => self.print_start(number, line)?,
            None => {
                self.out.write_all(b"\n")?;
                self.print_start(number, line)?;
            }
        }
        self.out.write_all(b"\n")
    }

    fn print_start(&mut self, number: usize, line: &[u8]) -> io::Result<()> {
        write!(self.out, "#{number} ")?;
        self.out.write_all(line)
    }

    /// Shows a line of the open block that has waited for its end for long, such as a question.
    fn print_unfinished(&mut self, steps: &Steps, now: SystemTime) -> io::Result<()> {
        let Some(id) = self.open else { return Ok(()) };
        let Some(step) = steps.get(id) else { return Ok(()) };
        let Some((at, partial)) = step.log.partial() else { return Ok(()) };
        // Of a bar that is drawn over and over the end will do.
        if step.log.is_drawn_over() || step.since_start(now).saturating_sub(at) < UNFINISHED {
            return Ok(());
        }
        let line = log_line(at, partial);
        let Some(rest) = line.strip_prefix(self.unfinished.as_slice()) else { return Ok(()) };
        match self.unfinished.is_empty() {
            true => {
                let number = self.number(id);
                self.print_start(number, rest)?;
            }
            false => self.out.write_all(rest)?,
        }
        self.unfinished = line;
        Ok(())
    }

    /// Opens the block of the step; returns its number.
    fn switch_to(&mut self, id: StepId, step: &Step) -> io::Result<usize> {
        if self.open == Some(id) {
            return Ok(self.number(id));
        }
        self.leave_line()?;
        if let Some(other) = self.open.replace(id) {
            let number = self.number(other);
            writeln!(self.out, "#{number} ...")?;
        }
        if self.numbers > 0 {
            self.out.write_all(b"\n")?;
        }
        let number = self.number(id);
        writeln!(self.out, "#{number} {}", step.name)?;
        Ok(number)
    }

    fn leave_line(&mut self) -> io::Result<()> {
        match std::mem::take(&mut self.unfinished).is_empty() {
            true => Ok(()),
            false => self.out.write_all(b"\n"),
        }
    }

    fn number(&mut self, id: StepId) -> usize {
        let numbers = &mut self.numbers;
        *self.blocks.entry(id).or_default().number.get_or_insert_with(|| {
            *numbers += 1;
            *numbers
        })
    }
}

impl<W: Write + Send> Renderer for Plain<W> {
    fn event(&mut self, steps: &Steps, event: &Event) -> io::Result<()> {
        let Some(step) = steps.get(event.step) else { return Ok(()) };
        let block = self.blocks.entry(event.step).or_default();
        block.take_log(step);
        match &event.kind {
            EventKind::Planned { .. } | EventKind::Finding(_) => return Ok(()),
            EventKind::Started | EventKind::Output { .. } => {}
            EventKind::Progress { id, .. } => block.report(step, id, event.at),
            EventKind::Reason(text) => block.say(format!("WHY: {text}")),
            EventKind::Warning(text) => block.say(format!("WARN: {text}")),
            EventKind::Cached => block.say("CACHED"),
            EventKind::Done => {
                block.say(format!("DONE {}", text::duration(step.ran_until(event.at))));
            }
            EventKind::Failed(message) => block.say(format!("ERROR: {message}")),
            EventKind::Stopped if step.started.is_none() => return Ok(()),
            EventKind::Stopped => block.say("CANCELED"),
        }
        let says_nothing = block.lines.is_empty() && event.kind != EventKind::Started;
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

    fn end(&mut self, steps: &Steps) -> io::Result<()> {
        let now = steps.latest.unwrap_or(SystemTime::UNIX_EPOCH);
        self.settle(steps, now)?;
        for id in self.waiting.clone() {
            self.print(steps, id, now)?;
        }
        self.leave_line()?;
        text::error_blocks(&mut self.out, steps.failed(), LAST_LINES)?;
        text::findings(&mut self.out, steps.findings())?;
        self.out.flush()
    }
}

impl Block {
    fn say(&mut self, line: impl Into<Vec<u8>>) {
        self.lines.push(line.into());
    }

    /// Takes the lines that have come since.
    fn take_log(&mut self, step: &Step) {
        let new = step.log.after(self.seen).map(|line| log_line(line.at, &line.text));
        self.lines.extend(new);
        self.seen = step.log.count();
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
        self.say(format!("{id}{}{took}{end}", text::amount(transfer)));
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
        play(&mut Plain::new(&mut out), recording);
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
         > [2/3] RUN make:
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
