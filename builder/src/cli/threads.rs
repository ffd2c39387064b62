//! The threads of a build.
//!
//! tokio panics where the system gives it no thread for its workers, or the first one for work that
//! blocks. So a build first looks whether it gets those that it can't do without, and keeps some for
//! work that blocks: what finds no new thread waits for one of them.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// For work that blocks.
const KEPT: usize = 2;

/// One shows the progress, one listens for signals.
const OTHERS: usize = 2;

/// Longer than a build.
const FOR_EVER: Duration = Duration::from_hours(30 * 24);

/// Starts them.
pub(super) fn start() -> io::Result<Runtime> {
    let workers = thread::available_parallelism().map_or(1, usize::from);
    // Twice as many, since the kernel counts those that have just ended for a moment.
    try_out(2 * (workers + KEPT + OTHERS))?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_keep_alive(FOR_EVER)
        .enable_all()
        .build()?;
    let gate = Arc::new(RwLock::new(()));
    // While it is closed no thread is free for the next one.
    let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..KEPT {
        let gate = gate.clone();
        runtime.spawn_blocking(move || drop(gate.read()));
    }
    drop(closed);
    Ok(runtime)
}

/// Fails if there can't be `count` more threads at a time.
fn try_out(count: usize) -> io::Result<()> {
    let gate = RwLock::new(());
    thread::scope(|scope| {
        let closed = gate.write().unwrap_or_else(PoisonError::into_inner);
        let wait = || drop(gate.read());
        let tried: io::Result<Vec<_>> =
            (0..count).map(|_| thread::Builder::new().spawn_scoped(scope, wait)).collect();
        drop(closed);
        tried.map(drop)
    })
}
