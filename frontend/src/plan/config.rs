//! The instructions that run and copy nothing: ENV, ARG, CMD, USER, WORKDIR and the rest.

use oci::{Healthcheck, ImageConfig};
use serde_json::json;

use super::history::{self, DeclaredArg};
use super::stage::StagePlanner;
use super::{ParameterKind, ownership, paths, ports, signals, variables};
use crate::ast::{self, Arg, CommandLine, Node, Pairs};
use crate::{Diagnostic, MakeDirOp, Op, expand_words, lint};

/// What runs the shell form where SHELL says nothing.
const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// The argument list of a shell form.
pub(super) fn shell_command(config: &ImageConfig, text: &str) -> Vec<String> {
    let shell = &config.config.shell;
    let mut args = match shell.is_empty() {
        true => DEFAULT_SHELL.map(str::to_owned).to_vec(),
        false => shell.clone(),
    };
    args.push(text.to_owned());
    args
}

impl StagePlanner<'_, '_> {
    /// ARG: each word sees those before it.
    pub(super) fn arg(&mut self, node: &Node, arg: &Arg) -> Result<(), Diagnostic> {
        let mut shown = vec![];
        for (name, default) in &arg.args {
            self.check_secret_name("ARG", name);
            let value = self.arg_value(name, default.as_deref())?;
            self.takes_arg(node, name, default.is_some(), value.as_deref());
            if let Some(value) = &value {
                self.state.env.set(name, value);
            }
            let declared: DeclaredArg = (name.clone(), value);
            shown.push(declared.clone());
            self.state.args.push(declared);
        }
        self.record(history::args(&shown), None);
        Ok(())
    }

    fn takes_arg(&mut self, node: &Node, name: &str, has_default: bool, value: Option<&str>) {
        let given = self.platform.facts.request.build_args.contains_key(name);
        let kind = ParameterKind::Arg {
            value: value.unwrap_or_default().to_owned(),
            description: node.description(name).unwrap_or_default().to_owned(),
            inherited: !given && !has_default && value.is_some(),
        };
        self.takes(name, kind);
    }

    fn arg_value(
        &mut self,
        name: &str,
        default: Option<&str>,
    ) -> Result<Option<String>, Diagnostic> {
        let given = self.platform.facts.request.build_args.get(name);
        match (given, default) {
            (Some(value), _) => Ok(Some(value.clone())),
            (None, Some(default)) => self.expand(default).map(Some),
            (None, None) => Ok(self.platform.stages.globals.get(name).map(str::to_owned)),
        }
    }

    /// ENV.
    pub(super) fn env(&mut self, pairs: &Pairs) -> Result<(), Diagnostic> {
        let expanded = self.expand_pairs("ENV", pairs)?;
        for (name, value) in &expanded {
            self.check_secret_name("ENV", name);
            self.state.env.set(name, value);
            variables::set_config_env(&mut self.state.config.config.env, name, value);
        }
        self.record(history::pairs("ENV", &expanded), None);
        Ok(())
    }

    /// LABEL.
    pub(super) fn label(&mut self, pairs: &Pairs) -> Result<(), Diagnostic> {
        let expanded = self.expand_pairs("LABEL", pairs)?;
        self.state.config.config.labels.extend(expanded.iter().cloned());
        self.record(history::pairs("LABEL", &expanded), None);
        Ok(())
    }

