//! A shell session of a user of rbuild: a context, a store, a home, and the builds in it.
//!
//! Each session has its own of everything and sees nothing of the caller's environment, so that
//! tests neither meet each other nor depend on who runs them.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::bases::Base;
use crate::caller::Caller;
use crate::events::Steps;
use crate::image::Image;
use crate::program::rbuild;
use crate::validate::validate_image;

/// What asks rbuild for a level of its sandbox.
const LEVEL: &str = "RBUILD_SANDBOX";

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a user has before typing `rbuild`.
///
/// `FROM busybox` means the base image of the tests; see [`Session::base`] for others.
pub struct Session {
    dir: TempDir,
    store: &'static str,
    bases: Vec<(String, PathBuf)>,
    environment: Vec<(String, String)>,
    caller: Caller,
    is_on_overlay: bool,
}

/// Mounts an overlay (lower, upper and work directory, place), in a mount namespace that ends with
/// the command.
const ON_OVERLAY: &str = r#"
set -eu
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$4"
shift 4
exec "$@"
"#;

impl Session {
    /// Starts a session with an empty context and an empty store.
    ///
    /// # Panics
    ///
    /// As all that this crate does, if the machine can't do it.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("rbuild-test-").tempdir().unwrap();
        // Other users than the one that made it look into it too.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for part in ["context", "home", "tmp"] {
            fs::create_dir(dir.path().join(part)).unwrap();
        }
        let caller = Caller::Root;
        let (bases, environment) = (vec![], vec![]);
        Self { dir, store: "store", bases, environment, caller, is_on_overlay: false }
            .base(Base::Busybox)
    }

    /// Has somebody else run rbuild, to whom context and home then belong.
    pub fn run_by(mut self, caller: Caller) -> Self {
        self.caller = caller;
        self
    }

    /// Has rbuild see its store on an overlay, as in a container without a volume. What it puts there
    /// is in the [store](Self::store) all the same.
    pub fn on_overlay(mut self) -> Self {
        self.is_on_overlay = true;
        self
    }

    /// Makes `FROM <name of the base>` mean the base image of the tests.
    pub fn base(self, base: Base) -> Self {
        self.base_called(base.name(), base)
    }

    /// Makes `FROM <name>` mean the base image of the tests.
    pub fn base_called(mut self, name: &str, base: Base) -> Self {
        self.bases.push((name.to_owned(), base.layout()));
        self
    }

    /// Leaves base images to registries: no name is known in this session any more.
    pub fn without_bases(mut self) -> Self {
        self.bases.clear();
        self
    }

    /// Makes the registry at `address` (`host:port`) answer for docker.io, by plain HTTP.
    pub fn mirror(self, address: impl std::fmt::Display) -> Self {
        let conf = format!(
            "[[registry]]\nprefix = \"docker.io\"\nlocation = \"docker.io\"\n\
             [[registry.mirror]]\nlocation = \"{address}\"\ninsecure = true\n"
        );
        fs::write(self.path("registries.conf"), conf).unwrap();
        let path = self.path("registries.conf").to_str().unwrap().to_owned();
        self.without_bases().env("CONTAINERS_REGISTRIES_CONF", &path)
    }

    /// Writes a file of the context, its directories too.
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.write(path, content);
        self
    }

    /// Writes the Dockerfile.
    pub fn dockerfile(self, text: &str) -> Self {
        self.file("Dockerfile", text)
    }

    /// Puts a program before all others on the `PATH`: a shell script.
    pub fn program(self, name: &str, script: &str) -> Self {
        let directory = self.path("bin");
        fs::create_dir_all(&directory).unwrap();
        let program = directory.join(name);
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        self.env("PATH", &format!("{}:{PATH}", directory.display()))
    }

    /// Sets a variable of every build's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes a file of the context in the middle of a session.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A path in the session's directory, beside context and store.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The build context.
    pub fn context(&self) -> PathBuf {
        self.path("context")
    }

    /// The store. It comes into being with the first build.
    pub fn store(&self) -> PathBuf {
        self.path(self.store)
    }

    /// Goes on with a store that is empty.
    pub fn in_another_store(mut self) -> Self {
        self.store = "another-store";
        self
    }

    /// Runs `rbuild build ARGS CONTEXT` with plain progress to its end.
    pub fn build(&self, args: &[&str]) -> Outcome {
        self.run(&mut self.build_command("plain", args))
    }

    /// Like [`Session::build`], but the events come as data: see [`Outcome::steps`].
    pub fn build_with_events(&self, args: &[&str]) -> Outcome {
        self.run(&mut self.build_command("rawjson", args))
    }

    /// Like [`Session::build`], but nothing is said before the end; for comparing what errors say.
    pub fn build_quietly(&self, args: &[&str]) -> Outcome {
        self.run(&mut self.build_command("quiet", args))
    }

    /// Runs `rbuild ARGS` to its end.
    pub fn rbuild(&self, args: &[&str]) -> Outcome {
        self.run(&mut self.rbuild_command(args.iter().map(|&arg| arg.to_owned()).collect()))
    }

    /// The command of a build, for tests that start or wrap it themselves.
    pub fn build_command(&self, progress: &str, args: &[&str]) -> Command {
        self.rbuild_command(self.build_arguments(progress, args))
    }

    fn rbuild_command(&self, line: Vec<String>) -> Command {
        let command = self.callers_command(line);
        if !self.is_on_overlay {
            return command;
        }
        let parts = ["lower", "work", "on-overlay"].map(|part| self.path(part));
        for part in parts.iter().chain([&self.store()]) {
            fs::create_dir_all(part).unwrap();
            self.caller.own(part, false);
        }
        fs::set_permissions(self.store(), fs::Permissions::from_mode(0o700)).unwrap();
        let [lower, work, place] = &parts;
        let mut wrapped = self.command("unshare");
        wrapped.args(["--mount", "sh", "-c", ON_OVERLAY, "sh"]);
        wrapped.args([lower, &self.store(), work, place]);
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped
    }

    fn callers_command(&self, line: Vec<String>) -> Command {
        if !self.caller.is_root() {
            return self.others(line);
        }
        let mut words = self.caller.prefix(self.dir.path(), &[]);
        words.push(rbuild().to_str().expect("paths of tests are text").to_owned());
        words.extend(line);
        let mut command = self.command(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// The command of somebody who may not look into the directory of the workspace.
    fn others(&self, mut line: Vec<String>) -> Command {
        let program = self.path("rbuild");
        fs::write(&program, "").unwrap();
        let mut shown = vec![(rbuild().to_owned(), program.clone())];
        for (name, layout) in &self.bases {
            let seen = self.path("bases").join(name);
            fs::create_dir_all(&seen).unwrap();
            for word in &mut line {
                *word = word.replace(layout.to_str().unwrap(), seen.to_str().unwrap());
            }
            shown.push((layout.clone(), seen));
        }
        for part in ["", "context", "home", "tmp", "bin"] {
            self.caller.own(&self.path(part), !part.is_empty());
        }
        let prefix = self.caller.prefix(self.dir.path(), &shown);
        let mut command = self.command(&prefix[0]);
        command.args(&prefix[1..]).arg(program).args(line);
        command
    }

    /// What follows `rbuild` on the command line of a build.
    pub fn build_arguments(&self, progress: &str, args: &[&str]) -> Vec<String> {
        let mut line = vec!["build".to_owned(), format!("--progress={progress}")];
        for (name, layout) in &self.bases {
            line.push(format!("--build-context={name}=oci-layout://{}", layout.display()));
        }
        line.extend(args.iter().map(|&arg| arg.to_owned()));
        line.push("context".to_owned());
        line
    }

    /// Any command, in the session's directory and environment.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", self.path("home"))
            .env("XDG_CONFIG_HOME", self.path("home/.config"))
            .env("XDG_RUNTIME_DIR", self.path("tmp"))
            .env("TMPDIR", self.path("tmp"))
            .env(
                "RBUILD_ROOT",
                if self.is_on_overlay { self.path("on-overlay") } else { self.store() },
            )
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null());
        // The whole suite can be run at one of the sandbox's levels; the other callers are at theirs.
        if let (Caller::Root, Some(level)) = (self.caller, std::env::var_os(LEVEL)) {
            command.env(LEVEL, level);
        }
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    /// Runs another tool to its end; it must succeed. Returns what it printed.
    pub fn tool(&self, program: &str, args: &[&str]) -> String {
        let outcome = self.run(self.command(program).args(args));
        assert!(outcome.status.success(), "{program} {} failed:\n{outcome}", args.join(" "));
        outcome.stdout
    }

    /// Reads an image of the store by its short name and checks all of it.
    pub fn image(&self, name: &str) -> Image {
        let reference: oci::Reference = name.parse().unwrap();
        validate_image(&self.store(), &reference.to_string())
    }

    /// Runs a command to its end.
    pub fn run(&self, command: &mut Command) -> Outcome {
        let began = Instant::now();
        let output = command
            .output()
            .unwrap_or_else(|e| panic!("{} runs: {e}", command.get_program().display()));
        Outcome::new(output, began.elapsed(), self.dir.path())
    }
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// The time that it took.
    pub took: Duration,
    dir: PathBuf,
}

