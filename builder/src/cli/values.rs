//! Values of flags: from text to what the library works with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use frontend::{GitSource, NamedContext, NetworkMode};
use oci::{Digest, Platform, Reference};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::csv;
use super::settings::{Settings, expand_home};

/// Why a flag's value is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValueError {
    /// A pair without a name.
    #[error("invalid key-value pair \"{0}\": empty key")]
    EmptyKey(String),
    /// No level of the sandbox.
    #[error(
        "invalid RBUILD_SANDBOX {0:?}: it is auto, root, subordinate-ids, single-id, outer-proc or \
         chroot"
    )]
    Sandbox(String),
    /// No platform.
    #[error("invalid --platform: {0}")]
    Platform(#[from] oci::ParsePlatformError),
    /// No network mode.
    #[error("network mode \"{0}\" is not supported: it is default, none or host")]
    Network(String),
    /// No entitlement.
    #[error("unknown entitlement {0}")]
    Entitlement(String),
    /// No host and address.
    #[error("invalid host {0}: it must be HOST:IP or HOST=IP")]
    Host(String),
    /// No size.
    #[error("invalid size \"{0}\": it must be a number with one of the units b, k, m, g")]
    Size(String),
    /// No limit.
    #[error("invalid ulimit argument: {0}: it must be NAME=SOFT[:HARD]")]
    Ulimit(String),
    /// No such limit.
    #[error("invalid ulimit argument: {0}: there is no such limit{meant}", meant = meant(.0, LIMITS))]
    Limit(String),
    /// A limit that could never be.
    #[error("ulimit soft limit must be less than or equal to hard limit: {0}")]
    SoftAboveHard(String),
    /// A file of build arguments can't be read.
    #[error("cannot read --build-arg-file {path}")]
    ArgFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No filter of `prune`.
    #[error("invalid filter \"{0}\": it must be until=DURATION, such as until=24h or until=1h30m")]
    Filter(String),
    /// Records have no time of use.
    #[error("--all deletes everything: it can't go with --filter until=…")]
    AllUntil,
    /// No agent runs, as far as the environment tells.
    #[error(
        "invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set, or give --ssh {0}=SOCKET"
    )]
    SshNoSocket(String),
    /// An agent's socket or a key is not there.
    #[error("ssh agent {id}: cannot open `{path}`: {source}")]
    SshPath {
        /// The agent's id.
        id: String,
        /// What was given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Both for one id.
    #[error("ssh agent {0}: invalid combination of keys and sockets")]
    SshSocketAndKeys(String),
    /// More than one socket for one id.
    #[error("ssh agent {0}: only single socket allowed")]
    SshSockets(String),
    /// An id was given twice.
    #[error("invalid duplicate ssh agent {0}")]
    SshTwice(String),
    /// A named context without a name or a value.
    #[error("invalid context value: {0}, expected key=value")]
    Context(String),
    /// A named context of a kind that can't be read.
    #[error("named context `{name}`: {reason}")]
    ContextKind {
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A secret that is no CSV record.
    #[error(
        "invalid --secret: it must be id=ID and one of src=FILE and env=NAME, with commas between them"
    )]
    SecretCsv,
    /// A secret with a key that is not known.
    #[error("unexpected key '{0}' in --secret: it can be id, src, env and type")]
    SecretKey(String),
    /// A secret of an unknown type.
    #[error("unsupported type of --secret: it is file or env")]
    SecretType,
    /// A secret without an id.
    #[error("secret missing ID: give it with --secret id=ID,src=FILE or --secret id=ID,env=NAME")]
    SecretId,
    /// A secret's file can't be read.
    #[error("failed to stat secret `{id}`: {path}: {source}")]
    SecretFile {
        /// Its id.
        id: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A secret is too large.
    #[error("secret `{0}` is larger than 500 KiB")]
    SecretSize(String),
}

/// `NAME=VALUE` pairs; a bare `NAME` takes its value from `variable`, and is nothing without one.
pub(crate) fn pairs(
    texts: &[String],
    variable: impl Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, ValueError> {
    let mut pairs = BTreeMap::new();
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), variable(text)),
        };
        if name.is_empty() {
            return Err(ValueError::EmptyKey(text.clone()));
        }
        pairs.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(pairs)
}

