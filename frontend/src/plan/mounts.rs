//! The values of `RUN --mount`: one CSV record of options each.
//!
//! Options act from left to right, so `type` must stand before those that only some types have.
//! Reading them takes two steps, because values are expanded between them: [`fields`] and
//! [`MountSpec::parse`].

use crate::csv::{CsvError, csv_fields};
use crate::{CacheSharing, did_you_mean, id};

/// An option as written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Its name in lower case.
    pub(crate) key: String,
    /// What stands behind `=`.
    pub(crate) value: Option<String>,
}

/// What kind of mount it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MountKind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// The options of one mount; what was not given is `None`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct MountSpec {
    pub(crate) kind: MountKind,
    pub(crate) from: Option<String>,
    pub(crate) source: Option<String>,
    pub(crate) target: Option<String>,
    /// Whether writes are refused; the default depends on the kind.
    pub(crate) read_only: bool,
    pub(crate) id: Option<String>,
    pub(crate) sharing: CacheSharing,
    pub(crate) required: bool,
    pub(crate) size: Option<u64>,
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) env: Option<String>,
}

/// Why a mount is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MountError {
    #[error("failed to parse csv mounts: {0}")]
    Csv(#[from] CsvError),
    #[error("invalid field '{0}' must be a key=value pair")]
    NoValue(String),
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    FromVariable,
    #[error("unsupported mount type {0:?}")]
    Kind(String),
    #[error("unsupported sharing value {0:?}")]
    Sharing(String),
    #[error("unexpected key '{key}' in '{field}'")]
    Key { key: String, field: String },
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyForKind { key: String, kind: &'static str },
    #[error("invalid value for {key}: {value}")]
    Value { key: String, value: String },
    #[error("invalid value {value} for {key}")]
    Number { key: String, value: String },
    #[error("{key} not allowed for {kind:?} type mounts")]
    Permission { key: &'static str, kind: &'static str },
    #[error("invalid cache sharing set for {0} mount")]
    SharingForKind(&'static str),
    #[error("secret mount should not have a from")]
    SecretFrom,
    #[error("invalid secret mount. one of source, target required")]
    SecretWithoutId,
    #[error("both source and id can't be set")]
    SecretWithTwoIds,
    #[error("ssh mounts do not support source")]
    SshSource,
}

const KINDS: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: [&str; 3] = ["shared", "private", "locked"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];

impl MountError {
    /// What was probably meant.
    pub(crate) fn suggestion(&self) -> Option<&'static str> {
        match self {
            Self::Kind(kind) => did_you_mean(kind, KINDS),
            Self::Sharing(sharing) => did_you_mean(sharing, SHARINGS),
            Self::Key { key, .. } => did_you_mean(key, KEYS),
            Self::KeyForKind { .. }
            | Self::Csv(_)
            | Self::NoValue(_)
            | Self::FromVariable
            | Self::Value { .. }
            | Self::Number { .. }
            | Self::Permission { .. }
            | Self::SharingForKind(_)
            | Self::SecretFrom
            | Self::SecretWithoutId
            | Self::SecretWithTwoIds
            | Self::SshSource => None,
        }
    }
}

/// Splits a mount into options and checks what needs no values.
pub(crate) fn fields(record: &str) -> Result<Vec<Field>, MountError> {
    csv_fields(record)?.into_iter().map(|field| read_field(&field)).collect()
}

fn read_field(field: &str) -> Result<Field, MountError> {
    let (key, value) = match field.split_once('=') {
        Some((key, value)) => (key.to_lowercase(), Some(value)),
        None => (field.to_lowercase(), None),
    };
    let stands_alone = ["readonly", "ro", "readwrite", "rw", "required"].contains(&key.as_str());
    if value.is_none() && !stands_alone {
        return Err(MountError::NoValue(field.to_owned()));
    }
    if key == "from" && value.is_some_and(|value| value.contains('$')) {
        return Err(MountError::FromVariable);
    }
    Ok(Field { key, value: value.map(str::to_owned) })
}

impl MountKind {
    fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }

    fn parse(text: &str) -> Result<Self, MountError> {
        match text.to_lowercase().as_str() {
            "bind" => Ok(Self::Bind),
            "cache" => Ok(Self::Cache),
            "tmpfs" => Ok(Self::Tmpfs),
            "secret" => Ok(Self::Secret),
            "ssh" => Ok(Self::Ssh),
            _ => Err(MountError::Kind(text.to_owned())),
        }
    }
}

