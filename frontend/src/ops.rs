//! Ops: what makes one snapshot, what it reads, and the bytes that identify it.
//!
//! An op is a value: two equal ones are one vertex. Its cache key is its [definition](Op::definition)
//! and its [inputs](Op::inputs); whatever is in neither makes no difference to the result.

use oci::{Digest, Digester, Platform};
use serde::{Serialize, Serializer};

use crate::{GitRef, PinnedImage, RemoteUrl, VertexId, is_secret_name, without_secrets};

/// What to do to make one snapshot.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Op {
    /// The empty filesystem.
    Scratch,
    /// A pinned image.
    Image(Box<PinnedImage>),
    /// Run a command on top of a root filesystem.
    Exec(Box<ExecOp>),
    /// Copy files on top of a root filesystem.
    Copy(Box<CopyOp>),
    /// Make a directory on top of a root filesystem (`WORKDIR`).
    MakeDir(MakeDirOp),
    /// Put one downloaded file into an empty filesystem.
    Fetch(FetchOp),
    /// Put the files of a git commit into an empty filesystem.
    Git(Box<GitOp>),
    /// Stack the layers of one snapshot on another (`COPY --link`).
    Stack {
        /// Below.
        base: VertexId,
        /// Above.
        top: VertexId,
    },
}

