//! What the tests share: sessions with rbuild, base images, a registry, and a judge of images.

mod bases;
mod caller;
mod events;
mod image;
mod program;
mod registry;
mod rootfs;
mod services;
mod session;
mod started;
mod validate;
mod web_server;

/// By how much a test that repeats things does it more often than usual: `ROUNDS`.
pub fn rounds() -> usize {
    std::env::var("ROUNDS").map_or(1, |rounds| rounds.parse().expect("ROUNDS is a number"))
}

pub use bases::Base;
pub use caller::Caller;
pub use events::{Step, Steps};
pub use image::{File, Image, Kind, Layer, Rootfs};
pub use program::{rbuild, workspace};
pub use registry::{Login, Oddity, RecordedRequest, TestRegistry};
pub use rootfs::{SKIPPED, build_listing, compile, list};
pub use services::DebianRegistry;
pub use session::{Outcome, Session};
pub use started::Started;
pub use validate::validate_image;
pub use web_server::{WebRequest, WebServer};