impl MountSpec {
    /// Reads the options, their values expanded.
    pub(crate) fn parse(fields: &[Field]) -> Result<Self, MountError> {
        let mut spec = Self::default();
        let (mut read_only, mut sharing) = (None, None);
        for field in fields {
            let Field { key, value } = field;
            let text = value.clone().unwrap_or_default();
            match key.as_str() {
                "type" => spec.kind = MountKind::parse(&text)?,
                "from" => spec.from = Some(text),
                "source" | "src" => spec.source = Some(text),
                "target" | "dst" | "destination" => spec.target = Some(text),
                "readonly" | "ro" => read_only = Some(field.truth()?),
                "readwrite" | "rw" => read_only = Some(!field.truth()?),
                "required" => {
                    spec.only_for(&[MountKind::Secret, MountKind::Ssh], key)?;
                    spec.required = field.truth()?;
                }
                "size" => {
                    spec.only_for(&[MountKind::Tmpfs], key)?;
                    let size = bytes(&text).ok_or_else(|| field.bad_value())?;
                    spec.size = (size > 0).then_some(size);
                }
                "id" => spec.id = Some(text),
                "sharing" => sharing = Some(parse_sharing(&text)?),
                "mode" => spec.mode = Some(field.mode()?),
                "uid" => spec.uid = Some(field.id()?),
                "gid" => spec.gid = Some(field.id()?),
                "env" => spec.env = Some(text),
                _ => {
                    return Err(MountError::Key { key: key.clone(), field: field.to_string() });
                }
            }
        }
        spec.sharing = sharing.unwrap_or_default();
        spec.read_only = read_only.unwrap_or(match spec.kind {
            MountKind::Cache | MountKind::Tmpfs => false,
            MountKind::Bind | MountKind::Secret | MountKind::Ssh => true,
        });
        spec.check(sharing.is_some())?;
        Ok(spec)
    }

    fn only_for(&self, kinds: &[MountKind], key: &str) -> Result<(), MountError> {
        if kinds.contains(&self.kind) {
            return Ok(());
        }
        Err(MountError::KeyForKind { key: key.to_owned(), kind: self.kind.name() })
    }

    fn check(&self, has_sharing: bool) -> Result<(), MountError> {
        let kind = self.kind.name();
        if let MountKind::Bind | MountKind::Tmpfs = self.kind {
            let given = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
            if let Some((key, _)) = given.into_iter().find(|(_, value)| value.is_some()) {
                return Err(MountError::Permission { key, kind });
            }
        }
        if has_sharing && self.kind != MountKind::Cache {
            return Err(MountError::SharingForKind(kind));
        }
        match self.kind {
            MountKind::Secret if self.from.is_some() => Err(MountError::SecretFrom),
            MountKind::Secret
                if [&self.source, &self.target, &self.id].iter().all(|name| is_blank(name)) =>
            {
                Err(MountError::SecretWithoutId)
            }
            MountKind::Secret if !is_blank(&self.source) && !is_blank(&self.id) => {
                Err(MountError::SecretWithTwoIds)
            }
            MountKind::Ssh if !is_blank(&self.source) => Err(MountError::SshSource),
            MountKind::Bind
            | MountKind::Cache
            | MountKind::Tmpfs
            | MountKind::Secret
            | MountKind::Ssh => Ok(()),
        }
    }
}

/// Whether an option is absent or empty, which is the same.
fn is_blank(option: &Option<String>) -> bool {
    option.as_deref().is_none_or(str::is_empty)
}

impl Field {
    /// Its value as a bool; true where it has none.
    fn truth(&self) -> Result<bool, MountError> {
        match self.value.as_deref() {
            None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some(_) => Err(self.bad_value()),
        }
    }

    fn mode(&self) -> Result<u32, MountError> {
        let value = self.value.clone().unwrap_or_default();
        u32::from_str_radix(&value, 8).map_err(|_| self.no_number())
    }

    fn id(&self) -> Result<u32, MountError> {
        let value = self.value.as_deref().unwrap_or_default();
        id(value).ok().flatten().ok_or_else(|| self.no_number())
    }

    fn no_number(&self) -> MountError {
        let value = self.value.clone().unwrap_or_default();
        MountError::Number { key: self.key.clone(), value }
    }

    fn bad_value(&self) -> MountError {
        let value = self.value.clone().unwrap_or_default();
        MountError::Value { key: self.key.clone(), value }
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, value } = self;
        match value {
            Some(value) => write!(f, "{key}={value}"),
            None => f.write_str(key),
        }
    }
}

fn parse_sharing(text: &str) -> Result<CacheSharing, MountError> {
    match text.to_lowercase().as_str() {
        "shared" => Ok(CacheSharing::Shared),
        "private" => Ok(CacheSharing::Private),
        "locked" => Ok(CacheSharing::Locked),
        _ => Err(MountError::Sharing(text.to_owned())),
    }
}

