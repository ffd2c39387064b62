//! COPY and ADD.

use oci::Digest;

use super::sources::main_context;
use super::stage::StagePlanner;
use super::{history, ownership, paths, remote};
use crate::ast::{Add, Copy, Heredoc, Node, Operand};
use crate::ignore::{Ignore, Pattern};
use crate::{
    Condition, CopyOp, CopySource, Diagnostic, FileSource, GitSource, Mode, Op, Owner, RemoteUrl,
    Selection, VertexId, expand_heredoc,
};

/// What COPY and ADD have in common, as written.
struct Transfer<'n> {
    keyword: &'static str,
    chown: Option<&'n str>,
    chmod: Option<&'n str>,
    link: bool,
    parents: bool,
    exclude: &'n [String],
    sources: &'n [Operand],
    dest: &'n str,
}

/// Its words, expanded.
struct Words {
    chown: Option<String>,
    chmod: Option<String>,
    paths: Vec<String>,
    heredocs: Vec<(String, Vec<u8>)>,
    dest: String,
}

impl<'a> StagePlanner<'_, 'a> {
    /// COPY.
    pub(super) fn copy_files(&mut self, node: &Node, copy: &Copy) -> Result<(), Diagnostic> {
        let transfer = Transfer {
            keyword: "COPY",
            chown: copy.chown.as_deref(),
            chmod: copy.chmod.as_deref(),
            link: copy.link,
            parents: copy.parents,
            exclude: &copy.exclude,
            sources: &copy.sources,
            dest: &copy.dest,
        };
        self.check_exclude(&transfer)?;
        let words = self.transfer_words(&transfer)?;
        for path in &words.paths {
            if remote::is_git(path) {
                return Err(self.error_at(path, "source can't be a git ref for COPY"));
            }
            if remote::is_url(path) {
                let error = self.error_at(path, "source can't be a URL for COPY");
                return Err(error.help("ADD downloads files"));
            }
        }
        let from = match copy.from.as_deref().filter(|from| !from.is_empty()) {
            Some(from) => self.copied_from(from)?,
            None => main_context(),
        };
        let mut sources = vec![];
        for path in &words.paths {
            if from == main_context() {
                self.check_ignored(&transfer, path);
            }
            let selection = transfer.selection(path);
            sources.push(CopySource::Files { from: from.clone(), selection, unpack: false });
        }
        self.transfer(node, &transfer, &words, sources)
    }

    fn copied_from(&mut self, from: &str) -> Result<FileSource, Diagnostic> {
        if from.contains('$') && self.expansion(from)?.text != from {
            let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround";
            return Err(self.error_at(from, message));
        }
        let stages = self.platform.stages;
        let named = stages.copied_from(from).map_err(|message| self.error_at(from, message))?;
        let here = stages.label(self.stage).unwrap_or_default();
        let later = || {
            format!(
                "cannot copy from stage \"{from}\", it needs to be defined before current stage \"{here}\""
            )
        };
        self.files_of(&named, later)
    }

    /// ADD.
    pub(super) fn add_files(&mut self, node: &Node, add: &Add) -> Result<(), Diagnostic> {
        let transfer = Transfer {
            keyword: "ADD",
            chown: add.chown.as_deref(),
            chmod: add.chmod.as_deref(),
            link: add.link,
            parents: false,
            exclude: &add.exclude,
            sources: &add.sources,
            dest: &add.dest,
        };
        self.check_exclude(&transfer)?;
        let words = self.transfer_words(&transfer)?;
        let checksum = self.checksum(add, &words)?;
        let mut sources = vec![];
        for path in &words.paths {
            if remote::is_git(path) {
                let from = self.checked_out(path, add)?;
                let everything = Selection { exclude: add.exclude.clone(), ..Selection::default() };
                sources.push(CopySource::Files { from, selection: everything, unpack: false });
                continue;
            }
            let is_url = remote::is_url(path);
            let (from, selection) = match is_url {
                true => self.downloaded(path, checksum)?,
                false => {
                    self.check_ignored(&transfer, path);
                    (main_context(), transfer.selection(path))
                }
            };
            let unpack = add.unpack.unwrap_or(!is_url);
            sources.push(CopySource::Files { from, selection, unpack });
        }
        self.transfer(node, &transfer, &words, sources)
    }

    fn downloaded(
        &mut self,
        url: &str,
        checksum: Option<Digest>,
    ) -> Result<(FileSource, Selection), Diagnostic> {
        self.check_query(&url.into());
        let span = self.span();
        let (vertex, name) = match self.platform.download(&url.into(), checksum, &span)? {
            Some(fetch) => {
                let name = fetch.name.clone();
                (self.platform.fetch_vertex(fetch, &span), name)
            }
            None => (self.scratch(), String::new()),
        };
        Ok((FileSource::Vertex(vertex), Selection::literal(name)))
    }

    /// Warns of what a log hides but, as BuildKit's does, the history shows.
    fn check_query(&mut self, url: &RemoteUrl) {
        if url.has_secret_query() {
            let message = format!(
                "The image's history shows the query of {url} with its secrets; give the server a header \
                 with --secret id=HTTP_AUTH_HEADER_<host>, or download the file in a RUN \
                 --mount=type=secret"
            );
            self.warn("SecretInUrl", message);
        }
    }

    /// The files of a git repository.
    fn checked_out(&mut self, text: &str, add: &Add) -> Result<FileSource, Diagnostic> {
        let mut source = GitSource::parse(text).map_err(|error| self.error_at(text, error))?;
        if let Some(checksum) = &add.checksum {
            let checksum = self.expand(checksum)?;
            source.expect(&checksum).map_err(|error| self.error_at("--checksum", error))?;
        }
        match (source.keep_git_dir, add.keep_git_dir) {
            (Some(query), Some(flag)) if query != flag => {
                return Err(self.error_at(text, "inconsistent keep-git-dir configuration"));
            }
            (query, flag) => source.keep_git_dir = query.or(flag),
        }
        let span = self.span();
        let vertex = match self.platform.checkout(&source, &span)? {
            Some(git) => self.platform.git_vertex(git, &span),
            None => self.scratch(),
        };
        Ok(FileSource::Vertex(vertex))
    }

    fn checksum(&mut self, add: &Add, words: &Words) -> Result<Option<Digest>, Diagnostic> {
        let Some(written) = &add.checksum else { return Ok(None) };
        let checksum = self.expand(written)?;
        if words.paths.len() + words.heredocs.len() != 1 {
            let message = "checksum can't be specified for multiple sources";
            return Err(self.error_at("--checksum", message));
        }
        match words.paths.first() {
            Some(path) if remote::is_git(path) => Ok(None),
            Some(path) if remote::is_url(path) => checksum.parse().map(Some).map_err(|error| {
                self.error_at(written, format!("invalid checksum \"{checksum}\": {error}"))
            }),
            Some(_) | None => {
                let message = "checksum requires HTTP(S) or Git sources";
                Err(self.error_at("--checksum", message))
            }
        }
    }

    fn check_exclude(&self, transfer: &Transfer<'_>) -> Result<(), Diagnostic> {
        let patterns = Ignore::from_patterns(transfer.exclude);
        patterns.map(drop).map_err(|error| self.error_at("--exclude", error.to_string()))
    }

    fn transfer_words(&mut self, transfer: &Transfer<'_>) -> Result<Words, Diagnostic> {
        let chown = self.expand_flag(transfer.chown)?;
        let chmod = self.expand_flag(transfer.chmod)?;
        let (mut paths, mut heredocs) = (vec![], vec![]);
        for source in transfer.sources {
            match source {
                Operand::Path(word) => paths.push(self.expand(word)?),
                Operand::Heredoc(heredoc) => {
                    let data = self.heredoc_data(heredoc)?;
                    heredocs.push((heredoc.name.clone(), data.into_bytes()));
                }
            }
        }
        let dest = self.expand(transfer.dest)?;
        Ok(Words { chown, chmod, paths, heredocs, dest })
    }

    /// The value of a flag; an empty one is none.
    fn expand_flag(&mut self, word: Option<&str>) -> Result<Option<String>, Diagnostic> {
        let value = word.map(|word| self.expand(word)).transpose()?;
        Ok(value.filter(|value| !value.is_empty()))
    }

    /// The file that a heredoc is.
    fn heredoc_data(&mut self, heredoc: &Heredoc) -> Result<String, Diagnostic> {
        let content = heredoc.content();
        if !heredoc.expand {
            return Ok(content);
        }
        let value = |name: &str| self.state.env.get(name).map(str::to_owned);
        let expansion = expand_heredoc(&content, &value)
            .map_err(|error| self.expansion_error(&content, &error))?;
        self.check_variables(&expansion);
        Ok(expansion.text)
    }

    /// Adds the vertex and the history.
    fn transfer(
        &mut self,
        node: &Node,
        transfer: &Transfer<'_>,
        words: &Words,
        mut sources: Vec<CopySource>,
    ) -> Result<(), Diagnostic> {
        let mode = words.chmod.as_deref().map(|text| self.mode(transfer, text)).transpose()?;
        // As in BuildKit: what --chmod asks for can't be done on an empty file system.
        let link = transfer.link && mode.is_none();
        let owner = words.chown.as_deref().map(|text| self.owner(text, link)).transpose()?;
        let inline = |(name, data): &(String, Vec<u8>)| CopySource::Inline {
            name: name.clone(),
            data: data.clone(),
        };
        sources.extend(words.heredocs.iter().map(inline));
        let dest = self.destination(transfer, &words.dest);
        let text = self.step_text(&node.text, &[]);
        let name = self.step_name(&text);
        let onto = if link { self.scratch() } else { self.state.vertex };
        let copy = CopyOp { onto, sources, dest, owner, mode };
        self.suspect_contents(transfer, words, &copy);
        let base = link.then_some(self.state.vertex);
        let copied = self.add(Op::Copy(Box::new(copy.clone())), &name);
        self.suspect_result(words, &copy, copied, base);
        self.state.vertex = match link {
            // What was copied onto an empty file system goes on top of the stage's own.
            true => {
                let op = Op::Stack { base: self.state.vertex, top: copied };
                self.add(op, &format!("LINK {name}"))
            }
            false => copied,
        };
        self.record(created_by(transfer, words), Some(self.state.vertex));
        Ok(())
    }

    /// Suspects what is known once `copied` has run; with `--link` it goes on top of `base`.
    fn suspect_result(
        &mut self,
        words: &Words,
        copy: &CopyOp,
        copied: VertexId,
        base: Option<VertexId>,
    ) {
        let has_name = copy.owner.as_ref().and_then(ownership::name_to_look_up).is_some();
        if let Some(chown) = words.chown.as_ref().filter(|_| has_name) {
            let message = format!(
                "--chown={chown}: the image has no user or group of that name, so the files belong to root"
            );
            self.suspect(Condition::OwnerIsUnknown(copied), "UnknownOwner", message);
        }
        if copy.sources.len() > 1 || copy.sources.iter().any(CopySource::is_pattern) {
            self.suspect_overwriting(&words.dest, copy, copied);
        }
        if let Some(written) = words.chmod.as_ref()
            && let Some(message) = copy.mode.as_ref().and_then(|mode| closing(written, mode))
        {
            let condition = Condition::DirectoriesAreClosed(copied);
            self.suspect(condition, "ChmodClosesDirectories", message);
        }
        if let Some(base) = base {
            let message = "--link knows nothing of the directories of the image and makes those \
                           above its files itself: leave it out to keep them as they are";
            let condition = Condition::DirectoriesDiffer { copied, base };
            self.suspect(condition, "LinkReplacesDirectories", message.to_owned());
        }
    }

    /// Suspects that sources overwrite each other.
    fn suspect_overwriting(&mut self, dest: &str, copy: &CopyOp, copied: VertexId) {
        const RULE: &str = "SourcesIntoOneFile";
        if !copy.dest.ends_with('/') {
            let message = format!(
                "`{dest}` is a file, each source overwrites the one before: write `{dest}/` for a directory"
            );
            self.suspect(Condition::DestinationIsFile(copied), RULE, message);
        }
        let message = "of sources with one name the last one stays: copy each to a directory of \
                       its own, or all with --parents";
        self.suspect(Condition::SourcesShareName(copied), RULE, message.to_owned());
    }

    /// Suspects that a source is a directory that was meant to be copied itself. Whoever writes
    /// `source/` or calls the destination alike knows better.
    fn suspect_contents(&mut self, transfer: &Transfer<'_>, words: &Words, copy: &CopyOp) {
        if transfer.parents {
            return;
        }
        let local = copy.sources.iter().zip(&words.paths).filter_map(|(source, written)| {
            let CopySource::Files { from: FileSource::Context(context), selection, .. } = source
            else {
                return None;
            };
            let name = selection.path.rsplit('/').next().filter(|name| !name.is_empty())?;
            let dest = copy.dest.trim_end_matches('/').rsplit('/').next();
            let knows_better = written.ends_with('/') || written.ends_with("/.");
            let is_suspect = !knows_better && !selection.wildcards && dest != Some(name);
            is_suspect.then(|| (context.clone(), selection.path.clone(), written, name.to_owned()))
        });
        let local: Vec<_> = local.collect();
        for (context, path, written, name) in local {
            let verb = if transfer.keyword == "ADD" { "Adding" } else { "Copying" };
            let dest = words.dest.trim_end_matches('/');
            let message = format!(
                "{verb} what is in the directory `{written}`, not the directory itself: write `{written}/` if \
                 that is meant, else `{dest}/{name}` as the destination"
            );
            self.suspect(
                Condition::IsDirectory { context, path },
                "CopyDirectoryContents",
                message,
            );
        }
    }

    fn destination(&self, transfer: &Transfer<'_>, dest: &str) -> String {
        let workdir = paths::clean(&self.state.config.config.working_dir);
        let dest = paths::destination(&workdir, dest);
        if transfer.parents && !dest.ends_with('/') { dest + "/" } else { dest }
    }

    fn mode(&self, transfer: &Transfer<'_>, text: &str) -> Result<Mode, Diagnostic> {
        let written = transfer.chmod.unwrap_or(text);
        ownership::mode(text).map_err(|error| self.error_at(written, error.to_string()))
    }

    /// Who owns the copies. Names need files to be looked up in.
    fn owner(&self, text: &str, link: bool) -> Result<Owner, Diagnostic> {
        let owner = ownership::owner(text)
            .map_err(|error| self.error_at("--chown", format!("--chown={text}: {error}")))?;
        match ownership::name_to_look_up(&owner) {
            Some(name) if link || self.is_empty() => {
                let message = format!(
                    "invalid user index: -1: no /etc/passwd to look up `{name}` in for --chown={text}"
                );
                let help = match link {
                    true => {
                        "--link copies onto an empty file system: use numeric ids, or no --link"
                    }
                    false => "the stage is still empty: use numeric ids",
                };
                Err(self.error_at("--chown", message).help(help))
            }
            Some(_) | None => Ok(owner),
        }
    }

    /// Warns about a source that `.dockerignore` hides. A file with exceptions is left alone: what
    /// they bring back can't be told from here.
    fn check_ignored(&mut self, transfer: &Transfer<'_>, path: &str) {
        let ignore = self.platform.facts.request.ignore.as_ref();
        let Some(ignore) = ignore.filter(|ignore| !ignore.has_exceptions()) else { return };
        let is_hidden = match paths::below_root(path) {
            root if root.is_empty() => {
                let mut patterns = ignore.patterns().iter().map(Pattern::text);
                patterns.any(|pattern| matches!(pattern, "*" | "**" | "**/*"))
            }
            below => ignore.excludes(&below),
        };
        if is_hidden {
            let verb = if transfer.keyword == "ADD" { "Add" } else { "Copy" };
            let message =
                format!("Attempting to {verb} file \"{path}\" that is excluded by .dockerignore");
            self.warn("CopyIgnoredFile", message);
        }
    }
}

