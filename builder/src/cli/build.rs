//! `rbuild build`: from flags and files to a [`Request`], and from its outcome to the last lines.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::sync::Arc;

use cache::CacheError;
use clap::ValueEnum;
use frontend::{NamedContext, NetworkMode, PlanRequest, RemoteUrl};
use oci::{Digest, Digester, Platform, Reference};
use serde_json::json;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::args::BuildArgs;
use super::call::CallError;
use super::context::{self, Remote};
use super::outputs::{self, OutputError};
use super::places::{self, PlaceError};
use super::progress::{NotShown, ProgressMode};
use super::registries::{self, RegistriesError};
use super::report;
use super::settings::Settings;
use super::values::{self, SshValue, ValueError};
use super::visible::visible_lines;
use crate::build::{Exported, Report, Request, Services};
use crate::context::{BuildContext, ContextError};
use crate::download::DownloadError;
use crate::event::{EventKind, StepId};
use crate::git::{Git, GitError};
use crate::whole_file::WholeFile;
use crate::worker::{KeyAgent, KeyAgentError, Secrets, SshAgent, SshAgents};

/// Why a command line can't be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    /// Registries can't be used in this way.
    #[error(transparent)]
    Registries(#[from] RegistriesError),
    /// A flag's value is wrong.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// An output is wrong.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// An output could not be written.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The context is no directory.
    #[error("unable to prepare context: path \"{0}\" not found")]
    NoContext(String),
    /// The context is a file.
    #[error(
        "`{0}` is a file, not a context; if it is a Dockerfile: `rbuild -f {0} .`, if it is an archive: \
         `rbuild - < {0}`"
    )]
    ContextIsFile(String),
    /// The context is a Dockerfile.
    #[error("`{0}` is a Dockerfile, not a context: `rbuild -f {0} .`")]
    ContextIsDockerfile(String),
    /// Another ignore file counts for a directory alone.
    #[error("--ignorefile goes with a context that is a directory")]
    IgnoreFile,
    /// The user ended it while the context was fetched.
    #[error("stopped")]
    Stopped,
    /// The context is a git repository that makes no sense.
    #[error("invalid context: {0}")]
    GitContext(String),
    /// The context is a git repository that can't be had.
    #[error(transparent)]
    Git(#[from] GitError),
    /// Standard input can be read but once.
    #[error("invalid argument: can't use stdin for both build context and dockerfile")]
    StdinTwice,
    /// A Dockerfile came where a context was expected, and another one is named.
    #[error("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")]
    DockerfileTwice,
    /// An archive came where a Dockerfile was expected.
    #[error("{0} is an archive, not a Dockerfile")]
    ArchiveAsDockerfile(RemoteUrl),
    /// Context or Dockerfile can't be downloaded.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The store can't be read or written.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// There is no agent for ssh keys.
    #[error(transparent)]
    KeyAgent(#[from] KeyAgentError),
    /// A context can't be read.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The Dockerfile can't be read.
    #[error("failed to read dockerfile: cannot open {path}: {source}")]
    Dockerfile {
        /// Its path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Both flags ask for opposite things.
    #[error("--no-cache and --no-cache-filter cannot currently be used together")]
    NoCacheTwice,
    /// What is asked for instead of a build.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Quiet and another way of showing progress.
    #[error("--progress={} and --quiet cannot be used together", name_of(*.0))]
    QuietAndProgress(ProgressMode),
    /// The environment asks for an unknown way of showing progress.
    #[error("invalid progress mode {0} in BUILDKIT_PROGRESS")]
    Progress(String),
    /// The progress can't be shown in this way.
    #[error(transparent)]
    NotShown(#[from] NotShown),
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Reads everything that the flags name; what is elsewhere is fetched with `services` first.
pub(crate) fn request(
    args: &BuildArgs,
    settings: &Settings,
    proxies: &BTreeMap<String, String>,
    services: &Services,
    runtime: &Handle,
) -> Result<Request, UsageError> {
    if args.no_cache && !args.no_cache_filter.is_empty() {
        return Err(UsageError::NoCacheTwice);
    }
    let tags = outputs::tags(args)?;
    let outputs = outputs::outputs(args, &tags, std::io::stdout().is_terminal())?;
    let secrets = secrets(args, settings)?;
    services.events.hide(secrets.masks());
    let ssh = ssh_agents(args, settings, services, runtime)?;
    let (named, mut contexts) = named_contexts(args)?;
    let named_repositories = named_repositories(args, &named);
    let (for_git, repositories) = (services.sandbox.clone(), named_repositories.clone());
    let remote = Remote {
        downloads: services.downloader(&secrets),
        git: Git::new(for_git, secrets.clone(), ssh.clone(), repositories),
        runtime,
        stop: &services.stop,
    };
    let (dockerfile, main) = context::read(args, &remote)?;
    if let Some(reason) = main.unread_ignore() {
        let name = "[internal] load .dockerignore";
        let step = StepId::named(name);
        let planned = EventKind::Planned { name: name.to_owned(), inputs: vec![] };
        let warning = EventKind::Warning(reason.to_owned());
        for kind in [planned, EventKind::Started, warning, EventKind::Done] {
            services.events.tell(step, kind);
        }
    }
    if args.file.is_none() && dockerfile.name == context::CONTAINERFILE {
        let name = "[internal] no Dockerfile found, using Containerfile";
        let step = StepId::named(name);
        let planned = EventKind::Planned { name: name.to_owned(), inputs: vec![] };
        for kind in [planned, EventKind::Started, EventKind::Done] {
            services.events.tell(step, kind);
        }
    }
    let of_main = (main.ignore().cloned(), main.time());
    contexts.insert("context".to_owned(), Arc::new(main));
    Ok(Request {
        plan: plan_request(args, settings, proxies, named, of_main)?,
        dockerfile,
        contexts,
        secrets,
        ssh,
        named_repositories,
        tags,
        outputs,
        jobs: args
            .jobs
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |jobs| jobs.get())),
        pull: args.pull,
        project: project(args),
        explain: args.explain,
    })
}

/// Looks at where the outputs go.
pub(crate) fn check_places(args: &BuildArgs) -> Result<(), UsageError> {
    let outputs = outputs::outputs(args, &outputs::tags(args)?, std::io::stdout().is_terminal())?;
    Ok(places::check(args, &outputs)?)
}

impl UsageError {
    /// What the user reads of it.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Context(error) => report::with(error.help(), error),
            error => report::with_help(error),
        }
    }
}

