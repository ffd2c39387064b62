//! What a build tells while it runs: one enum, read by every way of showing progress.
//!
//! The library never prints. Readers live in `cli/progress`; a test is a reader too.

use std::time::SystemTime;

use frontend::{Dockerfile, without_secrets};
use oci::Digest;

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
    /// It printed something.
    Output {
        /// Whether on its standard error.
        stderr: bool,
        /// The bytes as they came, not always whole lines.
        bytes: Vec<u8>,
    },
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
pub struct Events(std::sync::mpsc::Sender<Event>);

impl Events {
    /// Makes a sender and its receiver.
    pub fn channel() -> (Self, std::sync::mpsc::Receiver<Event>) {
        let (sender, receiver) = std::sync::mpsc::channel();
        (Self(sender), receiver)
    }

    /// Tells `kind` of `step`, now, without the secrets of URLs in it. Nobody listening is no error.
    pub fn tell(&self, step: StepId, kind: EventKind) {
        let kind = kind.without_secrets();
        let _nobody_listens = self.0.send(Event { at: SystemTime::now(), step, kind });
    }
}
