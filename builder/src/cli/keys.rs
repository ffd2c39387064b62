//! The keys of `-o`: what each takes, for which types of output, and what rbuild does about it.
//!
//! The keys are those of BuildKit's exporters. A key that asks for what an output does anyway is
//! taken; one that asks for anything else is refused, so that nothing is asked for and not done.

use frontend::did_you_mean;

/// What is written behind a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Any text.
    Text,
    /// A word of Go's `strconv.ParseBool`; nothing counts as true.
    Bool,
    /// A whole number.
    Number,
}

/// What is done about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It is carried out.
    Done,
    /// It may ask for this, which outputs do anyway. The text says what to do instead of another.
    Always(&'static str, &'static str),
    /// It can't be asked for. The text says what to do instead.
    NotYet(&'static str),
}

/// One key.
struct Key {
    name: &'static str,
    types: &'static [&'static str],
    form: Form,
    answer: Answer,
}

/// Why a key is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyError {
    /// There is none of this name.
    #[error("unknown key `{key}` in output `{output}`{}", meant(*.nearest))]
    Unknown {
        /// The key.
        key: String,
        /// The whole output.
        output: String,
        /// The key that is spelled most like it.
        nearest: Option<&'static str>,
    },
    /// It belongs to other types.
    #[error("`{key}` does not go with type={kind}: it goes with type={}", .types.join(", "))]
    OtherType {
        /// The key.
        key: &'static str,
        /// The type of the output.
        kind: String,
        /// Those that it goes with.
        types: &'static [&'static str],
    },
    /// Its value has another form.
    #[error("invalid value `{value}` of `{key}` in output `{output}`: it must be {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// The whole output.
        output: String,
        /// What it must be.
        wanted: &'static str,
    },
    /// It asks for what is not done.
    #[error("`{pair}` is not supported yet in an output: {instead}")]
    NotYet {
        /// The key and its value.
        pair: String,
        /// What to do instead.
        instead: &'static str,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

const IMAGE: &[&str] = &["image", "registry"];
const ARCHIVE: &[&str] = &["oci", "docker"];
const IMAGES: &[&str] = &["image", "registry", "oci", "docker"];
const FILES: &[&str] = &["local", "tar"];
const WITH_DEST: &[&str] = &["oci", "docker", "local", "tar"];
const ALL: &[&str] = &["image", "registry", "oci", "docker", "local", "tar", "cacheonly"];

const fn key(
    name: &'static str,
    types: &'static [&'static str],
    form: Form,
    answer: Answer,
) -> Key {
    Key { name, types, form, answer }
}

const LEAVE_OUT: &str = "leave it out";
const NO_ATTESTATIONS: &str = "rbuild makes no attestations yet, leave it out";

