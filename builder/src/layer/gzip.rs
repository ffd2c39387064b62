//! gzip on several threads, with bytes that do not depend on how many.
//!
//! The input is cut into chunks of 1 MiB. Each is compressed on its own, by a compressor that was
//! never used before, with the end of the chunk before it as dictionary, and ends at a byte
//! boundary, so that the results put together are one stream and one gzip member. Measured:
//! zlib-rs's bytes depend on the size of the writes and on what a reused compressor did before.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use flate2::{Compress, FlushCompress, Status};

pub(crate) const CHUNK: usize = 1024 * 1024;
const DICTIONARY: usize = 32 * 1024;

/// Chunks in flight take 2 MiB each.
const MAX_THREADS: usize = 8;

/// No name, no time, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compresses what is written to it into one gzip member.
pub(crate) struct ParallelGzip<W> {
    out: W,
    level: u32,
    chunk: Vec<u8>,
    dictionary: Vec<u8>,
    checksum: crc32fast::Hasher,
    size: u64,
    pool: Pool,
    in_flight: VecDeque<Receiver<io::Result<Deflated>>>,
}

/// A chunk to compress.
struct Job {
    chunk: Vec<u8>,
    dictionary: Vec<u8>,
    level: u32,
    is_last: bool,
}

/// A chunk compressed.
struct Deflated {
    bytes: Vec<u8>,
    checksum: crc32fast::Hasher,
}

impl<W: Write> ParallelGzip<W> {
    /// Starts a member in `out`. Threads are started when there is work for them.
    pub(crate) fn new(mut out: W, level: u32, threads: usize) -> io::Result<Self> {
        out.write_all(&HEADER)?;
        Ok(Self {
            out,
            level: level.min(9),
            chunk: Vec::new(),
            dictionary: Vec::new(),
            checksum: crc32fast::Hasher::new(),
            size: 0,
            pool: Pool::new(threads.clamp(1, MAX_THREADS)),
            in_flight: VecDeque::new(),
        })
    }

    /// Ends the member.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let last = self.take_chunk(true);
        while let Some(deflated) = self.in_flight.pop_front() {
            self.append(receive(&deflated)?)?;
        }
        self.append(last.deflate()?)?;
        self.out.write_all(&self.checksum.finalize().to_le_bytes())?;
        // The field holds the size modulo 2^32.
        self.out.write_all(&(self.size as u32).to_le_bytes())?;
        Ok(self.out)
    }

    fn take_chunk(&mut self, is_last: bool) -> Job {
        let chunk = std::mem::take(&mut self.chunk);
        let tail = chunk.len().saturating_sub(DICTIONARY);
        let next_dictionary = chunk[tail..].to_vec();
        let dictionary = std::mem::replace(&mut self.dictionary, next_dictionary);
        Job { chunk, dictionary, level: self.level, is_last }
    }

    fn dispatch(&mut self) -> io::Result<()> {
        if self.in_flight.len() > self.pool.threads
            && let Some(oldest) = self.in_flight.pop_front()
        {
            self.append(receive(&oldest)?)?;
        }
        let job = self.take_chunk(false);
        let deflated = self.pool.submit(job)?;
        self.in_flight.push_back(deflated);
        Ok(())
    }

    fn append(&mut self, deflated: Deflated) -> io::Result<()> {
        self.checksum.combine(&deflated.checksum);
        self.out.write_all(&deflated.bytes)
    }
}

impl<W: Write> Write for ParallelGzip<W> {
    /// A full chunk waits until there is more: the last chunk ends differently.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.len() == CHUNK && !bytes.is_empty() {
            self.dispatch()?;
        }
        let count = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Job {
    fn deflate(self) -> io::Result<Deflated> {
        const RAW: bool = false;
        let mut compress = Compress::new(flate2::Compression::new(self.level), RAW);
        if !self.dictionary.is_empty() {
            compress.set_dictionary(&self.dictionary)?;
        }
        let flush = if self.is_last { FlushCompress::Finish } else { FlushCompress::Sync };
        let mut bytes = Vec::with_capacity(self.chunk.len() + 1024);
        loop {
            let read = compress.total_in() as usize;
            let status = compress.compress_vec(&self.chunk[read..], &mut bytes, flush)?;
            let has_room = bytes.len() < bytes.capacity();
            let is_done = match status {
                Status::StreamEnd => true,
                // A flush is complete when it did not need all the room it had.
                Status::Ok | Status::BufError => {
                    has_room && !self.is_last && compress.total_in() as usize == self.chunk.len()
                }
            };
            if is_done {
                let mut checksum = crc32fast::Hasher::new();
                checksum.update(&self.chunk);
                return Ok(Deflated { bytes, checksum });
            }
            bytes.reserve(64 * 1024);
        }
    }
}

fn receive(deflated: &Receiver<io::Result<Deflated>>) -> io::Result<Deflated> {
    let stopped = |_| Err(io::Error::other("a thread that compresses a layer has stopped"));
    deflated.recv().unwrap_or_else(stopped)
}

type Task = (Job, SyncSender<io::Result<Deflated>>);

/// Threads that compress, ended with it.
struct Pool {
    threads: usize,
    running: Vec<JoinHandle<()>>,
    tasks: Option<Sender<Task>>,
    queue: Arc<Mutex<Receiver<Task>>>,
}

impl Pool {
    fn new(threads: usize) -> Self {
        let (tasks, queue) = mpsc::channel();
        let queue = Arc::new(Mutex::new(queue));
        Self { threads, running: vec![], tasks: Some(tasks), queue }
    }

    fn submit(&mut self, job: Job) -> io::Result<Receiver<io::Result<Deflated>>> {
        if self.running.len() < self.threads {
            let queue = self.queue.clone();
            match thread::Builder::new().name("gzip".into()).spawn(move || work(&queue)) {
                Ok(thread) => self.running.push(thread),
                // Those that run do it all.
                Err(_) if !self.running.is_empty() => self.threads = self.running.len(),
                Err(error) => return Err(error),
            }
        }
        let (answer, deflated) = mpsc::sync_channel(1);
        if let Some(tasks) = &self.tasks {
            let _the_receiver_is_ours = tasks.send((job, answer));
        }
        Ok(deflated)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.tasks = None;
        for thread in self.running.drain(..) {
            let _its_panic_was_reported_by_receive = thread.join();
        }
    }
}

fn work(queue: &Mutex<Receiver<Task>>) {
    loop {
        // The lock is held while waiting; whoever waits for the lock waits for a task as well.
        let task = queue.lock().map(|queue| queue.recv());
        let Ok(Ok((job, answer))) = task else { return };
        let _nobody_waits_any_more = answer.send(job.deflate());
    }
}
