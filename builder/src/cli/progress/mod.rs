//! Shows a running build: reads its events and draws them, in one of several ways.
//!
//! A renderer never waits for the build nor the build for it: it has a thread of its own, which
//! ends when the last sender of events is gone. One model, `steps`, keeps what all of them need: each
//! step's state, times and transfers; a renderer only decides what to write when. What a step prints
//! it reads from the step's file, at its own pace.
//! Times come from the events, so that a recorded build is drawn the same again.

mod lines;
mod plain;
mod quiet;
mod rawjson;
mod steps;
mod text;
mod tty;

#[cfg(test)]
mod fixture;

use std::io::{self, IsTerminal, Stderr};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use crate::event::{Event, Events};
use steps::Steps;
use text::Screen;

/// How often a renderer may redraw although nothing happened.
const TICK: Duration = Duration::from_millis(100);

/// Ways of showing a build.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ProgressMode {
    /// `tty` on a terminal, else `plain`.
    #[default]
    Auto,
    /// Lines of text, as BuildKit writes them.
    Plain,
    /// Running steps at the bottom of the terminal, finished ones above.
    Tty,
    /// Only the output of failed steps.
    Quiet,
    /// One JSON object a line, as BuildKit writes them.
    #[value(name = "rawjson")]
    RawJson,
    /// Nothing at all.
    None,
}

/// Why a build cannot be shown in this way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotShown {
    /// There is no terminal to draw on.
    #[error("cannot show progress as `tty`: standard error is not a terminal")]
    NoTerminal,
    /// The system gives this user no more threads.
    #[error("cannot start a thread that shows the progress")]
    Thread(#[source] io::Error),
}

/// What is left to say when a build has been shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// The steps that failed, in the order in which they did.
    pub failed: Vec<FailedStep>,
    /// The warnings, in the order in which they came.
    pub warnings: Vec<String>,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FailedStep {
    /// Its name, such as `[build 2/5] RUN make`.
    pub name: String,
    /// Why it failed.
    pub message: String,
    /// The last lines that it printed, each behind the seconds since its start.
    pub last_lines: Vec<String>,
}

/// How a build ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With what was asked for.
    Finished,
    /// With an error.
    Failed,
    /// The user ended it.
    Stopped,
}

/// A build that is being shown.
pub(crate) struct Display {
    thread: JoinHandle<Shown>,
    ending: Arc<OnceLock<Ending>>,
    /// As long as this is there, more may happen.
    open: Events,
}

impl Display {
    /// Shows the rest and how it ended. Waits for whoever reads that.
    pub(crate) fn end(self, ending: Ending) {
        let _said_once = self.ending.set(ending);
        drop(self.open);
        let _it_showed_what_it_could = self.thread.join();
    }
}

/// One way of drawing.
trait Renderer: Send {
    /// Something happened; `steps` knows of it already.
    fn event(&mut self, steps: &Steps, event: &Event) -> io::Result<()>;
    /// Nothing more happens just now: what was put off may be written.
    fn tick(&mut self, steps: &Steps, now: SystemTime) -> io::Result<()>;
    /// Nothing will happen any more.
    fn end(&mut self, steps: &Steps, ending: Ending) -> io::Result<()>;
}

/// Shows on standard error what is told through `open`, until the display is ended.
pub(crate) fn show(
    mode: ProgressMode,
    open: Events,
    events: Receiver<Event>,
    out: Stderr,
) -> Result<Display, NotShown> {
    let terminal = out.is_terminal();
    let screen = if terminal { Screen::Terminal } else { Screen::Pipe };
    let renderer: Option<Box<dyn Renderer>> = match mode {
        ProgressMode::Tty if !terminal => return Err(NotShown::NoTerminal),
        ProgressMode::Auto | ProgressMode::Tty if terminal => Some(Box::new(tty::Tty::new(out))),
        ProgressMode::Auto | ProgressMode::Tty | ProgressMode::Plain => {
            Some(Box::new(plain::Plain::new(io::BufWriter::new(out), screen)))
        }
        ProgressMode::Quiet => Some(Box::new(quiet::Quiet::new(out, screen))),
        ProgressMode::RawJson => Some(Box::new(rawjson::RawJson::new(out))),
        ProgressMode::None => None,
    };
    let ending = Arc::new(OnceLock::new());
    let known = ending.clone();
    let thread = std::thread::Builder::new()
        .spawn(move || follow(&events, renderer, &known))
        .map_err(NotShown::Thread)?;
    Ok(Display { thread, ending, open })
}

/// Draws until nobody sends any more. Nobody reading what is drawn does not stop a build.
fn follow(
    events: &Receiver<Event>,
    mut renderer: Option<Box<dyn Renderer>>,
    ending: &OnceLock<Ending>,
) -> Shown {
    let mut steps = Steps::default();
    loop {
        match events.recv_timeout(TICK) {
            Ok(event) => {
                for event in std::iter::once(event).chain(events.try_iter()) {
                    steps.update(&event);
                    draw(&mut renderer, |renderer| renderer.event(&steps, &event));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        draw(&mut renderer, |renderer| renderer.tick(&steps, SystemTime::now()));
    }
    let ending = ending.get().copied().unwrap_or(Ending::Failed);
    draw(&mut renderer, |renderer| renderer.end(&steps, ending));
    steps.shown()
}

fn draw(
    renderer: &mut Option<Box<dyn Renderer>>,
    work: impl FnOnce(&mut dyn Renderer) -> io::Result<()>,
) {
    if let Some(working) = renderer
        && work(working.as_mut()).is_err()
    {
        *renderer = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventKind, StepId};
    use crate::output::StepOutput;
    use std::sync::Mutex;

    /// Draws nothing any more once the pipe is closed.
    struct Closed(Arc<Mutex<u32>>);

    impl Renderer for Closed {
        fn event(&mut self, _: &Steps, _: &Event) -> io::Result<()> {
            *self.0.lock().unwrap() += 1;
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn tick(&mut self, _: &Steps, _: SystemTime) -> io::Result<()> {
            Ok(())
        }
        fn end(&mut self, _: &Steps, _: Ending) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_went_away_costs_the_drawing_not_the_summary() {
        let (events, receiver) = Events::channel();
        let step = StepId::named("make");
        let name = "RUN make".to_owned();
        events.tell(step, EventKind::Planned { name, inputs: vec![] });
        events.tell(step, EventKind::Started);
        let output = StepOutput::in_memory();
        output.write(SystemTime::now(), false, b"oops\n").unwrap();
        events.tell(step, EventKind::Output(output));
        events.tell(step, EventKind::Failed("exit code: 2".to_owned()));
        drop(events);
        let calls = Arc::new(Mutex::new(0));

        let shown = follow(&receiver, Some(Box::new(Closed(calls.clone()))), &OnceLock::new());

        assert_eq!(*calls.lock().unwrap(), 1);
        assert_eq!(shown.failed[0].name, "RUN make");
        assert!(shown.failed[0].last_lines[0].ends_with(" oops"), "{shown:?}");
    }
}