/// A command to run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExecOp {
    /// The root filesystem it starts from.
    pub root: VertexId,
    /// The command line.
    #[serde(serialize_with = "words_without_secrets")]
    pub args: Vec<String>,
    /// Its environment, in order.
    #[serde(serialize_with = "variables_without_secrets")]
    pub env: Vec<(String, String)>,
    /// Proxy variables: in the environment, but never in the key, nor shown to anybody: addresses
    /// of proxies have passwords.
    #[serde(skip)]
    pub proxy_env: Vec<(String, String)>,
    /// Its working directory, absolute; made if missing.
    pub cwd: String,
    /// `user[:group]`, names or numbers; empty for root. Looked up in the root filesystem.
    pub user: String,
    /// Extra mounts, sorted by target; none of them ends up in the snapshot.
    pub mounts: Vec<Mount>,
    /// What it sees of the network.
    pub network: NetworkMode,
    /// What it may do.
    pub security: SecurityMode,
    /// Whom it runs on.
    #[serde(serialize_with = "as_text")]
    pub platform: Platform,
    /// The host name it sees.
    pub hostname: String,
    /// `--add-host`: names and addresses; the addresses are not in the key.
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size` in bytes; not in the key.
    pub shm_size: Option<u64>,
    /// `--ulimit`: name, soft and hard limit; not in the key.
    pub ulimits: Vec<(String, i64, i64)>,
}

/// What a command sees of the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// The builder's choice.
    #[default]
    Default,
    /// A loopback device alone.
    None,
    /// The host's.
    Host,
}

/// What a command may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecurityMode {
    /// What Docker's default profile allows.
    #[default]
    Sandbox,
    /// Everything.
    Insecure,
}

/// A mount of an [`ExecOp`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Where it is seen, absolute and clean; empty for a secret that is no file.
    pub target: String,
    /// Whether writes are refused; else they are thrown away, except those to a cache.
    pub read_only: bool,
    /// What is seen there.
    pub source: MountSource,
}

/// What a [`Mount`] shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountSource {
    /// Files of a stage, an image or a context.
    Bind {
        /// Whose files.
        from: FileSource,
        /// Which file or directory.
        selection: Selection,
    },
    /// A directory that outlives the build.
    Cache(CacheMount),
    /// An empty filesystem in memory.
    Tmpfs {
        /// Its limit in bytes.
        size: Option<u64>,
    },
    /// A secret, as a file, as a variable, or both; its value never enters a digest.
    Secret {
        /// Which one.
        id: String,
        /// Whether its absence is an error.
        required: bool,
        /// The file's permissions; no file where there are none.
        file: Option<(u32, u32, u32)>,
        /// The variable that holds it.
        env: Option<String>,
    },
    /// A socket of the user's ssh agent.
    Ssh {
        /// Which agent.
        id: String,
        /// Whether its absence is an error.
        required: bool,
        /// The socket's mode, owner and group.
        mode: (u32, u32, u32),
    },
    /// A file whose bytes stand in the Dockerfile: the script of a heredoc.
    Inline {
        /// Its bytes.
        #[serde(serialize_with = "as_lossy_text")]
        data: Vec<u8>,
        /// Its permissions.
        mode: u32,
    },
}

/// A directory that outlives the build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CacheMount {
    /// Which one; not in the key.
    pub id: String,
    /// What two users do at once; not in the key.
    pub sharing: CacheSharing,
    /// What it holds when it is made.
    pub from: Option<(FileSource, Selection)>,
    /// Mode, owner and group of a new one.
    pub mode: (u32, u32, u32),
}

/// What two users of one cache mount do at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CacheSharing {
    /// Both write to it.
    #[default]
    Shared,
    /// The second gets one of its own.
    Private,
    /// The second waits.
    Locked,
}

/// Files to copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CopyOp {
    /// The root filesystem they land on.
    pub onto: VertexId,
    /// What to copy, in this order.
    pub sources: Vec<CopySource>,
    /// Where to, absolute and clean; with a trailing `/` where it must be a directory.
    pub dest: String,
    /// Who owns the copies; `None`: root for a context, else whoever owns the source.
    pub owner: Option<Owner>,
    /// `--chmod`.
    pub mode: Option<Mode>,
}

/// One source of a [`CopyOp`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopySource {
    /// Files of a stage, an image or a context.
    Files {
        /// Whose files.
        from: FileSource,
        /// Which ones.
        selection: Selection,
        /// Whether archives among them are unpacked (ADD of local files, `ADD --unpack`).
        unpack: bool,
    },
    /// A file whose bytes stand in the Dockerfile.
    Inline {
        /// Its name.
        name: String,
        /// Its bytes.
        #[serde(serialize_with = "as_lossy_text")]
        data: Vec<u8>,
    },
}

impl CopySource {
    /// Whether it may stand for several files.
    pub fn is_pattern(&self) -> bool {
        matches!(self, Self::Files { selection, .. } if selection.wildcards)
    }
}

/// Which files of a source an op sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Selection {
    /// A path below the source's root; a pattern where `wildcards` is set. With `parents` it may
    /// have a pivot `/./`.
    pub path: String,
    /// Whether `*`, `?` and `[` in the path are wildcards.
    pub wildcards: bool,
    /// `--parents`: the directories above are copied too.
    pub parents: bool,
    /// `--exclude`: patterns in the manner of `.dockerignore`, relative to a directory source.
    pub exclude: Vec<String>,
}

impl Selection {
    /// Everything below `path`, taken literally.
    pub fn literal(path: impl Into<String>) -> Self {
        Self { path: path.into(), ..Self::default() }
    }

    /// What stands for it in a digest.
    pub fn definition(&self) -> Digest {
        let Self { path, wildcards, parents, exclude } = self;
        Digester::default().field(path).flag(*wildcards).flag(*parents).list(exclude).finish()
    }
}

/// Where copied or bound files come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileSource {
    /// A snapshot of this build.
    Vertex(VertexId),
    /// A local build context by name; the main one is `context`.
    Context(String),
}

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserSpec {
    /// By number.
    Id(u32),
    /// By name, to be looked up in the destination's `/etc/passwd` or `/etc/group`.
    Name(String),
}

/// Who owns what is copied or made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Owner {
    /// The user.
    pub user: UserSpec,
    /// The group; `None`: the number of a numeric user, the primary group of a named one.
    pub group: Option<UserSpec>,
}

/// `--chmod`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// All permission bits.
    Octal(u32),
    /// Changes relative to each file's own, such as `u=rwX,go-w`; checked when planned.
    Symbolic(String),
}

/// A directory to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MakeDirOp {
    /// The root filesystem it lands on.
    pub onto: VertexId,
    /// Its path, absolute and clean.
    pub path: String,
    /// Who owns it and its new parents; root where absent.
    pub owner: Option<Owner>,
}

/// A downloaded file to put into an empty filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FetchOp {
    /// Where it was downloaded from, for people.
    pub url: RemoteUrl,
    /// The blob that holds it.
    pub digest: Digest,
    /// Its name: one path segment.
    pub name: String,
    /// Its modification time, seconds since 1970.
    pub modified: i64,
}

/// The files of a git commit to put into an empty filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GitOp {
    /// Where the repository is.
    pub remote: RemoteUrl,
    /// What was asked for; a server may give nothing but that. Not in the key.
    pub reference: Option<String>,
    /// The commit.
    pub commit: String,
    /// The directory of it that becomes the root.
    pub subdir: Option<String>,
    /// Whether its `.git` directory is there.
    pub keep_git_dir: bool,
    /// The branch or tag in that directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_name: Option<GitRef>,
    /// The tag's object that the checksum is of. Only the server has said that it is one of `commit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checked_tag: Option<String>,
    /// Whether its submodules are.
    pub submodules: bool,
}

