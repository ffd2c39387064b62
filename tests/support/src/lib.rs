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
mod validate;

pub use bases::Base;
pub use caller::Caller;
pub use events::{Step, Steps};
pub use image::{File, Image, Kind, Layer, Rootfs};
pub use program::{rbuild, workspace};
pub use registry::{Login, Oddity, RecordedRequest, TestRegistry};
pub use rootfs::{SKIPPED, build_listing, list};
pub use services::DebianRegistry;
pub use session::{Outcome, Session};
pub use validate::validate_image;