/// Whose earlier builds a build is compared with: those of the same Dockerfile and context.
fn project(args: &BuildArgs) -> Digest {
    let place =
        std::fs::canonicalize(&args.context).unwrap_or_else(|_| args.context.clone().into());
    let digest = Digester::default().field(place.as_os_str().as_encoded_bytes());
    digest.optional(args.file.as_ref()).finish()
}

fn plan_request(
    args: &BuildArgs,
    settings: &Settings,
    proxies: &BTreeMap<String, String>,
    contexts: BTreeMap<String, NamedContext>,
    (ignore, context_time): (Option<frontend::ignore::Ignore>, Option<i64>),
) -> Result<PlanRequest, UsageError> {
    let mut build_args = build_args(args, settings)?;
    if let Some(epoch) = settings.variable("SOURCE_DATE_EPOCH").filter(|epoch| !epoch.is_empty()) {
        build_args.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert(epoch);
    }
    let is_given = |name: &str| build_args.keys().any(|given| given.eq_ignore_ascii_case(name));
    let proxies: Vec<_> = proxies.iter().filter(|(name, _)| !is_given(name)).collect();
    build_args.extend(proxies.into_iter().map(|(name, value)| (name.clone(), value.clone())));
    Ok(PlanRequest {
        target: args.target.clone(),
        build_args,
        labels: values::labels(&args.label)?,
        platforms: platforms(args, settings)?,
        build_platform: Platform::host(),
        contexts,
        no_cache: args.no_cache,
        no_cache_stages: args.no_cache_filter.iter().map(|stage| stage.to_lowercase()).collect(),
        network: values::network(args.network.as_deref())?,
        entitlements: entitlements(args)?,
        extra_hosts: values::hosts(&args.add_host)?,
        shm_size: args.shm_size.as_deref().map(values::bytes).transpose()?,
        ulimits: args.ulimit.iter().map(|limit| values::ulimit(limit)).collect::<Result<_, _>>()?,
        context_time,
        ignore,
    })
}

