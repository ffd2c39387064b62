//! The command line as typed: flags of `docker buildx build`, in clap's words.
//!
//! Only shapes are checked here; what a value means is decided where it is used.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::{Args, CommandFactory as _, Parser, ValueEnum as _, ValueHint};
use clap_complete::Shell;

use super::doctor::DoctorArgs;
use super::graph::GraphArgs;
use super::images::ImagesArgs;
use super::progress::ProgressMode;
use super::prune::PruneArgs;
use super::settings::Settings;
use super::store::StoreArgs;
use super::values::ValueError;
use crate::sandbox::Choice;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "rbuild",
    version,
    about = "Builds container images from Dockerfiles, without a daemon and without root",
    override_usage = "rbuild [build] [FLAGS] PATH|-\n       \
                      rbuild graph|images|prune|store|doctor|completions --help",
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
    about = "Prints what makes a shell complete rbuild's flags: source it where it starts"
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
    /// Push the image to the registries that its names tell
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

    /// Run every step, whatever the cache holds
    #[arg(long, help_heading = "Cache")]
    pub(crate) no_cache: bool,
    /// Run every step of these stages
    #[arg(long, value_name = "STAGE", value_delimiter = ',', help_heading = "Cache")]
    pub(crate) no_cache_filter: Vec<String>,
    /// Ask registries also for images that were built here
    #[arg(long, help_heading = "Cache")]
    pub(crate) pull: bool,
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
    /// Further line of /etc/hosts
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
    /// How many RUN steps at a time [default: number of CPUs]
    #[arg(long, value_name = "N", help_heading = "RUN")]
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
    /// Print the image's ID alone
    #[arg(short, long, help_heading = "Display")]
    pub(crate) quiet: bool,

    /// Taken for the sake of scripts; means nothing here.
    #[command(flatten)]
    pub(crate) ignored: Ignored,
}

/// Flags of other builders that mean nothing to this one.
#[derive(Clone, Debug, Args)]
pub(crate) struct Ignored {
    #[arg(long, hide = true)]
    builder: Option<String>,
    #[arg(short = 'D', long, hide = true)]
    debug: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    rm: Option<Option<bool>>,
    #[arg(long, hide = true)]
    force_rm: bool,
    #[arg(long, hide = true)]
    compress: bool,
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
}

const COMMANDS: [&str; 7] = ["build", "graph", "images", "prune", "store", "doctor", "completions"];

/// Reads the command line. The word `build` may be left out, and global flags may stand before the
/// command. A context that is called like a command is written `./prune`.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = place_of_command(&arguments).map(|place| arguments.remove(place));
    Ok(match command.as_deref().and_then(OsStr::to_str) {
        Some("graph") => Command::Graph(Box::new(GraphArgs::read(arguments)?)),
        Some("images") => Command::Images(ImagesArgs::try_parse_from(arguments)?),
        Some("prune") => Command::Prune(PruneArgs::try_parse_from(arguments)?),
        Some("store") => Command::Store(StoreArgs::try_parse_from(arguments)?),
        Some("doctor") => Command::Doctor(DoctorArgs::try_parse_from(arguments)?),
        Some("completions") => Command::Completions(Completions::try_parse_from(arguments)?.shell),
        _ => Command::Build(Box::new(Cli::try_parse_from(arguments)?.build)),
    })
}

/// Where the command stands: first, or behind what commands have in common.
fn place_of_command(arguments: &[OsString]) -> Option<usize> {
    let mut place = 1;
    while let Some(argument) = arguments.get(place) {
        match argument.to_str() {
            Some(word) if COMMANDS.contains(&word) => return Some(place),
            Some("--root" | "--sandbox") => place += 2,
            Some(word) if ["--root=", "--sandbox="].iter().any(|flag| word.starts_with(flag)) => {
                place += 1;
            }
            _ => return None,
        }
    }
    None
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
                    Command::Completions(_) => unreachable!("it has no store"),
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
