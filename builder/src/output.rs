//! What a command prints: a file, which whoever shows the build reads at its own pace.
//!
//! ```text
//! builds/<id>/<step>.log      the bytes as they came, from both streams
//! builds/<id>/<step>.index    who printed them and when
//! ```
//!
//! A reader that is slow, or that has stopped, costs neither memory nor time of the build: it is
//! told only that there is more ([`EventKind::Output`]), once until it looks again.
//!
//! The index is a row of records of 16 bytes: where in the log a piece begins (8 bytes), and when it
//! came, in milliseconds since 1970, times two, plus one for standard error (8 bytes), all little
//! endian. A piece ends where the next one begins. Its record is written before it, so that no byte
//! is without one.
//!
//! **A disk that is full** must not swallow the words that say so. What can't be written to the file
//! is kept in memory; of much output only the last of it, and then the step says how much is lost.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cache::{BuildDir, Cache};

use crate::event::{EventKind, Events, StepId};
use crate::mask::{MaskedStream, Masks};

/// The most that is kept in memory of one step when the disk is full.
const KEPT: usize = 256 << 10;

/// What one stream prints within so many milliseconds is one piece.
const SAME_PIECE: u64 = 10;

/// What is read at once.
const READ: usize = 64 << 10;

/// The size of a record in the index.
const RECORD: u64 = 16;

/// The output of all steps of a build.
#[derive(Debug)]
pub struct Outputs {
    cache: Cache,
    events: Events,
    masks: Masks,
    steps: Mutex<Steps>,
}

#[derive(Debug, Default)]
struct Steps {
    /// Made when the first command prints something.
    directory: Option<Arc<BuildDir>>,
    outputs: HashMap<StepId, StepOutput>,
}

impl Outputs {
    /// No step has printed anything; what `masks` knows will not be shown.
    pub fn new(cache: &Cache, events: &Events, masks: Masks) -> Self {
        let (cache, events) = (cache.clone(), events.clone());
        Self { cache, events, masks, steps: Mutex::default() }
    }

    /// What takes the output of `step`, which may have run before in this build.
    pub fn printer(&self, step: StepId) -> Printer<'_> {
        let streams = [self.masks.stream(), self.masks.stream()];
        Printer { outputs: self, step, streams, masked: vec![], output: None }
    }

    /// Opens the file of a step. If that fails the output is kept in memory, and the step says so.
    fn open(&self, step: StepId) -> StepOutput {
        let mut steps = lock(&self.steps);
        if let Some(output) = steps.outputs.get(&step) {
            return output.clone();
        }
        let output = match self.create(&mut steps, step) {
            Ok(output) => output,
            Err(error) => {
                self.warn(step, &error);
                StepOutput::in_memory()
            }
        };
        steps.outputs.insert(step, output.clone());
        output
    }

    fn create(&self, steps: &mut Steps, step: StepId) -> Result<StepOutput, String> {
        let directory = match &steps.directory {
            Some(directory) => directory.clone(),
            None => {
                let made = self.cache.build_dir().map_err(|error| error.to_string())?;
                steps.directory.insert(Arc::new(made)).clone()
            }
        };
        let path = directory.path().join(format!("{}.log", step.0.hex()));
        let failed = |error: io::Error| format!("cannot create `{}`: {error}", path.display());
        StepOutput::create(&path, directory).map_err(failed)
    }

    fn warn(&self, step: StepId, error: &str) {
        let kept = KEPT >> 10;
        let text = format!(
            "{error}: of what the command prints from here on, only the last {kept} KiB are kept"
        );
        self.events.tell(step, EventKind::Warning(text));
    }
}

/// Takes what one run of a command prints.
#[derive(Debug)]
pub struct Printer<'a> {
    outputs: &'a Outputs,
    step: StepId,
    /// Of standard output and of standard error.
    streams: [MaskedStream; 2],
    masked: Vec<u8>,
    output: Option<StepOutput>,
}

