//! Content digests and the identities derived from them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// SHA-256 of some bytes, written `sha256:<64 hex digits>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a string is not a [`Digest`].
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a digest of the form `sha256:<64 hex digits>`")]
pub struct ParseDigestError(String);

impl Digest {
    /// Digests `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// Wraps the 32 bytes of a SHA-256 that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hex digits, without `sha256:`: the name of a blob's file.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

/// Builds a [`Digest`] from fields, each written with its length so that no two inputs collide.
#[derive(Clone, Default)]
pub struct Digester(sha2::Sha256);

impl Digester {
    /// Adds one field.
    pub fn field(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.push(bytes);
        self
    }

    /// Adds one field in place.
    pub fn push(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds a number as one field.
    pub fn number(self, number: u64) -> Self {
        self.field(number.to_le_bytes())
    }

    /// Adds a flag as one field.
    pub fn flag(self, flag: bool) -> Self {
        self.field([u8::from(flag)])
    }

    /// Adds a field that may be absent; absent and empty are told apart.
    pub fn optional(self, field: Option<impl AsRef<[u8]>>) -> Self {
        match field {
            Some(field) => self.count(1).field(field),
            None => self.count(0),
        }
    }

    /// Adds how many fields of a list follow, so that two lists in a row can't be confused.
    pub fn count(self, fields: usize) -> Self {
        self.number(fields as u64)
    }

    /// Adds a list of fields, counted.
    pub fn list<T: AsRef<[u8]>>(self, fields: &[T]) -> Self {
        fields.iter().fold(self.count(fields.len()), Self::field)
    }

    /// Returns the digest of the fields added so far.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    /// Accepts lower-case hex only, as the image specification demands: a digest becomes a path.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let invalid = || ParseDigestError(s.to_owned());
        let hex = s.strip_prefix("sha256:").ok_or_else(invalid)?;
        if hex.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(hex, &mut bytes).map_err(|_| invalid())?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Digest of a layer's uncompressed tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DiffId(pub Digest);

/// Identity of a stack of layers: what a snapshot is named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChainId(pub Digest);

impl ChainId {
    /// Returns the chain ID of `layer` on a stack whose chain ID is `below` (`None`: on nothing).
    pub fn on(below: Option<Self>, layer: DiffId) -> Self {
        Self(below.map_or(layer.0, |below| Digest::of(format!("{} {}", below.0, layer.0))))
    }
}

impl fmt::Display for DiffId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_what_it_prints() {
        let digest = Digest::of("x");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
    }

    #[test]
    fn only_lower_case_sha256_of_the_right_length_is_a_digest() {
        let good = Digest::of("x").to_string();
        for bad in [
            "",
            "sha256:",
            "sha512:00",
            "sha256:../../etc/passwd",
            &good.to_uppercase(),
            &good[..70],
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let digest = |a, b| Digester::default().field(a).field(b).finish();
        assert_ne!(digest("ab", "c"), digest("a", "bc"));
    }

    #[test]
    fn the_chain_id_of_one_layer_is_its_diff_id() {
        let layer = DiffId(Digest::of("x"));
        assert_eq!(ChainId::on(None, layer).0, layer.0);
    }
}
