//! Builds images: plans with `frontend`, remembers with `cache`, talks with `registry-client`.

pub mod cli;
pub mod event;
pub mod solver;
