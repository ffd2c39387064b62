//! The command line as typed: flags of `docker buildx build`, in clap's words.
//!
//! Only shapes are checked here; what a value means is decided where it is used.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{
    Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, ValueEnum as _, ValueHint,
};
use clap_complete::Shell;

use super::doctor::DoctorArgs;
use super::foreign;
use super::graph::GraphArgs;
use super::images::ImagesArgs;
use super::keys::truth;
use super::progress::ProgressMode;
use super::prune::PruneArgs;
use super::settings::Settings;
use super::store::StoreArgs;
use registry_client::Secret;

use super::values::ValueError;
use super::words::{self, Word};
use crate::pin::Pull;
use crate::sandbox::Choice;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "rbuild",
    version,
    about = "Builds container images from Dockerfiles, without a daemon and without root",
    override_usage = "rbuild [build] [FLAGS] PATH|-\n       \
                      rbuild help graph|images|prune|store|doctor|completions",
    next_line_help = false,
    max_term_width = 110,
    disable_help_subcommand = true,
    args_override_self = true
)]
pub(crate) struct Cli {
    /// What to build.
    #[command(flatten)]
    pub(crate) build: BuildArgs,
}

/// The arguments of `rbuild completions`.
#[derive(Debug, Parser)]
#[command(
    name = "rbuild completions",
    bin_name = "rbuild completions",
    about = "Prints a completion script: source it in the start-up file of the shell"
)]
struct Completions {
    /// The shell
    shell: Shell,
}

/// What makes `shell` complete rbuild's flags.
pub(crate) fn completions(shell: Shell) -> Vec<u8> {
    let mut script = vec![];
    let others = [
        GraphArgs::command().name("graph"),
        ImagesArgs::command().name("images"),
        PruneArgs::command().name("prune"),
        StoreArgs::command().name("store"),
        DoctorArgs::command().name("doctor"),
    ];
    let mut whole = Cli::command().subcommands(others);
    clap_complete::generate(shell, &mut whole, "rbuild", &mut script);
    script
}

/// The flag that says where the store is.
#[derive(Clone, Debug, Args)]
pub(crate) struct StoreRoot {
    /// Directory of the store, see rbuild doctor [env: RBUILD_ROOT]
    #[arg(long, value_name = "DIR", global = true, help_heading = "Cache")]
    root: Option<PathBuf>,
}

impl StoreRoot {
    /// The store's directory.
    pub(crate) fn path(&self, settings: &Settings) -> PathBuf {
        self.root.clone().unwrap_or_else(|| settings.store())
    }
}

/// The flag that says how isolated commands run.
#[derive(Clone, Debug, Args)]
pub(crate) struct SandboxLevel {
    /// Kind of isolation, see rbuild doctor [env: RBUILD_SANDBOX]
    #[arg(
        id = "sandbox",
        long = "sandbox",
        value_enum,
        value_name = "LEVEL",
        global = true,
        hide_possible_values = true,
        help_heading = "RUN"
    )]
    level: Option<Choice>,
}

impl SandboxLevel {
    /// The level that is asked for: by the flag, else by the variable.
    pub(crate) fn choice(&self, settings: &Settings) -> Result<Choice, ValueError> {
        let named = || settings.variable("RBUILD_SANDBOX").filter(|name| !name.is_empty());
        match (self.level, named()) {
            (Some(level), _) => Ok(level),
            (None, Some(name)) => {
                Choice::from_str(&name, true).map_err(|_| ValueError::Sandbox(name))
            }
            (None, None) => Ok(Choice::Auto),
        }
    }
}

/// Flags of `rbuild build`.
#[derive(Clone, Debug, Args)]
pub(crate) struct BuildArgs {
    /// Build context: a directory, the URL of an archive or Dockerfile, or `-` for stdin
    #[arg(value_name = "PATH|URL|-", required = true, value_hint = ValueHint::DirPath)]
    pub(crate) context: String,