impl Outcome {
    fn new(output: Output, took: Duration, dir: &Path) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            status: output.status,
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            took,
            dir: dir.to_owned(),
        }
    }

    /// Demands that it ended well.
    pub fn succeeds(self) -> Self {
        assert!(self.status.success(), "it must succeed:\n{self}");
        self
    }

    /// Demands that it ended with exit code 1 and said each of the words on its standard error.
    pub fn fails_with(self, words: &[&str]) -> Self {
        assert_eq!(self.status.code(), Some(1), "it must fail with exit code 1:\n{self}");
        for words in words {
            assert!(self.stderr.contains(words), "it must say `{words}`:\n{self}");
        }
        self
    }

    /// Its standard error with everything replaced that differs from run to run: the session's
    /// directory, ports and digests.
    pub fn redacted_stderr(&self) -> String {
        redact(&self.stderr.replace(self.dir.to_str().unwrap(), "[session]"))
    }

    /// The steps of a build that was made [with events](Session::build_with_events).
    pub fn steps(&self) -> Steps {
        Steps::read(&self.stderr)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} after {:.1?}", self.status, self.took)?;
        writeln!(f, "--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
    }
}

/// Replaces loopback ports, digests and the seconds before a step's output.
fn redact(text: &str) -> String {
    let lines: Vec<_> = text.split('\n').map(without_seconds).collect();
    redact_names(&without_logs(&lines.join("\n")))
}