/// Something an op reads; its cache key is its definition and these.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// All of a snapshot.
    Snapshot(VertexId),
    /// Only the files that `selection` picks.
    Files {
        /// Whose files.
        from: &'a FileSource,
        /// Which files.
        selection: &'a Selection,
    },
}

impl Op {
    /// What this op reads.
    pub fn inputs(&self) -> Vec<Input<'_>> {
        match self {
            Self::Scratch | Self::Image(_) | Self::Fetch(_) | Self::Git(_) => vec![],
            Self::Stack { base, top } => vec![Input::Snapshot(*base), Input::Snapshot(*top)],
            Self::MakeDir(MakeDirOp { onto, .. }) => vec![Input::Snapshot(*onto)],
            Self::Copy(copy) => {
                let files = copy.sources.iter().filter_map(|source| match source {
                    CopySource::Files { from, selection, unpack: _ } => {
                        Some(Input::Files { from, selection })
                    }
                    CopySource::Inline { .. } => None,
                });
                std::iter::once(Input::Snapshot(copy.onto)).chain(files).collect()
            }
            Self::Exec(exec) => {
                let binds = exec.mounts.iter().filter_map(|mount| match &mount.source {
                    MountSource::Bind { from, selection } => Some(Input::Files { from, selection }),
                    MountSource::Cache(CacheMount { from: Some((from, selection)), .. }) => {
                        Some(Input::Files { from, selection })
                    }
                    MountSource::Cache(CacheMount { from: None, .. })
                    | MountSource::Tmpfs { .. }
                    | MountSource::Secret { .. }
                    | MountSource::Ssh { .. }
                    | MountSource::Inline { .. } => None,
                });
                std::iter::once(Input::Snapshot(exec.root)).chain(binds).collect()
            }
        }
    }

    /// The vertices this op builds on.
    pub fn vertices(&self) -> impl Iterator<Item = VertexId> {
        self.inputs().into_iter().filter_map(Input::vertex)
    }

    /// The vertices whose layers are below this op's own.
    pub fn bases(&self) -> Vec<VertexId> {
        match self {
            Self::Scratch | Self::Image(_) | Self::Fetch(_) | Self::Git(_) => vec![],
            Self::Stack { base, top } => vec![*base, *top],
            Self::MakeDir(make_dir) => vec![make_dir.onto],
            Self::Copy(copy) => vec![copy.onto],
            Self::Exec(exec) => vec![exec.root],
        }
    }

    /// The op itself, what it reads left out, as the bytes that identify it.
    ///
    /// Fields are taken apart one by one so that a new one does not compile until someone has
    /// decided whether it makes a difference to the result.
    pub fn definition(&self) -> Digest {
        let op = |name: &str| Digester::default().field(name);
        match self {
            Self::Scratch => op("scratch"),
            Self::Stack { base: _, top: _ } => op("stack"),
            Self::Image(image) => op("image").field(image.manifest),
            Self::Fetch(FetchOp { url: _, digest, name, modified }) => {
                op("fetch").field(digest).field(name).field(modified.to_le_bytes())
            }
            Self::Git(git) => {
                let GitOp {
                    remote,
                    reference: _,
                    commit,
                    subdir,
                    keep_git_dir,
                    kept_name,
                    checked_tag,
                    submodules,
                } = &**git;
                // A commit has the same files for everyone who may read it.
                let digest =
                    op("git").field(remote.without_user()).field(commit).optional(subdir.as_ref());
                let digest = digest.flag(*keep_git_dir).flag(*submodules);
                let digest = match kept_name {
                    Some(GitRef { name, object }) => digest.field(name).field(object),
                    None => digest,
                };
                // What was checked out without the checksum has not shown that the tag is of it.
                match checked_tag {
                    Some(object) => digest.field("checked tag").field(object),
                    None => digest,
                }
            }
            Self::MakeDir(MakeDirOp { onto: _, path, owner }) => {
                op("make-dir").field(path).field(owner_definition(owner.as_ref()))
            }
            Self::Exec(exec) => exec.define(op("exec")),
            Self::Copy(copy) => copy.define(op("copy")),
        }
        .finish()
    }
}