    /// Dockerfile, or `-` for stdin [default: PATH/Dockerfile]
    #[arg(
        short,
        long,
        alias = "dockerfile",
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        help_heading = "Input"
    )]
    pub(crate) file: Option<String>,
    /// Stage to build [default: the last one]
    #[arg(long, value_name = "STAGE", help_heading = "Input")]
    pub(crate) target: Option<String>,
    /// Value of an ARG; NAME alone takes it from the environment
    #[arg(long, value_name = "NAME[=VALUE]", help_heading = "Input")]
    pub(crate) build_arg: Vec<String>,
    /// Directory, URL, docker-image://REF, oci-layout://DIR[:TAG]
    #[arg(long, value_name = "NAME=SOURCE", help_heading = "Input")]
    pub(crate) build_context: Vec<String>,
    /// Platforms to build for, such as linux/amd64
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', help_heading = "Input")]
    pub(crate) platform: Vec<String>,
    /// Secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=NAME]
    #[arg(long, value_name = "SECRET", help_heading = "Input")]
    pub(crate) secret: Vec<String>,
    /// Agent for RUN --mount=type=ssh: default or ID[=SOCKET|=KEY,…]
    #[arg(long, value_name = "AGENT", help_heading = "Input")]
    pub(crate) ssh: Vec<String>,

    /// Name of the image in the store
    #[arg(short, long, value_name = "NAME[:TAG]", help_heading = "Output")]
    pub(crate) tag: Vec<String>,
    /// DIR, or type=oci|docker|local|tar|image|cacheonly,dest=PATH
    #[arg(short, long, value_name = "OUTPUT", help_heading = "Output")]
    pub(crate) output: Vec<String>,
    /// Push the image to the registries in its names
    #[arg(long, help_heading = "Output")]
    pub(crate) push: bool,
    /// Load the image into docker or podman
    #[arg(long, help_heading = "Output")]
    pub(crate) load: bool,
    /// Label of the image
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Output")]
    pub(crate) label: Vec<String>,
    /// Write the image's ID to FILE
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) iidfile: Option<PathBuf>,
    /// Write digests and names as JSON to FILE
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(crate) metadata_file: Option<PathBuf>,

    /// Run every step, even those in the cache
    #[arg(long, help_heading = "Cache")]
    pub(crate) no_cache: bool,
    /// Run every step of these stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',', help_heading = "Cache")]
    pub(crate) no_cache_filter: Vec<String>,
    /// Ask registries also for images that were built here
    #[arg(
        long,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value = "false",
        hide_default_value = true,
        value_name = "WHEN",
        value_parser = pull,
        help_heading = "Cache"
    )]
    pub(crate) pull: Pull,
    /// Tell of each step that runs why no cache answered it
    #[arg(long, help_heading = "Cache")]
    pub(crate) explain: bool,
    /// Where the store is.
    #[command(flatten)]
    pub(crate) root: StoreRoot,

    /// How commands are isolated.
    #[command(flatten)]
    pub(crate) sandbox: SandboxLevel,
    /// Network of RUN: default, none or host
    #[arg(long, value_name = "MODE", help_heading = "RUN")]
    pub(crate) network: Option<String>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "HOST:IP", help_heading = "RUN")]
    pub(crate) add_host: Vec<String>,
    /// Grant network.host or security.insecure
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',', help_heading = "RUN")]
    pub(crate) allow: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", help_heading = "RUN")]
    pub(crate) shm_size: Option<String>,
    /// Limit, such as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = "RUN")]
    pub(crate) ulimit: Vec<String>,
    /// How many RUN steps run at once [default: number of CPUs]
    #[arg(long, value_name = "N", value_parser = count, help_heading = "RUN")]
    pub(crate) jobs: Option<usize>,

    /// Only check (--check), outline, targets[,format=json][,ignorestatus][,extra]
    #[arg(
        long,
        value_name = "METHOD",
        alias = "print",
        overrides_with = "check",
        help_heading = "Display"
    )]
    pub(crate) call: Option<String>,
    /// The same as --call=check
    #[arg(long, overrides_with = "call", hide = true)]
    pub(crate) check: bool,
    /// auto, plain, tty, quiet, rawjson or none
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        hide_possible_values = true,
        help_heading = "Display"
    )]
    pub(crate) progress: Option<ProgressMode>,
    /// Print only the image's ID
    #[arg(short, long, help_heading = "Display")]
    pub(crate) quiet: bool,

    /// What other builders call otherwise.
    #[command(flatten)]
    pub(crate) others: Others,
}