/// `--label`: a bare name has an empty value.
pub(crate) fn labels(texts: &[String]) -> Result<Vec<(String, String)>, ValueError> {
    let label = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        match name {
            "" => Err(ValueError::EmptyKey(text.clone())),
            name => Ok((name.to_owned(), value.to_owned())),
        }
    };
    texts.iter().map(label).collect()
}

/// One platform; `local` is that of this machine.
pub(crate) fn platform(text: &str) -> Result<Platform, ValueError> {
    if text.eq_ignore_ascii_case("local") {
        return Ok(Platform::host());
    }
    Ok(text.trim().parse()?)
}

/// `--network`.
pub(crate) fn network(text: Option<&str>) -> Result<NetworkMode, ValueError> {
    match text {
        None | Some("" | "default") => Ok(NetworkMode::Default),
        Some("none") => Ok(NetworkMode::None),
        Some("host") => Ok(NetworkMode::Host),
        Some(other) => Err(ValueError::Network(other.to_owned())),
    }
}

/// `--allow`.
pub(crate) fn entitlements(texts: &[String]) -> Result<BTreeSet<String>, ValueError> {
    let known = |text: &&String| ["network.host", "security.insecure"].contains(&text.as_str());
    match texts.iter().find(|text| !known(text)) {
        Some(unknown) => Err(ValueError::Entitlement(unknown.clone())),
        None => Ok(texts.iter().cloned().collect()),
    }
}

/// `--add-host`: `HOST=IP` or `HOST:IP`, an IPv6 address perhaps in brackets.
pub(crate) fn hosts(texts: &[String]) -> Result<Vec<(String, String)>, ValueError> {
    let mut hosts = vec![];
    for text in texts {
        let invalid = || ValueError::Host(text.clone());
        let (name, addresses) =
            text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(invalid)?;
        for address in addresses.split(',') {
            let address = address.trim_start_matches('[').trim_end_matches(']');
            // RUN is on the host's network, if on any.
            let address = if address == "host-gateway" { "127.0.0.1" } else { address };
            if name.is_empty() || address.parse::<std::net::IpAddr>().is_err() {
                return Err(invalid());
            }
            hosts.push((name.to_owned(), address.to_owned()));
        }
    }
    Ok(hosts)
}

/// A size in bytes, with a unit of 1024 or its powers.
pub(crate) fn bytes(text: &str) -> Result<u64, ValueError> {
    let invalid = || ValueError::Size(text.to_owned());
    let lower = text.to_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit()).trim_end_matches(' ');
    let shift = match lower[digits.len()..].trim_start().trim_end_matches('b').trim_end_matches('i')
    {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(invalid()),
    };
    let Some((whole, fraction)) = digits.split_once('.') else {
        let number: u64 = digits.parse().map_err(|_| invalid())?;
        return number.checked_mul(1 << shift).ok_or_else(invalid);
    };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.is_empty() || !is_number(whole) || !is_number(fraction) {
        return Err(invalid());
    }
    let number: f64 = digits.parse().map_err(|_| invalid())?;
    let bytes = number * (1_u64 << shift) as f64;
    // Beyond this a fraction of a byte is all that could be lost.
    if bytes < (1_u64 << 52) as f64 { Ok(bytes as u64) } else { Err(invalid()) }
}

/// The limits that Linux has, as `--ulimit` calls them.
const LIMITS: [&str; 16] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
    "as",
];

fn meant(text: &str, candidates: impl IntoIterator<Item = &'static str>) -> String {
    let word = text.split('=').next().unwrap_or_default();
    let nearest = frontend::did_you_mean(word, candidates);
    nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

/// `--build-arg-file`: a pair on each line; empty lines and comments count for nothing.
pub(crate) fn arg_file(path: &Path) -> Result<Vec<String>, ValueError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ValueError::ArgFile { path: path.to_owned(), source })?;
    let lines = text.lines().map(str::trim);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

/// `NAME=SOFT[:HARD]`; -1 is unlimited.
pub(crate) fn ulimit(text: &str) -> Result<(String, i64, i64), ValueError> {
    let invalid = || ValueError::Ulimit(text.to_owned());
    let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number =
        |limit: &str| limit.parse::<i64>().ok().filter(|limit| *limit >= -1).ok_or_else(invalid);
    let (soft, hard) = (number(soft)?, number(hard)?);
    if !LIMITS.contains(&name) {
        return Err(ValueError::Limit(text.to_owned()));
    }
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(ValueError::SoftAboveHard(text.to_owned()));
    }
    Ok((name.to_owned(), soft, hard))
}