/// Build arguments: those of a file count less than those of the command line.
fn build_args(
    args: &BuildArgs,
    settings: &Settings,
) -> Result<BTreeMap<String, String>, UsageError> {
    let variable = |name: &str| settings.variable(name);
    let mut all = BTreeMap::new();
    for path in &args.others.build_arg_file {
        all.extend(values::pairs(&values::arg_file(path)?, variable)?);
    }
    all.extend(values::pairs(&args.build_arg, variable)?);
    if let Some(epoch) = args.others.source_date_epoch {
        all.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert_with(|| epoch.to_string());
    }
    Ok(all)
}

/// Reads all values of flags that need no look at what they name, before anything is made.
pub(crate) fn check(args: &BuildArgs, settings: &Settings) -> Result<(), UsageError> {
    if args.no_cache && !args.no_cache_filter.is_empty() {
        return Err(UsageError::NoCacheTwice);
    }
    context::check(&args.context, args.file.as_deref())?;
    let tags = outputs::tags(args)?;
    outputs::outputs(args, &tags, std::io::stdout().is_terminal())?;
    registries::check(args)?;
    plan_request(args, settings, &BTreeMap::new(), BTreeMap::new(), (None, None)).map(drop)
}

fn platforms(args: &BuildArgs, settings: &Settings) -> Result<Vec<Platform>, UsageError> {
    let default =
        settings.variable("DOCKER_DEFAULT_PLATFORM").filter(|platform| !platform.is_empty());
    let others = &args.others;
    if others.arch.is_some() || others.os.is_some() {
        let host = Platform::host();
        let arch = others.arch.clone().unwrap_or_else(|| host.architecture.clone());
        let mut name = format!("{}/{arch}", others.os.as_deref().unwrap_or(&host.os));
        if let Some(variant) = &others.variant {
            name = format!("{name}/{variant}");
        }
        return Ok(vec![values::platform(&name)?]);
    }
    let names = if args.platform.is_empty() {
        default.into_iter().collect()
    } else {
        args.platform.clone()
    };
    Ok(names.iter().map(|name| values::platform(name)).collect::<Result<_, _>>()?)
}

/// `--network=host` grants itself, as it does in buildx.
fn entitlements(args: &BuildArgs) -> Result<BTreeSet<String>, UsageError> {
    let mut granted = values::entitlements(&args.allow)?;
    if values::network(args.network.as_deref())? == NetworkMode::Host {
        granted.insert("network.host".to_owned());
    }
    Ok(granted)
}

type Contexts = (BTreeMap<String, NamedContext>, BTreeMap<String, Arc<BuildContext>>);

fn named_contexts(args: &BuildArgs) -> Result<Contexts, UsageError> {
    let (mut named, mut local) = Contexts::default();
    for text in &args.build_context {
        let (name, context) = values::named_context(text)?;
        if let values::ContextValue::Directory(path) = &context {
            local.insert(name.clone(), Arc::new(BuildContext::open(path, None)?));
        }
        named.insert(name, context.into());
    }
    Ok((named, local))
}

/// The repositories that the command line names.
fn named_repositories(
    args: &BuildArgs,
    named: &BTreeMap<String, NamedContext>,
) -> BTreeSet<RemoteUrl> {
    let repository = |context: &NamedContext| match context {
        NamedContext::Git(source) => Some(source.remote.clone()),
        _ => None,
    };
    named.values().filter_map(repository).chain(context::repository(&args.context)).collect()
}

