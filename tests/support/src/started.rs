//! A command that runs beside the test.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How long a line is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A command that was started and writes to its standard error; dropped, it is killed.
pub struct Started {
    child: Child,
    lines: Receiver<String>,
}

impl Started {
    /// Starts it.
    ///
    /// # Panics
    ///
    /// If it can't be started.
    pub fn new(mut command: Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{} runs: {e}", command.get_program().display()));
        let stderr = BufReader::new(child.stderr.take().expect("it was asked for"));
        let (sender, lines) = channel();
        // It must not block on a full pipe while nobody looks.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _nobody_looks_any_more = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, if the command was told to have one.
    ///
    /// # Panics
    ///
    /// If it has none, or it was taken already.
    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("it was asked for")
    }

    /// The next line that it writes, `None` when it has ended.
    ///
    /// # Panics
    ///
    /// If nothing comes for two minutes.
    pub fn next_line(&mut self) -> Option<String> {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(Disconnected) => None,
            Err(Timeout) => panic!("it writes nothing and does not end"),
        }
    }

    /// Waits for a line.
    ///
    /// # Panics
    ///
    /// If it ends before it wrote one.
    pub fn wait_for(&mut self, is_it: impl Fn(&str) -> bool) {
        let mut seen = vec![];
        loop {
            let line = self.next_line().unwrap_or_else(|| panic!("it comes to that: {seen:#?}"));
            if is_it(&line) {
                return;
            }
            seen.push(line);
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// If it was waited for already.
    pub fn send(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.id()).expect("ids are small")).expect("not 0");
        kill_process(pid, signal).expect("it still runs");
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Waits for its end; returns also what it wrote that nobody looked at yet.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let mut rest = vec![];
        while let Some(line) = self.next_line() {
            rest.push(line);
        }
        (self.child.wait().expect("it is our child"), rest)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _it_has_ended = self.child.kill();
        let _it_has_ended = self.child.wait();
    }
}