/// What `--build-context` gives for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ContextValue {
    /// A local directory.
    Directory(PathBuf),
    /// Anything else.
    Other(NamedContext),
}

impl From<ContextValue> for NamedContext {
    fn from(value: ContextValue) -> Self {
        match value {
            ContextValue::Directory(_) => Self::Directory,
            ContextValue::Other(context) => context,
        }
    }
}

/// `--build-context NAME=VALUE`.
pub(crate) fn named_context(text: &str) -> Result<(String, ContextValue), ValueError> {
    let (name, value) = text.split_once('=').ok_or_else(|| ValueError::Context(text.to_owned()))?;
    let refused = |reason: String| ValueError::ContextKind { name: name.to_owned(), reason };
    let context = if value == "docker-image://scratch" {
        ContextValue::Other(NamedContext::Scratch)
    } else if let Some(image) = value.strip_prefix("docker-image://") {
        let reference: Reference = image
            .parse()
            .map_err(|error| refused(format!("`{}`: {error}", frontend::without_user(image))))?;
        ContextValue::Other(NamedContext::Image(reference))
    } else if let Some(layout) = value.strip_prefix("oci-layout://") {
        ContextValue::Other(oci_layout(layout).map_err(refused)?)
    } else if frontend::is_git(value) {
        ContextValue::Other(NamedContext::Git(GitSource::parse(value).map_err(refused)?))
    } else if frontend::is_url(value) {
        ContextValue::Other(NamedContext::Http(value.into()))
    } else if value.contains("://") {
        return Err(refused(format!("`{value}` is not supported")));
    } else {
        let path = PathBuf::from(value);
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => ContextValue::Directory(path),
            Ok(_) => return Err(refused(format!("`{value}` is not a directory"))),
            Err(error) => return Err(refused(format!("failed to get `{value}`: {error}"))),
        }
    };
    Ok((familiar_name(name), context))
}

/// A context's name as a Dockerfile writes it: `docker.io/library/alpine:latest` is `alpine`.
fn familiar_name(name: &str) -> String {
    let (image, platform) =
        name.split_once("::").map_or((name, None), |(image, platform)| (image, Some(platform)));
    let image = match image.parse::<Reference>() {
        Ok(reference) => {
            let familiar = reference.familiar();
            familiar.strip_suffix(":latest").map_or(familiar.clone(), str::to_owned)
        }
        Err(_) => image.to_lowercase(),
    };
    platform.map_or(image.clone(), |platform| format!("{image}::{platform}"))
}

/// `path[:tag][@digest]`.
fn oci_layout(text: &str) -> Result<NamedContext, String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            (rest, Some(digest.parse::<Digest>().map_err(|error| error.to_string())?))
        }
        None => (text, None),
    };
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (rest, "latest"),
    };
    let path = PathBuf::from(path);
    if !path.is_dir() {
        return Err(format!("there is no directory `{}`", path.display()));
    }
    Ok(NamedContext::OciLayout { path, tag: tag.to_owned(), digest })
}

/// No secret is larger, in bytes.
const SECRET_LIMIT: usize = 500 << 10;

