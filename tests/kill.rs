//! `kill -9` in the middle of everything: nothing stays behind, and the next build is as good as if
//! nothing had been.
//!
//! A build is killed at the first, a middle or the last event of each of its phases, and up to
//! [`JITTER`] later. `SEED` repeats a run; `ROUNDS` makes it longer.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use test_support::{Caller, Session, Started, TestRegistry, rounds};

const JITTER: Duration = Duration::from_millis(20);

/// A layer from elsewhere, one that takes a while to write, to digest and to compress, and one that
/// is made while that one is compressed. The same in every run.
const DOCKERFILE: &str = "FROM base\n\
    RUN echo began; seq 6000000 > /big; echo big; \
    mkdir /small; cd /small; seq 3000 | xargs touch -d @1; echo last words\n\
    COPY file /file\n\
    RUN sleep 0.5; touch -d @1 /after\n";

/// Some megabytes that can't be compressed, and many files.
const BASE: &str = "FROM busybox\n\
    RUN head -c 12000000 /dev/urandom > /random; mkdir /many; cd /many; seq 2000 | xargs touch\n";

fn push_base(registry: &TestRegistry) {
    let session = Session::new().dockerfile(BASE);
    session.build(&["-t", &registry.name("library/base"), "--push"]).succeeds();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Download,
    Unpack,
    Run,
    Commit,
    Compress,
    Export,
}

const PHASES: [Phase; 6] =
    [Phase::Download, Phase::Unpack, Phase::Run, Phase::Commit, Phase::Compress, Phase::Export];

#[derive(Clone, Copy, Debug)]
enum Position {
    First,
    Middle,
    Last,
}

const POSITIONS: [Position; 3] = [Position::First, Position::Middle, Position::Last];

/// Reads the lines of a build and tells to which phase each belongs.
struct Reader {
    /// Whether the blobs of the base are here already.
    unpacks_only: bool,
    names: BTreeMap<String, String>,
}

impl Reader {
    fn phase_of(&mut self, line: &str) -> Option<Phase> {
        let event: Value = serde_json::from_str(line).ok()?;
        let items = |kind: &str| event[kind].as_array().cloned().unwrap_or_default();
        for vertex in items("vertexes") {
            let (digest, name) = (vertex["digest"].as_str()?, vertex["name"].as_str()?);
            self.names.insert(digest.to_owned(), name.to_owned());
            if vertex["started"].is_string() {
                let ended = vertex["completed"].is_string();
                return match name {
                    _ if name.contains("RUN echo began") && ended => Some(Phase::Commit),
                    _ if name.contains("RUN echo began") => Some(Phase::Run),
                    _ => self.phase_of_step(digest),
                };
            }
        }
        if let Some(log) = items("logs").first() {
            // The last words, in base64.
            let last = log["data"].as_str()?.contains("bGFzdCB3b3Jkcw");
            let is_it = self.names.get(log["vertex"].as_str()?)?.contains("RUN echo began");
            return is_it.then_some(if last { Phase::Commit } else { Phase::Run });
        }
        self.phase_of_step(items("statuses").first()?["vertex"].as_str()?)
    }

    fn phase_of_step(&self, digest: &str) -> Option<Phase> {
        let name = self.names.get(digest)?;
        if name.contains("FROM") {
            Some(if self.unpacks_only { Phase::Unpack } else { Phase::Download })
        } else if name.contains("compressing") {
            Some(Phase::Compress)
        } else {
            name.starts_with("exporting").then_some(Phase::Export)
        }
    }
}

/// A build's events in one phase.
#[derive(Clone, Copy, Debug)]
struct Span {
    events: usize,
    duration: Duration,
}

/// An undisturbed build: its image, and what its phases are like.
struct Undisturbed {
    digest: String,
    spans: BTreeMap<Phase, Span>,
}

struct Setting<'a> {
    registry: &'a TestRegistry,
    unpacks_only: bool,
}

