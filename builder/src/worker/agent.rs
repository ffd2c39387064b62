//! The user's ssh agents, for commands that mount them.
//!
//! A command gets a socket of its own, with the owner and mode that its mount asks for. As long as the
//! command runs, the [`proxy`] behind it passes on to the agent what a command may ask.
//!
//! Keys that are given as files get an agent for the time of the build: OpenSSH's, run by the
//! [`Broker`](crate::sandbox::Broker) as the caller.

mod proxy;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cache::RunDir;
use rustix::fs::{AtFlags, CWD, Gid, Uid};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use crate::owners::Owners;
use crate::sandbox::{BrokerCommand, BrokerOutput, Sandbox, SandboxError};

/// Agents, by the names that Dockerfiles give them.
#[derive(Clone, Debug, Default)]
pub struct SshAgents(BTreeMap<String, SshAgent>);

/// Somebody who knows keys.
#[derive(Clone, Debug)]
pub enum SshAgent {
    /// The one at this socket.
    Running(PathBuf),
    /// One of the build's own.
    Own(Arc<KeyAgent>),
}

impl SshAgents {
    /// Keeps `agents`.
    pub fn new(agents: BTreeMap<String, SshAgent>) -> Self {
        Self(agents)
    }

    /// The socket of the agent `id`.
    pub fn get(&self, id: &str) -> Option<&Path> {
        self.0.get(id).map(|agent| match agent {
            SshAgent::Running(socket) => socket.as_path(),
            SshAgent::Own(agent) => &agent.socket,
        })
    }
}

/// An agent that knows some keys as long as this lives.
#[derive(Debug)]
pub struct KeyAgent {
    agent: JoinHandle<Result<BrokerOutput, SandboxError>>,
    socket: PathBuf,
    _directory: RunDir,
}

/// Why there is no agent for keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyAgentError {
    /// There is nobody to run it.
    #[error("an agent for ssh keys can't be run here")]
    NoBroker,
    /// It did not start, or ended.
    #[error("ssh-agent, which --ssh needs for keys, does not run: {0}")]
    NotRunning(String),
    /// It refuses a key.
    #[error("failed to parse {key}: {said}")]
    Key {
        /// The key's file.
        key: PathBuf,
        /// What it says.
        said: String,
    },
    /// It can't be run at all.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

/// The name of an agent's socket in its directory.
const SOCKET: &str = "agent";

impl KeyAgent {
    /// Starts an agent in `directory` and gives it `keys`. Keys with a passphrase are refused.
    pub async fn start(
        sandbox: &Arc<Sandbox>,
        directory: RunDir,
        keys: &[PathBuf],
    ) -> Result<Self, KeyAgentError> {
        let broker = sandbox.broker().ok_or(KeyAgentError::NoBroker)?;
        let command = in_directory(directory.path(), "exec ssh-agent -D -a agent", &[]);
        let running = sandbox.clone();
        let agent = tokio::spawn(async move {
            let broker = running.broker().expect("it is there");
            broker.run(&command).await
        });
        let socket = directory.path().join(SOCKET);
        let mut agent = Self { agent, socket, _directory: directory };
        agent.wait().await?;
        for key in keys {
            let script = r#"SSH_AUTH_SOCK=agent exec ssh-add -q "$2""#;
            let directory = agent.socket.parent().unwrap_or(Path::new("/"));
            let added = broker.run(&in_directory(directory, script, &[key])).await?;
            if added.code != Some(0) {
                let said = String::from_utf8_lossy(&added.stderr).trim().to_owned();
                let said = if said.is_empty() { "it has a passphrase".to_owned() } else { said };
                return Err(KeyAgentError::Key { key: key.clone(), said });
            }
        }
        Ok(agent)
    }

    /// Waits until it listens.
    async fn wait(&mut self) -> Result<(), KeyAgentError> {
        /// Between two looks.
        const PAUSE: Duration = Duration::from_millis(5);
        while !self.socket.exists() {
            tokio::select! {
                ended = &mut self.agent => {
                    let said = match ended {
                        Ok(Ok(output)) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                        Ok(Err(error)) => return Err(error.into()),
                        Err(error) => error.to_string(),
                    };
                    return Err(KeyAgentError::NotRunning(said));
                }
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        Ok(())
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        self.agent.abort();
    }
}

/// A script that runs in `directory`, its first argument: sockets have short names there, while the
/// kernel takes 107 bytes. Nobody is asked for a passphrase.
fn in_directory(directory: &Path, script: &str, further: &[&PathBuf]) -> BrokerCommand {
    let words = ["sh", "-c"].into_iter().map(str::to_owned);
    let script = format!("cd \"$1\" && {script}");
    let paths = std::iter::once(directory).chain(further.iter().map(|path| path.as_path()));
    let paths = paths.map(|path| path.to_string_lossy().into_owned());
    let args = words.chain([script, "sh".to_owned()]).chain(paths).collect();
    let env = [("SSH_ASKPASS", "false"), ("SSH_ASKPASS_REQUIRE", "force")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    BrokerCommand { args, env, ..BrokerCommand::default() }
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
    // Where there is one id, the command has it.
    if Owners::here() == Owners::Kernel {
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(CWD, path, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    let task = tokio::spawn(serve(listener, agent.to_owned()));
    Ok(Forwarded(task.abort_handle()))
}

/// How many conversations one command may have at once: what they hold in memory and open files
/// must not depend on it. Another one waits for one of its own to end.
const CONVERSATIONS: usize = 32;

/// Lets commands talk to `agent`. All conversations end with this future.
async fn serve(listener: UnixListener, agent: PathBuf) {
    /// After a failure that is not the command's, such as too many open files.
    const PAUSE: Duration = Duration::from_millis(50);
    let mut conversations = JoinSet::new();
    loop {
        while conversations.try_join_next().is_some() {}
        if conversations.len() >= CONVERSATIONS {
            conversations.join_next().await;
        }
        match listener.accept().await {
            Ok((near, _)) => {
                let agent = agent.clone();
                conversations.spawn(proxy::talk(near, async move || connect(&agent).await));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn connect(agent: &Path) -> io::Result<UnixStream> {
    let (_directory, short) = shortened(agent)?;
    UnixStream::connect(short).await
}

/// Binds a socket to `path`, however long that is.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let (_directory, short) = shortened(path)?;
    UnixListener::bind(short)
}

/// A short name for `path` as long as its directory is open: the kernel takes 107 bytes.
fn shortened(path: &Path) -> io::Result<(File, PathBuf)> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = File::open(directory)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((directory, short))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_command_that_holds_conversations_open_only_keeps_itself_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let _forwarded = forward(Path::new("/no/agent"), &socket, (0o600, 0, 0)).unwrap();
        let mut open = Vec::new();
        for _ in 0..CONVERSATIONS {
            let mut conversation = UnixStream::connect(&socket).await.unwrap();
            conversation.write_all(&[0, 0]).await.unwrap();
            open.push(conversation);
        }
        let mut last = UnixStream::connect(&socket).await.unwrap();
        last.write_all(&[0, 0, 0, 1, 22]).await.unwrap();
        let mut answer = [0; 5];
        let soon = Duration::from_millis(200);
        assert!(tokio::time::timeout(soon, last.read_exact(&mut answer)).await.is_err());
        open.pop();
        last.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0, 0, 0, 1, 5]);
    }
}