impl Printer<'_> {
    /// Takes bytes as they come.
    pub fn print(&mut self, stderr: bool, bytes: &[u8]) {
        let mut masked = std::mem::take(&mut self.masked);
        self.streams[usize::from(stderr)].push(bytes, &mut masked);
        self.write(stderr, &masked);
        masked.clear();
        self.masked = masked;
    }

    /// No more bytes come.
    pub fn end(mut self) {
        for stderr in [false, true] {
            let mut masked = vec![];
            self.streams[usize::from(stderr)].end(&mut masked);
            self.write(stderr, &masked);
        }
        if let Some(output) = self.output {
            output.close();
        }
    }

    fn write(&mut self, stderr: bool, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let output = self.output.get_or_insert_with(|| self.outputs.open(self.step));
        if let Err(error) = output.write(SystemTime::now(), stderr, bytes) {
            self.outputs.warn(self.step, &error);
        }
        if output.is_news() {
            self.outputs.events.tell(self.step, EventKind::Output(output.clone()));
        }
    }
}

/// What one step has printed so far.
#[derive(Clone, Debug)]
pub struct StepOutput(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Where the file is; none where all is kept in memory.
    path: Option<PathBuf>,
    /// Keeps the file from being removed.
    _directory: Option<Arc<BuildDir>>,
}

#[derive(Debug, Default)]
struct State {
    /// Open while the command runs.
    files: Option<Arc<Files>>,
    /// How many bytes are in the log, and how many records in the index.
    written: u64,
    indexed: u64,
    /// What was printed after the disk was full.
    kept: Kept,
    last: Option<Record>,
    /// Whether nothing more can be written to the files.
    is_full: bool,
    /// Whether readers were told that there is more, and have not looked yet.
    told: bool,
}

/// What follows the file, in memory.
#[derive(Debug, Default)]
struct Kept {
    /// How many bytes there were between the file and those that are kept.
    lost: u64,
    bytes: VecDeque<u8>,
    records: VecDeque<Record>,
}

#[derive(Debug)]
struct Files {
    log: File,
    index: File,
}

/// Where a piece begins, which stream it is from and when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    offset: u64,
    milliseconds: u64,
    stderr: bool,
}

/// A piece of output: bytes of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// When it came.
    pub at: SystemTime,
    /// Whether on standard error.
    pub stderr: bool,
    /// What was printed.
    pub bytes: Vec<u8>,
}

/// Two are equal if they are the output of the same step in the same build.
impl PartialEq for StepOutput {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for StepOutput {}

impl StepOutput {
    /// Keeps all of it in memory, and no more than that takes.
    pub fn in_memory() -> Self {
        Self::new(None, None, State { is_full: true, ..State::default() })
    }

    fn create(path: &Path, directory: Arc<BuildDir>) -> io::Result<Self> {
        let files = Some(Arc::new(Files::open(path)?));
        let state = State { files, ..State::default() };
        Ok(Self::new(Some(path.to_owned()), Some(directory), state))
    }

    fn new(path: Option<PathBuf>, _directory: Option<Arc<BuildDir>>, state: State) -> Self {
        Self(Arc::new(Shared { state: Mutex::new(state), path, _directory }))
    }

    /// Adds bytes. The error is the first one of the files: what can't be written is kept.
    pub fn write(&self, at: SystemTime, stderr: bool, bytes: &[u8]) -> Result<(), String> {
        let mut state = lock(&self.0.state);
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(since.as_millis()).unwrap_or(u64::MAX >> 1);
        let record = Record { offset: state.length(), milliseconds, stderr };
        let is_new = state.last.is_none_or(|last| !last.is_continued_by(record));
        if is_new {
            state.last = Some(record);
        }
        if state.is_full {
            state.kept.add(record, is_new, bytes);
            return Ok(());
        }
        let written = self.files(&mut state).and_then(|files| {
            if is_new {
                files.index.write_all_at(&record.to_bytes(), state.indexed * RECORD)?;
                state.indexed += 1;
            }
            state.append(&files.log, bytes)
        });
        written.map_err(|error| {
            state.is_full = true;
            let done = state.written - record.offset;
            let rest = bytes.get(usize::try_from(done).unwrap_or(0)..).unwrap_or_default();
            let record = Record { offset: state.written, ..record };
            state.kept.add(record, true, rest);
            let path = self.0.path.as_deref().unwrap_or(Path::new("")).display();
            format!("cannot write `{path}`: {error}")
        })
    }