const KEYS: &[Key] = &[
    key("type", ALL, Form::Text, Answer::Done),
    key("dest", WITH_DEST, Form::Text, Answer::Done),
    key("tar", ARCHIVE, Form::Bool, Answer::Done),
    key("name", IMAGES, Form::Text, Answer::Done),
    key("push", IMAGE, Form::Bool, Answer::Done),
    key("push-by-digest", IMAGE, Form::Bool, Answer::Done),
    key("name-canonical", IMAGE, Form::Bool, Answer::Done),
    key("registry.insecure", IMAGE, Form::Bool, Answer::Done),
    key("store", IMAGE, Form::Bool, Answer::Done),
    key("compression", IMAGES, Form::Text, Answer::Done),
    key("compression-level", IMAGES, Form::Number, Answer::Done),
    key("platform-split", FILES, Form::Bool, Answer::Done),
    key(
        "unpack",
        IMAGE,
        Form::Bool,
        Answer::Always("false", "the store keeps images as they are pushed, leave it out"),
    ),
    key(
        "oci-mediatypes",
        IMAGES,
        Form::Bool,
        Answer::Always("true", "images have OCI's media types, leave it out"),
    ),
    key("oci-artifact", IMAGES, Form::Bool, Answer::Always("true", NO_ATTESTATIONS)),
    key("attestation-inline", IMAGES, Form::Bool, Answer::Always("false", NO_ATTESTATIONS)),
    key("attestation-prefix", FILES, Form::Text, Answer::NotYet(NO_ATTESTATIONS)),
    key(
        "force-compression",
        IMAGES,
        Form::Bool,
        Answer::Always("false", "layers of base images stay as they are, leave it out"),
    ),
    key(
        "rewrite-timestamp",
        IMAGES,
        Form::Bool,
        Answer::Always("true", "SOURCE_DATE_EPOCH always counts for the files of new layers, too"),
    ),
    key(
        "source-date-epoch",
        &["image", "registry", "oci", "docker", "local", "tar"],
        Form::Text,
        Answer::NotYet("set it for all outputs with --source-date-epoch"),
    ),
    key(
        "prefer-nondist-layers",
        IMAGES,
        Form::Bool,
        Answer::Always("false", "all layers are distributed, leave it out"),
    ),
    key(
        "dangling-name-prefix",
        IMAGE,
        Form::Text,
        Answer::NotYet("give the image a name with name= or -t"),
    ),
    // BuildKit spells it so.
    key("danging-name-empty-only", IMAGE, Form::Bool, Answer::Always("false", LEAVE_OUT)),
    key("annotation.*", IMAGES, Form::Text, Answer::NotYet("a label is set with --label")),
    key("annotation-*", IMAGES, Form::Text, Answer::NotYet("a label is set with --label")),
    key("annotation[*", IMAGES, Form::Text, Answer::NotYet("a label is set with --label")),
    key("buildinfo", IMAGES, Form::Bool, Answer::Always("false", LEAVE_OUT)),
    key("buildinfo-attrs", IMAGES, Form::Bool, Answer::Always("false", LEAVE_OUT)),
    key(
        "context",
        &["docker"],
        Form::Text,
        Answer::NotYet("--load takes the docker or podman of this machine"),
    ),
    key(
        "mode",
        &["local"],
        Form::Text,
        Answer::Always("copy", "empty the directory before the build"),
    ),
];

/// The types of outputs.
pub(super) fn types() -> &'static [&'static str] {
    ALL
}

/// Reads a word of Go's `strconv.ParseBool`.
pub(crate) fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Refuses what an output of type `kind` can't be asked for.
pub(super) fn check(kind: &str, pairs: &[(String, String)], output: &str) -> Result<(), KeyError> {
    pairs.iter().try_for_each(|(name, value)| check_one(kind, name, value, output))
}

fn check_one(kind: &str, name: &str, value: &str, output: &str) -> Result<(), KeyError> {
    let key = KEYS.iter().find(|key| key.is(name)).ok_or_else(|| KeyError::Unknown {
        key: name.to_owned(),
        output: output.to_owned(),
        nearest: nearest(name),
    })?;
    if !key.types.contains(&kind) {
        let (key, kind, types) = (key.name, kind.to_owned(), key.types);
        return Err(KeyError::OtherType { key, kind, types });
    }
    let wanted = match key.form {
        Form::Bool if truth(value).is_none() && !value.is_empty() => "true or false",
        Form::Number if value.parse::<i64>().is_err() => "a number",
        Form::Text | Form::Bool | Form::Number => "",
    };
    if !wanted.is_empty() {
        let (value, output) = (value.to_owned(), output.to_owned());
        return Err(KeyError::Value { key: key.name, value, output, wanted });
    }
    let not_yet = |instead| KeyError::NotYet { pair: format!("{name}={value}"), instead };
    match key.answer {
        Answer::Done => Ok(()),
        Answer::Always(usual, _) if key.form.is_same(usual, value) => Ok(()),
        Answer::Always(_, instead) | Answer::NotYet(instead) => Err(not_yet(instead)),
    }
}

impl Key {
    fn is(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => self.name == name,
        }
    }
}

impl Form {
    fn is_same(self, usual: &str, value: &str) -> bool {
        match self {
            Self::Bool => truth(usual) == Some(truth(value).unwrap_or(true)),
            Self::Text | Self::Number => usual == value,
        }
    }
}

/// Names that other tools have for one of our keys.
const ALIASES: [(&str, &str); 6] = [
    ("dst", "dest"),
    ("destination", "dest"),
    ("output", "dest"),
    ("path", "dest"),
    ("tag", "name"),
    ("ref", "name"),
];

/// The key that is most likely meant.
fn nearest(name: &str) -> Option<&'static str> {
    let alias = ALIASES.iter().find(|(other, _)| *other == name);
    let names = KEYS.iter().map(|key| key.name).filter(|name| !name.ends_with('*'));
    alias.map(|(_, ours)| *ours).or_else(|| did_you_mean(name, names))
}
