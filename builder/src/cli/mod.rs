//! The command line: parses, calls, renders. Nothing below it prints or reads the environment.

mod args;
mod build;
mod call;
mod context;
mod csv;
mod doctor;
mod foreign;
mod graph;
mod images;
mod keys;
mod logins;
mod outputs;
mod places;
mod progress;
mod prune;
mod registries;
mod report;
mod settings;
mod store;
mod terminal;
mod threads;
mod values;
mod visible;
mod words;

use std::borrow::Cow;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use cache::Cache;
use clap::ValueEnum;
use frontend::Source;
use oci::Reference;
use registry_client::Client;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::args::{BuildArgs, Command, StoreRoot};
use self::build::UsageError;
use self::call::{Answer, Call};
use self::doctor::DoctorArgs;
use self::graph::{Drawn, GraphForm};
use self::images::ImagesArgs;
use self::logins::{Logins, LoginsError};
use self::progress::{Ending, ProgressMode};
use self::prune::PruneArgs;
use self::settings::Settings;
use self::store::{Action, StoreArgs};
use self::visible::visible_lines;
use crate::build::{BuildError, Report, Services};
use crate::event::{Events, Hidden};
use crate::sandbox::{self, Level, Sandbox, SandboxError};
use crate::snapshot::{Chosen, Method, SnapshotError};
use crate::whole_file::is_special;
use crate::worker::Host;

/// The exit code of a build that the user ended.
const STOPPED: u8 = 130;

/// Runs the command line and returns the exit code.
pub fn main() -> ExitCode {
    console::set_colors_enabled_stderr(terminal::has_colours());
    let command = match args::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => return usage(&error),
    };
    // Who the caller is can't be told any more from within a namespace.
    let settings = Settings::read();
    let done = match command {
        Command::Build(args) => {
            Wanted::of(&args).and_then(|wanted| build(&args, wanted, &settings))
        }
        Command::Graph(args) => build(&args.build, Wanted::Graph(args.format), &settings),
        Command::Images(args) => list_images(&args, &settings),
        Command::Prune(args) => prune(&args, &settings),
        Command::Store(args) => look_after_store(&args, &settings),
        Command::Doctor(args) => examine(&args, &settings),
        Command::Completions(shell) => return print(&args::completions(shell)),
        Command::Version => {
            return print(concat!("rbuild ", env!("CARGO_PKG_VERSION"), "\n").as_bytes());
        }
    };
    done.unwrap_or_else(|error| fail(&error))
}

/// Reads a command line and tells why it is refused before anything is made or asked, if it is.
///
/// # Errors
///
/// The message that the user sees.
pub fn understood(line: &[&str]) -> Result<(), String> {
    let words = line.iter().map(std::ffi::OsString::from);
    match args::parse(words).map_err(|error| error.to_string())? {
        Command::Build(args) => build::check(&args, &Settings::read()),
        Command::Graph(args) => build::check(&args.build, &Settings::read()),
        _ => Ok(()),
    }
    .map_err(|error| report::chain(&error))
}

/// All flags that a build knows, without their dashes, those that are refused among them.
pub fn flags() -> Vec<String> {
    args::flags()
}

fn print(text: &[u8]) -> ExitCode {
    match std::io::stdout().write_all(text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&report::with_help(&error));
            ExitCode::FAILURE
        }
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    let shown = frontend::without_secrets(&text);
    // It shows words as they were typed, URLs with passwords and control characters among them.
    match visible_lines(&shown) {
        Cow::Borrowed(unchanged) if unchanged == text && !error.use_stderr() => {
            let _nothing_reads_it = error.print();
        }
        Cow::Borrowed(unchanged) if unchanged == text && terminal::has_colours() => {
            let _nothing_reads_it = write!(std::io::stderr(), "{}", error.render().ansi());
        }
        changed => say(changed.trim_end()),
    }
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn fail(error: &StartError) -> ExitCode {
    say(&error.told());
    ExitCode::FAILURE
}

/// Says something on standard error; a terminal does not act upon it.
fn say(text: &str) {
    let text = visible_lines(text);
    let text = if terminal::has_colours() { terminal::coloured(&text) } else { text.into_owned() };
    let _nothing_reads_it = writeln!(std::io::stderr(), "{text}");
}

