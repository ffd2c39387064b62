//! Recorded builds with fixed times.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::steps::Steps;
use super::{Ending, Renderer};
use crate::event::{Event, EventKind, StepId};
use crate::output::StepOutput;

/// A build that is being recorded.
#[derive(Default)]
pub(super) struct Recording {
    entries: Vec<Entry>,
}

/// What happened, or what was printed.
enum Entry {
    Event(Event),
    Output { at: SystemTime, step: StepId, text: String },
}

/// Plays entries in their order.
#[derive(Default)]
struct Player {
    outputs: HashMap<StepId, StepOutput>,
}

impl Player {
    /// What is told when this happens.
    fn event(&mut self, entry: &Entry) -> Event {
        match entry {
            Entry::Event(event) => event.clone(),
            Entry::Output { at, step, text } => {
                let output = self.outputs.entry(*step).or_insert_with(StepOutput::in_memory);
                output.write(*at, false, text.as_bytes()).unwrap();
                Event { at: *at, step: *step, kind: EventKind::Output(output.clone()) }
            }
        }
    }
}

impl Entry {
    fn at(&self) -> SystemTime {
        match self {
            Self::Event(event) => event.at,
            Self::Output { at, .. } => *at,
        }
    }
}

/// `seconds` after the build began.
pub(super) fn at(seconds: f64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_767_225_600) + Duration::from_secs_f64(seconds)
}

impl Recording {
    fn add(mut self, seconds: f64, step: &str, kind: EventKind) -> Self {
        let event = Event { at: at(seconds), step: StepId::named(step), kind };
        self.entries.push(Entry::Event(event));
        self
    }

    pub(super) fn planned(self, step: &str, inputs: &[&str]) -> Self {
        let inputs = inputs.iter().map(|input| StepId::named(input)).collect();
        self.add(0.0, step, EventKind::Planned { name: step.to_owned(), inputs })
    }

    pub(super) fn started(self, seconds: f64, step: &str) -> Self {
        self.add(seconds, step, EventKind::Started)
    }

    pub(super) fn output(mut self, seconds: f64, step: &str, text: &str) -> Self {
        let (at, step, text) = (at(seconds), StepId::named(step), text.to_owned());
        self.entries.push(Entry::Output { at, step, text });
        self
    }

    pub(super) fn progress(
        self,
        seconds: f64,
        step: &str,
        id: &str,
        (current, total): (u64, u64),
        done: bool,
    ) -> Self {
        let id = id.to_owned();
        self.add(seconds, step, EventKind::Progress { id, current, total, done })
    }

    pub(super) fn warning(self, seconds: f64, step: &str, text: &str) -> Self {
        self.add(seconds, step, EventKind::Warning(text.to_owned()))
    }

    pub(super) fn cached(self, seconds: f64, step: &str) -> Self {
        self.add(seconds, step, EventKind::Cached)
    }

    pub(super) fn done(self, seconds: f64, step: &str) -> Self {
        self.add(seconds, step, EventKind::Done)
    }

    pub(super) fn stopped(self, seconds: f64, step: &str) -> Self {
        self.add(seconds, step, EventKind::Stopped)
    }

    pub(super) fn failed(self, seconds: f64, step: &str, message: &str) -> Self {
        self.add(seconds, step, EventKind::Failed(message.to_owned()))
    }

    /// What is known after all of it.
    pub(super) fn steps(&self) -> Steps {
        let mut steps = Steps::default();
        let mut player = Player::default();
        self.entries.iter().for_each(|entry| steps.update(&player.event(entry)));
        steps
    }
}

/// Shows a whole recording, with a tick every 100 ms in between.
pub(super) fn play(renderer: &mut dyn Renderer, recording: &Recording) {
    let (mut steps, mut player) = (Steps::default(), Player::default());
    let mut now = at(0.0);
    for entry in &recording.entries {
        while now < entry.at() {
            renderer.tick(&steps, now).unwrap();
            now += super::TICK;
        }
        let event = player.event(entry);
        steps.update(&event);
        renderer.event(&steps, &event).unwrap();
        renderer.tick(&steps, event.at).unwrap();
    }
    renderer.end(&steps, Ending::Finished).unwrap();
}

/// Everything is there already.
pub(super) fn cached_build() -> Recording {
    Recording::default()
        .planned("[1/2] FROM alpine", &[])
        .planned("[2/2] RUN make", &["[1/2] FROM alpine"])
        .cached(0.001, "[1/2] FROM alpine")
        .cached(0.001, "[2/2] RUN make")
}

/// One step fails while another one runs and a third one is found.
pub(super) fn failing_build() -> Recording {
    let (load, make) = ("[internal] load build definition from Dockerfile", "[2/3] RUN make");
    let (copy, other) = ("[other 2/2] COPY a b", "[third 2/2] RUN sleep 9");
    Recording::default()
        .planned(load, &[])
        .planned(make, &[load])
        .planned(copy, &[])
        .planned(other, &[])
        .started(0.0, load)
        .progress(0.001, load, "transferring dockerfile:", (137, 0), true)
        .done(0.01, load)
        .started(0.1, make)
        .started(0.1, other)
        .output(0.412, make, "compiling\n")
        .cached(0.5, copy)
        .output(12.51, make, "linking\n")
        .warning(12.52, make, "the linker is old")
        .failed(
            12.6,
            make,
            "process \"/bin/sh -c make\" did not complete successfully: exit code: 2",
        )
        .stopped(12.7, other)
}