impl ExecOp {
    fn define(&self, digest: Digester) -> Digester {
        let Self {
            root: _,
            args,
            env,
            proxy_env: _,
            cwd,
            user,
            mounts,
            network,
            security,
            platform,
            hostname,
            extra_hosts,
            shm_size: _,
            ulimits: _,
        } = self;
        let digest = digest.list(args).count(env.len());
        let digest =
            env.iter().fold(digest, |digest, (name, value)| digest.field(name).field(value));
        let digest = digest.field(cwd).field(user).number(*network as u64).number(*security as u64);
        let digest = digest.field(platform.to_string()).field(hostname).count(extra_hosts.len());
        let digest = extra_hosts.iter().fold(digest, |digest, (name, _address)| digest.field(name));
        mounts.iter().fold(digest.count(mounts.len()), |digest, mount| mount.define(digest))
    }
}

impl Mount {
    fn define(&self, digest: Digester) -> Digester {
        let Self { target, read_only, source } = self;
        let digest = digest.field(target).flag(*read_only);
        let ids = |digest: Digester, (mode, uid, gid): (u32, u32, u32)| {
            digest.number(mode.into()).number(uid.into()).number(gid.into())
        };
        match source {
            MountSource::Bind { from: _, selection } => {
                digest.field("bind").field(selection.definition())
            }
            MountSource::Cache(CacheMount { id: _, sharing: _, from, mode }) => {
                let from = from.as_ref().map(|(_, selection)| selection.definition());
                ids(digest.field("cache").optional(from), *mode)
            }
            MountSource::Tmpfs { size } => {
                digest.field("tmpfs").optional(size.map(u64::to_le_bytes))
            }
            MountSource::Secret { id, required, file, env } => {
                let digest =
                    digest.field("secret").field(id).flag(*required).optional(env.as_ref());
                match file {
                    Some(mode) => ids(digest.flag(true), *mode),
                    None => digest.flag(false),
                }
            }
            MountSource::Ssh { id, required, mode } => {
                ids(digest.field("ssh").field(id).flag(*required), *mode)
            }
            MountSource::Inline { data, mode } => {
                digest.field("inline").field(data).number((*mode).into())
            }
        }
    }
}

impl CopyOp {
    fn define(&self, digest: Digester) -> Digester {
        let Self { onto: _, sources, dest, owner, mode } = self;
        let digest = digest.field(dest).field(owner_definition(owner.as_ref()));
        let digest = match mode {
            None => digest.field("as it is"),
            Some(Mode::Octal(mode)) => digest.field("octal").number((*mode).into()),
            Some(Mode::Symbolic(mode)) => digest.field("symbolic").field(mode),
        };
        sources.iter().fold(digest.count(sources.len()), |digest, source| match source {
            CopySource::Files { from, selection, unpack } => {
                // A context's files lose their owners, those of a snapshot keep them.
                let owned = matches!(from, FileSource::Vertex(_));
                // The directory above a source is not seen in the result, its name is.
                let name =
                    selection.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                let name =
                    if selection.wildcards || selection.parents { &selection.path } else { name };
                let digest = digest.field("files").flag(owned).flag(*unpack).field(name);
                digest.flag(selection.wildcards).flag(selection.parents).list(&selection.exclude)
            }
            CopySource::Inline { name, data } => digest.field("inline").field(name).field(data),
        })
    }
}

fn owner_definition(owner: Option<&Owner>) -> Digest {
    let user = |digest: Digester, user: &UserSpec| match user {
        UserSpec::Id(id) => digest.field("id").number((*id).into()),
        UserSpec::Name(name) => digest.field("name").field(name),
    };
    let digest = Digester::default();
    match owner {
        None => digest.count(0),
        Some(Owner { user: owner, group: None }) => user(digest.count(1), owner),
        Some(Owner { user: owner, group: Some(group) }) => {
            user(user(digest.count(2), owner), group)
        }
    }
    .finish()
}

impl Input<'_> {
    /// The vertex this reads from, if it is one.
    pub fn vertex(self) -> Option<VertexId> {
        match self {
            Self::Snapshot(id) | Self::Files { from: &FileSource::Vertex(id), .. } => Some(id),
            Self::Files { from: FileSource::Context(_), .. } => None,
        }
    }
}

fn as_text<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

fn as_lossy_text<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&without_secrets(&String::from_utf8_lossy(bytes)))
}

fn words_without_secrets<S: Serializer>(
    words: &[String],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(words.iter().map(|word| without_secrets(word)))
}

fn variables_without_secrets<S: Serializer>(
    variables: &[(String, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let shown = |(name, value): &(String, String)| match is_secret_name(name) {
        true => (name.clone(), "****".to_owned()),
        false => (name.clone(), without_secrets(value)),
    };
    serializer.collect_seq(variables.iter().map(shown))
}
