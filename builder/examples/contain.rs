//! Runs a command with a directory as its root: `contain [-n COUNT] DIRECTORY COMMAND [ARGUMENT…]`.
//!
//! What the sandbox is, without a build around it; tests use it to enter namespaces for good, which
//! a test process cannot. With a count it says how long one container takes.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use builder::sandbox::{Container, Exit, Network, Sandbox, Security, bind_path};
use tokio_util::sync::CancellationToken;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    builder::sandbox::init_if_asked();
    let sandbox = builder::sandbox::enter(builder::sandbox::Choice::Auto)?;
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let count = match args.first().map(String::as_str) {
        Some("-n") => args.drain(..2).nth(1).ok_or("a count is missing")?.parse()?,
        _ => 1,
    };
    let [root, command @ ..] = &args[..] else { return Err("a directory is missing".into()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut times = Vec::new();
    let mut code = 0;
    for _ in 0..count {
        let begin = Instant::now();
        code = runtime.block_on(run(&sandbox, Path::new(root), command))?;
        times.push(begin.elapsed());
    }
    if count > 1 {
        report(&sandbox, times)?;
    }
    drop(sandbox);
    std::process::exit(code)
}

async fn run(
    sandbox: &Sandbox,
    root: &Path,
    command: &[String],
) -> Result<i32, Box<dyn std::error::Error>> {
    let container = Container {
        root: bind_path(root, false)?,
        beside: None,
        mounts: Vec::new(),
        args: command.to_vec(),
        env: vec![("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())],
        cwd: "/".to_owned(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        hostname: "contained".to_owned(),
        network: Network::Host,
        security: Security::Sandbox,
        resolv_conf: std::fs::read("/etc/resolv.conf").unwrap_or_default(),
        hosts: b"127.0.0.1 localhost contained\n".to_vec(),
        shm_size: 64 << 20,
        ulimits: Vec::new(),
    };
    let output = |stderr: bool, bytes: &[u8]| {
        let _nobody_reads = if stderr {
            std::io::stderr().write_all(bytes)
        } else {
            std::io::stdout().write_all(bytes)
        };
    };
    let exit = sandbox.run(container, output, CancellationToken::new()).await?;
    Ok(match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
        Exit::OutOfMemory => 137,
    })
}

fn report(sandbox: &Sandbox, mut times: Vec<Duration>) -> std::io::Result<()> {
    times.sort();
    let (least, median) = (times[0], times[times.len() / 2]);
    writeln!(std::io::stderr(), "{:?}: least {least:?}, median {median:?}", sandbox.level())
}
