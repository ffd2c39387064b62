//! What the user sees of an error: what, where, excerpt, what to do.

mod registry;

use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use cache::{NoRoom, Rebuilt};
use frontend::{Diagnostic, Source, without_secrets};

use crate::MAKE_ROOM;
use crate::build::{BuildError, Unknown};
use crate::export::ExportError;
use crate::files::FilesError;
use crate::pin::PinError;
use crate::solver::OpError;
use crate::worker::{ExecError, MountError};

/// Draws `error`, which a build of `dockerfile` ended with. Lines of it are cut to `columns`.
pub(crate) fn draw(error: &BuildError, dockerfile: &Source, columns: usize) -> String {
    let columns = Some(columns);
    let diagnostic = |span: &frontend::Span, message: String, help: Option<String>| {
        let diagnostic = Diagnostic::new(dockerfile, span.clone(), message);
        let diagnostic = match help {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        };
        format!("error: {}", diagnostic.draw(columns))
    };
    match error {
        BuildError::Dockerfile(diagnostic) => format!("error: {}", diagnostic.draw(columns)),
        BuildError::Pin { span, similar_name, source } => {
            let similar = similar_name.as_ref().map(|name| format!("did you mean `{name}`?"));
            diagnostic(span, chain(source), similar.or_else(|| pin_help(source)))
        }
        BuildError::Step { name: _, span, source } => {
            let asked = dockerfile.text.get(span.clone()).unwrap_or_default();
            let help = outside_help(source, asked);
            let help = help.or_else(|| step_help(source)).or_else(|| room_help(source));
            diagnostic(span, step_message(source), help)
        }
        BuildError::Stopped => "error: stopped".to_owned(),
        BuildError::Export(ExportError::Push { image, source }) => {
            format!("error: {}\nhelp: {}", chain(error), registry::help_with_push(source, image))
        }
        error if is_elsewhere(error) => with(limit_help(error), error),
        BuildError::Blob(_) | BuildError::Export(_) | BuildError::Cache(_) => with_help(error),
    }
}

/// Which bases a look at a Dockerfile had to do without, in one line.
pub(crate) fn not_looked_at(unknown: &[Unknown]) -> Option<String> {
    let mut told: Vec<String> = vec![];
    for Unknown { error, .. } in unknown {
        let text = chain(error).replace('\n', " ");
        if !told.contains(&text) {
            told.push(text);
        }
    }
    (!told.is_empty())
        .then(|| format!("steps above these base images were not checked: {}", told.join("; ")))
}

/// An error that no line of the Dockerfile stands for, and what to do about it.
pub(crate) fn with_help(error: &(dyn Error + 'static)) -> String {
    with(room_help(error), error)
}

/// An error with the help that is known for it.
pub(crate) fn with(help: Option<String>, error: &(dyn Error + 'static)) -> String {
    let help = help.map_or_else(String::new, |help| format!("\nhelp: {help}"));
    format!("error: {}{help}", chain(error))
}

/// What to do where the store has no room.
fn room_help(error: &(dyn Error + 'static)) -> Option<String> {
    match cache::no_room(error)? {
        NoRoom::Disk => Some(MAKE_ROOM.to_owned()),
        NoRoom::Quota => Some(format!("the quota of the disk is used up: {MAKE_ROOM}")),
        NoRoom::FileSize => limit_help(error),
    }
}

/// What to do where a file may not be so large, wherever it is.
fn limit_help(error: &(dyn Error + 'static)) -> Option<String> {
    let is_limit = cache::no_room(error) == Some(NoRoom::FileSize);
    is_limit.then(|| {
        "the limit of the size of files is reached: raise it with `ulimit -f unlimited`".into()
    })
}

/// Whether an output failed at its own place, which the message names.
fn is_elsewhere(error: &BuildError) -> bool {
    match error {
        BuildError::Export(ExportError::Blob(_) | ExportError::Cache(_)) => false,
        BuildError::Export(_) => true,
        _ => false,
    }
}

/// What opening the store did to its database.
pub(crate) fn rebuilt(rebuilt: &Rebuilt) -> String {
    let mut text = format!(
        "the cache database could not be used ({}) and was rebuilt from {} blobs: all steps will run again",
        rebuilt.reason, rebuilt.blobs
    );
    if let Some(aside) = &rebuilt.aside {
        let _infallible = write!(text, "; the old one is {}", aside.display());
    }
    for image in &rebuilt.lost_images {
        let _infallible = write!(text, "\nwarning: image {image} lacks a blob: build it again");
    }
    text
}

/// What was done to a store that others could write.
pub(crate) fn closed(store: &Path, mode: u32) -> String {
    format!(
        "other users could write the store `{}` (mode {mode:04o}): it now has mode 0700; if you don't \
         trust them, delete it with `rbuild store remove`",
        store.display()
    )
}

/// An error and its causes, each once, without the secrets of URLs that the user typed.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            let _infallible = write!(text, ": {said}");
        }
        cause = error.source();
    }
    without_secrets(&text)
}

fn pin_help(error: &PinError) -> Option<String> {
    match error {
        PinError::Registry { image, source } if source.is_not_found() => Some(format!(
            "is `{image}` spelled right? A stage must be defined before the instruction that names it"
        )),
        PinError::Registry { image, source } => registry::help(source, image),
        PinError::Platform { available, .. } if !available.is_empty() => Some(
            "--platform says what to build for, FROM --platform=… what one stage is for".to_owned(),
        ),
        _ => None,
    }
}

/// What a step failed with. The excerpt shows its command.
fn step_message(error: &OpError) -> String {
    let ended = match error {
        OpError::Failed(error) => error.downcast_ref::<ExecError>(),
        OpError::Stopped | OpError::LayersGone(_) | OpError::MadeIsGone(_) | OpError::Cache(_) => {
            None
        }
    };
    match ended {
        Some(
            ended @ (ExecError::Code { .. }
            | ExecError::Signal { .. }
            | ExecError::OutOfMemory { .. }),
        ) => ended.brief(),
        _ => chain(error),
    }
}

/// What to do where the instruction `asked` for something outside of its context.
fn outside_help(error: &OpError, asked: &str) -> Option<String> {
    let OpError::Failed(error) = error else { return None };
    let Some(FilesError::NotFound(missing)) = error.downcast_ref() else { return None };
    let is_around = |c: char| c.is_whitespace() || matches!(c, '"' | '[' | ']' | ',' | '\'' | '=');
    asked.split(is_around).find_map(|word| missing.help_outside(word))
}

fn step_help(error: &OpError) -> Option<String> {
    match error {
        OpError::Failed(error) => {
            let files = error.downcast_ref::<FilesError>().and_then(FilesError::help);
            let mount = || error.downcast_ref::<MountError>().and_then(MountError::help);
            let exec = || error.downcast_ref::<ExecError>().and_then(ExecError::help);
            files.or_else(mount).or_else(exec)
        }
        OpError::Stopped | OpError::LayersGone(_) | OpError::MadeIsGone(_) | OpError::Cache(_) => {
            None
        }
    }
}