    fn files(&self, state: &mut State) -> io::Result<Arc<Files>> {
        if let Some(files) = &state.files {
            return Ok(files.clone());
        }
        Ok(state.files.insert(Arc::new(self.open()?)).clone())
    }

    fn open(&self) -> io::Result<Files> {
        Files::open(self.0.path.as_deref().ok_or(io::ErrorKind::NotFound)?)
    }

    /// Closes the files until they are needed again.
    fn close(&self) {
        lock(&self.0.state).files = None;
    }

    /// Whether readers must be told that there is more.
    fn is_news(&self) -> bool {
        !std::mem::replace(&mut lock(&self.0.state).told, true)
    }

    /// How much was printed, in bytes.
    pub fn length(&self) -> u64 {
        lock(&self.0.state).length()
    }

    /// The file that holds all of it; `None` where a part is in memory alone.
    pub fn whole_log(&self) -> Option<&Path> {
        let is_whole = !lock(&self.0.state).is_full;
        self.0.path.as_deref().filter(|_| is_whole)
    }

    /// Reads it from its beginning.
    pub fn reader(&self) -> Reader {
        Reader { output: self.clone(), offset: 0, hint: 0 }
    }

    /// Reads the last of it, at most so many bytes.
    pub fn tail(&self, bytes: u64) -> Reader {
        let offset = self.length().saturating_sub(bytes);
        Reader { offset, ..self.reader() }
    }
}

impl State {
    fn length(&self) -> u64 {
        self.written + self.kept.lost + self.kept.bytes.len() as u64
    }

    fn append(&mut self, log: &File, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match log.write_at(bytes, self.written) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.written += count as u64;
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Kept {
    fn add(&mut self, record: Record, is_new: bool, bytes: &[u8]) {
        if is_new {
            self.records.push_back(record);
        }
        self.bytes.extend(bytes);
        let surplus = self.bytes.len().saturating_sub(KEPT);
        self.bytes.drain(..surplus);
        self.lost += surplus as u64;
        let start = record.offset + bytes.len() as u64 - self.bytes.len() as u64;
        while self.records.get(1).is_some_and(|next| next.offset <= start) {
            self.records.pop_front();
        }
    }

    /// What was printed at `offset`, whose place in the bytes is `skip`.
    fn piece(&self, offset: u64, skip: usize) -> Option<(Record, Vec<u8>)> {
        let next = self.records.partition_point(|record| record.offset <= offset);
        let record = *self.records.get(next.checked_sub(1)?)?;
        let end = self.records.get(next).map_or(u64::MAX, |next| next.offset);
        let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(READ);
        let bytes: Vec<_> = self.bytes.iter().skip(skip).take(length).copied().collect();
        (!bytes.is_empty()).then_some((record, bytes))
    }
}

impl Files {
    fn open(path: &Path) -> io::Result<Self> {
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
        };
        Ok(Self { log: open(path)?, index: open(&path.with_extension("index"))? })
    }

    /// The number of the record of the byte at `offset`, that record, and where the next one begins.
    fn find(&self, offset: u64, indexed: u64, hint: u64) -> io::Result<(u64, Record, Option<u64>)> {
        let record = |number: u64| -> io::Result<Record> {
            let mut bytes = [0; RECORD as usize];
            self.index.read_exact_at(&mut bytes, number * RECORD)?;
            Ok(Record::from_bytes(bytes))
        };
        let begins = |number: u64| -> io::Result<bool> {
            Ok(number < indexed && record(number)?.offset <= offset)
        };
        let (mut first, mut end) = (0, indexed);
        // Mostly it is the same one as last time, or the one after it.
        if begins(hint)? {
            first = hint;
            while first < hint + 2 && begins(first + 1)? {
                first += 1;
            }
            end = if first < hint + 2 { first + 1 } else { indexed };
        }
        while end.saturating_sub(first) > 1 {
            let middle = first + (end - first) / 2;
            if begins(middle)? { first = middle } else { end = middle }
        }
        let next = if end < indexed { Some(record(end)?.offset) } else { None };
        Ok((first, record(first)?, next))
    }
}

impl Record {
    /// Whether what comes with `next` belongs to the same piece.
    fn is_continued_by(self, next: Self) -> bool {
        let soon = next.milliseconds.saturating_sub(self.milliseconds) < SAME_PIECE;
        soon && self.stderr == next.stderr
    }