impl Transfer<'_> {
    fn selection(&self, path: &str) -> Selection {
        let pivot = if self.parents { path.split_once("/./") } else { None };
        let clean = match pivot {
            Some((root, below)) => match paths::below_root(root) {
                root if root.is_empty() => paths::below_root(below),
                root => format!("{root}/./{}", paths::below_root(below)),
            },
            None => paths::below_root(path),
        };
        Selection {
            wildcards: has_wildcards(&clean),
            path: clean,
            parents: self.parents,
            exclude: self.exclude.to_vec(),
        }
    }
}

/// What to write instead of `--chmod=<written>` if directories with that mode can't be entered by
/// all who may read them; nothing if they can.
fn closing(written: &str, mode: &Mode) -> Option<String> {
    let advice = match mode {
        Mode::Octal(mode) if ownership::is_closed_directory(*mode) => {
            format!("write `--chmod={}`, where X is x for directories", ownership::symbolic(*mode))
        }
        Mode::Octal(_) => return None,
        Mode::Symbolic(_) => "add X, which is x for directories".to_owned(),
    };
    Some(format!(
        "--chmod={written} is for directories too, which can't be entered without x: {advice}"
    ))
}

/// Whether a path has a wildcard that no backslash stands before.
fn has_wildcards(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    false
}

fn created_by(transfer: &Transfer<'_>, words: &Words) -> String {
    let mut text = transfer.keyword.to_owned();
    if transfer.parents {
        text += " --parents";
    }
    for (flag, value) in [("chown", &words.chown), ("chmod", &words.chmod)] {
        if let Some(value) = value {
            text += &format!(" --{flag}={value}");
        }
    }
    for path in &words.paths {
        text += " ";
        // BuildKit's history has the user of a URL, ours does not.
        text += &RemoteUrl::from(&**path).without_user();
    }
    for (name, _) in &words.heredocs {
        text.extend([" <<", name]);
    }
    text + " " + &words.dest + history::SUFFIX
}
