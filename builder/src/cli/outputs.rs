//! `-o`, `--push` and `--tag`: from text to outputs.

use std::path::PathBuf;

use oci::Reference;

use super::args::BuildArgs;
use super::csv;
use super::keys::{self, KeyError, truth};
use crate::export::{Archive, Destination, ImageOptions, Output};
use crate::layer::Compression;

/// Why an output is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// It is no CSV record of pairs.
    #[error("invalid output `{0}`: {1}")]
    Csv(String, csv::PairsError),
    /// It says nothing.
    #[error("--output is empty: give a directory, or type=… as in -o type=oci,dest=image.tar")]
    Empty,
    /// It has no type.
    #[error("type is required for output `{0}`; for a directory write ./{0}")]
    NoType(String),
    /// Its type is unknown.
    #[error(
        "unknown output type `{kind}`: it is one of oci, docker, local, tar, image, registry, \
         cacheonly{}",
        meant(kind)
    )]
    UnknownType {
        /// The type.
        kind: String,
    },
    /// A key is wrong.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// What two keys or flags say does not go together.
    #[error("output `{output}`: {reason}")]
    Together {
        /// The whole output.
        output: String,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// A tag would be written where none is wanted.
    #[error("can't push tagged ref {0} by digest: leave its tag out, or leave push-by-digest out")]
    TaggedByDigest(String),
    /// A directory must be named.
    #[error("dest is required for the {0} output")]
    NoDest(String),
    /// A directory can't be standard output.
    #[error("dest cannot be stdout for the {0} output")]
    DestIsStdout(String),
    /// Standard output is a terminal.
    #[error("dest is required for the {0} output: refusing to write an archive to the terminal")]
    DestIsTerminal(String),
    /// Two outputs share standard output.
    #[error("multiple outputs configured to write to stdout")]
    TwoToStdout,
    /// A value is not one of those allowed.
    #[error("invalid value `{value}` of `{key}` in output `{output}`")]
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// The whole output.
        output: String,
    },
    /// A name of the image is none.
    #[error("invalid tag \"{}\": {}", frontend::without_user(.0), .1)]
    Tag(String, oci::ParseReferenceError),
    /// Nothing to push to.
    #[error("tag is needed when pushing to registry")]
    PushWithoutTag,
    /// There is no image whose ID could be written.
    #[error("local and tar exporters are incompatible with image ID file")]
    NoImageId,
}

/// `--tag`, read.
pub(crate) fn tags(args: &BuildArgs) -> Result<Vec<Reference>, OutputError> {
    args.tag.iter().map(|tag| reference(tag)).collect()
}

fn reference(tag: &str) -> Result<Reference, OutputError> {
    tag.parse().map_err(|error| OutputError::Tag(tag.to_owned(), error))
}