impl Setting<'_> {
    fn session(&self) -> Session {
        let session = Session::new()
            .mirror(self.registry.host())
            .env("SOURCE_DATE_EPOCH", "1000000000")
            .file("file", "content\n")
            .dockerfile(DOCKERFILE);
        if self.unpacks_only {
            session.write("Base", "FROM base\nLABEL a=b\n");
            session.build(&["-t", "base-only", "-f", "context/Base"]).succeeds();
        }
        session
    }

    fn start(&self, session: &Session) -> (Started, Reader) {
        let args = ["-t", "app", "-o", "type=image", "-o", "type=oci,dest=app.tar"];
        let reader = Reader { unpacks_only: self.unpacks_only, names: BTreeMap::new() };
        (Started::new(session.build_command("rawjson", &args)), reader)
    }

    fn undisturbed(&self) -> Undisturbed {
        let session = self.session();
        let (mut build, mut reader) = self.start(&session);
        let mut seen: BTreeMap<Phase, Vec<Instant>> = BTreeMap::new();
        while let Some(line) = build.next_line() {
            if let Some(phase) = reader.phase_of(&line) {
                seen.entry(phase).or_default().push(Instant::now());
            }
        }
        let span = |times: Vec<Instant>| {
            let duration = *times.last().expect("it has one") - times[0];
            Span { events: times.len(), duration }
        };
        assert!(build.wait().0.success());
        let spans = seen.into_iter().map(|(phase, times)| (phase, span(times))).collect();
        Undisturbed { digest: digest(&session), spans }
    }
}

/// The digest of the image, whose blobs a check of the store reads.
fn digest(session: &Session) -> String {
    let images = session.rbuild(&["images", "--format=json"]).succeeds().stdout;
    let mut images = images.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let app = images.find(|image| image["name"] == "app:latest").expect("it has the name");
    app["digest"].as_str().unwrap().to_owned()
}

/// When to kill a build.
#[derive(Clone, Copy, Debug)]
struct Moment {
    phase: Phase,
    position: Position,
    jitter: Duration,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} event of {:?}, {:?} later", self.position, self.phase, self.jitter)
    }
}

/// Kills a build at the moment; returns whether it came to that.
fn kill_at(moment: Moment, span: Span, (mut build, mut reader): (Started, Reader)) -> bool {
    let (nth, wait) = match moment.position {
        Position::First => (1, Duration::ZERO),
        Position::Middle if span.events > 2 => (span.events.div_ceil(2), Duration::ZERO),
        // Nothing is said between its two ends.
        Position::Middle => (1, span.duration / 2),
        Position::Last => (span.events, Duration::ZERO),
    };
    let mut seen = 0;
    while let Some(line) = build.next_line() {
        seen += usize::from(reader.phase_of(&line) == Some(moment.phase));
        if seen == nth {
            std::thread::sleep(wait + moment.jitter);
            break;
        }
    }
    let runs = build.is_running();
    if runs {
        build.send(Signal::KILL);
    }
    build.wait();
    runs
}

/// What other processes have to do with `directory`.
fn leaks(directory: &Path) -> Vec<String> {
    let mut found = vec![];
    let inside = |text: &str| text.contains(directory.to_str().unwrap());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found
        .extend(mounts.lines().filter(|mount| inside(mount)).map(|mount| format!("mount {mount}")));
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let path = process.path();
        let number = process.file_name().to_string_lossy().into_owned();
        if number.parse() == Ok(std::process::id()) || number.parse::<u32>().is_err() {
            continue;
        }
        let line = fs::read(path.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let descriptors = fs::read_dir(path.join("fd")).into_iter().flatten().flatten();
        let targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        let open: Vec<_> = targets.filter(|target| inside(&target.to_string_lossy())).collect();
        if !open.is_empty() || inside(&line) {
            found.push(format!("process {number} ({line}) with {open:?}"));
        }
    }
    found
}

fn assert_no_leaks(directory: &Path) {
    let deadline = Instant::now() + Duration::from_secs(2);
    while !leaks(directory).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(leaks(directory), [""; 0]);
}