    fn to_bytes(self) -> [u8; RECORD as usize] {
        let second = self.milliseconds << 1 | u64::from(self.stderr);
        let mut bytes = [0; RECORD as usize];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..].copy_from_slice(&second.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; RECORD as usize]) -> Self {
        let both = u128::from_le_bytes(bytes);
        let (offset, second) = (both as u64, (both >> 64) as u64);
        Self { offset, milliseconds: second >> 1, stderr: second & 1 == 1 }
    }
}

/// Reads what a step has printed, piece by piece, also while it prints more.
#[derive(Clone, Debug)]
pub struct Reader {
    output: StepOutput,
    offset: u64,
    /// The record of what was read last.
    hint: u64,
}

impl Reader {
    /// How much was printed, in bytes, whether it was read or not.
    pub fn length(&self) -> u64 {
        self.output.length()
    }

    /// How many bytes are before what is read next.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next piece, of at most 64 KiB; `None` if nothing more is there yet.
    pub fn next_piece(&mut self) -> Option<Piece> {
        let mut state = lock(&self.output.0.state);
        state.told = false;
        if self.offset < state.written {
            let (written, indexed, files) = (state.written, state.indexed, state.files.clone());
            drop(state);
            let read = self.read(files, written, indexed);
            return Some(read.unwrap_or_else(|error| self.skip(written, &error)));
        }
        let start = state.written + state.kept.lost;
        if self.offset < start {
            let lost = start - self.offset;
            self.offset = start;
            let text = format!("\n[the disk was full: {lost} bytes are lost here]\n");
            return Some(Piece { at: SystemTime::now(), stderr: true, bytes: text.into_bytes() });
        }
        let skip = usize::try_from(self.offset - start).ok()?;
        let (record, bytes) = state.kept.piece(self.offset, skip)?;
        self.offset += bytes.len() as u64;
        Some(record.piece(bytes))
    }

    fn read(&mut self, files: Option<Arc<Files>>, written: u64, indexed: u64) -> io::Result<Piece> {
        let files = files.map_or_else(|| self.output.open().map(Arc::new), Ok)?;
        let (number, record, next) = files.find(self.offset, indexed, self.hint)?;
        let left = next.unwrap_or(written).min(written) - self.offset;
        let mut bytes = vec![0; usize::try_from(left).unwrap_or(READ).min(READ)];
        files.log.read_exact_at(&mut bytes, self.offset)?;
        self.hint = number;
        self.offset += bytes.len() as u64;
        Ok(record.piece(bytes))
    }