/// Reads `64m`, `1.5 GiB`, `100`.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_lowercase();
    let scale = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let exponent = match scale {
        "" if unit != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let factor = 1024_u64.pow(exponent);
    match number.parse::<u64>() {
        Ok(number) => number.checked_mul(factor),
        // Fractions are rounded down, as floats: nobody asks for more than 2⁵³ bytes this way.
        Err(_) => number.parse::<f64>().ok().map(|number| (number * factor as f64) as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<MountSpec, MountError> {
        MountSpec::parse(&fields(text)?)
    }

    fn refusal(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn keys_and_enumerated_values_have_no_case() {
        let spec = parse("TYPE=Cache,Target=/c,sharing=LOCKED,ID=x,mode=0700,uid=5").unwrap();
        assert_eq!((spec.kind, spec.sharing), (MountKind::Cache, CacheSharing::Locked));
        assert_eq!((spec.mode, spec.uid, spec.gid), (Some(0o700), Some(5), None));
    }

    #[test]
    fn some_keys_have_several_names() {
        for target in ["target", "dst", "destination"] {
            assert_eq!(parse(&format!("{target}=/x")).unwrap().target.as_deref(), Some("/x"));
        }
        for source in ["source", "src"] {
            assert_eq!(parse(&format!("{source}=/x")).unwrap().source.as_deref(), Some("/x"));
        }
        for read_only in ["ro", "readonly", "RO=1", "rw=0", "readwrite=false"] {
            assert!(parse(&format!("type=cache,{read_only}")).unwrap().read_only, "{read_only}");
        }
    }

    #[test]
    fn quotes_protect_commas() {
        let spec = parse(r#"type=bind,"source=a,b ""c""",target=/x"#).unwrap();
        assert_eq!(spec.source.as_deref(), Some(r#"a,b "c""#));
        assert!(refusal(r#""type=bind"#).contains("missing closing quote"));
    }

    #[test]
    fn write_access_depends_on_the_kind_and_the_last_word_counts() {
        assert!(parse("target=/x").unwrap().read_only);
        assert!(!parse("type=cache,target=/x").unwrap().read_only);
        assert!(!parse("type=tmpfs,target=/x").unwrap().read_only);
        assert!(!parse("target=/x,ro,rw").unwrap().read_only);
        assert!(parse("target=/x,rw,ro=true").unwrap().read_only);
        assert!(!parse("target=/x,readonly=0").unwrap().read_only);
    }

    #[test]
    fn options_act_from_left_to_right() {
        assert_eq!(
            refusal("required,type=secret,id=x"),
            "unexpected key 'required' for mount type 'bind'"
        );
        assert!(parse("type=secret,id=x,required").unwrap().required);
        assert!(!parse("type=secret,id=x,required=false").unwrap().required);
        assert_eq!(refusal("size=1,type=tmpfs"), "unexpected key 'size' for mount type 'bind'");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, message) in [
            ("type=bind,target", "invalid field 'target' must be a key=value pair"),
            ("type=foo", "unsupported mount type \"foo\""),
            ("taget=/x", "unexpected key 'taget' in 'taget=/x'"),
            ("type=bind,mode=0755", "mode not allowed for \"bind\" type mounts"),
            ("type=tmpfs,uid=1", "uid not allowed for \"tmpfs\" type mounts"),
            ("type=cache,mode=9", "invalid value 9 for mode"),
            ("type=cache,uid=x", "invalid value x for uid"),
            ("type=secret,id=x,gid=-1", "invalid value -1 for gid"),
            ("type=ssh,gid=4294967295", "invalid value 4294967295 for gid"),
            ("type=cache,uid=4294967296", "invalid value 4294967296 for uid"),
            ("target=/x,gid=1", "gid not allowed for \"bind\" type mounts"),
            ("type=ssh,source=x", "ssh mounts do not support source"),
            ("type=ssh,size=1", "unexpected key 'size' for mount type 'ssh'"),
            ("type=cache,required", "unexpected key 'required' for mount type 'cache'"),
            ("type=tmpfs,size=many", "invalid value for size: many"),
            ("ro=perhaps", "invalid value for ro: perhaps"),
            ("sharing=locked", "invalid cache sharing set for bind mount"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,env=X", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,source=b", "both source and id can't be set"),
            ("from=$X", "'from' doesn't support variable expansion, define alias stage instead"),
        ] {
            assert_eq!(refusal(text), message, "{text}");
        }
        assert_eq!(parse("taget=/x").unwrap_err().suggestion(), Some("target"));
        assert_eq!(parse("type=secrt").unwrap_err().suggestion(), Some("secret"));
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, size) in [
            ("100", Some(100)),
            ("64m", Some(64 << 20)),
            ("1.5g", Some(3 << 29)),
            ("1KiB", Some(1024)),
            ("2 kb", Some(2048)),
            ("5b", Some(5)),
            ("x", None),
            ("5x", None),
            ("", None),
        ] {
            assert_eq!(bytes(text), size, "{text}");
        }
    }
}
