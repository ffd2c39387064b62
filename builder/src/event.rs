//! What a build tells while it runs: one enum, read by every way of showing progress.
//!
//! The library never prints. Readers live in `cli/progress`; a test is a reader too.

use std::borrow::Cow;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use frontend::{Dockerfile, without_secrets};
use oci::Digest;

use crate::mask::Masks;
use crate::output::StepOutput;

/// Something that happened. Times are taken where it happened, not where it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// The step it concerns.
    pub step: StepId,
    /// What.
    pub kind: EventKind,
}

/// Names a step of one build: a vertex of the graph, or something the builder does beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub Digest);

impl StepId {
    /// A step that is no vertex, by its name.
    pub fn named(name: &str) -> Self {
        Self(Digest::of(name))
    }
}

/// What happened to a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It is part of this build; said once, before anything else of it.
    Planned {
        /// Its name, such as `[build 2/5] RUN make`.
        name: String,
        /// The steps that it waits for.
        inputs: Vec<StepId>,
    },
    /// It runs.
    Started,
    /// A cache answered it.
    Cached,
    /// A transfer or a piece of work within it came this far. `total` 0: unknown.
    Progress {
        /// What, such as a blob's digest or `exporting layers`.
        id: String,
        /// Bytes done.
        current: u64,
        /// Bytes in all.
        total: u64,
        /// Whether it has ended.
        done: bool,
    },
    /// It printed more. Not said again before a reader has looked.
    Output(StepOutput),
    /// Why no cache answered it, for whoever asked.
    Reason(String),
    /// Something about it should be known.
    Warning(String),
    /// A build check found something in the Dockerfile.
    Finding(Finding),
    /// It ended well.
    Done,
    /// It was stopped because another one failed or the user wished it.
    Stopped,
    /// It failed.
    Failed(String),
}

impl EventKind {
    /// What a step prints is its own; whatever we say ourselves has no secrets.
    fn without_secrets(mut self) -> Self {
        let text = match &mut self {
            Self::Planned { name: text, .. }
            | Self::Progress { id: text, .. }
            | Self::Reason(text)
            | Self::Warning(text)
            | Self::Finding(Finding { text, .. })
            | Self::Failed(text) => text,
            Self::Started | Self::Cached | Self::Output { .. } | Self::Done | Self::Stopped => {
                return self;
            }
        };
        if text.contains("://") {
            *text = without_secrets(text);
        }
        self
    }
}

/// What a build check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The check, what it found, and in which line: `StageNameCasing: … (line 3)`.
    pub text: String,
    /// What the check is about.
    pub description: Option<&'static str>,
    /// The address of the page about it.
    pub url: Option<String>,
}

impl Finding {
    /// What is told of `warning`, which is about a line of `dockerfile`.
    pub fn new(warning: &frontend::Warning, dockerfile: &Dockerfile) -> Self {
        Self::at(warning, *dockerfile.lines_at(&warning.span).start())
    }

    /// What is told of `warning`, which is about the line `line`.
    pub fn at(warning: &frontend::Warning, line: usize) -> Self {
        Self {
            text: format!("{}: {} (line {line})", warning.rule, warning.message),
            description: warning.description(),
            url: warning.url(),
        }
    }
}

/// Where events go. Sending never blocks.
#[derive(Clone, Debug)]
pub struct Events {
    sender: Sender<Event>,
    hidden: Hidden,
}

/// What must not be shown of this build, once that is known.
#[derive(Clone, Debug, Default)]
pub struct Hidden(Arc<OnceLock<Masks>>);

impl Hidden {
    /// A text without it.
    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.0.get().map_or(Cow::Borrowed(text), |masks| masks.text(text))
    }
}

impl Events {
    /// Makes a sender and its receiver.
    pub fn channel() -> (Self, Receiver<Event>) {
        let (sender, receiver) = std::sync::mpsc::channel();
        (Self { sender, hidden: Hidden::default() }, receiver)
    }

    /// From now on, no event tells what `masks` hides. Said once.
    pub fn hide(&self, masks: Masks) {
        let _a_build_has_its_secrets_once = self.hidden.0.set(masks);
    }

    /// What no event tells.
    pub fn hidden(&self) -> Hidden {
        self.hidden.clone()
    }

    /// Tells `kind` of `step`, now, without the secrets of URLs in it. It is no error if nothing
    /// listens.
    pub fn tell(&self, step: StepId, kind: EventKind) {
        let kind = self.masked(kind.without_secrets());
        let _nothing_listens = self.sender.send(Event { at: SystemTime::now(), step, kind });
    }

    fn masked(&self, kind: EventKind) -> EventKind {
        let mask = |text: String| match self.hidden.mask(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(masked) => masked,
        };
        match kind {
            EventKind::Planned { name, inputs } => EventKind::Planned { name: mask(name), inputs },
            EventKind::Progress { id, current, total, done } => {
                EventKind::Progress { id: mask(id), current, total, done }
            }
            EventKind::Reason(text) => EventKind::Reason(mask(text)),
            EventKind::Warning(text) => EventKind::Warning(mask(text)),
            EventKind::Finding(finding) => {
                EventKind::Finding(Finding { text: mask(finding.text), ..finding })
            }
            EventKind::Failed(text) => EventKind::Failed(mask(text)),
            EventKind::Started
            | EventKind::Cached
            | EventKind::Output(_)
            | EventKind::Done
            | EventKind::Stopped => kind,
        }
    }
}
