//! `rbuild prune`: takes the store's room back.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use cache::{Cache, CacheError, PruneOptions, Pruned};
use clap::Parser;
use indicatif::DecimalBytes;

use super::args::{SandboxLevel, StoreRoot};
use super::values::{self, ValueError};

/// The arguments of `rbuild prune`.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "rbuild prune",
    bin_name = "rbuild prune",
    about = "Deletes what neither a named image nor a running build needs: layers, blobs, cache \
             mounts, and what killed builds left",
    override_usage = "rbuild prune [FLAGS]"
)]
pub(crate) struct PruneArgs {
    /// Forget also what steps made: the next builds run all of them
    #[arg(short, long)]
    all: bool,
    /// Don't ask; needed where there is no terminal
    #[arg(short, long)]
    force: bool,
    /// Tell what would be deleted, and delete nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// until=24h: keep what was used within that time
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    #[command(flatten)]
    pub(crate) root: StoreRoot,
    #[command(flatten)]
    pub(crate) sandbox: SandboxLevel,
}

/// Why nothing, or not everything, was deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PruneError {
    #[error(transparent)]
    Value(#[from] ValueError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(
        "`{0}` asks before it deletes, and there is no terminal to answer at: give it --force (-f)"
    )]
    Unasked(&'static str),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

impl PruneArgs {
    /// What to delete; checks the flags.
    pub(crate) fn options(&self) -> Result<PruneOptions, ValueError> {
        let unused_for = match self.filter.last() {
            Some(filter) => values::until(filter)?,
            None => Duration::ZERO,
        };
        if self.all && !unused_for.is_zero() {
            return Err(ValueError::AllUntil);
        }
        Ok(PruneOptions { unused_for, records: self.all })
    }

    /// Whether to go on. The store is opened only to say what would go, where somebody can answer.
    pub(crate) fn is_confirmed(
        &self,
        options: &PruneOptions,
        open: impl FnOnce() -> Result<Option<Cache>, CacheError>,
    ) -> Result<bool, PruneError> {
        let question = || {
            let pruned =
                open()?.map(|cache| cache.prunable(options)).transpose()?.unwrap_or_default();
            let what = if self.all { "everything but the named images" } else { "the build cache" };
            Ok(format!("This deletes {what}: {}", told(&pruned)))
        };
        confirm("rbuild prune", self.force, question)
    }
}

/// Asks at the terminal, unless it is `forced`; without a terminal that is an error.
pub(crate) fn confirm(
    command: &'static str,
    forced: bool,
    question: impl FnOnce() -> Result<String, CacheError>,
) -> Result<bool, PruneError> {
    let stdin = io::stdin();
    if forced {
        return Ok(true);
    }
    if !stdin.is_terminal() {
        return Err(PruneError::Unasked(command));
    }
    let mut err = io::stderr();
    write!(err, "{}. Continue? [y/N] ", question()?)?;
    err.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    let is_yes = ["y", "yes"].contains(&&*answer.trim().to_lowercase());
    if !is_yes {
        writeln!(err, "nothing was deleted")?;
    }
    Ok(is_yes)
}

fn told(pruned: &Pruned) -> String {
    format!(
        "{} blobs, {} unpacked layers, {} cache mounts, {}",
        pruned.blobs,
        pruned.layers,
        pruned.cache_mounts,
        DecimalBytes(pruned.bytes)
    )
}

/// Prints what a prune would delete.
pub(crate) fn preview(options: &PruneOptions, cache: Option<&Cache>) -> Result<(), PruneError> {
    let pruned = cache.map(|cache| cache.prunable(options)).transpose()?.unwrap_or_default();
    writeln!(io::stdout(), "Would delete {}", told(&pruned))?;
    Ok(())
}

/// Deletes, and prints what was gained, with the bytes that were `freed` before.
pub(crate) fn run(
    options: &PruneOptions,
    cache: Option<&Cache>,
    freed: u64,
) -> Result<(), PruneError> {
    let pruned = cache.map(|cache| cache.prune(options)).transpose()?.unwrap_or_default();
    let mut out = io::stdout();
    writeln!(
        out,
        "Deleted {} blobs, {} unpacked layers, {} cache mounts",
        pruned.blobs, pruned.layers, pruned.cache_mounts
    )?;
    writeln!(out, "Total reclaimed space: {}", DecimalBytes(freed + pruned.bytes))?;
    Ok(())
}
