//! Builds images: plans with `frontend`, remembers with `cache`, talks with `registry-client`.
//!
//! ```text
//! Dockerfile ──parse──▶ AST ──pin, plan──▶ Graph ──solve──▶ Snapshot ──assemble──▶ Image ──export──▶ Output
//! ```
//!
//! [`build::build`] is that line. What goes on below it:
//!
//! * [`solver`] decides which vertices must run, with [`cache`] alone as long as that answers;
//! * [`worker`] runs an op: [`files`] copies, [`sandbox`] runs commands, [`snapshot`] mounts what
//!   they start from, [`layer`] turns what they wrote into a tar and back, [`archive`] reads tars;
//! * [`pin`] looks sources up, [`download`] fetches those that are elsewhere on the web,
//!   [`context`] is the directory that COPY reads,
//!   [`image`] and [`export`] make of a snapshot what the user asked for;
//! * [`output`] keeps what commands print, and [`mask`] hides secrets in it;
//! * [`event`] is all that a build says while it runs, [`cli`] is the command line.
//!
//! The library never prints and never reads the environment; only [`cli`] does.

/// What to do when the store has no room.
const MAKE_ROOM: &str =
    "`rbuild prune` deletes what builds can do without, --root names another place for the store";

pub mod archive;
pub mod build;
pub mod cli;
pub mod context;
pub mod download;
pub mod event;
pub mod export;
pub mod files;
pub mod git;
pub mod image;
pub mod layer;
pub mod mask;
pub mod output;
mod owners;
mod path_list;
mod path_map;
pub mod pin;
mod regular_file;
pub mod sandbox;
pub mod snapshot;
pub mod solver;
mod stop;
pub mod store_check;
mod unused;
mod whole_file;
pub mod worker;