/// `--secret id=ID[,src=FILE][,env=NAME][,type=file|env]`: its id and its value.
pub(crate) fn secret(text: &str, settings: &Settings) -> Result<(String, Vec<u8>), ValueError> {
    let (mut id, mut source, mut variable, mut is_variable) = (None, None, None, false);
    // No message repeats a value: it may be the secret itself, given in the wrong place.
    for (key, value) in csv::pairs(text).map_err(|_| ValueError::SecretCsv)? {
        match key.as_str() {
            "id" => id = Some(value),
            "src" | "source" => source = Some(value),
            "env" => variable = Some(value),
            "type" if value == "env" => is_variable = true,
            "type" if value == "file" => is_variable = false,
            "type" => return Err(ValueError::SecretType),
            _ => return Err(ValueError::SecretKey(key)),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or(ValueError::SecretId)?;
    if is_variable && variable.is_none() {
        variable = source.take();
    }
    let named_by_id = || settings.variable(&id).filter(|_| source.is_none());
    let value = match variable
        .map_or_else(named_by_id, |name| Some(settings.variable(&name).unwrap_or_default()))
    {
        Some(value) => value.into_bytes(),
        None => {
            let path = expand_home(source.as_deref().unwrap_or(&id), settings);
            let failed =
                |source| ValueError::SecretFile { id: id.clone(), path: path.clone(), source };
            read_secret(&path, PATIENCE).map_err(failed)?
        }
    };
    if value.len() > SECRET_LIMIT {
        return Err(ValueError::SecretSize(id));
    }
    Ok((id, value))
}

/// How long something is waited for that is no ordinary file, such as `src=<(command)` in a shell.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads a secret, but not much more of it than may be: it may be a device without an end.
fn read_secret(path: &Path, patience: Duration) -> io::Result<Vec<u8>> {
    let mut options = File::options();
    let mut file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let (mut value, mut block) = (vec![], [0; 1 << 16]);
    let is_slow = !file.metadata()?.is_file();
    let end = Instant::now() + patience;
    while value.len() <= SECRET_LIMIT {
        if is_slow {
            wait_for(&file, end)?;
        }
        match file.read(&mut block) {
            Ok(0) => break,
            Ok(count) => value.extend_from_slice(&block[..count]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(value)
}

/// Waits until there is something to read, or nothing will come any more.
fn wait_for(file: &File, end: Instant) -> io::Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).map_err(io::Error::other)?;
    let mut wanted = [PollFd::new(file, PollFlags::IN)];
    match poll(&mut wanted, Some(&left)) {
        Ok(0) => Err(io::Error::new(ErrorKind::TimedOut, "it does not end: nothing more comes")),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What `--ssh` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SshValue {
    /// A running agent.
    Socket(PathBuf),
    /// Files with keys, absolute.
    Keys(Vec<PathBuf>),
}

/// `--ssh default`, `ID=SOCKET` or `ID=KEY[,KEY]`.
pub(crate) fn ssh(text: &str, settings: &Settings) -> Result<(String, SshValue), ValueError> {
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let agent = || settings.variable("SSH_AUTH_SOCK").filter(|path| !path.is_empty());
    let paths: Vec<String> = match paths {
        "" => agent().into_iter().collect(),
        paths => paths.split(',').map(str::to_owned).collect(),
    };
    if paths.is_empty() {
        return Err(ValueError::SshNoSocket(id.to_owned()));
    }
    let (mut sockets, mut keys) = (vec![], vec![]);
    for path in paths {
        let path = expand_home(&path, settings);
        let unfit = |source| ValueError::SshPath { id: id.to_owned(), path: path.clone(), source };
        let found = std::fs::canonicalize(&path).map_err(unfit)?;
        let file = std::fs::metadata(&found).map_err(unfit)?;
        if file.file_type().is_socket() { sockets.push(found) } else { keys.push(found) }
    }
    match (sockets.as_slice(), keys.is_empty()) {
        ([], _) => Ok((id.to_owned(), SshValue::Keys(keys))),
        ([socket], true) => Ok((id.to_owned(), SshValue::Socket(socket.clone()))),
        (_, true) => Err(ValueError::SshSockets(id.to_owned())),
        (_, false) => Err(ValueError::SshSocketAndKeys(id.to_owned())),
    }
}

/// `until=24h`: a time in days, hours, minutes and seconds.
pub(crate) fn until(filter: &str) -> Result<Duration, ValueError> {
    let invalid = || ValueError::Filter(filter.to_owned());
    let mut rest =
        filter.strip_prefix("until=").filter(|rest| !rest.is_empty()).ok_or_else(invalid)?;
    let mut seconds = 0_u64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = rest.split_at(digits);
        let factor = match unit.bytes().next() {
            Some(b'd') => 86_400,
            Some(b'h') => 3_600,
            Some(b'm') => 60,
            Some(b's') => 1,
            _ => return Err(invalid()),
        };
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let more = number.checked_mul(factor).ok_or_else(invalid)?;
        seconds = seconds.checked_add(more).ok_or_else(invalid)?;
        rest = &unit[1..];
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(bytes("64m").unwrap(), 64 << 20);
        assert_eq!(bytes("1GiB").unwrap(), 1 << 30);
        assert_eq!(bytes("17").unwrap(), 17);
        assert_eq!(bytes("1.5g").unwrap(), 3 << 29);
        assert_eq!(bytes("0.5k").unwrap(), 512);
        for wrong in ["m", "1x", "1.g", ".5g", "1.5.5g", "-1", "1e3", "", "99999999999.5t"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_split_at_the_first_equals_sign_or_colon() {
        let host = |text: &str| hosts(&[text.to_owned()]).map(|hosts| hosts[0].clone());
        assert_eq!(host("a:1.2.3.4").unwrap(), ("a".to_owned(), "1.2.3.4".to_owned()));
        assert_eq!(host("a=::1").unwrap().1, "::1");
        assert_eq!(host("a:[::1]").unwrap().1, "::1");
        assert_eq!(host("h=host-gateway").unwrap().1, "127.0.0.1");
        assert!(host("a").is_err() && host("a:b").is_err());
    }

    #[test]
    fn a_context_has_the_name_that_a_dockerfile_writes() {
        assert_eq!(familiar_name("docker.io/library/alpine:latest"), "alpine");
        assert_eq!(familiar_name("alpine:3"), "alpine:3");
        assert_eq!(familiar_name("alpine::linux/arm64"), "alpine::linux/arm64");
        assert_eq!(familiar_name("Base"), "base");
    }

    #[test]
    fn a_layout_may_have_a_tag_and_a_digest() {
        let NamedContext::OciLayout { path, tag, .. } = oci_layout("/usr/lib:1.2").unwrap() else {
            panic!()
        };
        assert_eq!((path, tag), (PathBuf::from("/usr/lib"), "1.2".to_owned()));
        let NamedContext::OciLayout { path, tag, .. } = oci_layout("./src").unwrap() else {
            panic!()
        };
        assert_eq!((path, tag), (PathBuf::from("./src"), "latest".to_owned()));
        assert!(oci_layout("/no/such/layout:1.2").is_err());
    }

    #[test]
    fn ulimits_have_a_soft_and_a_hard_part() {
        assert_eq!(ulimit("nofile=1:2").unwrap(), ("nofile".to_owned(), 1, 2));
        assert_eq!(ulimit("core=-1").unwrap(), ("core".to_owned(), -1, -1));
        assert!(ulimit("nofile").is_err());
        let said = |text: &str| ulimit(text).unwrap_err().to_string();
        assert!(said("nofiles=1").ends_with("did you mean `nofile`?"));
        assert!(said("foo=1").contains("no such limit"));
        assert!(said("nofile=200:100").contains("soft limit"));
        assert!(said("nofile=-1:100").contains("soft limit"));
        assert!(ulimit("nofile=100:-1").is_ok());
    }

    #[test]
    fn a_secret_is_read_until_its_limit_and_for_so_long() {
        let read = |path: &Path| read_secret(path, Duration::from_millis(100));
        let zeros = read(Path::new("/dev/zero")).unwrap();
        assert!((SECRET_LIMIT + 1..SECRET_LIMIT + (1 << 17)).contains(&zeros.len()));
        assert_eq!(read(Path::new("/dev/null")).unwrap(), b"");

        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .unwrap();
        assert_eq!(read(&fifo).unwrap_err().kind(), ErrorKind::TimedOut);
        let (writer, path) = (
            std::thread::spawn({
                let path = fifo.clone();
                move || std::fs::write(path, "from a command").unwrap()
            }),
            fifo,
        );
        assert_eq!(read_secret(&path, Duration::from_secs(10)).unwrap(), b"from a command");
        writer.join().unwrap();
    }

    #[test]
    fn what_is_said_of_a_wrong_secret_does_not_repeat_it() {
        let settings = Settings::read();
        for wrong in
            ["hunter2hunter", "id=a,hunter2hunter", "id=a,value=hunter2hunter", "src=hunter2hunter"]
        {
            let said = secret(wrong, &settings).unwrap_err().to_string();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn a_time_has_units() {
        let seconds = |filter| until(filter).map(|time| time.as_secs()).ok();
        assert_eq!(seconds("until=24h"), Some(86_400));
        assert_eq!(seconds("until=1d1h1m1s"), Some(90_061));
        for wrong in
            ["until=", "until=5", "until=h", "until=1w", "24h", "until=99999999999999999999h"]
        {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