    /// Expands names and values with what was known before the instruction.
    fn expand_pairs(
        &mut self,
        keyword: &str,
        pairs: &Pairs,
    ) -> Result<Vec<(String, String)>, Diagnostic> {
        if pairs.legacy {
            let message = format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
            );
            self.warn("LegacyKeyValueFormat", message);
        }
        let mut expanded = vec![];
        for (name, value) in &pairs.pairs {
            let name = self.expand(name)?;
            if name.is_empty() {
                return Err(self.error(format!("{keyword} names can not be blank")));
            }
            expanded.push((name, self.expand(value)?));
        }
        Ok(expanded)
    }

    fn check_secret_name(&mut self, keyword: &str, name: &str) {
        if lint::is_secret_name(name) {
            let message = format!(
                "Do not use ARG or ENV instructions for sensitive data ({keyword} {})",
                history::quote(name)
            );
            self.warn("SecretsUsedInArgOrEnv", message);
        }
    }

    /// CMD.
    pub(super) fn cmd(&mut self, command: &CommandLine) -> Result<(), Diagnostic> {
        let span = self.span();
        let earlier = self.commands.cmd.replace(span);
        self.check_repeated("CMD", earlier);
        let args = self.command_args("CMD", command);
        self.record(history::command("CMD", &args), None);
        let config = &mut self.state.config.config;
        config.cmd = Some(args).filter(|args| !args.is_empty());
        config.args_escaped = true;
        Ok(())
    }

    /// ENTRYPOINT: it resets a CMD that was inherited, not one of the same stage.
    pub(super) fn entrypoint(&mut self, command: &CommandLine) -> Result<(), Diagnostic> {
        let span = self.span();
        let earlier = self.commands.entrypoint.replace(span);
        self.check_repeated("ENTRYPOINT", earlier);
        let args = self.command_args("ENTRYPOINT", command);
        self.record(history::command("ENTRYPOINT", &args), None);
        let config = &mut self.state.config.config;
        config.entrypoint = Some(args).filter(|args| !args.is_empty());
        if self.commands.cmd.is_none() {
            config.cmd = None;
        }
        Ok(())
    }

    fn command_args(&mut self, keyword: &str, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(args) => args.clone(),
            CommandLine::Shell(text) => {
                if self.state.config.config.shell.is_empty() {
                    let message = format!(
                        "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals"
                    );
                    self.warn("JSONArgsRecommended", message);
                }
                shell_command(&self.state.config, text)
            }
        }
    }

    fn check_repeated(&mut self, keyword: &str, earlier: Option<crate::Span>) {
        if let Some(earlier) = earlier {
            let message = format!(
                "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
            );
            self.warn_at("MultipleInstructionsDisallowed", message, earlier);
        }
    }

    /// MAINTAINER.
    pub(super) fn maintainer(&mut self, text: &str) -> Result<(), Diagnostic> {
        self.state.config.author = Some(text.to_owned());
        self.record(format!("MAINTAINER {text}"), None);
        Ok(())
    }

    /// EXPOSE.
    pub(super) fn expose(&mut self, words: &[String]) -> Result<(), Diagnostic> {
        let mut words = words.to_vec();
        words.sort();
        let mut exposed = vec![];
        for word in words {
            for spec in self.expand_to_words(&word)? {
                exposed.extend(self.ports(&spec)?);
            }
        }
        let ports = exposed.iter().map(|port| (port.clone(), json!({})));
        self.state.config.config.exposed_ports.extend(ports);
        self.record(history::list("EXPOSE", &exposed), None);
        Ok(())
    }

    fn expand_to_words(&self, word: &str) -> Result<Vec<String>, Diagnostic> {
        let escape = self.platform.facts.dockerfile.directives.escape;
        let value = |name: &str| self.state.env.get(name).map(str::to_owned);
        expand_words(word, escape, &value).map_err(|error| self.expansion_error(word, &error))
    }

    fn ports(&mut self, spec: &str) -> Result<Vec<String>, Diagnostic> {
        let exposed = ports::parse(spec).map_err(|error| {
            self.error_at(spec, format!("invalid port: {}: {error}", history::quote(spec)))
        })?;
        if !exposed.lower_case {
            let message =
                format!("Defined protocol '{spec}' in EXPOSE instruction should be lowercase");
            self.warn("ExposeProtoCasing", message);
        }
        if exposed.has_host_part {
            let message = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{spec}'"
            );
            self.warn("ExposeInvalidFormat", message);
        }
        Ok(exposed.ports)
    }

    /// VOLUME: paths stay as they are written.
    pub(super) fn volume(&mut self, words: &[String]) -> Result<(), Diagnostic> {
        let mut volumes = vec![];
        for word in words {
            let volume = self.expand(word)?;
            if volume.is_empty() {
                return Err(self.error_at(word, "VOLUME specified can not be an empty string"));
            }
            volumes.push(volume);
        }
        let entries = volumes.iter().map(|volume| (volume.clone(), json!({})));
        self.state.config.config.volumes.extend(entries);
        self.record(history::list("VOLUME", &volumes), None);
        Ok(())
    }

    /// USER: looked up when a step runs, not here.
    pub(super) fn user(&mut self, user: &str) -> Result<(), Diagnostic> {
        let user = self.expand(user)?;
        self.record(format!("USER {user}"), None);
        self.state.config.config.user = user;
        Ok(())
    }

    /// WORKDIR: the config keeps the path as written, the directory is made at the clean one.
    pub(super) fn workdir(&mut self, node: &Node, path: &str) -> Result<(), Diagnostic> {
        let path = self.expand(path)?;
        let is_first = !std::mem::replace(&mut self.state.workdir_is_set, true);
        if is_first && !path.starts_with('/') {
            let message = format!(
                "Relative workdir {} can have unexpected results if the base image changes",
                history::quote(&path)
            );
            self.warn("WorkdirRelativePath", message);
        }
        let config = &mut self.state.config.config;
        config.working_dir = match path.starts_with('/') {
            true => path,
            false => paths::join(&config.working_dir, &path),
        };
        let working_dir = config.working_dir.clone();
        let directory = paths::clean(&working_dir);
        let layer = match directory.as_str() {
            "/" => {
                // It has a number like any other WORKDIR.
                self.step_name("");
                None
            }
            _ => Some(self.make_working_dir(node, directory)?),
        };
        self.record(format!("WORKDIR {working_dir}"), layer);
        Ok(())
    }

    fn make_working_dir(
        &mut self,
        node: &Node,
        path: String,
    ) -> Result<crate::VertexId, Diagnostic> {
        let user = &self.state.config.config.user;
        let owner = ownership::owner(user).map_err(|error| self.error(error.to_string()))?;
        let owner = Some(owner).filter(|owner| !ownership::is_root(owner));
        if let Some(name) = owner.as_ref().and_then(ownership::name_to_look_up)
            && self.is_empty()
        {
            let message = format!("invalid user index: -1: no /etc/passwd to look up `{name}` in");
            return Err(self.error(message).help("use a numeric USER, or copy /etc/passwd first"));
        }
        let text = self.step_text(&node.text, &[]);
        let name = self.step_name(&text);
        let op = MakeDirOp { onto: self.state.vertex, path, owner };
        self.state.vertex = self.add(Op::MakeDir(op), &name);
        Ok(self.state.vertex)
    }

    /// ONBUILD: kept as text, without a line of history.
    pub(super) fn onbuild(&mut self, trigger: &str) -> Result<(), Diagnostic> {
        self.state.config.config.on_build.push(trigger.to_owned());
        Ok(())
    }

    /// STOPSIGNAL.
    pub(super) fn stopsignal(&mut self, signal: &str) -> Result<(), Diagnostic> {
        let expanded = self.expand(signal)?;
        if self.state.platform.os == "windows" {
            return Err(self.error("the daemon on this platform does not support STOPSIGNAL"));
        }
        if !signals::is_signal(&expanded) {
            return Err(self.error_at(signal, format!("invalid signal: {expanded}")));
        }
        self.record(format!("STOPSIGNAL {expanded}"), None);
        self.state.config.config.stop_signal = expanded;
        Ok(())
    }

    /// HEALTHCHECK: replaces an inherited one whole. SHELL has no say in its shell form.
    pub(super) fn healthcheck(&mut self, check: &ast::Healthcheck) -> Result<(), Diagnostic> {
        let span = self.span();
        let earlier = self.commands.healthcheck.replace(span);
        self.check_repeated("HEALTHCHECK", earlier);
        let check = match check {
            ast::Healthcheck::None => {
                Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() }
            }
            ast::Healthcheck::Cmd {
                command,
                interval,
                timeout,
                start_period,
                start_interval,
                retries,
            } => Healthcheck {
                test: health_test(command),
                interval: *interval,
                timeout: *timeout,
                start_period: *start_period,
                start_interval: *start_interval,
                retries: *retries,
            },
        };
        self.record(history::healthcheck(&check), None);
        self.state.config.config.healthcheck = Some(check);
        Ok(())
    }

    /// SHELL.
    pub(super) fn shell(&mut self, words: &[String]) -> Result<(), Diagnostic> {
        self.record(history::list("SHELL", words), None);
        self.state.config.config.shell = words.to_vec();
        Ok(())
    }
}

fn health_test(command: &CommandLine) -> Vec<String> {
    let (kind, args) = match command {
        CommandLine::Shell(text) => ("CMD-SHELL", std::slice::from_ref(text)),
        CommandLine::Exec(args) => ("CMD", args.as_slice()),
    };
    std::iter::once(kind.to_owned()).chain(args.iter().cloned()).collect()
}
