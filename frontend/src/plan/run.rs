//! RUN: its command line, its environment, its mounts.

use super::config::shell_command;
use super::mounts::{self, MountError, MountKind, MountSpec};
use super::sources::main_context;
use super::stage::StagePlanner;
use super::{ParameterKind, history, names, paths};
use crate::ast::{CommandLine, Heredoc, Node, Run};
use crate::{
    CacheMount, Diagnostic, ExecOp, FileSource, Mount, MountSource, NetworkMode, Op, SecurityMode,
    Selection, did_you_mean,
};

/// Where a script that stands in the Dockerfile is seen.
const SCRIPTS: &str = "/dev/pipes";

/// Variables that are for the build itself and that no RUN sees.
const HIDDEN: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Proxy variables, passed to RUN without any ARG.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// What a RUN runs.
#[derive(Debug, PartialEq, Eq)]
struct Command {
    args: Vec<String>,
    /// A heredoc with `#!`.
    script: Option<Mount>,
    /// What a heredoc is about, where it is the whole command.
    summary: Option<String>,
}

/// The mounts of a RUN, and what they put into its environment.
#[derive(Debug, Default)]
struct Mounts {
    list: Vec<Mount>,
    /// The socket of the first ssh mount.
    ssh_socket: Option<String>,
    ssh_count: usize,
    /// The variables that hold secrets.
    secrets: Vec<String>,
}

impl StagePlanner<'_, '_> {
    /// RUN.
    pub(super) fn run_command(&mut self, node: &Node, run: &Run) -> Result<(), Diagnostic> {
        if let Some(device) = run.devices.first() {
            let message =
                format!("device {device} can't be given to RUN: --device is not supported yet");
            return Err(self.error_at("--device", message));
        }
        let network = self.network(run)?;
        let security = self.security(run)?;
        let mut mounts = self.mounts(&run.mounts)?;
        let Command { args, script, summary } = self.command(run)?;
        self.check_heredocs(run);
        mounts.list.extend(script);
        // A mount must be there before the mounts inside of it.
        mounts.list.sort_by(|a, b| a.target.cmp(&b.target));

        let summary = summary.map(|summary| format!(" ({summary})")).unwrap_or_default();
        let text = self.step_text(&node.text, &mounts.secrets) + &summary;
        let name = self.step_name(&text);
        let created_by = history::run(&args, &self.state.args, &self.state.env);
        let exec = self.exec(args, mounts, network, security);
        let vertex = self.add(Op::Exec(Box::new(exec)), &name);
        self.state.vertex = vertex;
        self.record(created_by, Some(vertex));
        Ok(())
    }

    fn exec(
        &self,
        args: Vec<String>,
        mounts: Mounts,
        network: NetworkMode,
        security: SecurityMode,
    ) -> ExecOp {
        let request = self.platform.facts.request;
        let mut env: Vec<(String, String)> = self
            .state
            .env
            .iter()
            .filter(|(name, _)| !HIDDEN.contains(&name.as_str()))
            .cloned()
            .collect();
        if let Some(socket) = mounts.ssh_socket
            && self.state.env.get("SSH_AUTH_SOCK").is_none()
        {
            env.push(("SSH_AUTH_SOCK".to_owned(), socket));
        }
        let hostname = request.build_args.get("BUILDKIT_SANDBOX_HOSTNAME");
        let hostname = hostname.map_or("buildkitsandbox", String::as_str);
        ExecOp {
            root: self.state.vertex,
            args,
            env,
            proxy_env: self.proxy_env(),
            cwd: paths::clean(&self.state.config.config.working_dir),
            user: self.state.config.config.user.clone(),
            mounts: mounts.list,
            network,
            security,
            platform: self.state.platform.clone(),
            hostname: hostname.to_owned(),
            extra_hosts: request.extra_hosts.clone(),
            shm_size: request.shm_size,
            ulimits: request.ulimits.clone(),
        }
    }

    /// The proxies of the command line under both spellings; where both are given, the lower-case
    /// one counts. What the stage declares itself is in its environment already.
    fn proxy_env(&self) -> Vec<(String, String)> {
        let build_args = &self.platform.facts.request.build_args;
        let given = |name: &str| {
            let same_name = build_args.iter().filter(|(arg, _)| arg.eq_ignore_ascii_case(name));
            let spelled_so = build_args.get_key_value(name);
            spelled_so.into_iter().chain(same_name).map(|(_, value)| value).find(|v| !v.is_empty())
        };
        PROXIES
            .iter()
            .filter_map(|name| Some((name, given(name)?)))
            .flat_map(|(name, value)| [name.to_uppercase(), (*name).to_owned()].map(|n| (n, value)))
            .filter(|(name, _)| self.state.env.get(name).is_none())
            .map(|(name, value)| (name, value.clone()))
            .collect()
    }

