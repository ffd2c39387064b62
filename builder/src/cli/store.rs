//! `rbuild store`: checks the store, or removes it.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use cache::{Cache, CacheError};
use clap::{Parser, Subcommand};
use indicatif::DecimalBytes;

use super::args::{SandboxLevel, StoreRoot};
use super::prune::{PruneError, confirm};
use super::visible::visible_lines;
use crate::store_check::{CheckError, check};

/// The arguments of `rbuild store`.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "rbuild store",
    bin_name = "rbuild store",
    about = "Checks or removes the store, the directory of images and cache",
    override_usage = "rbuild store check|remove [FLAGS]",
    disable_help_subcommand = true
)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    pub(crate) action: Action,
    #[command(flatten)]
    pub(crate) root: StoreRoot,
    #[command(flatten)]
    pub(crate) sandbox: SandboxLevel,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Action {
    /// Read all blobs and unpacked layers and tell what is wrong
    Check {
        /// Forget what is wrong, so that builds make or fetch it anew
        #[arg(long)]
        repair: bool,
    },
    /// Delete the whole store, the images too
    Remove {
        /// Don't ask; needed where there is no terminal
        #[arg(short, long)]
        force: bool,
        /// Tell what would be deleted, and delete nothing
        #[arg(long)]
        dry_run: bool,
    },
}

/// Why that could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error(transparent)]
    Confirm(#[from] PruneError),
    #[error("cannot print")]
    Print(#[from] io::Error),
}

/// Deletes the store in `root`, or tells how much that would be.
pub(crate) fn run_remove(root: &Path, force: bool, dry_run: bool) -> Result<(), StoreError> {
    cache::expect_store(root)?;
    let size = || DecimalBytes(cache::store_size(root));
    let shown = visible_lines(&root.display().to_string()).into_owned();
    if dry_run {
        writeln!(io::stdout(), "Would delete the store {shown}, with all images: {}", size())?;
        return Ok(());
    }
    let question = || Ok(format!("This deletes the store {shown}, with all images: {}", size()));
    if confirm("rbuild store remove", force, question)? {
        cache::remove_store(root)?;
    }
    Ok(())
}

/// Checks the store and prints what is wrong; that is a failure unless it is repaired.
pub(crate) fn run_check(cache: &Cache, repair: bool) -> Result<ExitCode, StoreError> {
    let checked = check(cache, repair)?;
    let mut out = io::stdout();
    for problem in &checked.problems {
        writeln!(out, "{}", visible_lines(&problem.to_string()))?;
    }
    write!(out, "Checked {} blobs and {} unpacked layers", checked.blobs, checked.layers)?;
    if checked.uncompared > 0 {
        write!(out, " ({} of them without a blob to compare with)", checked.uncompared)?;
    }
    Ok(match (checked.problems.len(), repair) {
        (0, _) => {
            writeln!(out, ": all is well")?;
            ExitCode::SUCCESS
        }
        (problems, true) => {
            writeln!(out, ": {problems} problems, repaired: the next builds make them good")?;
            ExitCode::SUCCESS
        }
        (problems, false) => {
            writeln!(out, ": {problems} problems; repair them with: rbuild store check --repair")?;
            ExitCode::FAILURE
        }
    })
}