/// The path of a step's log, which has numbers of its own, as `[log]`.
fn without_logs(text: &str) -> String {
    let mark = "the whole log: ";
    let line = |line: &str| match line.strip_prefix(mark) {
        Some(path) if path.ends_with(".log") => format!("{mark}[log]"),
        _ => line.to_owned(),
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// `0.123 text` as `[seconds] text`.
fn without_seconds(line: &str) -> String {
    let number = |word: &str| word.contains('.') && word.parse::<f64>().is_ok();
    match line.split_once(' ') {
        Some((seconds, rest)) if number(seconds) => format!("[seconds] {rest}"),
        _ => line.to_owned(),
    }
}

fn redact_names(text: &str) -> String {
    let mut redacted = String::new();
    let mut rest = text;
    loop {
        let next = [("127.0.0.1:", "[port]", 10), ("sha256:", "[digest]", 16)]
            .into_iter()
            .filter_map(|(mark, name, radix)| Some((rest.find(mark)? + mark.len(), name, radix)))
            .min();
        let Some((start, name, radix)) = next else { break };
        let (before, after) = rest.split_at(start);
        rest = after.trim_start_matches(|c: char| c.is_digit(radix));
        let name = if rest.len() == after.len() { "" } else { name };
        write!(redacted, "{before}{name}").expect("a string grows");
    }
    redacted + rest
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn seconds_before_output_are_redacted() {
        assert_eq!(redact("0.123 hello\n1.2.3 x\n12 y"), "[seconds] hello\n1.2.3 x\n12 y");
    }

    #[test]
    fn ports_and_digests_are_redacted() {
        let text = "GET http://127.0.0.1:4242/v2/: no sha256:00ff, no sha256: at 127.0.0.1";
        let want = "GET http://127.0.0.1:[port]/v2/: no sha256:[digest], no sha256: at 127.0.0.1";
        assert_eq!(redact(text), want);
    }
}
