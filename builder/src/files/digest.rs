//! The content digest of what a selection picks: the part of a cache key that stands for files.
//!
//! Names below the source, kinds, bytes, permissions, owners (root's where the source's do not
//! count), link targets, device numbers and extended attributes are in it; times, hard links and
//! the directory that the source is in are not. So the same files have the same digest whether
//! they come from a context or from a snapshot.
//!
//! A context is walked by `stat` alone; where the [`StatCache`] knows the signature of what was
//! found, no file is opened. Otherwise the files it does not know are read, once, on all cores.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use frontend::Selection;
use oci::{Digest, Digester};
use rustix::fs::OFlags;
use rustix::io::retry_on_intr;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::error::{Attempt, FilesError};
use super::meta::{Kind, Meta};
use super::root::{READ_DIRECTORY, READ_FILE};
use super::select::{Entry, Pick, Source, select};
use super::stat_cache::{FileRecord, Identity, StatCache};
use super::xattrs;
use crate::stop::go_on;

/// What was found out about the files of a selection.
#[derive(Clone, Debug)]
pub struct Digested {
    /// The content digest.
    pub digest: Digest,
    /// What to remember for the next build.
    pub cache: StatCache,
    /// Whether `cache` differs from what was known before.
    pub learnt: bool,
}

/// Digests what `selection` picks, with the help of what an earlier build learnt.
pub fn digest(
    source: &Source<'_>,
    selection: &Selection,
    known: &StatCache,
) -> Result<Digested, FilesError> {
    digest_at(source, selection, known, SystemTime::now())
}

/// Digests as [`digest`] does at the time `started`.
pub(crate) fn digest_at(
    source: &Source<'_>,
    selection: &Selection,
    known: &StatCache,
    started: SystemTime,
) -> Result<Digested, FilesError> {
    let picks = select(source, selection)?;
    let signature = signature(&picks, source.keep_owner);
    if let Some(digest) = known.tree(&signature) {
        return Ok(Digested { digest, cache: known.clone(), learnt: false });
    }
    let facts = gather(source, &picks, known)?;
    let digest = fold(&picks, &facts, source.keep_owner);
    let mut cache = remember(&picks, &facts, known, started);
    if picks.iter().flat_map(|pick| &pick.entries).all(|entry| settled(&entry.meta, started)) {
        cache.remember_tree(signature, digest);
    }
    let learnt = cache.encode() != known.encode();
    Ok(Digested { digest, cache, learnt })
}

/// What is found by opening an entry rather than by `stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// Of a file's bytes or a link's target.
    pub(crate) content: Option<Digest>,
    /// Of the extended attributes that count.
    pub(crate) xattrs: Option<Digest>,
}

/// Puts the digest together; `facts` has one element for each entry of `picks`, in order.
pub(crate) fn fold(picks: &[Pick], facts: &[Facts], keep_owner: bool) -> Digest {
    let mut facts = facts.iter();
    let mut digest = Digester::default().count(picks.len());
    for pick in picks {
        // The name of a source that was named is in the op's own definition.
        let name = if pick.matched { pick.name.as_encoded_bytes() } else { b"" };
        digest = digest.field(name).count(pick.entries.len());
        for entry in &pick.entries {
            let Facts { content, xattrs } = facts.next().copied().unwrap_or_default();
            digest = digest.number(entry.parent as u64).field(entry.name.as_encoded_bytes());
            digest = digest.flag(entry.implied).field(header(&entry.meta, keep_owner));
            digest = digest.optional(content).optional(xattrs);
        }
    }
    digest.finish()
}

/// The part of an entry's metadata that makes a difference to a copy, fixed in size.
pub(crate) fn header(meta: &Meta, keep_owner: bool) -> [u8; 28] {
    let (uid, gid) = if keep_owner { (meta.uid, meta.gid) } else { (0, 0) };
    let (mode, extra) = match meta.kind() {
        Kind::File => (meta.mode, meta.size),
        Kind::CharDevice | Kind::BlockDevice => (meta.mode, meta.rdev),
        // Their permissions are the kernel's business.
        Kind::Symlink => (meta.mode | 0o777, 0),
        Kind::Directory | Kind::Fifo | Kind::Socket => (meta.mode, 0),
    };
    let mut header = [0; 28];
    header[..4].copy_from_slice(&mode.to_le_bytes());
    header[4..8].copy_from_slice(&uid.to_le_bytes());
    header[8..12].copy_from_slice(&gid.to_le_bytes());
    header[12..20].copy_from_slice(&extra.to_le_bytes());
    header
}

/// Digests the stat data of everything picked: equal signatures, equal content.
fn signature(picks: &[Pick], keep_owner: bool) -> Digest {
    let mut digest = Digester::default().flag(keep_owner).count(picks.len());
    let mut line = Vec::with_capacity(160);
    for pick in picks {
        digest = digest.field(pick.path.as_os_str().as_encoded_bytes());
        digest = digest.field(pick.name.as_encoded_bytes()).count(pick.entries.len());
        for Entry { parent, name, meta, implied } in &pick.entries {
            let Meta { dev, ino, mode, uid, gid, size, mtime, ctime, .. } = meta;
            line.clear();
            for number in [*dev, *ino, *size, *parent as u64] {
                line.extend_from_slice(&number.to_le_bytes());
            }
            for number in [*mode, *uid, *gid, mtime.1, ctime.1, (*implied).into()] {
                line.extend_from_slice(&number.to_le_bytes());
            }
            for seconds in [mtime.0, ctime.0] {
                line.extend_from_slice(&seconds.to_le_bytes());
            }
            line.extend_from_slice(name.as_encoded_bytes());
            digest.push(&line);
        }
    }
    digest.finish()
}

