//! Hands the image to the docker or podman of the caller, as `docker load` does with an archive.
//!
//! Nothing is written on the way: the archive goes through a pipe to a program that the broker runs
//! outside of our namespaces, where a rootless podman is itself.

use std::io::{self, ErrorKind, Write as _};

use super::archive::{self, Named};
use super::{BUFFER, ExportError, ImageOptions, Job};
use crate::build::{Exported, Services};
use crate::image;
use crate::sandbox::{Broker, BrokerCommand};
use crate::stop::Stoppable;

/// Who takes images: docker where its daemon answers, else podman.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
}

impl Engine {
    /// The name of its program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Whether it can be asked to load something.
    async fn answers(self, broker: &Broker) -> bool {
        let asked = match self {
            Self::Docker => vec!["docker", "version", "--format", "{{.Server.Version}}"],
            Self::Podman => vec!["podman", "--version"],
        };
        broker.run(&command(&asked)).await.is_ok_and(|output| output.code == Some(0))
    }
}

/// Why an image could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nobody takes it.
    #[error(
        "--load finds neither a docker whose daemon answers nor podman; -o type=docker,dest=FILE \
         writes what they load"
    )]
    NoEngine,
    /// The program refuses it.
    #[error("{program} load failed: {said}")]
    Refused {
        /// The program.
        program: &'static str,
        /// What it printed.
        said: String,
    },
    /// It could not be run.
    #[error(transparent)]
    Sandbox(#[from] crate::sandbox::SandboxError),
    /// No pipe.
    #[error("cannot make a pipe")]
    Pipe(#[source] io::Error),
}

pub(super) async fn export(
    result: &image::Result,
    options: &ImageOptions,
    job: &Job<'_>,
) -> Result<Exported, ExportError> {
    let (engine, broker) = engine(job.services).await?;
    let (reader, writer) = io::pipe().map_err(LoadError::Pipe)?;
    let (result, names) = (result.clone(), options.names.clone());
    let (cache, stop) = (job.services.cache.clone(), job.worker.stop().clone());
    let write = move || {
        let named = Named { result: &result, names: &names };
        let out = io::BufWriter::with_capacity(BUFFER, writer);
        let mut out = Stoppable::new(out, &stop);
        archive::write_tar(named, true, &cache, &mut out, engine.program().as_ref())?;
        let flushed = out.flush();
        flushed.map_err(|source| ExportError::Write { path: engine.program().into(), source })
    };
    let load = command(&[engine.program(), "load", "-q"]);
    let loading = broker.run_with_stdin(&load, reader.into());
    let (written, loaded) = tokio::join!(job.worker.blocking(write), loading);
    // That a pipe breaks is the doing of whoever read from it.
    if let Err(error) = written
        && !is_broken_pipe(&error)
    {
        return Err(error);
    }
    let output = loaded.map_err(LoadError::Sandbox)?;
    if output.code != Some(0) {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().to_owned();
        return Err(LoadError::Refused { program: engine.program(), said }.into());
    }
    Ok(Exported::Loaded(engine, options.names.clone()))
}

fn is_broken_pipe(error: &ExportError) -> bool {
    let mut causes =
        std::iter::successors(Some(error as &dyn std::error::Error), |error| error.source());
    causes.any(|cause| {
        cause.downcast_ref().is_some_and(|error: &io::Error| error.kind() == ErrorKind::BrokenPipe)
    })
}

/// The engine that takes images, and who asks it.
pub(super) async fn engine(services: &Services) -> Result<(Engine, &Broker), LoadError> {
    let broker = services.sandbox.broker().ok_or(LoadError::NoEngine)?;
    for engine in [Engine::Docker, Engine::Podman] {
        if engine.answers(broker).await {
            return Ok((engine, broker));
        }
    }
    Err(LoadError::NoEngine)
}

fn command(args: &[&str]) -> BrokerCommand {
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    BrokerCommand { args, ..BrokerCommand::default() }
}
