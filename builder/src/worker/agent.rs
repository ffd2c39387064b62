//! The user's ssh agents, for commands that mount them.
//!
//! A command gets a socket of its own, with the owner and mode that its mount asks for; what it says
//! there goes to the agent and back, as long as the command runs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Gid, Uid};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

/// The sockets of agents, by the names that Dockerfiles give them.
#[derive(Clone, Debug, Default)]
pub struct SshAgents(BTreeMap<String, PathBuf>);

impl SshAgents {
    /// Keeps `agents`.
    pub fn new(agents: BTreeMap<String, PathBuf>) -> Self {
        Self(agents)
    }

    /// The socket of the agent `id`.
    pub fn get(&self, id: &str) -> Option<&Path> {
        self.0.get(id).map(PathBuf::as_path)
    }
}

/// A socket that leads to an agent as long as this lives.
pub(super) struct Forwarded(AbortHandle);

impl Drop for Forwarded {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes the socket `path`, which leads to `agent`.
pub(super) fn forward(
    agent: &Path,
    path: &Path,
    (mode, uid, gid): (u32, u32, u32),
) -> io::Result<Forwarded> {
    let listener = bind(path)?;
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    rustix::fs::chownat(CWD, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    let agent = agent.to_owned();
    let task = tokio::spawn(async move {
        // They end with this task.
        let mut conversations = JoinSet::new();
        while let Ok((near, _)) = listener.accept().await {
            conversations.spawn(talk(near, agent.clone()));
            while conversations.try_join_next().is_some() {}
        }
    });
    Ok(Forwarded(task.abort_handle()))
}

/// Binds a socket to `path`, however long that is: the kernel takes 107 bytes.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = File::open(directory)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    UnixListener::bind(short)
}

/// Whoever hangs up ends it; the command sees that its agent has gone.
async fn talk(mut near: UnixStream, agent: PathBuf) -> io::Result<()> {
    let mut far = UnixStream::connect(agent).await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}