/// Keys get an agent of their own.
fn ssh_agents(
    args: &BuildArgs,
    settings: &Settings,
    services: &Services,
    runtime: &Handle,
) -> Result<SshAgents, UsageError> {
    let mut agents = BTreeMap::new();
    for text in &args.ssh {
        let (id, value) = values::ssh(text, settings)?;
        let agent = match value {
            SshValue::Socket(socket) => SshAgent::Running(socket),
            SshValue::Keys(keys) => {
                let directory = services.cache.run_dir()?;
                let start = KeyAgent::start(&services.sandbox, directory, &keys);
                let started = runtime.block_on(services.stop.run_until_cancelled(start));
                SshAgent::Own(Arc::new(started.ok_or(UsageError::Stopped)??))
            }
        };
        if agents.insert(id.clone(), agent).is_some() {
            return Err(ValueError::SshTwice(id).into());
        }
    }
    Ok(SshAgents::new(agents))
}

fn secrets(args: &BuildArgs, settings: &Settings) -> Result<Secrets, UsageError> {
    let secret = |text: &String| values::secret(text, settings);
    Ok(Secrets::new(args.secret.iter().map(secret).collect::<Result<_, _>>()?))
}

/// Writes `--iidfile` and `--metadata-file`. A pipe is waited for until `stop` is cancelled.
pub(crate) fn write_files(
    args: &BuildArgs,
    report: &Report,
    names: &[Reference],
    stop: &CancellationToken,
) -> Result<(), UsageError> {
    let write = |path: &Path, text: String| {
        let written = WholeFile::create(path, stop).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.finish()
        });
        written.map_err(|source| UsageError::Write { path: path.display().to_string(), source })
    };
    if let (Some(path), Some(image)) = (&args.iidfile, &report.image) {
        write(path, image.id().to_string())?;
    }
    if let Some(path) = &args.metadata_file {
        let metadata =
            report.image.as_ref().map_or_else(|| json!({}), |image| metadata(image, names));
        write(path, serde_json::to_string_pretty(&metadata).expect("plain data serialises"))?;
    }
    Ok(())
}

fn metadata(image: &crate::image::Result, names: &[Reference]) -> serde_json::Value {
    let mut metadata = json!({
        "containerimage.descriptor": image.descriptor,
        "containerimage.digest": image.descriptor.digest,
    });
    if let (None, [single]) = (&image.index, image.images.as_slice()) {
        metadata["containerimage.config.digest"] = json!(single.config_descriptor.digest);
    }
    if !names.is_empty() {
        let names: Vec<_> = names.iter().map(Reference::to_string).collect();
        metadata["image.name"] = json!(names.join(","));
    }
    metadata
}

/// Says where everything is, and the one command that runs or loads it.
pub(crate) fn print_result(
    mode: ProgressMode,
    report: &Report,
    store: &Path,
) -> Result<(), UsageError> {
    let mut err = std::io::stderr().lock();
    let mut line = |text: String| {
        let _nobody_reads_it = writeln!(err, "{}", visible_lines(&text));
    };
    if mode == ProgressMode::Quiet {
        // Here the ID is the result, not something said beside it.
        let Some(image) = &report.image else { return Ok(()) };
        return writeln!(std::io::stdout(), "{}", image.id())
            .map_err(|source| UsageError::Write { path: "standard output".to_owned(), source });
    }
    for exported in &report.exported {
        if let Some(text) = describe(exported, report, store) {
            line(text);
        }
    }
    Ok(())
}

fn describe(exported: &Exported, report: &Report, store: &Path) -> Option<String> {
    let programs = Programs::find();
    let digest =
        report.image.as_ref().map(|image| image.descriptor.digest.to_string()).unwrap_or_default();
    Some(match exported {
        Exported::Store(names) if names.is_empty() => format!(
            "the image {digest} is in {} without a name; give it one with -t",
            store.display()
        ),
        Exported::Store(names) => {
            let what = names_and_verb(names.iter().map(Reference::familiar));
            let how = programs.for_layout(store, names);
            format!("{what} in {} ({digest}){how}", store.display())
        }
        Exported::Image(path, names) => {
            let how = programs.for_archive(path, names);
            format!("the image is in {} ({digest}){how}", path.display())
        }
        Exported::Files(path) => format!("the files are in {}", path.display()),
        Exported::Nothing | Exported::Stdout => return None,
        Exported::Loaded(engine, names) => {
            let program = engine.program();
            let id = report.image.as_ref().map(|image| image.id().to_string());
            let named: Vec<_> = names.iter().map(Reference::familiar).collect();
            let named = if named.is_empty() { id.into_iter().collect() } else { named };
            let name = named.first().cloned().unwrap_or_default();
            let what = names_and_verb(named.into_iter());
            format!("{what} in {program} ({digest}); run it with: {program} run --rm {name}")
        }
        Exported::Registry(names, digest) => {
            let what = names_and_verb(names.iter().map(Reference::to_string));
            let first = names.first().map(Reference::to_string).unwrap_or_default();
            let how = programs
                .engine()
                .map(|program| format!("; run it with: {program} run --rm {first}"));
            format!("{what} pushed ({digest}){}", how.unwrap_or_default())
        }
    })
}