/// Numbers that look random and come again with their seed.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let seed = std::env::var("SEED").map_or_else(
            |_| RandomState::new().build_hasher().finish() % 1_000_000,
            |seed| seed.parse().expect("SEED is a number"),
        );
        println!("SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[test]
fn a_killed_build_leaves_nothing_and_the_next_one_is_as_good() {
    let registry = TestRegistry::start();
    push_base(&registry);
    let setting = |phase| Setting { registry: &registry, unpacks_only: phase == Phase::Unpack };
    let undisturbed = [Phase::Download, Phase::Unpack].map(|phase| setting(phase).undisturbed());
    assert_eq!(undisturbed[0].digest, undisturbed[1].digest);
    let mut random = Random::new();
    let mut kills: BTreeMap<Phase, usize> = PHASES.map(|phase| (phase, 0)).into();
    let rounds = if rounds() == 1 { PHASES.len() } else { rounds() * 10 };
    for round in 0..rounds {
        let phase = PHASES[round % PHASES.len()];
        let position = match rounds / PHASES.len() {
            1 => POSITIONS[random.below(3) as usize],
            _ => POSITIONS[round / PHASES.len() % POSITIONS.len()],
        };
        let jitter = Duration::from_micros(random.below(JITTER.as_micros() as u64));
        let mut moment = Moment { phase, position, jitter };
        let setting = setting(phase);
        let undisturbed = &undisturbed[usize::from(phase == Phase::Unpack)];
        let mut session = setting.session();
        while !kill_at(moment, undisturbed.spans[&phase], setting.start(&session)) {
            println!("{moment}: too late");
            // On a fast machine the last event is the end.
            moment = Moment { position: Position::First, jitter: moment.jitter / 2, ..moment };
            session = setting.session();
        }
        println!("{moment}: killed");
        *kills.get_mut(&phase).unwrap() += 1;

        assert_no_leaks(&session.store());
        let (build, _) = setting.start(&session);
        let (status, said) = build.wait();
        assert!(status.success(), "{moment}: {said:#?}");
        assert_eq!(digest(&session), undisturbed.digest, "{moment}");
        session.rbuild(&["store", "check"]).succeeds();
        session.rbuild(&["prune", "-f"]).succeeds();
        for directory in ["run", "locks"] {
            let left = fs::read_dir(session.store().join(directory)).unwrap().flatten();
            let left: Vec<_> = left.map(|left| left.file_name()).filter(|n| n != "index").collect();
            assert!(left.is_empty(), "{moment}: {left:?} in {directory}");
        }
    }
    println!("kills in each phase: {kills:?}");
    assert!(kills.values().all(|kills| *kills > 0), "{kills:?}");
}

/// A caller, and the level that it asks for.
const LEVELS: [(Caller, Option<&str>); 5] = [
    (Caller::Root, Some("root")),
    (Caller::WithSubordinateIds, None),
    (Caller::WithOneId, None),
    (Caller::Root, Some("outer-proc")),
    (Caller::RootWithChrootAlone, None),
];

/// So many RUNs run at a time.
const AT_A_TIME: usize = 16;

/// Stages that know nothing of each other, each of some RUNs that take a moment or two: one writes,
/// one starts what wants to stay behind, one ignores signals.
fn stages(mark: &str) -> String {
    let mut dockerfile = "FROM busybox AS last\n".to_owned();
    for stage in 0..AT_A_TIME {
        dockerfile += &format!(
            "FROM busybox AS s{stage}\n\
             RUN echo beg''an; seq 20000 > /{stage}; sleep 0.0{stage}\n\
             RUN --mount=type=cache,target=/c echo beg''an; (setsid sleep {mark} &); nohup sleep {mark} & \
             sleep 0.{stage}\n\
             RUN --mount=type=bind,from=last,target=/m,rw echo beg''an; trap '' TERM INT HUP; \
             echo x > /m/x; yes | head -c 300000; sleep 0.2\n"
        );
    }
    dockerfile += "FROM busybox\n";
    for stage in 0..AT_A_TIME {
        dockerfile += &format!("COPY --from=s{stage} /{stage} /\n");
    }
    dockerfile
}

/// The namespaces of a process, but those that this one is in.
fn foreign_namespaces(process: &Path) -> Vec<String> {
    let kinds = ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup"];
    let of = |process: &Path, kind| fs::read_link(process.join("ns").join(kind)).ok();
    let here = Path::new("/proc/self");
    let found = kinds.iter().filter_map(|kind| Some((kind, of(process, kind)?)));
    let foreign = found.filter(|(kind, name)| of(here, kind).as_ref() != Some(name));
    foreign.map(|(_, name)| name.display().to_string()).collect()
}

fn processes() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_number = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok())
    };
    entries.filter(is_number).collect()
}

