//! Heredocs that a shell runs in another way than they look: of several commands only the last
//! one's failure is noticed, and a carriage return belongs to the word before it.

use super::stage::StagePlanner;
use crate::ast::{CommandLine, Run};

/// Shells that go on after a command that fails.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "ksh", "zsh"];

/// Commands that do not fail, or whose failure nobody minds.
const HARMLESS: [&str; 9] =
    ["export", "umask", "shopt", "set", "unset", "true", ":", "echo", "printf"];

impl StagePlanner<'_, '_> {
    /// Warns of a heredoc with line ends of Windows, or else of one of several commands that a shell
    /// runs to its end whatever fails.
    pub(super) fn check_heredocs(&mut self, run: &Run) {
        match run.heredocs.iter().find_map(|heredoc| first_crlf(&heredoc.body)) {
            Some((number, line)) => self.warn(
                "HeredocWithCrlf",
                format!(
                    "Line {number} of the heredoc, `{line}`, ends with CRLF, and its CR becomes a part of what runs: end the lines of the file with LF"
                ),
            ),
            None => self.check_errexit(run),
        }
    }

    fn check_errexit(&mut self, run: &Run) {
        let (CommandLine::Shell(text), [heredoc]) = (&run.command, run.heredocs.as_slice()) else {
            return;
        };
        let script = heredoc.content();
        let shell = &self.state.config.config.shell;
        let goes_on = super::run::is_whole_command(text, heredoc)
            && !script.starts_with("#!")
            && (shell.is_empty() || goes_on_after_errors(shell));
        if goes_on && loses_errors(&script) {
            let message = "Only the last command of the heredoc decides whether it succeeds: begin it with `set -e`";
            self.warn("HeredocWithoutErrexit", message);
        }
    }
}

/// The first line that ends with CRLF: its number in the heredoc, from 1, and what it says.
fn first_crlf(body: &str) -> Option<(usize, &str)> {
    let lines = (1..).zip(body.split_inclusive('\n'));
    let mut found = lines.filter_map(|(number, line)| Some((number, line.strip_suffix("\r\n")?)));
    let first = found.clone().next();
    // One that says something tells more than an empty one.
    found.find(|(_, line)| !line.trim().is_empty()).or(first)
}

fn goes_on_after_errors(shell: &[String]) -> bool {
    let [program, flags @ ..] = shell else { return false };
    let name = program.rsplit('/').next().unwrap_or_default();
    SHELLS.contains(&name) && !sets_errexit(flags.iter().map(String::as_str))
}

/// Whether `-e` or `-o errexit` is among the flags of a shell or of its `set`.
fn sets_errexit<'w>(flags: impl Iterator<Item = &'w str>) -> bool {
    let is_set = |flag: &str| {
        let letters = flag.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
        flag == "errexit" || letters.is_some_and(|letters| letters.contains('e'))
    };
    flags.into_iter().any(is_set)
}

/// Whether a command before the last one can fail unseen. Of a script that is more than a list of
/// commands nothing is said.
fn loses_errors(script: &str) -> bool {
    let commands = commands(script);
    let Some((_last, others)) = commands.split_last() else { return false };
    let is_list = commands.iter().all(|command| is_plain(command));
    let stops = commands.iter().any(|command| stops_at_errors(command));
    is_list && !stops && others.iter().any(|command| can_fail(command))
}

/// Whether a command has neither a heredoc, nor a string of several lines, nor is it a compound.
fn is_plain(command: &str) -> bool {
    const COMPOUNDS: [&str; 10] =
        ["if", "for", "while", "until", "case", "function", "select", "{", "(", "(("];
    let first = command.split_whitespace().next().unwrap_or_default();
    let quotes = |quote: char| command.matches(quote).count();
    let is_open = quotes('"') % 2 == 1 || quotes('\'') % 2 == 1;
    !(COMPOUNDS.contains(&first) || command.contains("<<") || command.contains("()") || is_open)
}

/// Whether `set -e` or the like is among the commands of a line.
fn stops_at_errors(command: &str) -> bool {
    let parts = command.split([';', '&', '|']);
    parts
        .map(str::split_whitespace)
        .any(|mut words| words.next() == Some("set") && sets_errexit(words))
}

fn can_fail(command: &str) -> bool {
    let first = command.split_whitespace().next().unwrap_or_default();
    let is_assignment = first.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    let runs_another = command.contains("$(") || command.contains('`');
    let is_harmless = HARMLESS.contains(&first.trim_end_matches(';'));
    !(is_assignment && !runs_another || is_harmless || command.contains("|| exit"))
}

/// The commands of a script, one a line; what `\`, `&&`, `||` or `|` continues is one.
fn commands(script: &str) -> Vec<String> {
    let mut commands: Vec<String> = vec![];
    let mut goes_on = false;
    for line in script.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match commands.last_mut().filter(|_| goes_on) {
            Some(command) => command.extend([" ", line]),
            None => commands.push(line.to_owned()),
        }
        goes_on = line.ends_with('\\') || line.ends_with("&&") || line.ends_with('|');
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_before_the_last_command_is_lost_without_errexit() {
        for script in ["make\nmake install\n", "cd /src\nmake &&\n  make install\n", "x=$(a)\nb\n"]
        {
            assert!(loses_errors(script), "{script}");
        }
        for script in [
            "make\n",
            "# two\n\nmake && \\\n make install\n",
            "set -e\nmake\nmake install\n",
            "set -o errexit\nmake\nmake install\n",
            "set -eux;\nmake\nmake install\n",
            "make || exit 1\nmake install\n",
            "PREFIX=/usr\nexport PREFIX\necho building\nmake\n",
            "cd /src && set -e\nmake\nmake install\n",
            "export X=1; set -e\nmake\nmake install\n",
            "if make\nthen make install\nfi\n",
            "cat > /etc/x <<END\none\ntwo\nEND\n",
            "perl -e '\nprint 1;\nprint 2;'\n",
            "",
        ] {
            assert!(!loses_errors(script), "{script}");
        }
    }

    #[test]
    fn a_shell_may_stop_by_itself_or_be_none_that_we_know() {
        let goes_on = |shell: &[&str]| {
            goes_on_after_errors(&shell.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
        };
        assert!(goes_on(&["/bin/bash", "-o", "pipefail", "-c"]));
        assert!(!goes_on(&["/bin/bash", "-eo", "pipefail", "-c"]));
        assert!(!goes_on(&["bash", "-o", "errexit", "-c"]));
        assert!(!goes_on(&["/usr/bin/python3", "-c"]));
    }
}