    /// Says why what is in the file can't be shown.
    fn skip(&mut self, written: u64, error: &io::Error) -> Piece {
        self.offset = written;
        let path = self.output.0.path.as_deref().unwrap_or(Path::new("")).display();
        let text = format!("\n[cannot read `{path}`: {error}]\n");
        Piece { at: SystemTime::now(), stderr: true, bytes: text.into_bytes() }
    }
}

impl Record {
    fn piece(self, bytes: Vec<u8>) -> Piece {
        let at = UNIX_EPOCH + Duration::from_millis(self.milliseconds);
        Piece { at, stderr: self.stderr, bytes }
    }
}

/// What was said under the lock is whole, also if another thread panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + milliseconds)
    }

    fn read(reader: &mut Reader) -> Vec<(u64, bool, String)> {
        let pieces = std::iter::from_fn(|| reader.next_piece());
        let shown = |piece: Piece| {
            let since = piece.at.duration_since(at(0)).unwrap_or_default().as_millis();
            (since as u64, piece.stderr, String::from_utf8(piece.bytes).unwrap())
        };
        pieces.map(shown).collect()
    }

    fn in_a_file() -> (tempfile::TempDir, StepOutput) {
        let directory = tempfile::tempdir().unwrap();
        let cache =
            Cache::open(&directory.path().join("store"), cache::OwnershipMap::Real).unwrap();
        let build = Arc::new(cache.build_dir().unwrap());
        let path = build.path().join("step.log");
        let output = StepOutput::create(&path, build).unwrap();
        (directory, output)
    }

    #[test]
    fn pieces_are_read_back_with_stream_and_time_also_after_the_files_were_closed() {
        let (_directory, in_a_file) = in_a_file();
        for output in [in_a_file, StepOutput::in_memory()] {
            output.write(at(0), false, b"a").unwrap();
            output.write(at(5), false, b"b\n").unwrap();
            output.write(at(6), true, b"c\n").unwrap();
            let mut reader = output.reader();
            let first = [(0, false, "ab\n".to_owned()), (6, true, "c\n".to_owned())];
            assert_eq!(read(&mut reader), first);
            output.close();
            output.write(at(30), true, b"d").unwrap();
            output.close();
            assert_eq!(read(&mut reader), [(30, true, "d".to_owned())]);
            assert_eq!(read(&mut output.tail(3)).len(), 2);
            assert_eq!(read(&mut output.reader()).len(), 3);
        }
    }

    #[test]
    fn a_reader_finds_its_place_among_many_pieces() {
        let (_directory, output) = in_a_file();
        for number in 0..500_u64 {
            output.write(at(number), number % 2 == 1, format!("{number:03}").as_bytes()).unwrap();
        }
        for back in [1, 2, 3, 4, 700, 1499, 1500] {
            let text: String =
                read(&mut output.tail(back)).into_iter().map(|piece| piece.2).collect();
            let whole: String = (0..500).map(|number| format!("{number:03}")).collect();
            assert_eq!(text, whole[1500 - back as usize..]);
        }
        assert!(read(&mut output.tail(4)).iter().all(|piece| piece.1 == (piece.0 % 2 == 1)));
    }

    #[test]
    fn on_a_full_disk_the_last_output_is_kept_and_the_gap_is_told() {
        let (_directory, output) = in_a_file();
        output.write(at(0), false, b"before\n").unwrap();
        // What can be written no more is like a disk that is full.
        let full = || OpenOptions::new().write(true).read(true).open("/dev/full").unwrap();
        let log = lock(&output.0.state).files.take().unwrap();
        let files = Files { log: full(), index: log.index.try_clone().unwrap() };
        lock(&output.0.state).files = Some(Arc::new(files));
        let told = output.write(at(20), true, b"No space left\n").unwrap_err();
        assert!(told.contains("step.log") && told.contains("No space left on device"), "{told}");
        output.close();
        let want = [(0, false, "before\n".to_owned()), (20, true, "No space left\n".to_owned())];
        assert_eq!(read(&mut output.reader()), want);

        let mut reader = output.reader();
        reader.next_piece();
        output.write(at(40), false, &vec![b'x'; KEPT]).unwrap();
        output.write(at(60), true, b"end").unwrap();
        let rest = read(&mut reader);
        assert_eq!(rest[0].2, "\n[the disk was full: 17 bytes are lost here]\n");
        assert_eq!(rest.iter().skip(1).map(|piece| piece.2.len()).sum::<usize>(), KEPT);
        assert_eq!(rest.last().unwrap(), &(60, true, "end".to_owned()));
    }

    #[test]
    fn readers_are_told_once_until_they_look() {
        let output = StepOutput::in_memory();
        let mut reader = output.reader();
        assert!(output.is_news() && !output.is_news());
        output.write(at(0), false, b"a").unwrap();
        reader.next_piece();
        assert!(output.is_news());
    }
}
