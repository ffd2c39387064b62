//! Builds in containers as podman and Docker start them. What comes of it is the table in
//! `docs/where-it-runs.md`, which `INSTA_UPDATE=always` has these tests write.
//!
//! Docker's containers are podman's with Docker's capabilities and Docker's list of system calls:
//! all that makes the difference here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use test_support::{Base, Outcome, Session, WebServer, rbuild, workspace};

/// A package with a group and a set-group-id file, owners that RUN and COPY set, another user: all
/// that differs where ids are few. What apt leaves that is never the same twice is removed.
const DOCKERFILE: &str = "\
FROM debian
ARG REPOSITORY
RUN echo \"deb [trusted=yes] http://$REPOSITORY ./\" > /etc/apt/sources.list && apt-get update && \\
    apt-get install -y --no-install-recommends cron && \\
    rm -r /var/cache/ldconfig /var/cache/apt /var/lib/apt/lists /var/log/apt /var/log/*.log
RUN --mount=type=bind,source=file,target=/mnt/file --mount=type=cache,target=/var/kept \\
    cp /mnt/file /copied && chown 5:6 /copied && mkfifo /pipe && rm /etc/debian_version
COPY --chown=11:12 file /d/file
USER 33:33
RUN id > /tmp/id && touch /tmp/mine
";

/// The image in which rbuild runs: one program, a home for an ordinary user, and what is built.
const IMAGE: &str = "\
FROM busybox
RUN echo builder:x:1000:1000::/home/builder:/bin/sh >> /etc/passwd && \\
    mkdir -p /home/builder /proc /sys && chown 1000:1000 /home/builder
COPY rbuild /usr/bin/rbuild
COPY debian /debian
COPY context /context
ENV SOURCE_DATE_EPOCH=1
WORKDIR /context
";

/// What stands before and behind the table.
const BEGIN: &str = "<!-- tests/containers.rs writes this table -->\n\n";
const END: &str = "\n<!-- end of the table -->";

/// Who starts the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Podman,
    Docker,
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "Docker",
        }
    }

    /// What podman is to be told in `containers.conf`. Capabilities given on the command line would
    /// be an ordinary user's, too, which they are not with Docker.
    fn configuration(self) -> String {
        let more = match self {
            Self::Podman => "",
            Self::Docker => r#", "MKNOD", "NET_RAW", "AUDIT_WRITE""#,
        };
        // Podman's own limits are more than root may have on some machines.
        format!(
            "[containers]\ndefault_capabilities = [{CAPABILITIES}{more}]\n\
             default_ulimits = [\"nofile=1024:1024\", \"nproc=10000:10000\"]\n\
             [engine]\nruntime = \"runc\"\n",
        )
    }

    /// The option that names the list of system calls.
    fn system_calls(self) -> String {
        let path = match self {
            Self::Podman => PathBuf::from("/usr/share/containers/seccomp.json"),
            Self::Docker => workspace().join("target/fixtures/containers/docker.json"),
        };
        format!("--security-opt=seccomp={}", path.display())
    }
}

/// What Debian's podman grants, and Docker, too.
const CAPABILITIES: &str = r#""CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL",
"NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT""#;

/// What the container is started with, beside the image.
const OPTIONS: &[&str] = &[
    "",
    "--user 1000",
    "--security-opt seccomp=unconfined",
    "--security-opt unmask=ALL",
    "--privileged",
];

/// What builders of others ask for; a pod that may do nothing but make namespaces; users of the
/// container that are not those of the machine, as Kubernetes has them with `hostUsers: false`.
const MORE_OPTIONS_OF_DOCKER: &[&str] = &[
    "--cap-add SYS_ADMIN",
    "--security-opt seccomp=unconfined --security-opt unmask=ALL",
    "--user 1000 --security-opt seccomp=unconfined",
    "--user 1000 --security-opt seccomp=unconfined --security-opt unmask=ALL",
    "--user 1000 --security-opt seccomp=unconfined --security-opt no-new-privileges --cap-drop ALL --read-only",
    "--uidmap 0:100000:65536",
    "--uidmap 0:100000:65536 --security-opt seccomp=unconfined",
    "--uidmap 0:100000:65536 --security-opt seccomp=unconfined --security-opt unmask=ALL",
];

/// A container to build in.
#[derive(Clone, Copy, Debug)]
struct Cell {
    engine: Engine,
    options: &'static str,
    /// Whether the store is on a volume, else it is in the container's own files.
    has_volume: bool,
}

fn cells() -> Vec<Cell> {
    let mut cells = vec![];
    for engine in [Engine::Podman, Engine::Docker] {
        for options in OPTIONS {
            cells.extend([false, true].map(|has_volume| Cell { engine, options, has_volume }));
        }
    }
    let of_docker = |&options| Cell { engine: Engine::Docker, options, has_volume: true };
    cells.extend(MORE_OPTIONS_OF_DOCKER.iter().map(of_docker));
    cells
}

/// Podman, with its images in the session.
struct Containers {
    session: Session,
    repository: String,
    image: String,
}

impl Containers {
    fn start(repository: &WebServer) -> Self {
        let session = Session::new()
            .file("Dockerfile", IMAGE)
            .file("context/Dockerfile", DOCKERFILE)
            .file("context/file", "content\n");
        let context = session.context();
        fs::copy(rbuild(), context.join("rbuild")).unwrap();
        let debian = Base::Debian.layout();
        session.tool("cp", &["-r", debian.to_str().unwrap(), context.to_str().unwrap()]);
        session.build(&["-t", "box"]).succeeds();
        for engine in [Engine::Podman, Engine::Docker] {
            fs::write(session.path(engine.name()), engine.configuration()).unwrap();
        }
        let repository = repository.host();
        let images = session.path("images");
        fs::create_dir_all(session.path("scratch")).unwrap();
        let pull = ["pull", "--quiet", "oci:store:docker.io/library/box:latest"];
        let id = session.run(podman(&session, &images).args(pull)).succeeds().stdout;
        Self { session, repository, image: id.trim().to_owned() }
    }

    /// Examines the container and builds [`DOCKERFILE`] there.
    fn build(&self, cell: Cell) -> Outcome {
        const EXAMINE_AND_BUILD: &str = "rbuild doctor --json; exec timeout 100 rbuild -q \"$@\" .";
        let scratch = self.session.path("scratch");
        let images = self.session.path("images");
        let mut podman = podman(&self.session, &scratch.join("images"));
        podman.env("CONTAINERS_CONF", self.session.path(cell.engine.name()));
        podman.arg(format!("--storage-opt=additionalimagestore={}", images.display()));
        podman.args(["run", "--rm", "--pull=never", "--network=host"]);
        podman.args(cell.options.split_whitespace());
        if !cell.options.contains("seccomp=") && !cell.options.contains("--privileged") {
            podman.arg(cell.engine.system_calls());
        }
        if cell.has_volume {
            // Where root is another user, the volume is given to it.
            let owner = if cell.options.contains("--uidmap") { ":U" } else { "" };
            let volume = scratch.join("volume");
            podman
                .arg(format!("--volume={}:/store{owner}", volume.display()))
                .arg("--env=RBUILD_ROOT=/store");
        }
        podman.args([&self.image, "sh", "-c", EXAMINE_AND_BUILD, "sh"]);
        self.session.run(podman.args(self.arguments("/debian")))
    }

    /// The image that root builds on this machine.
    fn digest_outside(&self) -> String {
        let mut command = self.session.command(rbuild());
        command.current_dir(self.session.path("context/context")).env("SOURCE_DATE_EPOCH", "1");
        let layout = Base::Debian.layout();
        command.arg("-q").args(self.arguments(layout.to_str().unwrap())).arg(".");
        self.session.run(&mut command).succeeds().stdout
    }

    fn arguments(&self, debian: &str) -> [String; 2] {
        [
            format!("--build-arg=REPOSITORY={}", self.repository),
            format!("--build-context=debian=oci-layout://{debian}"),
        ]
    }
}

/// Podman with its storage at `root`, and nothing of this machine's. In the directory `scratch` of the
/// session it has a file system in memory, since disks take long to forget what is written here; there
/// is a volume that all may write, as Kubernetes makes them. All mounts end with podman, those that it
/// leaves too.
fn podman(session: &Session, root: &Path) -> Command {
    const ALONE: &str = "mount -t tmpfs -o mode=755 scratch scratch && \
        mkdir -m 777 scratch/volume && exec podman \"$@\"";
    let mut podman = session.command("unshare");
    podman.args(["--mount", "--propagation=private", "--", "sh", "-c", ALONE, "sh"]);
    podman.arg("--root").arg(root).arg("--runroot").arg(session.path("scratch/running"));
    podman
}

/// What the table says of a container. `outside` is the digest of the image that root builds there.
fn row(cell: Cell, outcome: &Outcome, outside: &str) -> String {
    let (report, digest) = match outcome.stdout.split_once("\n}\n") {
        Some((report, digest)) => (serde_json::from_str(&format!("{report}}}")).unwrap(), digest),
        None => (Value::Null, ""),
    };
    let result = match outcome.status.success() {
        true if digest == outside => "as root's".to_owned(),
        true => "another".to_owned(),
        false => format!("none: {}", refusal(outcome)),
    };
    let options = cell.options.replace("--", "`--").replace(" `", "` `");
    let options = if options.is_empty() { options } else { format!("{options}`") };
    let place = if cell.has_volume { "a volume" } else { "the container" };
    let level = level(&report);
    format!("| {} | {options} | {place} | {level} | {result} |\n", cell.engine.name())
}

/// The level that `rbuild doctor` tells of, and what is not as well as it can be there.
fn level(report: &Value) -> String {
    let Some(level) = report["level"].as_str() else { return "none".to_owned() };
    let mut words = format!("`{level}`");
    if level != "chroot" && report["ownProc"] == false {
        words += ", the container's `/proc`";
    }
    if !report["overlayRefused"].is_null() {
        words += ", layers copied";
    }
    words
}

/// The sentence that says why nothing was built.
fn refusal(outcome: &Outcome) -> String {
    let said = outcome.redacted_stderr();
    let error = said.lines().find_map(|line| line.strip_prefix("error: "));
    error.unwrap_or("it says nothing").replace('|', "\\|")
}

/// The table, with a row for each container.
fn table(containers: &Containers) -> String {
    let outside = containers.digest_outside();
    let cells = cells();
    let (next, rows) = (AtomicUsize::new(0), Mutex::new(vec![String::new(); cells.len()]));
    let work = || {
        while let Some((index, cell)) = nth(&cells, &next) {
            let outcome = containers.build(cell);
            println!("{cell:?}: {outcome}");
            rows.lock().unwrap()[index] = row(cell, &outcome, &outside);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let head = "| containers of | started with | the store is in | level | the image |\n|---|---|---|---|---|\n";
    format!("{head}{}", rows.into_inner().unwrap().concat())
}

/// Takes the next cell.
fn nth(cells: &[Cell], next: &AtomicUsize) -> Option<(usize, Cell)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    Some((index, *cells.get(index)?))
}

#[test]
fn the_table_of_containers_says_what_is_built_where() {
    let script = workspace().join("fixtures/containers/make.sh");
    assert!(Command::new(script).status().unwrap().success(), "what it needs can't be fetched");
    let packages = workspace().join("target/fixtures/containers/packages");
    let table = table(&Containers::start(&WebServer::start(&packages, None)));

    assert!(!table.contains("| another |"), "what is built is what root builds:\n{table}");

    let path = workspace().join("docs/where-it-runs.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (was, after) = rest.split_once(END).unwrap();
    if std::env::var("INSTA_UPDATE").is_ok_and(|value| value == "always") {
        fs::write(&path, [before, BEGIN, &table, END, after].concat()).unwrap();
    } else {
        assert!(
            was == table,
            "docs/where-it-runs.md has another table; INSTA_UPDATE=always writes this one:\n{table}"
        );
    }
}