/// `a is`, `a and b are`.
fn names_and_verb(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    let verb = if names.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", names.join(" and "))
}

/// Which programs that take images this machine has.
#[derive(Clone, Copy, Debug)]
struct Programs {
    docker: bool,
    podman: bool,
    skopeo: bool,
}

impl Programs {
    fn find() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let is_there = |name: &str| {
            std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
        };
        Self { docker: is_there("docker"), podman: is_there("podman"), skopeo: is_there("skopeo") }
    }

    /// What runs containers.
    fn engine(self) -> Option<&'static str> {
        let podman = self.podman.then_some("podman");
        podman.or_else(|| self.docker.then_some("docker"))
    }

    /// The command that hands the first image of a layout to an engine, under its own name: podman
    /// would call it after the directory.
    fn for_layout(self, layout: &Path, names: &[Reference]) -> String {
        let (Some(engine), Some(name)) = (self.engine(), names.first()) else {
            return String::new();
        };
        if !self.skopeo {
            return format!("; build with --load to have it in {engine}");
        }
        let source = format!("oci:{}:{name}", layout.display());
        let target = if engine == "podman" { "containers-storage" } else { "docker-daemon" };
        format!("; load it with: skopeo copy {} {target}:{name}", for_a_shell(&source))
    }

    /// The same for an archive.
    fn for_archive(self, path: &Path, names: &[Reference]) -> String {
        if path.is_dir() {
            return self.for_layout(path, names);
        }
        let path = path.display().to_string();
        let load = |engine| format!("; load it with: {engine} load -i {}", for_a_shell(&path));
        self.engine().map(load).unwrap_or_default()
    }
}

/// A word of a command line that somebody may paste.
fn for_a_shell(word: &str) -> Cow<'_, str> {
    // Only NUL can't be quoted, and no path has it.
    shlex::try_quote(word).unwrap_or(Cow::Borrowed(word))
}

/// A way of showing progress as it is written on the command line.
fn name_of(mode: ProgressMode) -> String {
    mode.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_hint_is_a_command_that_works_here() {
        let names: Vec<Reference> = vec!["app:1.2".parse().unwrap(), "b:3".parse().unwrap()];
        let all = Programs { docker: true, podman: true, skopeo: true };
        let said = |programs: Programs, store: &str| programs.for_layout(Path::new(store), &names);
        assert_eq!(
            said(all, "/srv/Ann's store"),
            "; load it with: skopeo copy \"oci:/srv/Ann's store:docker.io/library/app:1.2\" \
             containers-storage:docker.io/library/app:1.2"
        );
        let docker = Programs { podman: false, ..all };
        assert!(said(docker, "/s").ends_with(" docker-daemon:docker.io/library/app:1.2"));
        let podman = Programs { skopeo: false, ..all };
        assert_eq!(said(podman, "/s"), "; build with --load to have it in podman");
        let none = Programs { docker: false, podman: false, skopeo: true };
        assert_eq!(said(none, "/s") + &none.for_archive(Path::new("/a.tar"), &names), "");
        let load = docker.for_archive(Path::new("/a.tar"), &names);
        assert_eq!(load, "; load it with: docker load -i /a.tar");
        let both = names_and_verb(names.iter().map(Reference::familiar));
        assert_eq!(both, "app:1.2 and b:3 are");
    }
}