fn meant(kind: &str) -> String {
    let nearest = frontend::did_you_mean(kind, keys::types().iter().copied());
    nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

/// All that the user wants of the build. Without a word about it: the image, in the store.
pub(crate) fn outputs(
    args: &BuildArgs,
    tags: &[Reference],
    stdout_is_terminal: bool,
) -> Result<Vec<Output>, OutputError> {
    let is_split = args.platform.len() > 1;
    let mut outputs: Vec<Output> = args
        .output
        .iter()
        .map(|text| output(text, is_split, args.push))
        .collect::<Result<_, _>>()?;
    if args.push && !outputs.iter().any(|output| matches!(output, Output::Registry(_))) {
        outputs.push(Output::Registry(ImageOptions::default()));
    }
    if args.load {
        outputs.push(Output::Load(ImageOptions::default()));
    }
    if outputs.is_empty() {
        outputs.push(Output::Store(ImageOptions::default()));
    }
    for options in outputs.iter_mut().filter_map(Output::image_options_mut) {
        if !tags.is_empty() {
            options.names = tags.to_vec();
        }
        if options.by_digest {
            refuse_tags(&args.tag)?;
            options.names.iter_mut().for_each(|name| name.tag = None);
        }
    }
    check(args, &outputs, stdout_is_terminal)?;
    Ok(outputs)
}

/// All names that `outputs` give the image, each once.
pub(crate) fn names(outputs: &[Output]) -> Vec<Reference> {
    let mut names: Vec<Reference> = vec![];
    for name in outputs.iter().filter_map(Output::image_options).flat_map(|image| &image.names) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn check(
    args: &BuildArgs,
    outputs: &[Output],
    stdout_is_terminal: bool,
) -> Result<(), OutputError> {
    let to_stdout: Vec<_> = outputs
        .iter()
        .filter(|output| output.destination() == Some(&Destination::Stdout))
        .collect();
    match to_stdout.as_slice() {
        [] => {}
        [output] if stdout_is_terminal => {
            return Err(OutputError::DestIsTerminal(output.kind().to_owned()));
        }
        [_] => {}
        _ => return Err(OutputError::TwoToStdout),
    }
    let nameless =
        |output: &Output| matches!(output, Output::Registry(options) if options.names.is_empty());
    if outputs.iter().any(nameless) {
        return Err(OutputError::PushWithoutTag);
    }
    let without_image = |output: &Output| {
        matches!(output, Output::Local { .. } | Output::Tar { .. } | Output::CacheOnly)
    };
    if args.iidfile.is_some() && outputs.iter().any(without_image) {
        return Err(OutputError::NoImageId);
    }
    Ok(())
}

/// Refuses names that have a tag of their own.
fn refuse_tags<T: AsRef<str>>(names: &[T]) -> Result<(), OutputError> {
    let has_tag = |name: &&T| {
        let name = name.as_ref();
        name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']))
    };
    match names.iter().find(has_tag) {
        Some(name) => Err(OutputError::TaggedByDigest(name.as_ref().to_owned())),
        None => Ok(()),
    }
}

/// Whether a single field names a directory: what has a `=` before any `/` is meant as a key.
fn is_directory(field: &str) -> bool {
    !field.split('/').next().is_some_and(|first| first.contains('='))
}

/// Reads one `-o`; `is_split` is whether there is a directory for each platform, `push` is `--push`.
fn output(text: &str, is_split: bool, push: bool) -> Result<Output, OutputError> {
    if text.is_empty() {
        return Err(OutputError::Empty);
    }
    if text == "-" {
        return Ok(Output::Tar { dest: Destination::Stdout });
    }
    let invalid = |error| OutputError::Csv(text.to_owned(), error);
    let fields = frontend::csv_fields(text).map_err(|error| invalid(error.into()))?;
    if let [path] = fields.as_slice()
        && is_directory(path)
    {
        return Ok(Output::Local { dest: PathBuf::from(path) });
    }
    Fields { text, pairs: csv::pairs(text).map_err(invalid)?, is_split, push }.output()
}

/// The fields of one `-o`.
struct Fields<'a> {
    text: &'a str,
    pairs: Vec<(String, String)>,
    is_split: bool,
    push: bool,
}

impl Fields<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        // What is neither was refused by the table of keys.
        self.get(key).map_or(default, |value| truth(value).unwrap_or(true))
    }

    fn together(&self, reason: &'static str) -> OutputError {
        OutputError::Together { output: self.text.to_owned(), reason }
    }

    fn value_error(&self, key: &str, value: &str) -> OutputError {
        OutputError::Value {
            key: key.to_owned(),
            value: value.to_owned(),
            output: self.text.to_owned(),
        }
    }

    fn output(&self) -> Result<Output, OutputError> {
        let kind = self.get("type").ok_or_else(|| OutputError::NoType(self.text.to_owned()))?;
        if !keys::types().contains(&kind) {
            return Err(OutputError::UnknownType { kind: kind.to_owned() });
        }
        keys::check(kind, &self.pairs, self.text)?;
        if self.flag("platform-split", self.is_split) != self.is_split {
            return Err(self.together(
                "platform-split is not supported yet: several platforms have a directory each, one \
                 has none; leave it out",
            ));
        }
        match kind {
            "cacheonly" => Ok(Output::CacheOnly),
            "local" => Ok(Output::Local { dest: self.directory(kind)? }),
            "tar" => Ok(Output::Tar { dest: self.destination() }),
            "oci" => Ok(Output::OciLayout(self.archive(kind)?)),
            "docker" => Ok(Output::DockerArchive(self.archive(kind)?)),
            _ if self.push && !self.flag("push", true) => {
                Err(self.together("--push and push=false contradict each other: leave one out"))
            }
            _ => self.stored_or_pushed(self.flag("push", kind == "registry" || self.push)),
        }
    }

    fn is_about_a_push(&self) -> bool {
        let keys = ["push-by-digest", "name-canonical", "registry.insecure"];
        keys.iter().any(|key| self.flag(key, false))
    }

    /// An image goes into the store or to its registry, never to both.
    fn stored_or_pushed(&self, is_pushed: bool) -> Result<Output, OutputError> {
        match (is_pushed, self.flag("store", !is_pushed)) {
            (true, true) => {
                return Err(self.together(
                    "a pushed image is not kept in the store: give another -o type=image beside this one, \
                     and no --push",
                ));
            }
            (false, false) => {
                return Err(self.together("nothing would be kept: write -o type=cacheonly"));
            }
            (true, false) | (false, true) => {}
        }
        if !is_pushed && self.is_about_a_push() {
            return Err(self.together(
                "push-by-digest, name-canonical and registry.insecure go with push=true only",
            ));
        }
        let image = self.image()?;
        Ok(if is_pushed { Output::Registry(image) } else { Output::Store(image) })
    }

    fn destination(&self) -> Destination {
        match self.get("dest") {
            None | Some("" | "-") => Destination::Stdout,
            Some(path) => Destination::Path(PathBuf::from(path)),
        }
    }

    fn directory(&self, kind: &str) -> Result<PathBuf, OutputError> {
        match self.get("dest") {
            None | Some("") => Err(OutputError::NoDest(kind.to_owned())),
            Some("-") => Err(OutputError::DestIsStdout(kind.to_owned())),
            Some(path) => Ok(PathBuf::from(path)),
        }
    }

    fn archive(&self, kind: &str) -> Result<Archive, OutputError> {
        let tar = self.flag("tar", true);
        let dest = if tar { self.destination() } else { Destination::Path(self.directory(kind)?) };
        Ok(Archive { dest, tar, image: self.image()? })
    }

    fn level(&self, highest: u32) -> Result<Option<u32>, OutputError> {
        let Some(text) = self.get("compression-level") else { return Ok(None) };
        let level = text.parse().ok().filter(|level| *level <= highest);
        level.map(Some).ok_or_else(|| self.value_error("compression-level", text))
    }

    fn image(&self) -> Result<ImageOptions, OutputError> {
        let names = self
            .get("name")
            .map_or(Ok(vec![]), |names| names.split(',').map(reference).collect())?;
        let compression = match self.get("compression") {
            None | Some("gzip") => Compression::Gzip(self.level(9)?.unwrap_or(6)),
            Some("zstd") => self
                .level(22)?
                .map_or(Compression::ZSTD, |level| Compression::Zstd(level.max(1) as i32)),
            Some("uncompressed") if self.get("compression-level").is_some() => {
                return Err(self.together("compression-level is of no use without compression"));
            }
            Some("uncompressed") => Compression::None,
            Some("estargz" | "nydus") => {
                return Err(self.together(
                    "this compression is not supported yet: it is gzip, zstd or uncompressed",
                ));
            }
            Some(other) => return Err(self.value_error("compression", other)),
        };
        let by_digest = self.flag("push-by-digest", false);
        if by_digest {
            refuse_tags(&self.get("name").unwrap_or_default().split(',').collect::<Vec<_>>())?;
        }
        let insecure = self.flag("registry.insecure", false);
        Ok(ImageOptions { names, compression, by_digest, insecure })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::super::args;
    use super::*;

    fn outputs_of(line: &str) -> Result<Vec<Output>, OutputError> {
        let line = format!("rbuild {line} .");
        let parsed = args::parse(line.split(' ').map(OsString::from)).unwrap();
        let args::Command::Build(args) = parsed else { panic!("{parsed:?}") };
        outputs(&args, &tags(&args)?, true)
    }

    #[test]
    fn without_a_word_the_image_goes_into_the_store() {
        assert!(matches!(outputs_of("-t a").unwrap()[..], [Output::Store(_)]));
    }

    #[test]
    fn what_is_loaded_is_not_kept_beside_it() {
        assert!(matches!(outputs_of("-t a --load").unwrap()[..], [Output::Load(_)]));
    }

    #[test]
    fn a_bare_path_is_a_directory_for_the_files() {
        assert_eq!(outputs_of("-o out").unwrap(), [Output::Local { dest: "out".into() }]);
    }

    #[test]
    fn what_can_not_be_written_is_refused() {
        for (line, message) in [
            ("-o type=oci", "refusing to write"),
            ("-o type=local", "dest is required"),
            ("-o type=local,dest=-", "cannot be stdout"),
            ("-o dest=a,x=b", "type is required"),
            ("-o tpye=oci", "type is required"),
            ("-o type=ocl,dest=a", "did you mean `oci`"),
            ("-o type=oci,dst=a", "unknown key `dst`"),
            ("-o type=oci,dst=a", "did you mean `dest`"),
            ("-o type=oci,dest=a,foo=bar", "unknown key `foo`"),
            ("-o type=oci,dest=a,push=true", "goes with type=image, registry"),
            ("-o type=oci,dest=a,compression-level=x", "a number"),
            ("-o type=oci,dest=a,tar=perhaps", "true or false"),
            ("-o type=oci,dest=a,oci-mediatypes=false", "not supported yet"),
            ("-o type=oci,dest=a,force-compression=", "not supported yet"),
            ("-o type=oci,dest=a,compression=estargz", "not supported yet"),
            ("-o type=oci,dest=a,annotation.K=V", "not supported yet"),
            ("-o type=image,annotation-index[linux/amd64].K=V", "not supported yet"),
            ("-o type=local,dest=a,mode=delete", "not supported yet"),
            ("-o type=local,dest=a,platform-split=true", "not supported yet"),
            ("-o type=tar,dest=a,platform-split=0 --platform a,b", "not supported yet"),
            ("-o type=image,store=false", "cacheonly"),
            ("-t a -o type=registry,store=true", "another -o type=image"),
            ("-t a -o type=image,push-by-digest=true", "push=true"),
            ("-o type=registry,name=r/a:1,push-by-digest=true", "can't push tagged ref r/a:1"),
            ("-t r/a:1 -o type=registry,push-by-digest=true", "can't push tagged ref r/a:1"),
            ("-o type=oci,dest=a,compression=rar", "rar"),
            ("-o type=oci,dest=a,compression=uncompressed,compression-level=3", "of no use"),
            ("-o type=oci,dest=a,DEST=b", "`dest` is given twice"),
            ("-t a --push -o type=image,push=false", "contradict"),
            ("-o ", "--output is empty"),
            ("-o type=cacheonly --iidfile i", "incompatible"),
            ("-o type=nonsense", "unknown output type"),
            ("--push", "tag is needed"),
            ("-t X/y", "must be lowercase"),
            ("-o type=tar,dest=a --iidfile i", "incompatible"),
        ] {
            let error = outputs_of(line).unwrap_err().to_string();
            assert!(error.contains(message), "{line}: {error}");
        }
    }

    #[test]
    fn a_key_may_ask_for_what_is_done_anyway() {
        for line in [
            "-o type=oci,dest=a,oci-mediatypes=true,force-compression=0,rewrite-timestamp=",
            "-o type=image,store=1,unpack=f,attestation-inline=false",
            "-t a -o type=registry,push=true,store=false,name-canonical=true",
            "-o type=local,dest=a,mode=copy,platform-split=false",
            "-o type=local,dest=a,platform-split=true --platform linux/amd64,linux/arm64",
        ] {
            assert!(outputs_of(line).is_ok(), "{line}: {:?}", outputs_of(line));
        }
    }

    #[test]
    fn what_is_pushed_by_digest_has_no_tag() {
        for line in [
            "-o type=image,name=r.io:5/a/b,push=true,push-by-digest=true,name-canonical=true",
            "-t r.io:5/a/b -o type=registry,push-by-digest=true",
            "-t r.io:5/a/b --push -o type=image,push-by-digest=true",
        ] {
            let outputs = outputs_of(line).unwrap();
            let [Output::Registry(image)] = outputs.as_slice() else { panic!("{outputs:?}") };
            assert!(image.by_digest);
            assert_eq!(image.names[0].to_string(), "r.io:5/a/b");
        }
    }

    #[test]
    fn what_is_said_of_an_image_is_said_of_what_the_flag_pushes() {
        for line in [
            "-t r.io/a --push -o type=image,compression=zstd",
            "--push -o type=image,name=r.io/a,compression=zstd",
        ] {
            let outputs = outputs_of(line).unwrap();
            let [Output::Registry(image)] = outputs.as_slice() else { panic!("{outputs:?}") };
            assert_eq!(image.compression, Compression::ZSTD);
            assert_eq!(image.names[0].to_string(), "r.io/a:latest");
        }
    }

    #[test]
    fn tags_replace_the_names_of_an_output() {
        let outputs = outputs_of("-t a:1 -o type=oci,dest=x,name=b").unwrap();
        let [Output::OciLayout(archive)] = outputs.as_slice() else { panic!("{outputs:?}") };
        assert_eq!(archive.image.names[0].familiar(), "a:1");
    }
}