/// Flags that podman and kaniko have; they stand in `docs/flags.md`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Others {
    /// Seconds since 1970 that no file and no step is younger than: the ARG `SOURCE_DATE_EPOCH`.
    #[arg(long, alias = "timestamp", value_name = "SECONDS", hide = true)]
    pub(crate) source_date_epoch: Option<i64>,
    /// A file of build arguments, one a line.
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) build_arg_file: Vec<PathBuf>,
    /// The file that counts instead of `.dockerignore`.
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) ignorefile: Option<PathBuf>,
    /// The file with credentials for registries.
    #[arg(long, value_name = "FILE", hide = true)]
    pub(crate) authfile: Option<PathBuf>,
    /// User and password for the registries that the command line names.
    #[arg(long, value_name = "USER:PASSWORD", hide = true, value_parser = secret)]
    pub(crate) creds: Option<Secret>,
    /// A directory with certificates for registries.
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) cert_dir: Option<PathBuf>,
    /// Whether registries need a valid certificate.
    #[arg(
        long,
        value_name = "BOOL",
        hide = true,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value = "true",
        default_missing_value = "true",
        value_parser = bool_value
    )]
    pub(crate) tls_verify: bool,
    /// The architecture of the platform.
    #[arg(long, value_name = "ARCH", conflicts_with = "platform", hide = true)]
    pub(crate) arch: Option<String>,
    /// The operating system of the platform.
    #[arg(long, value_name = "OS", conflicts_with = "platform", hide = true)]
    pub(crate) os: Option<String>,
    /// The variant of the architecture.
    #[arg(long, value_name = "VARIANT", requires = "arch", hide = true)]
    pub(crate) variant: Option<String>,
}

/// What rbuild is asked to do.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// Build.
    Build(Box<BuildArgs>),
    /// Show what a build would do.
    Graph(Box<GraphArgs>),
    /// List the images.
    Images(ImagesArgs),
    /// Delete what builds can do without.
    Prune(PruneArgs),
    /// Check or remove the store.
    Store(StoreArgs),
    /// Tell what this machine permits.
    Doctor(DoctorArgs),
    /// Print what makes a shell complete rbuild's flags.
    Completions(Shell),
    /// Print the version.
    Version,
}

/// The arguments of `rbuild version`.
#[derive(Debug, Parser)]
#[command(
    name = "rbuild version",
    bin_name = "rbuild version",
    about = "Prints the version of rbuild, as --version does"
)]
struct Version {}

/// Reads the command line. The word `build` may be left out, and global flags may stand before the
/// command. A context that is called like a command is written `./prune`.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let refused = |error: words::WordError| {
        Cli::command().error(ErrorKind::InvalidSubcommand, error).with_cmd(&bare())
    };
    let mut word = words::take(&mut arguments).map_err(refused)?;
    if word == Word::Command("help") {
        word = words::take(&mut arguments).map_err(refused)?;
        if let (Word::Nothing, Some(other)) = (&word, arguments.get(1)) {
            let unknown = format!("no such command `{}`", other.display());
            return Err(bare().error(ErrorKind::InvalidSubcommand, unknown));
        }
        arguments.truncate(1);
        arguments.push("--help".into());
    }
    let Word::Command(command) = word else { return parse_build(arguments) };
    Ok(match command {
        "graph" => Command::Graph(Box::new(read(GraphArgs::shown(), arguments)?)),
        "images" => Command::Images(read(ImagesArgs::command(), arguments)?),
        "prune" => Command::Prune(read(PruneArgs::command(), arguments)?),
        "store" => Command::Store(read(StoreArgs::command(), arguments)?),
        "doctor" => Command::Doctor(read(DoctorArgs::command(), arguments)?),
        "completions" => {
            Command::Completions(read::<Completions>(Completions::command(), arguments)?.shell)
        }
        "version" => {
            read::<Version>(Version::command(), arguments)?;
            Command::Version
        }
        _ => return parse_build(arguments),
    })
}

