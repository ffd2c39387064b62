//! What has happened so far, step by step.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use super::{FailedStep, Shown, text};
use crate::event::{Event, EventKind, StepId};

/// Lines of a failed step that a report shows.
pub(super) const LAST_LINES: usize = 10;

/// Bytes of output kept for each step: enough to find the error in, little enough for every step.
const LOG_LIMIT: usize = 1 << 20;

/// Longer lines are broken.
const LINE_LIMIT: usize = 1 << 16;

/// All steps of a build.
#[derive(Debug, Default)]
pub(super) struct Steps {
    steps: HashMap<StepId, Step>,
    /// Those that run, in the order in which they started.
    running: Vec<StepId>,
    failed: Vec<StepId>,
    warnings: Vec<String>,
    findings: Vec<String>,
    pub(super) ended: usize,
    /// When the first event came.
    pub(super) begun: Option<SystemTime>,
    /// When the last event came.
    pub(super) latest: Option<SystemTime>,
}

/// One step.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) inputs: Vec<StepId>,
    pub(super) state: State,
    pub(super) log: Log,
    pub(super) transfers: Vec<Transfer>,
    /// When it first started.
    pub(super) started: Option<SystemTime>,
    /// When it ended.
    pub(super) ended: Option<SystemTime>,
    /// When it last started, while it runs.
    running_since: Option<SystemTime>,
    /// How long it ran before that.
    ran: Duration,
}

/// How far a step is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    #[default]
    Waiting,
    Running,
    Cached,
    Done,
    Stopped,
    Failed(String),
}

/// Something that a step moves, or a piece of its work.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) id: String,
    pub(super) current: u64,
    pub(super) total: u64,
    pub(super) started: SystemTime,
    pub(super) ended: Option<SystemTime>,
}

/// The output of a step, in lines.
#[derive(Debug, Default)]
pub(super) struct Log {
    lines: VecDeque<Line>,
    bytes: usize,
    /// How many lines there were before those that are kept.
    dropped: usize,
    /// The line that has not ended yet.
    partial: Vec<u8>,
    /// When its first bytes came.
    partial_at: Duration,
    /// Whether a carriage return took something of it back.
    drawn_over: bool,
}

/// A line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// When, since the start of the step.
    pub(super) at: Duration,
    /// Without its end.
    pub(super) text: Vec<u8>,
}

impl Steps {
    /// Takes note of `event`.
    pub(super) fn update(&mut self, event: &Event) {
        self.begun.get_or_insert(event.at);
        self.latest = Some(event.at);
        let step = self.steps.entry(event.step).or_default();
        let was_running = step.state == State::Running;
        match &event.kind {
            EventKind::Planned { name, inputs } => {
                step.name.clone_from(name);
                step.inputs.clone_from(inputs);
            }
            EventKind::Warning(text) => self.warnings.push(text.clone()),
            EventKind::Finding(finding) => self.findings.push(finding.text.clone()),
            EventKind::Failed(_) => self.failed.push(event.step),
            EventKind::Started
            | EventKind::Cached
            | EventKind::Progress { .. }
            | EventKind::Output { .. }
            | EventKind::Reason(_)
            | EventKind::Done
            | EventKind::Stopped => {}
        }
        let had_ended = step.ended.is_some();
        step.update(event);
        let is_running = step.state == State::Running;
        match (was_running, is_running) {
            (false, true) => self.running.push(event.step),
            (true, false) => self.running.retain(|step| *step != event.step),
            (true, true) | (false, false) => {}
        }
        self.ended += usize::from(step.ended.is_some());
        self.ended -= usize::from(had_ended);
    }

    /// A step that an event has named.
    pub(super) fn get(&self, id: StepId) -> Option<&Step> {
        self.steps.get(&id)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }

    /// Those that run, in the order in which they started.
    pub(super) fn running(&self) -> impl Iterator<Item = &Step> {
        self.running.iter().filter_map(|id| self.steps.get(id))
    }

    /// Those that failed, in the order in which they did.
    pub(super) fn failed(&self) -> impl Iterator<Item = &Step> {
        self.failed.iter().filter_map(|id| self.steps.get(id))
    }

    /// What the build checks found, in the order in which they did.
    pub(super) fn findings(&self) -> &[String] {
        &self.findings
    }

    /// What a report may need afterwards.
    pub(super) fn shown(self) -> Shown {
        Shown { failed: self.failed().map(Step::as_failed).collect(), warnings: self.warnings }
    }
}

