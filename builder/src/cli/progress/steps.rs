//! What has happened so far, step by step.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use super::lines::{self, Line};
use super::{FailedStep, Shown, text};
use crate::event::{Event, EventKind, StepId};
use crate::output::StepOutput;

/// Lines of a failed step that a report shows.
pub(super) const LAST_LINES: usize = 20;

/// Of the output of a failed step, how much is looked at for them.
pub(super) const LAST_BYTES: u64 = 1 << 20;

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
    /// What it has printed.
    pub(super) output: Option<StepOutput>,
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
            | EventKind::Output(_)
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
            EventKind::Output(output) => self.output = Some(output.clone()),
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

    /// The last lines that it printed, at most `count`, out of the last `bytes`.
    pub(super) fn last_lines(&self, count: usize, bytes: u64) -> VecDeque<Line> {
        self.output.as_ref().map_or_else(VecDeque::new, |output| lines::last(output, count, bytes))
    }

    fn as_failed(&self) -> FailedStep {
        let message = match &self.state {
            State::Failed(message) => message.clone(),
            State::Waiting | State::Running | State::Cached | State::Done | State::Stopped => {
                String::new()
            }
        };
        let shown = |line: Line| {
            let at = text::offset(self.since_start(line.at));
            format!("{at} {}", String::from_utf8_lossy(&line.text))
        };
        let last_lines = self.last_lines(LAST_LINES, LAST_BYTES).into_iter().map(shown).collect();
        FailedStep { name: self.name.clone(), message, last_lines }
    }
}

impl Transfer {
    /// How long it took, or takes until `now`.
    pub(super) fn took(&self, now: SystemTime) -> Duration {
        between(self.started, self.ended.unwrap_or(now))
    }
}

/// The time between two moments; none if a clock was set back.
pub(super) fn between(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}
