//! The command line: arguments, one file per command, progress, report.

pub mod progress;