/// Whether a file that was hashed at `when` can't have changed since without a new change time.
fn settled(meta: &Meta, when: SystemTime) -> bool {
    let Ok(seconds) = u64::try_from(meta.ctime.0) else { return true };
    let changed = UNIX_EPOCH + Duration::new(seconds, meta.ctime.1);
    changed + Duration::from_secs(2) <= when
}

/// What to remember of the files picked, and of no others.
fn remember(picks: &[Pick], facts: &[Facts], known: &StatCache, when: SystemTime) -> StatCache {
    let entries = picks.iter().flat_map(|pick| &pick.entries).zip(facts);
    StatCache::of(entries.filter_map(|(entry, facts)| {
        let content = facts.content.filter(|_| entry.meta.kind() == Kind::File)?;
        let identity = Identity::from(&entry.meta);
        let settled = known.is_settled(&identity) || settled(&entry.meta, when);
        Some(FileRecord { identity, content, settled })
    }))
}

/// Opens what has to be opened, on all cores.
fn gather(
    source: &Source<'_>,
    picks: &[Pick],
    known: &StatCache,
) -> Result<Vec<Facts>, FilesError> {
    let work: Vec<_> = picks
        .iter()
        .flat_map(|pick| (0..pick.entries.len()).map(move |position| (pick, position)))
        .collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(work.len().div_ceil(CHUNK)).max(1);
    let next = AtomicUsize::new(0);
    let facts = Mutex::new(vec![Facts::default(); work.len()]);
    std::thread::scope(|scope| {
        let worker = || gather_some(source, &work, known, &next, &facts);
        let others: Vec<_> = (1..threads)
            // With fewer threads than wished for it takes longer.
            .map_while(|_| std::thread::Builder::new().spawn_scoped(scope, worker).ok())
            .collect();
        let ours = worker();
        let theirs = others
            .into_iter()
            .map(|other| other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        theirs.fold(ours, Result::and)
    })?;
    Ok(facts.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// How many entries a thread takes at once.
const CHUNK: usize = 16;

fn gather_some(
    source: &Source<'_>,
    work: &[(&Pick, usize)],
    known: &StatCache,
    next: &AtomicUsize,
    facts: &Mutex<Vec<Facts>>,
) -> Result<(), FilesError> {
    let mut buffer = vec![];
    loop {
        let start = next.fetch_add(CHUNK, Ordering::Relaxed);
        let Some(chunk) = work.get(start..work.len().min(start + CHUNK)).filter(|c| !c.is_empty())
        else {
            return Ok(());
        };
        let found: Result<Vec<_>, _> = chunk
            .iter()
            .map(|(pick, position)| open_and_look(source, pick, *position, known, &mut buffer))
            .collect();
        match found {
            Ok(found) => {
                let mut facts = facts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                facts[start..start + found.len()].copy_from_slice(&found);
            }
            Err(error) => {
                next.store(work.len(), Ordering::Relaxed);
                return Err(error);
            }
        }
    }
}

fn open_and_look(
    source: &Source<'_>,
    pick: &Pick,
    position: usize,
    known: &StatCache,
    buffer: &mut Vec<u8>,
) -> Result<Facts, FilesError> {
    let Source { root, stop, .. } = *source;
    let meta = &pick.entries[position].meta;
    let path = pick.path_of(position);
    go_on(stop).attempt("read", &path)?;
    match meta.kind() {
        Kind::File => {
            let file = root.open_found(&path, READ_FILE).attempt("open", &path)?;
            let xattrs =
                xattrs::digest(&xattrs::read(&file).attempt("read the attributes of", &path)?);
            // What took its place may never end.
            if Meta::of(&file).attempt("look at", &path)?.kind() != Kind::File {
                return Err(FilesError::Changed { path });
            }
            let content = match known.file(&Identity::from(meta)) {
                Some(content) => content,
                None => hash(&file, buffer, stop).attempt("read", &path)?,
            };
            Ok(Facts { content: Some(content), xattrs })
        }
        Kind::Directory => {
            let dir = root.open_found(&path, READ_DIRECTORY).attempt("open", &path)?;
            let xattrs = xattrs::read(&dir).attempt("read the attributes of", &path)?;
            Ok(Facts { content: None, xattrs: xattrs::digest(&xattrs) })
        }
        Kind::Symlink => fact_of_link(source, &path),
        Kind::Fifo | Kind::Socket | Kind::CharDevice | Kind::BlockDevice => Ok(Facts::default()),
    }
}

/// Where a link leads.
pub(crate) fn fact_of_link(source: &Source<'_>, path: &Path) -> Result<Facts, FilesError> {
    let link = source.root.open_found(path, OFlags::PATH).attempt("open", path)?;
    let target = rustix::fs::readlinkat(link, "", vec![]).attempt("read the link", path)?;
    Ok(Facts { content: Some(Digest::of(target.as_bytes())), xattrs: None })
}

/// How much of a file is read at once.
pub(crate) const BLOCK: usize = 256 << 10;

fn hash(
    file: impl AsFd,
    buffer: &mut Vec<u8>,
    stop: &CancellationToken,
) -> rustix::io::Result<Digest> {
    buffer.resize(BLOCK, 0);
    let mut digest = Sha256::new();
    loop {
        go_on(stop)?;
        let read = retry_on_intr(|| rustix::io::read(&file, &mut buffer[..]))?;
        if read == 0 {
            return Ok(Digest::from_bytes(digest.finalize().into()));
        }
        digest.update(&buffer[..read]);
    }
}
