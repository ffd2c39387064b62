//! `rbuild doctor`: what this machine permits, and what would make it permit more.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cache::free_room;
use clap::{Parser, ValueEnum as _};
use indicatif::DecimalBytes;
use serde::{Deserialize, Serialize};

use super::args::{SandboxLevel, StoreRoot};
use super::visible::visible;
use crate::sandbox::{self, Choice, Level};
use crate::snapshot;

/// The arguments of `rbuild doctor`.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "rbuild doctor",
    bin_name = "rbuild doctor",
    about = "Tells how rbuild isolates commands on this machine, by trying it, and what would lift that",
    override_usage = "rbuild doctor [FLAGS]"
)]
pub(crate) struct DoctorArgs {
    /// Tell it as JSON
    #[arg(long, conflicts_with = "apparmor_profile")]
    json: bool,
    /// Print the profile that AppArmor needs where it restricts user namespaces
    #[arg(long)]
    pub(crate) apparmor_profile: bool,
    #[command(flatten)]
    pub(crate) root: StoreRoot,
    #[command(flatten)]
    pub(crate) sandbox: SandboxLevel,
}

/// The profile for the program at `executable`.
pub(crate) fn apparmor_profile(executable: &Path) -> String {
    const INSTALLED: &str = "/usr/local/bin/rbuild";
    include_str!("../../apparmor/rbuild").replace(INSTALLED, &executable.display().to_string())
}

/// All that is found, as `--json` shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    version: &'static str,
    kernel: String,
    /// What a build does here.
    #[serde(flatten)]
    chosen: Tried,
    /// What each level answers that can be asked for.
    levels: BTreeMap<String, Tried>,
    store: Store,
    /// What would be better, and how it is got.
    advice: Vec<&'static str>,
}

/// What came of entering a level.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Tried {
    Entered(Found),
    Refused { refused: String },
}

/// What is found within a level.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    level: Level,
    /// Whether a command sees a `/proc` of its own.
    own_proc: bool,
    /// Why layers can't be mounted where the store is.
    overlay_refused: Option<String>,
    /// What the kernel lacks, and what is done instead.
    fallbacks: Vec<String>,
}

/// The store's place.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Store {
    path: Option<PathBuf>,
    /// Why it can't be used.
    problem: Option<String>,
    file_system: Option<String>,
    free_bytes: Option<u64>,
}

/// Looks around; `store` is where the store is, or why it can't be used.
pub(crate) fn examine(args: &DoctorArgs, choice: Choice, store: Result<PathBuf, String>) -> String {
    let store = Store::examine(store);
    let place = store.existing();
    let levels =
        [Choice::Root, Choice::SubordinateIds, Choice::SingleId, Choice::OuterProc, Choice::Chroot];
    let chosen = Tried::enter(choice, place.as_deref());
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        advice: advice(&chosen),
        chosen,
        levels: levels.map(|level| (name(level), Tried::enter(level, place.as_deref()))).into(),
        store,
    };
    if args.json { report.json() } else { report.text() }
}