fn parse_build(arguments: Vec<OsString>) -> Result<Command, clap::Error> {
    let cli: Cli = read(Cli::command(), translated(arguments))?;
    Ok(Command::Build(Box::new(cli.build)))
}

/// A command for errors that need no usage lines.
fn bare() -> clap::Command {
    clap::Command::new("rbuild").override_usage("rbuild help [COMMAND]")
}

/// Reads a line of one command. Flags without a value may have one there, as in Go: `--push=false`.
/// Takes back what clap recommends where it helps nobody: a flag that is refused, or to give what looks
/// like a flag as the context.
fn without_bad_advice(mut error: clap::Error) -> clap::Error {
    error.remove(ContextKind::Suggested);
    let meant = error.get(ContextKind::SuggestedArg);
    let is_foreign = matches!(meant, Some(ContextValue::String(flag)) if foreign::has(flag));
    if is_foreign {
        error.remove(ContextKind::SuggestedArg);
    }
    error
}

fn read<T: FromArgMatches>(
    shown: clap::Command,
    arguments: Vec<OsString>,
) -> Result<T, clap::Error> {
    let is_build = shown.get_arguments().any(|arg| arg.get_id() == "context");
    let command = if is_build { foreign::known_to(shown.clone()) } else { shown.clone() };
    let mut command = with_values(command);
    let matches = match command.try_get_matches_from_mut(&arguments) {
        // The help shows flags without the values that they may have.
        Err(error) if error.kind() == ErrorKind::DisplayHelp => {
            let mut shown = shown;
            return Err(shown.try_get_matches_from_mut(&arguments).err().unwrap_or(error));
        }
        matches => matches.map_err(without_bad_advice)?,
    };
    if let Some(refusal) = foreign::refusal(&matches).filter(|_| is_build) {
        return Err(bare().error(ErrorKind::UnknownArgument, refusal));
    }
    T::from_arg_matches(&matches)
}

/// All flags that a build knows.
pub(super) fn flags() -> Vec<String> {
    let command = foreign::known_to(Cli::command());
    let names = command.get_arguments().flat_map(|arg| {
        let aliases = arg.get_all_aliases().unwrap_or_default().into_iter();
        arg.get_long().into_iter().chain(aliases).map(str::to_owned).collect::<Vec<_>>()
    });
    let translated = ["context", "destination", "no-push", "help", "version"].map(str::to_owned);
    names.chain(translated).collect()
}

fn with_values(command: clap::Command) -> clap::Command {
    let optional = |arg: Arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_name("BOOL")
            .value_parser(bool_value),
        _ => arg,
    };
    command.args_override_self(true).mut_args(optional).mut_subcommands(with_values)
}

/// Whatever it is: a refusal would quote it.
#[expect(clippy::unnecessary_wraps, reason = "clap wants a result")]
fn secret(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(text))
}

/// `--pull` has a truth in docker, and a word in podman.
fn pull(text: &str) -> Result<Pull, String> {
    match text {
        "always" | "newer" => Ok(Pull::Always),
        "missing" | "ifmissing" => Ok(Pull::Missing),
        "never" => Ok(Pull::Never),
        text => match truth(text) {
            Some(true) => Ok(Pull::Always),
            Some(false) => Ok(Pull::Usual),
            None => Err("it must be true, false, always, missing or never".to_owned()),
        },
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("it must be a number from 1 on".to_owned()),
        Ok(count) => Ok(count),
    }
}

fn bool_value(text: &str) -> Result<bool, String> {
    truth(text).ok_or_else(|| "it must be true or false".to_owned())
}