/// Why a command could not begin or end.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Usage(#[from] UsageError),
    #[error(transparent)]
    Cache(#[from] cache::CacheError),
    #[error(transparent)]
    Logins(#[from] LoginsError),
    #[error(
        "cannot start the threads of a build: the system gives this user no more; raise `ulimit -u` or \
         the limit of the control group (pids.max)"
    )]
    Threads(#[source] std::io::Error),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
    #[error(transparent)]
    Images(#[from] images::ImagesError),
    #[error(transparent)]
    Prune(#[from] prune::PruneError),
    #[error(transparent)]
    Store(#[from] store::StoreError),
}

impl StartError {
    /// What the user reads of it.
    fn told(&self) -> String {
        match self {
            Self::Usage(error) => error.told(),
            error => report::with_help(error),
        }
    }
}

fn list_images(args: &ImagesArgs, settings: &Settings) -> Result<ExitCode, StartError> {
    images::run(args, &store_of(&args.root, settings)?)?;
    Ok(ExitCode::SUCCESS)
}

fn prune(args: &PruneArgs, settings: &Settings) -> Result<ExitCode, StartError> {
    let options = args.options().map_err(prune::PruneError::from)?;
    let root = store_of(&args.root, settings)?;
    // Only from within the namespace can files of other ids be deleted.
    let sandbox = sandbox::enter(args.sandbox.choice(settings).map_err(UsageError::from)?)?;
    // A store that was never made takes no room.
    let open = || root.exists().then(|| open_store(&root, sandbox.level())).transpose();
    if args.dry_run {
        prune::preview(&options, open()?.as_ref())?;
    } else if args.is_confirmed(&options, open)? {
        // On a full disk the store can't even be opened.
        let freed = cache::make_room(&root, options.unused_for)?;
        prune::run(&options, open()?.as_ref(), freed)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn look_after_store(args: &StoreArgs, settings: &Settings) -> Result<ExitCode, StartError> {
    let place = place_of(&args.root, settings)?;
    if !matches!(args.action, Action::Remove { .. }) {
        place.check()?;
    }
    let root = place.path;
    let sandbox = sandbox::enter(args.sandbox.choice(settings).map_err(UsageError::from)?)?;
    match args.action {
        Action::Remove { force, dry_run } => {
            store::run_remove(&root, force, dry_run)?;
            Ok(ExitCode::SUCCESS)
        }
        Action::Check { .. } if !root.exists() => Err(cache::CacheError::NoStore { root }.into()),
        Action::Check { repair } => {
            let stop = CancellationToken::new();
            let (cache, _) = open_to_build(&root, sandbox.level(), &stop)?;
            Ok(store::run_check(&cache, repair)?)
        }
    }
}

fn examine(args: &DoctorArgs, settings: &Settings) -> Result<ExitCode, StartError> {
    let text = if args.apparmor_profile {
        doctor::apparmor_profile(&settings.executable())
    } else {
        let store = place_of(&args.root, settings).and_then(|place| {
            place.check()?;
            Ok(place.path)
        });
        doctor::examine(
            args,
            args.sandbox.choice(settings).map_err(UsageError::from)?,
            store.map_err(|error| report::with_help(&error)),
        )
    };
    Ok(print(text.as_bytes()))
}

/// The directory of a store that may be used. Who owns it is asked before a namespace is entered.
fn store_of(root: &StoreRoot, settings: &Settings) -> Result<PathBuf, cache::CacheError> {
    let place = place_of(root, settings)?;
    place.check()?;
    Ok(place.path)
}

fn place_of(root: &StoreRoot, settings: &Settings) -> Result<cache::Place, cache::CacheError> {
    let place = cache::Place::find(&root.path(settings), settings.sudo_user())?;
    if let Some(mode) = place.was_open {
        say(&format!("warning: {}", report::closed(&place.path, mode)));
    }
    Ok(place)
}

/// What is wanted of a Dockerfile.
#[derive(Clone, Copy)]
enum Wanted {
    Image,
    Answer(Call),
    Graph(GraphForm),
}

impl Wanted {
    fn of(args: &BuildArgs) -> Result<Self, StartError> {
        let call = Call::of(args).map_err(UsageError::from)?;
        Ok(call.map_or(Self::Image, Self::Answer))
    }
}

/// How a build that could begin has ended.
enum Ended {
    /// With all names that the image has got.
    Built(Report, Vec<Reference>),
    /// Nothing was to be built.
    Answered(Box<Answer>, Source),
    /// Nothing was to be built.
    Drawn(Drawn),
    Failed(BuildError, Source),
    /// The user ended it before there was a Dockerfile.
    Stopped,
}

impl Ended {
    /// What the progress shows of it.
    fn ending(&self) -> Ending {
        match self {
            Self::Built(..) | Self::Answered(..) | Self::Drawn(_) => Ending::Finished,
            Self::Failed(BuildError::Stopped, _) | Self::Stopped => Ending::Stopped,
            Self::Failed(..) => Ending::Failed,
        }
    }
}

fn build(args: &BuildArgs, wanted: Wanted, settings: &Settings) -> Result<ExitCode, StartError> {
    build::check(args, settings)?;
    let settings = &settings.with_authfile(args.others.authfile.as_deref());
    let place = place_of(&args.root, settings)?;
    place.make()?;
    let store = &place.path;
    // Before any thread exists: what runs from here on is in a namespace of its own.
    let sandbox = sandbox::enter(args.sandbox.choice(settings).map_err(UsageError::from)?)?;
    let mode = progress_mode(args, settings)?;
    if matches!(wanted, Wanted::Image) {
        remove_old_iidfile(args)?;
        build::check_places(args)?;
    }
    let (events, receiver) = Events::channel();
    let logins = Logins::read(settings)?;
    for warning in &logins.warnings {
        say(&format!("warning: {warning}"));
    }
    let (hidden, open) = (events.hidden(), events.clone());
    let sandbox = Arc::new(sandbox);
    let registry = registries::client(args, settings, &logins, &sandbox)?;
    let services = services(registry, store, sandbox, events)?;
    let stop = services.stop.clone();
    let runtime = threads::start().map_err(StartError::Threads)?;
    stop_when_asked(&stop).map_err(StartError::Threads)?;
    let shown =
        progress::show(mode, open, receiver, std::io::stderr()).map_err(UsageError::from)?;
    let mut ended = read_and_build(args, wanted, settings, &logins, services, &runtime);
    runtime.shutdown_background();
    // Before what is left to show: that waits for a reader, which may have stopped.
    let written = match &ended {
        Ok(Ended::Built(report, names)) => build::write_files(args, report, names, &stop),
        _ => Ok(()),
    };
    if written.is_err() && stop.is_cancelled() {
        ended = Ok(Ended::Stopped);
    }
    shown.end(ended.as_ref().map_or(Ending::Failed, Ended::ending));
    match ended {
        Ok(Ended::Stopped) => tell(Ended::Stopped, mode, store, &hidden),
        Ok(ended) => {
            written?;
            tell(ended, mode, store, &hidden)
        }
        Err(error) => {
            say(&hidden.mask(&error.told()));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Says how a build has ended, now that nothing else is shown.
fn tell(
    ended: Ended,
    mode: ProgressMode,
    store: &Path,
    hidden: &Hidden,
) -> Result<ExitCode, StartError> {
    match ended {
        Ended::Built(report, _) => {
            build::print_result(mode, &report, store)?;
            Ok(ExitCode::SUCCESS)
        }
        Ended::Answered(answer, dockerfile) => {
            Ok(answer.print(&dockerfile).map_err(UsageError::from)?)
        }
        Ended::Drawn(Drawn { text, warning }) => {
            if let Some(warning) = warning {
                say(&format!("warning: {warning}"));
            }
            Ok(print(text.as_bytes()))
        }
        Ended::Failed(error, dockerfile) => {
            say(&hidden.mask(&report::draw(&error, &dockerfile, terminal::columns())));
            let stopped = matches!(error, BuildError::Stopped);
            Ok(if stopped { ExitCode::from(STOPPED) } else { ExitCode::FAILURE })
        }
        Ended::Stopped => {
            say("error: stopped");
            Ok(ExitCode::from(STOPPED))
        }
    }
}

fn services(
    registry: Client,
    store: &Path,
    sandbox: Arc<Sandbox>,
    events: Events,
) -> Result<Services, StartError> {
    let stop = CancellationToken::new();
    let (cache, chosen) = open_to_build(store, sandbox.level(), &stop)?;
    if let Some(note) = chosen.note {
        say(&format!("note: {note}"));
    }
    Ok(Services {
        cache,
        snapshots: chosen.method,
        registry,
        sandbox,
        host: Host { resolv_conf: PathBuf::from("/etc/resolv.conf") },
        events,
        stop,
    })
}

/// Opens the store, and finds out how its layers become file trees.
fn open_to_build(
    store: &Path,
    level: Level,
    stop: &CancellationToken,
) -> Result<(Cache, Chosen), StartError> {
    let cache = open_store(store, level)?;
    let chosen = Method::choose(&cache, level != Level::Chroot, stop)?;
    Ok((cache.with_deletions(chosen.method.deletions()), chosen))
}

/// Opens the store. What is recorded where permissions are one user's answers nobody else.
fn open_store(store: &Path, level: Level) -> Result<Cache, cache::CacheError> {
    let map = level.ownership_map();
    let cache = match level {
        Level::Root | Level::SubordinateIds | Level::Chroot => Cache::open(store, map),
        Level::SingleId => Cache::open_without_owners(store, map),
    }?;
    if let Some(rebuilt) = cache.rebuilt() {
        say(&format!("warning: {}", report::rebuilt(rebuilt)));
    }
    Ok(cache)
}

/// Nobody can tell events any more when it returns.
fn read_and_build(
    args: &BuildArgs,
    wanted: Wanted,
    settings: &Settings,
    logins: &Logins,
    services: Services,
    runtime: &Runtime,
) -> Result<Ended, UsageError> {
    let request = build::request(args, settings, &logins.proxies, &services, runtime.handle());
    let request = match request {
        Err(_) if services.stop.is_cancelled() => return Ok(Ended::Stopped),
        request => request?,
    };
    let (dockerfile, names) = (request.dockerfile.clone(), outputs::names(&request.outputs));
    let ended = match wanted {
        Wanted::Image => runtime
            .block_on(crate::build::build(request, services))
            .map(|report| Ended::Built(report, names)),
        Wanted::Answer(call) => runtime
            .block_on(call.answer(&request, &services))
            .map(|answer| Ended::Answered(Box::new(answer), dockerfile.clone())),
        Wanted::Graph(form) => {
            runtime.block_on(graph::draw(form, &request, &services)).map(Ended::Drawn)
        }
    };
    Ok(ended.unwrap_or_else(|error| Ended::Failed(error, dockerfile)))
}

/// From now on Ctrl-C and SIGTERM cancel `stop`, and a second one ends the process.
///
/// On a thread of its own, which lives as long as the process: when the build has ended, what it
/// printed may still wait for a reader that has stopped.
fn stop_when_asked(stop: &CancellationToken) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate) = {
        let _in_the_runtime = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let stop = stop.clone();
    let listen = async move {
        let mut asked = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        asked().await;
        stop.cancel();
        // Who asks twice does not want to wait for anything.
        asked().await;
        std::process::exit(STOPPED.into());
    };
    std::thread::Builder::new().spawn(move || runtime.block_on(listen)).map(drop)
}

/// What the flags say, else what `BUILDKIT_PROGRESS` says.
fn progress_mode(args: &BuildArgs, settings: &Settings) -> Result<ProgressMode, UsageError> {
    let variable = |name: &str| settings.variable(name).filter(|value| !value.is_empty());
    let given = (args.progress.unwrap_or_default(), args.quiet);
    chosen_mode(given, variable("BUILDKIT_PROGRESS"), variable("TERM").as_deref())
}

fn chosen_mode(
    given: (ProgressMode, bool),
    variable: Option<String>,
    terminal: Option<&str>,
) -> Result<ProgressMode, UsageError> {
    match given {
        (ProgressMode::Auto | ProgressMode::Quiet, true) => Ok(ProgressMode::Quiet),
        (other, true) => Err(UsageError::QuietAndProgress(other)),
        (ProgressMode::Auto, false) => match variable {
            Some(mode) => {
                ProgressMode::from_str(&mode, true).map_err(|_| UsageError::Progress(mode))
            }
            // Such a terminal can't move its cursor.
            None if terminal == Some("dumb") => Ok(ProgressMode::Plain),
            None => Ok(ProgressMode::Auto),
        },
        (mode, false) => Ok(mode),
    }
}

/// An old file must not be taken for that of a build that failed.
fn remove_old_iidfile(args: &BuildArgs) -> Result<(), StartError> {
    let Some(path) = args.iidfile.as_ref().filter(|path| !is_special(path)) else { return Ok(()) };
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(UsageError::Write { path: path.display().to_string(), source }.into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dumb_terminal_gets_plain_progress() {
        let mode = |given, variable: Option<&str>, terminal| {
            chosen_mode((given, false), variable.map(str::to_owned), Some(terminal)).unwrap()
        };
        assert_eq!(mode(ProgressMode::Auto, None, "dumb"), ProgressMode::Plain);
        assert_eq!(mode(ProgressMode::Auto, None, "xterm"), ProgressMode::Auto);
        assert_eq!(mode(ProgressMode::Auto, Some("tty"), "dumb"), ProgressMode::Tty);
        assert_eq!(mode(ProgressMode::Tty, None, "dumb"), ProgressMode::Tty);
    }
}