/// How a level is called on the command line.
fn name(choice: Choice) -> String {
    choice.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

impl Tried {
    /// Enters a level in a child and looks whether an overlay can be mounted in `place`.
    fn enter(choice: Choice, place: Option<&Path>) -> Self {
        let found = sandbox::try_level(choice, |sandbox| {
            let overlay_refused = place.and_then(|place| snapshot::try_overlay(place).err());
            let mut fallbacks = sandbox::fallbacks();
            // Of mounts nothing is learnt where none is permitted.
            if overlay_refused.is_none() {
                fallbacks.extend(snapshot::fallbacks());
            }
            let level = sandbox.level();
            Found { level, overlay_refused, fallbacks, own_proc: sandbox.has_own_proc() }
        });
        found.map_or_else(|refused| Self::Refused { refused }, Self::Entered)
    }

    /// In one line.
    fn told(&self) -> String {
        match self {
            Self::Entered(found) if found.own_proc => "yes".to_owned(),
            Self::Entered(_) => "yes, with the /proc of this container".to_owned(),
            Self::Refused { refused } => format!("no: {refused}"),
        }
    }
}

impl Store {
    fn examine(place: Result<PathBuf, String>) -> Self {
        let path = match place {
            Ok(path) => path,
            Err(problem) => return Self { problem: Some(problem), ..Self::default() },
        };
        let mut store = Self { path: Some(path), ..Self::default() };
        if let Some(existing) = store.existing() {
            store.free_bytes = free_room(&existing);
            store.file_system = file_system(&existing);
        }
        store
    }

    /// The store, or the directory in which it will be made.
    fn existing(&self) -> Option<PathBuf> {
        self.path.as_deref()?.ancestors().find(|path| path.exists()).map(Path::to_owned)
    }
}

/// The kind of the file system that `path` is on, as the kernel calls it.
fn file_system(path: &Path) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        Some((PathBuf::from(mount.split(' ').nth(4)?), kind.split(' ').next()?))
    });
    // Of two at one place the later lies on top.
    let found = mounts.filter(|(place, _)| path.starts_with(place));
    found.max_by_key(|(place, _)| place.components().count()).map(|(_, kind)| kind.to_owned())
}

fn advice(chosen: &Tried) -> Vec<&'static str> {
    let Tried::Entered(found) = chosen else { return vec![] };
    let mut advice = vec![];
    match found.level {
        Level::Root | Level::SubordinateIds => {}
        Level::SingleId => advice.push(
            "this user has one id, so that owners are recorded, not set; for real ones add a range \
             for the user to /etc/subuid and /etc/subgid and install newuidmap",
        ),
        Level::Chroot => advice.push(
            "commands run by chroot, not isolated from this container; start it with --security-opt \
             seccomp=unconfined --security-opt apparmor=unconfined (in Kubernetes seccompProfile: \
             {type: Unconfined}), and each has a container of its own",
        ),
    }
    if found.level == Level::Chroot {
        return advice;
    }
    if !found.own_proc {
        advice.push(
            "commands see the /proc of this container; start it with --security-opt unmask=ALL \
             (docker: systempaths=unconfined, Kubernetes: procMount: Unmasked), and each has its own",
        );
    }
    if found.overlay_refused.is_some() {
        advice.push("layers are copied, not mounted; put the store on a volume with --root DIR");
    }
    advice
}

impl Report {
    fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a report is plain data");
        text.push('\n');
        text
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _infallible = writeln!(text, "{name:<17} {}", visible(value));
        };
        line("rbuild", &format!("{}, on Linux {}", self.version, self.kernel));
        line("store", &self.store.told());
        match &self.chosen {
            Tried::Entered(found) => {
                line("level", &found.level.to_string());
                let layers = found.overlay_refused.as_ref().map_or_else(
                    || "mounted".to_owned(),
                    |why| format!("copied, since they can't be mounted there: {why}"),
                );
                line("layers", &layers);
                for fallback in &found.fallbacks {
                    line("kernel", fallback);
                }
            }
            Tried::Refused { refused } => line("level", &format!("none: {refused}")),
        }
        for (name, tried) in &self.levels {
            line(&format!("  {name}"), &tried.told());
        }
        for advice in &self.advice {
            line("advice", advice);
        }
        text
    }
}

impl Store {
    /// In one line.
    fn told(&self) -> String {
        match (&self.path, &self.problem) {
            (_, Some(problem)) => problem.clone(),
            (Some(path), None) => {
                let kind = self.file_system.as_deref().unwrap_or("an unknown file system");
                let free = self
                    .free_bytes
                    .map_or_else(String::new, |free| format!(", {} free", DecimalBytes(free)));
                format!("{} on {kind}{free}", path.display())
            }
            (None, None) => String::new(),
        }
    }
}