impl Step {
    fn update(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Planned { .. }
            | EventKind::Reason(_)
            | EventKind::Finding(_)
            | EventKind::Warning(_) => {}
            EventKind::Started => {
                self.state = State::Running;
                self.started.get_or_insert(event.at);
                self.running_since.get_or_insert(event.at);
                self.ended = None;
            }
            EventKind::Progress { id, current, total, done } => {
                self.progress(event.at, id, *current, *total, *done);
            }
            EventKind::Output { bytes, .. } => self.log.add(self.since_start(event.at), bytes),
            EventKind::Cached => self.end(event.at, State::Cached),
            EventKind::Done => self.end(event.at, State::Done),
            EventKind::Stopped => self.end(event.at, State::Stopped),
            EventKind::Failed(message) => self.end(event.at, State::Failed(message.clone())),
        }
    }

    fn end(&mut self, at: SystemTime, state: State) {
        self.ran = self.ran_until(at);
        self.running_since = None;
        self.ended = Some(at);
        self.state = state;
        self.log.end_line();
    }

    fn progress(&mut self, at: SystemTime, id: &str, current: u64, total: u64, done: bool) {
        let known = self.transfers.iter_mut().find(|transfer| transfer.id == id);
        let ended = done.then_some(at);
        match known {
            Some(transfer) => {
                transfer.current = current;
                transfer.total = total;
                transfer.ended = ended;
            }
            None => {
                let id = id.to_owned();
                self.transfers.push(Transfer { id, current, total, started: at, ended });
            }
        }
    }

    /// How long it has run in all.
    pub(super) fn ran_until(&self, now: SystemTime) -> Duration {
        self.ran + self.running_since.map_or(Duration::ZERO, |since| between(since, now))
    }

    /// How long before `at` it first started.
    pub(super) fn since_start(&self, at: SystemTime) -> Duration {
        self.started.map_or(Duration::ZERO, |started| between(started, at))
    }

    fn as_failed(&self) -> FailedStep {
        let message = match &self.state {
            State::Failed(message) => message.clone(),
            State::Waiting | State::Running | State::Cached | State::Done | State::Stopped => {
                String::new()
            }
        };
        let shown = |line: &Line| {
            format!("{} {}", text::offset(line.at), String::from_utf8_lossy(&line.text))
        };
        let last_lines = self.log.last(LAST_LINES).map(shown).collect();
        FailedStep { name: self.name.clone(), message, last_lines }
    }
}

impl Transfer {
    /// How long it took, or takes until `now`.
    pub(super) fn took(&self, now: SystemTime) -> Duration {
        between(self.started, self.ended.unwrap_or(now))
    }
}

impl Log {
    /// Adds what was printed `at` after the start.
    fn add(&mut self, at: Duration, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.partial.is_empty() {
                self.partial_at = at;
            }
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    self.partial.extend_from_slice(end);
                    self.push_line();
                }
                None => self.partial.extend_from_slice(piece),
            }
            self.drawn_over |= self.partial.contains(&b'\r');
            self.overwrite();
            if self.partial.len() > LINE_LIMIT {
                self.push_line();
            }
        }
    }

    /// Forgets what a carriage return took back: of a progress bar only the last state stays.
    fn overwrite(&mut self) {
        let text = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        if let Some(last) = text.iter().rposition(|&byte| byte == b'\r') {
            self.partial.drain(..=last);
        }
    }

    fn push_line(&mut self) {
        while self.partial.ends_with(b"\r") {
            self.partial.pop();
        }
        self.overwrite();
        let text = std::mem::take(&mut self.partial);
        self.drawn_over = false;
        self.bytes += text.len();
        self.lines.push_back(Line { at: self.partial_at, text });
        while self.bytes > LOG_LIMIT
            && let Some(oldest) = self.lines.pop_front()
        {
            self.bytes -= oldest.text.len();
            self.dropped += 1;
        }
    }

    fn end_line(&mut self) {
        if !self.partial.is_empty() {
            self.push_line();
        }
    }

    /// How many lines there have been.
    pub(super) fn count(&self) -> usize {
        self.dropped + self.lines.len()
    }

    /// The lines after the first `seen`, as far as they are kept.
    pub(super) fn after(&self, seen: usize) -> impl Iterator<Item = &Line> {
        self.lines.iter().skip(seen.saturating_sub(self.dropped))
    }

    /// The last lines, at most `count`.
    pub(super) fn last(&self, count: usize) -> impl DoubleEndedIterator<Item = &Line> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count))
    }

    /// Whether the line that has not ended yet is one that draws over itself.
    pub(super) fn is_drawn_over(&self) -> bool {
        self.drawn_over
    }

    /// The line that has not ended yet: when it began, and what there is of it.
    pub(super) fn partial(&self) -> Option<(Duration, &[u8])> {
        (!self.partial.is_empty()).then_some((self.partial_at, &self.partial))
    }
}

/// The time between two moments; none if a clock was set back.
pub(super) fn between(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&str]) -> Vec<String> {
        let mut log = Log::default();
        for piece in pieces {
            log.add(Duration::ZERO, piece.as_bytes());
        }
        log.end_line();
        let text = |line: &Line| String::from_utf8(line.text.clone()).unwrap();
        log.after(0).map(text).collect()
    }

    #[test]
    fn lines_are_put_together_from_what_comes() {
        assert_eq!(lines(&["a", "b\nc", "\n\nd"]), ["ab", "c", "", "d"]);
    }

    #[test]
    fn of_a_progress_bar_only_its_last_state_is_kept() {
        assert_eq!(lines(&["10%\r", "20%\r100%\r\n", "done\r\n"]), ["100%", "done"]);
        assert_eq!(lines(&["10%\r20%"]), ["20%"]);
    }

    #[test]
    fn the_log_of_a_talkative_step_is_bounded() {
        let mut log = Log::default();
        for _ in 0..100 {
            log.add(Duration::ZERO, &[b'x'; LINE_LIMIT]);
            log.add(Duration::ZERO, b"\n");
        }
        assert!(log.bytes <= LOG_LIMIT);
        assert_eq!(log.count(), 100);
        assert_eq!(log.after(99).count(), 1);
    }
}
