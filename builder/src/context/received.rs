//! Contexts that come as a stream: from standard input, or from a web server.
//!
//! What comes is the context, as an archive, or nothing but a Dockerfile. An archive is unpacked
//! into a run directory of the store, which goes when the build does not need it any more. Its
//! files keep their owners, and its `.dockerignore` is a file like others: who made the archive has
//! chosen what is in it.

use std::io::Read;
use std::path::Path;

use cache::{Cache, RunDir};
use tokio_util::sync::CancellationToken;

use super::{BuildContext, ContextError};
use crate::files::{Root, Stream};

/// What came where a context was asked for.
#[derive(Debug)]
pub enum Received {
    /// A context.
    Context(BuildContext),
    /// A Dockerfile, which is built without a context.
    Dockerfile(String),
}

/// Reads all of `bytes`, which people know as `name`; fails soon once `stop` is cancelled.
pub fn receive(
    cache: &Cache,
    name: &str,
    bytes: impl Read + Send,
    stop: &CancellationToken,
) -> Result<Received, ContextError> {
    let stream = Stream::new(Path::new(name), bytes)?;
    if !stream.is_archive() {
        return Ok(Received::Dockerfile(stream.text()?));
    }
    let (run_dir, root) = new_directory(cache)?;
    stream.unpack(&root, stop)?;
    let label = format!("the build context from {name}");
    Ok(Received::Context(BuildContext::unpacked(root, label, run_dir)))
}

/// A context with nothing in it, for a Dockerfile that has come alone.
pub fn empty(cache: &Cache) -> Result<BuildContext, ContextError> {
    let (run_dir, root) = new_directory(cache)?;
    Ok(BuildContext::unpacked(root, "the empty build context".to_owned(), run_dir))
}

fn new_directory(cache: &Cache) -> Result<(RunDir, Root), ContextError> {
    let run_dir = cache.run_dir()?;
    let path = run_dir.path().join("context");
    let made = std::fs::create_dir(&path).and_then(|()| Root::open(&path));
    let root = made.map_err(|source| ContextError::Open { path, source })?;
    Ok((run_dir, root))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), cache::OwnershipMap::Real).unwrap();
        (dir, cache)
    }

    fn tar(files: &[(&str, &str)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(vec![]);
        for (path, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            header.set_uid(7);
            header.set_gid(8);
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn an_archive_is_a_context_that_hides_nothing_and_keeps_owners() {
        let (_dir, cache) = store();
        let tar = tar(&[("Dockerfile", "FROM a"), (".dockerignore", "*")]);
        let received =
            receive(&cache, "standard input", &tar[..], &CancellationToken::new()).unwrap();
        let Received::Context(context) = received else { panic!("no context") };
        let stop = CancellationToken::new();
        assert!(context.ignore().is_none() && context.source(&stop).keep_owner);
        let dockerfile = context.read_dockerfile(Path::new("Dockerfile")).unwrap();
        assert_eq!(dockerfile.text, "FROM a");
    }

    #[test]
    fn an_unpacked_context_is_gone_with_its_last_user() {
        let (_dir, cache) = store();
        let received =
            receive(&cache, "standard input", &tar(&[("f", "")])[..], &CancellationToken::new())
                .unwrap();
        let run = cache.root().join("run");
        let entries = || std::fs::read_dir(&run).unwrap().count();
        assert_eq!(entries(), 1);
        drop(received);
        assert_eq!(entries(), 0);
    }

    #[test]
    fn what_is_no_archive_is_a_dockerfile() {
        let (_dir, cache) = store();
        let received =
            receive(&cache, "standard input", &b"FROM scratch\n"[..], &CancellationToken::new())
                .unwrap();
        let Received::Dockerfile(text) = received else { panic!("no Dockerfile") };
        assert_eq!(text, "FROM scratch\n");
        assert!(
            receive(&cache, "standard input", &b"FROM \xff"[..], &CancellationToken::new())
                .is_err()
        );
        let context = empty(&cache).unwrap();
        let missing = context.read_dockerfile(Path::new("Dockerfile")).unwrap_err();
        assert!(matches!(missing, ContextError::NoDockerfile { .. }));
    }
}