    fn network(&self, run: &Run) -> Result<NetworkMode, Diagnostic> {
        let request = self.platform.facts.request;
        let Some(mode) = &run.network else { return Ok(request.network) };
        match mode.as_str() {
            "default" => Ok(request.network),
            "none" => Ok(NetworkMode::None),
            // `--network=host` of the build grants it too.
            "host" if request.network == NetworkMode::Host => Ok(NetworkMode::Host),
            "host" => self.entitled("network.host").map(|()| NetworkMode::Host),
            _ => Err(self
                .error_at(mode, format!("invalid network mode {}", history::quote(mode)))
                .suggest(did_you_mean(mode, ["default", "none", "host"]))),
        }
    }

    fn security(&self, run: &Run) -> Result<SecurityMode, Diagnostic> {
        match run.security.as_deref() {
            None | Some("sandbox") => Ok(SecurityMode::Sandbox),
            Some("insecure") => self.entitled("security.insecure").map(|()| SecurityMode::Insecure),
            Some(mode) => Err(self
                .error_at(mode, format!("security {} is not valid", history::quote(mode)))
                .suggest(did_you_mean(mode, ["sandbox", "insecure"]))),
        }
    }

    fn entitled(&self, entitlement: &str) -> Result<(), Diagnostic> {
        if self.platform.facts.request.entitlements.contains(entitlement) {
            return Ok(());
        }
        Err(self
            .error(format!("{entitlement} is not allowed"))
            .help(format!("grant it with `--allow {entitlement}`")))
    }

    fn command(&self, run: &Run) -> Result<Command, Diagnostic> {
        let text = match &run.command {
            CommandLine::Exec(args) if args.is_empty() => {
                return Err(self.error("RUN needs a command to run"));
            }
            CommandLine::Exec(args) => {
                return Ok(Command { args: args.clone(), script: None, summary: None });
            }
            CommandLine::Shell(text) => text,
        };
        let shell = |text: &str| shell_command(&self.state.config, text);
        if let [heredoc] = run.heredocs.as_slice()
            && is_whole_command(text, heredoc)
        {
            let content = heredoc.content();
            let summary = Some(names::summary(&content));
            if content.starts_with("#!") && self.state.platform.os != "windows" {
                let script = script(heredoc, content);
                return Ok(Command { args: shell(&script.target), script: Some(script), summary });
            }
            return Ok(Command { args: shell(&content), script: None, summary });
        }
        // The shell knows heredocs too: it gets them as they are written.
        let mut text = text.clone();
        for heredoc in &run.heredocs {
            text.extend(["\n", &heredoc.body, &heredoc.name]);
        }
        Ok(Command { args: shell(&text), script: None, summary: None })
    }

    fn mounts(&mut self, texts: &[String]) -> Result<Mounts, Diagnostic> {
        let mut mounts = Mounts::default();
        for text in texts {
            let spec = self.mount_spec(text)?;
            let mount = match spec.kind {
                MountKind::Bind => self.bind_mount(spec)?,
                MountKind::Cache => self.cache_mount(spec)?,
                MountKind::Tmpfs => self.tmpfs_mount(spec)?,
                MountKind::Secret => self.secret_mount(spec, &mut mounts)?,
                MountKind::Ssh => self.ssh_mount(spec, &mut mounts)?,
            };
            mounts.list.push(mount);
        }
        Ok(mounts)
    }

    fn mount_spec(&mut self, text: &str) -> Result<MountSpec, Diagnostic> {
        let refused = |planner: &Self, error: MountError| {
            planner.error_at(text, error.to_string()).suggest(error.suggestion())
        };
        let mut fields = mounts::fields(text).map_err(|error| refused(self, error))?;
        for field in &mut fields {
            if let Some(value) = &mut field.value
                && field.key != "from"
            {
                *value = self.expand(value)?;
            }
        }
        MountSpec::parse(&fields).map_err(|error| refused(self, error))
    }

    fn bind_mount(&mut self, spec: MountSpec) -> Result<Mount, Diagnostic> {
        let target = self.mount_target(spec.target.as_deref())?;
        let from = match self.mounted_files(&spec, &target)? {
            Some(from) => from,
            None => main_context(),
        };
        let selection = mounted_path(&spec);
        let source = MountSource::Bind { from, selection };
        Ok(Mount { target, read_only: spec.read_only, source })
    }

    fn cache_mount(&mut self, spec: MountSpec) -> Result<Mount, Diagnostic> {
        let target = self.mount_target(spec.target.as_deref())?;
        let written = || clean_as_written(spec.target.as_deref().unwrap_or_default());
        let id = spec.id.clone().filter(|id| !id.is_empty()).unwrap_or_else(written);
        let namespace = self.platform.facts.request.build_args.get("BUILDKIT_CACHE_MOUNT_NS");
        let id = match namespace.filter(|namespace| !namespace.is_empty()) {
            Some(namespace) => format!("{namespace}/{id}"),
            None => id,
        };
        let selection = mounted_path(&spec);
        // Mode and owner shape a new directory; one with a source brings its own.
        let mode = match selection.path.is_empty() {
            true => permissions(&spec, 0o755),
            false => (0o755, 0, 0),
        };
        let from = self.mounted_files(&spec, &target)?.map(|from| (from, selection));
        let source = MountSource::Cache(CacheMount { id, sharing: spec.sharing, from, mode });
        Ok(Mount { target, read_only: spec.read_only, source })
    }

