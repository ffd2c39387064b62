//! Attacks that other builders fell to, and those that were tried on this one.
//!
//! A file for each way in. The doc comment of a test names the advisory or the report whose lesson
//! it is; a test was first seen failing without the defence.

mod archives;
mod context;
mod git;
mod layers;
mod levels;
mod output;
mod registry;
mod sandbox;
mod setup;
mod store;