/// The processes that a process has started, and those that they have.
fn descendants(of: u32) -> Vec<PathBuf> {
    let parents: Vec<_> = processes()
        .into_iter()
        .filter_map(|path| {
            let status = fs::read_to_string(path.join("status")).ok()?;
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
            Some((path, format!("/proc/{}", parent.trim())))
        })
        .collect();
    let mut found = vec![PathBuf::from(format!("/proc/{of}"))];
    let mut next = 0;
    while let Some(parent) = found.get(next).cloned() {
        let children = parents.iter().filter(|(_, known)| Path::new(known) == parent);
        found.extend(children.map(|(path, _)| path.clone()));
        next += 1;
    }
    found
}

/// When a process was started, as the kernel counts.
fn start_of(process: &Path) -> Option<u64> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (_name, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// A moment in the same count.
fn now() -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split_whitespace().next().unwrap().parse().unwrap();
    // `USER_HZ` is 100 on every architecture that rbuild is for.
    (seconds * 100.0) as u64
}

/// What is left of a build: processes with its mark, and those in one of its namespaces. Other
/// processes get the numbers of its namespaces afterwards.
fn left_of(mark: &str, namespaces: &HashSet<String>, killed: u64) -> Vec<String> {
    let mut left = vec![];
    for process in processes() {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let is_old = start_of(&process).is_some_and(|start| start <= killed);
        let is_inside =
            || foreign_namespaces(&process).iter().any(|name| namespaces.contains(name));
        if line.contains(mark) || (is_old && is_inside()) {
            left.push(format!("{}: {line}", process.display()));
        }
    }
    left
}

/// Kills a build at any moment; returns how many of its RUNs had begun.
fn kill_at_any_moment(session: &Session, mark: &str, random: &mut Random) -> usize {
    let jobs = AT_A_TIME.to_string();
    let args = ["--jobs", jobs.as_str(), "--no-cache"];
    let mut build = Started::new(session.build_command("plain", &args));
    // Half of them while all RUNs of a kind are under way, the others wherever they are.
    let lines = random.below(3 * AT_A_TIME as u64) as usize;
    let mut began = 0;
    while began < lines
        && let Some(line) = build.next_line()
    {
        began += usize::from(line.ends_with(" began"));
    }
    std::thread::sleep(Duration::from_micros(random.below(300_000)));
    let of_the_build = descendants(build.id());
    let namespaces = of_the_build.iter().flat_map(|process| foreign_namespaces(process)).collect();
    let is_killed = build.is_running();
    if is_killed {
        let signals = [Signal::KILL, Signal::KILL, Signal::TERM, Signal::INT];
        build.send(signals[random.below(4) as usize]);
    }
    let killed = now();
    let (status, rest) = build.wait();
    assert!(is_killed || status.success(), "{rest:#?}");
    began += rest.iter().filter(|line| line.ends_with(" began")).count();
    let deadline = Instant::now() + Duration::from_secs(3);
    while !left_of(mark, &namespaces, killed).is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(left_of(mark, &namespaces, killed), [""; 0]);
    assert_no_leaks(&session.store());
    began
}

/// Issue 10: at each level 400 RUNs for each twenty rounds, 16 at a time.
#[test]
fn at_each_level_a_killed_build_leaves_nothing() {
    let mut random = Random::new();
    let wanted = if rounds() == 1 { 8 } else { 20 * rounds() };
    for (number, (caller, level)) in LEVELS.into_iter().enumerate() {
        let mark = format!("2718.{number}{}", std::process::id());
        let mut session = Session::new().dockerfile(&stages(&mark)).run_by(caller);
        if let Some(level) = level {
            session = session.env("RBUILD_SANDBOX", level);
        }
        let (mut runs, mut kills) = (0, 0);
        while runs < wanted {
            runs += kill_at_any_moment(&session, &mark, &mut random);
            kills += 1;
        }
        session.build(&["-t", "x", "--target=s0"]).succeeds();
        session.rbuild(&["store", "check"]).succeeds();
        session.rbuild(&["prune", "-f"]).succeeds();
        for directory in ["run", "locks"] {
            let left = fs::read_dir(session.store().join(directory)).unwrap().flatten();
            let left: Vec<_> = left.map(|left| left.file_name()).filter(|n| n != "index").collect();
            assert!(left.is_empty(), "{caller:?} {level:?}: {left:?} in {directory}");
        }
        let level = level.unwrap_or("its own level");
        println!("{caller:?} at {level}: {runs} RUNs, {kills} kills, nothing left");
    }
}