    fn tmpfs_mount(&mut self, spec: MountSpec) -> Result<Mount, Diagnostic> {
        let target = self.mount_target(spec.target.as_deref())?;
        let source = MountSource::Tmpfs { size: spec.size };
        Ok(Mount { target, read_only: spec.read_only, source })
    }

    fn secret_mount(&mut self, spec: MountSpec, mounts: &mut Mounts) -> Result<Mount, Diagnostic> {
        let given = |option: &Option<String>| option.clone().filter(|text| !text.is_empty());
        let (target, env) = (given(&spec.target), given(&spec.env));
        let id = given(&spec.source).or(given(&spec.id));
        let id = match (id, &target) {
            (Some(id), _) => id,
            (None, Some(target)) => paths::base_name(target).to_owned(),
            (None, None) => return Err(self.error(MountError::SecretWithoutId.to_string())),
        };
        self.takes(&id, ParameterKind::Secret { required: spec.required });
        let has_file = target.is_some() || env.is_none();
        let target = target.unwrap_or_else(|| format!("/run/secrets/{}", paths::base_name(&id)));
        let (target, file) = match has_file {
            true => (self.mount_target(Some(&target))?, Some(permissions(&spec, 0o400))),
            false => (String::new(), None),
        };
        mounts.secrets.extend(env.clone());
        let source = MountSource::Secret { id, required: spec.required, file, env };
        Ok(Mount { target, read_only: true, source })
    }

    fn ssh_mount(&mut self, spec: MountSpec, mounts: &mut Mounts) -> Result<Mount, Diagnostic> {
        let default = format!("/run/buildkit/ssh_agent.{}", mounts.ssh_count);
        mounts.ssh_count += 1;
        let target = spec.target.clone().filter(|target| !target.is_empty()).unwrap_or(default);
        let target = self.mount_target(Some(&target))?;
        mounts.ssh_socket.get_or_insert_with(|| target.clone());
        let mode = permissions(&spec, 0o600);
        let id = spec.id.filter(|id| !id.is_empty()).unwrap_or_else(|| "default".to_owned());
        self.takes(&id, ParameterKind::Ssh { required: spec.required });
        let source = MountSource::Ssh { id, required: spec.required, mode };
        Ok(Mount { target, read_only: true, source })
    }

    fn mount_target(&self, target: Option<&str>) -> Result<String, Diagnostic> {
        let target = target.unwrap_or_default();
        let path = paths::join(&paths::clean(&self.state.config.config.working_dir), target);
        match path.as_str() {
            "/" => Err(self.error("invalid mount target \"/\"")),
            _ => Ok(path),
        }
    }

    /// Whose files a mount shows; `None` if it has no `from`, or an empty one.
    fn mounted_files(
        &mut self,
        spec: &MountSpec,
        target: &str,
    ) -> Result<Option<FileSource>, Diagnostic> {
        let from = spec.from.as_deref().unwrap_or_default();
        let is_nothing = from == "scratch" && spec.kind == MountKind::Cache;
        if from.is_empty() || is_nothing {
            return Ok(None);
        }
        let named = self.platform.stages.mounted_from(from);
        let later = || {
            format!(
                "cannot mount from stage \"{from}\" to \"{target}\", stage needs to be defined before current command"
            )
        };
        self.files_of(&named, later).map(Some)
    }
}

/// Which path of its source a mount shows.
fn mounted_path(spec: &MountSpec) -> Selection {
    Selection::literal(paths::below_root(spec.source.as_deref().unwrap_or_default()))
}

/// Mode, owner and group of what a mount makes.
fn permissions(spec: &MountSpec, mode: u32) -> (u32, u32, u32) {
    (spec.mode.unwrap_or(mode), spec.uid.unwrap_or(0), spec.gid.unwrap_or(0))
}

/// A path without `.`, `..` and doubled slashes that stays relative if it is.
fn clean_as_written(path: &str) -> String {
    if path.starts_with('/') {
        return paths::clean(path);
    }
    match paths::below_root(path) {
        path if path.is_empty() => ".".to_owned(),
        path => path,
    }
}

/// Whether the line is nothing but the heredoc's `<<` word.
pub(super) fn is_whole_command(line: &str, heredoc: &Heredoc) -> bool {
    let word = line.trim().trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(delimiter) = word.strip_prefix("<<") else { return false };
    let delimiter = delimiter.strip_prefix('-').unwrap_or(delimiter).trim_start();
    let unquoted: String = delimiter.chars().filter(|c| !"'\"\\".contains(*c)).collect();
    unquoted == heredoc.name
}

fn script(heredoc: &Heredoc, content: String) -> Mount {
    Mount {
        target: format!("{SCRIPTS}/{}", paths::below_root(&heredoc.name)),
        read_only: true,
        source: MountSource::Inline { data: content.into_bytes(), mode: 0o755 },
    }
}
