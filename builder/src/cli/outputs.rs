//! `-o`, `--push` and `--tag`: from text to outputs.

use std::path::PathBuf;

use oci::Reference;

use super::args::BuildArgs;
use super::csv;
use crate::export::{Archive, Destination, ImageOptions, Output};
use crate::layer::Compression;

/// Why an output is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutputError {
    /// It is no CSV record of pairs.
    #[error("invalid output `{0}`: {1}")]
    Csv(String, csv::PairsError),
    /// It has no type.
    #[error("type is required for output `{0}`")]
    NoType(String),
    /// Its type is unknown.
    #[error(
        "unknown output type `{0}`: it is one of oci, docker, local, tar, image, registry, cacheonly"
    )]
    UnknownType(String),
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

/// All that the user wants of the build. Without a word about it: the image, in the store.
pub(crate) fn outputs(
    args: &BuildArgs,
    tags: &[Reference],
    stdout_is_terminal: bool,
) -> Result<Vec<Output>, OutputError> {
    let mut outputs: Vec<Output> =
        args.output.iter().map(|text| output(text)).collect::<Result<_, _>>()?;
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
    let without_image =
        |output: &Output| matches!(output, Output::Local { .. } | Output::Tar { .. });
    if args.iidfile.is_some() && outputs.iter().any(without_image) {
        return Err(OutputError::NoImageId);
    }
    Ok(())
}

fn output(text: &str) -> Result<Output, OutputError> {
    if text == "-" {
        return Ok(Output::Tar { dest: Destination::Stdout });
    }
    let invalid = |error| OutputError::Csv(text.to_owned(), error);
    let fields = frontend::csv_fields(text).map_err(|error| invalid(error.into()))?;
    if let [path] = fields.as_slice()
        && !path.starts_with("type=")
    {
        return Ok(Output::Local { dest: PathBuf::from(path) });
    }
    Fields { text, pairs: csv::pairs(text).map_err(invalid)? }.output()
}

/// The fields of one `-o`.
struct Fields<'a> {
    text: &'a str,
    pairs: Vec<(String, String)>,
}

impl Fields<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, OutputError> {
        match self.get(key) {
            None => Ok(default),
            Some("true" | "1" | "t" | "T" | "TRUE" | "True" | "") => Ok(true),
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(false),
            Some(value) => Err(self.value_error(key, value)),
        }
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
        match kind {
            "cacheonly" => Ok(Output::CacheOnly),
            "local" => Ok(Output::Local { dest: self.directory(kind)? }),
            "tar" => Ok(Output::Tar { dest: self.destination() }),
            "oci" => Ok(Output::OciLayout(self.archive(kind)?)),
            "docker" => Ok(Output::DockerArchive(self.archive(kind)?)),
            "image" if self.flag("push", false)? => Ok(Output::Registry(self.image()?)),
            "image" => Ok(Output::Store(self.image()?)),
            "registry" => Ok(Output::Registry(self.image()?)),
            other => Err(OutputError::UnknownType(other.to_owned())),
        }
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
        let tar = self.flag("tar", true)?;
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
            Some("uncompressed") => Compression::None,
            Some(other) => return Err(self.value_error("compression", other)),
        };
        Ok(ImageOptions { names, compression, insecure: self.flag("registry.insecure", false)? })
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
            ("-o type=oci,dest=a,compression=rar", "rar"),
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
    fn tags_replace_the_names_of_an_output() {
        let outputs = outputs_of("-t a:1 -o type=oci,dest=x,name=b").unwrap();
        let [Output::OciLayout(archive)] = outputs.as_slice() else { panic!("{outputs:?}") };
        assert_eq!(archive.image.names[0].familiar(), "a:1");
    }
}