/// What kaniko calls otherwise: `--context` is the path, `--destination` a name to push to.
fn translated(arguments: Vec<OsString>) -> Vec<OsString> {
    let is_flag = |argument: &OsString, flag: &str| {
        argument
            .to_str()
            .and_then(|text| text.strip_prefix(flag))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    let says_no_push =
        |argument: &OsString| argument == "--no-push" || argument == "--no-push=true";
    let is_pushed = !arguments.iter().any(says_no_push);
    let mut translated = vec![];
    let mut rest = arguments.into_iter();
    while let Some(argument) = rest.next() {
        let [is_context, is_destination] =
            ["--context", "--destination"].map(|flag| is_flag(&argument, flag));
        let whole = argument.to_str().and_then(|text| text.split_once('='));
        let mut value = || match whole {
            Some((_, value)) => Some(OsString::from(value)),
            None => rest.next(),
        };
        if is_context {
            translated.extend(value().map(place));
        } else if is_destination {
            translated.extend(value().map(|name| {
                let mut tag = OsString::from("--tag=");
                tag.push(name);
                tag
            }));
            translated.extend(is_pushed.then(|| OsString::from("--push")));
        } else if !says_no_push(&argument) && argument != "--no-push=false" {
            translated.push(argument);
        }
    }
    translated
}

/// A context as kaniko writes it.
fn place(context: OsString) -> OsString {
    match context.to_str() {
        Some("tar://stdin") => "-".into(),
        Some(text) => text.strip_prefix("dir://").unwrap_or(text).into(),
        None => context,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> BuildArgs {
        match parse(line.split(' ').map(OsString::from)) {
            Ok(Command::Build(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_word_build_may_be_left_out() {
        for line in [
            "rbuild -t app:1.2 .",
            "rbuild build -t app:1.2 .",
            "rbuild --root /s build -t app:1.2 .",
            "rbuild --sandbox root --root=/s --sandbox=auto build -t app:1.2 .",
        ] {
            let args = parsed(line);
            assert_eq!(
                (args.tag, args.context.as_str()),
                (vec!["app:1.2".to_owned()], "."),
                "{line}"
            );
        }
        assert_eq!(parsed("rbuild build build").context, "build");
    }

    fn refusal(line: &str) -> String {
        match parse(line.split(' ').map(OsString::from)) {
            Err(error) => error.to_string(),
            Ok(command) => panic!("{command:?}"),
        }
    }

    #[test]
    fn a_flag_without_a_value_may_have_one() {
        for (line, want) in [
            ("--push=true", true),
            ("--push=1", true),
            ("--push=T", true),
            ("--push=false", false),
            ("--push=0", false),
            ("--push --push=f", false),
            ("--push=f --push", true),
        ] {
            assert_eq!(parsed(&format!("rbuild {line} .")).push, want, "{line}");
        }
        assert!(!parsed("rbuild --load=0 --quiet=f --no-cache=False --check=false .").no_cache);
        assert!(parsed("rbuild -q --rm=false --explain=1 .").explain);
        for (line, want) in [
            ("--pull", Pull::Always),
            ("--pull=true", Pull::Always),
            ("--pull=always", Pull::Always),
            ("--pull=missing", Pull::Missing),
            ("--pull=never", Pull::Never),
            ("--pull=0", Pull::Usual),
        ] {
            assert_eq!(parsed(&format!("rbuild {line} .")).pull, want, "{line}");
        }
        assert!(refusal("rbuild --push=perhaps .").contains("true or false"));
        assert!(refusal("rbuild --push= .").contains("true or false"));
        assert!(parse(["rbuild", "prune", "--force=1"].map(OsString::from)).is_ok());
        assert!(parse(["rbuild", "store", "check", "--repair=0"].map(OsString::from)).is_ok());
    }

    #[test]
    fn flags_of_other_builders_get_an_answer_of_ours() {
        for line in ["--cache-from x", "--memory=2g", "-m 2g", "--squash", "--volume a:b", "-v a:b"]
        {
            let said = refusal(&format!("rbuild {line} ."));
            assert!(said.contains("is not supported yet: "), "{line}: {said}");
            assert!(!said.contains("similar"), "{line}: {said}");
        }
        assert!(!format!("{:?}", parsed("rbuild --creds me:word .")).contains("word"));
        for line in [
            "--provenance=false --sbom 0 --attest type=sbom,disabled=true",
            "--layers --format=oci --reproducible --compress --squash=false --layers=true",
            "--builder default -D --rm --force-rm=false",
        ] {
            assert_eq!(parsed(&format!("rbuild {line} .")).context, ".");
        }
        for line in
            ["--provenance=mode=max", "--sbom=true", "--attest type=sbom", "--format=docker"]
        {
            assert!(refusal(&format!("rbuild {line} .")).contains("not supported yet"), "{line}");
        }
    }

    #[test]
    fn kanikos_words_are_understood() {
        let args = parsed("rbuild --context dir:///w --dockerfile=D --destination r/a:1");
        assert_eq!((args.context.as_str(), args.file.as_deref()), ("/w", Some("D")));
        assert_eq!((args.tag, args.push), (vec!["r/a:1".to_owned()], true));
        let args = parsed("rbuild --context=tar://stdin --destination=r/a:1 --no-push");
        assert_eq!((args.context.as_str(), args.push), ("-", false));
    }

    #[test]
    fn usage_lines_name_the_whole_command() {
        for (line, usage) in [
            ("rbuild help prune", "Usage: rbuild prune [FLAGS]"),
            ("rbuild help store", "Usage: rbuild store check|remove [FLAGS]"),
            ("rbuild store check --help", "Usage: rbuild store check "),
            ("rbuild store remove --nope", "Usage: rbuild store remove"),
            ("rbuild completions --nope", "Usage: rbuild completions"),
            ("rbuild version --help", "Usage: rbuild version"),
            ("rbuild graph --help", "Usage: rbuild graph [FLAGS] PATH|-"),
            ("rbuild help", "Usage: rbuild [build]"),
            ("rbuild help build", "Usage: rbuild [build]"),
            ("rbuild help nope", "no such command `nope`"),
            ("rbuild prune --nope", "Usage: rbuild prune [FLAGS]"),
        ] {
            let said = refusal(line);
            assert!(said.contains(usage), "{line}: {said}");
        }
        assert!(!refusal("rbuild --help").contains("BOOL"));
    }

    #[test]
    fn the_store_is_named_before_and_behind_every_command() {
        for command in
            ["build .", "graph .", "images", "prune", "store remove", "store check", "doctor"]
        {
            let (first, rest) = command.split_once(' ').unwrap_or((command, ""));
            for line in [
                format!("rbuild --root /s {command}"),
                format!("rbuild {first} --root=/s {rest}"),
                format!("rbuild {command} --root /s"),
            ] {
                let root = match parse(line.split_whitespace().map(OsString::from)).unwrap() {
                    Command::Build(args) => args.root,
                    Command::Graph(args) => args.build.root,
                    Command::Images(args) => args.root,
                    Command::Prune(args) => args.root,
                    Command::Store(args) => args.root,
                    Command::Doctor(args) => args.root,
                    Command::Completions(_) | Command::Version => unreachable!("it has no store"),
                };
                assert_eq!(root.root, Some(PathBuf::from("/s")), "{line}");
            }
        }
    }

    #[test]
    fn the_last_call_counts() {
        let args = parsed("rbuild --check --call=outline .");
        assert_eq!((args.check, args.call.as_deref()), (false, Some("outline")));
        let args = parsed("rbuild --call=outline --check .");
        assert_eq!((args.check, args.call), (true, None));
    }

    #[test]
    fn help_is_grouped_and_fits_a_screen() {
        let error = parse(["rbuild", "--help"].map(OsString::from)).unwrap_err();
        let help = error.to_string();
        for heading in ["Input:", "Output:", "Cache:", "RUN:", "Display:"] {
            assert!(help.contains(heading), "{help}");
        }
        assert!(help.lines().count() <= 50, "{} lines\n{help}", help.lines().count());
    }
}
