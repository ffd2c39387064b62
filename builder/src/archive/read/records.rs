//! What precedes a member's own header: PAX records, and GNU's long names.

use std::collections::BTreeMap;

use super::sparse::{self, Form};

/// Begins the keys of extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// PAX records.
#[derive(Default)]
pub(super) struct Records {
    by_key: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The numbers of a sparse map in the format 0.0, which come under two keys again and again:
    /// offset, length, offset, length.
    pub(super) pieces: Vec<Vec<u8>>,
}

impl Records {
    /// Splits `<length> <key>=<value>\n…`; of equal keys the last counts, an empty value is none.
    pub(super) fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
            let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|&byte| byte == b'=')?;
            records.add(&record[..equals], &record[equals + 1..])?;
            bytes = &bytes[length..];
        }
        Some(records)
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        if [sparse::OFFSET, sparse::LENGTH].contains(&key) {
            let is_turn = self.pieces.len().is_multiple_of(2) == (key == sparse::OFFSET);
            self.pieces.push(value.to_vec());
            return is_turn.then_some(());
        }
        if value.is_empty() {
            self.by_key.remove(key);
        } else {
            self.by_key.insert(key.to_vec(), value.to_vec());
        }
        Some(())
    }

    pub(super) fn value(&self, key: &str) -> Option<&[u8]> {
        self.by_key.get(key.as_bytes()).map(Vec::as_slice)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.by_key.keys().map(Vec::as_slice)
    }
}

/// What precedes a member's own header.
#[derive(Default)]
pub(super) struct Extensions {
    pub(super) name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) records: Option<Records>,
}

impl Extensions {
    pub(super) fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.records.is_none()
    }

    pub(super) fn value(&self, key: &str) -> Option<&[u8]> {
        self.records.as_ref()?.value(key)
    }

    /// The name of the member that `header` calls so. GNU tar gives a sparse file another one
    /// there, which says what other readers make of it.
    pub(super) fn name(&self, header: &[u8]) -> Result<Vec<u8>, &'static str> {
        match self.value(sparse::NAME) {
            Some(real) => Ok(real.to_vec()),
            None => self.text("path", self.name.as_deref(), header),
        }
    }

    /// The target of the link that `header` says leads there.
    pub(super) fn link(&self, header: &[u8]) -> Result<Vec<u8>, &'static str> {
        self.text("linkpath", self.link.as_deref(), header)
    }

    /// The name or target: from the records, from a GNU extension, or from the header. Readers
    /// disagree on which of the first two wins, so they have to agree.
    fn text(&self, key: &str, gnu: Option<&[u8]>, header: &[u8]) -> Result<Vec<u8>, &'static str> {
        match (self.value(key), gnu) {
            (Some(pax), Some(gnu)) if pax != gnu => Err("a member has two different names"),
            (Some(text), _) | (None, Some(text)) => Ok(text.to_vec()),
            (None, None) => Ok(header.to_vec()),
        }
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, String> {
        let Some(value) = self.value(key) else { return Ok(None) };
        decimal(value).map(Some).ok_or_else(|| format!("its PAX `{key}` is no such number"))
    }

    /// Extended attributes, by name.
    pub(super) fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let all = self.records.iter().flat_map(|records| &records.by_key);
        let named = |(key, value): (&Vec<u8>, &Vec<u8>)| {
            key.strip_prefix(XATTR).map(|name| (name.to_vec(), value.clone()))
        };
        all.filter_map(named).collect()
    }

    /// How the records tell where the content of a sparse file belongs, if they do.
    pub(super) fn sparse(&self) -> Result<Option<Form>, &'static str> {
        self.records.as_ref().map_or(Ok(None), Form::of)
    }
}

/// A number in digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Seconds with an optional fraction, as whole seconds, rounded down, and nanoseconds.
pub(super) fn decimal_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    let rounds_down = whole.starts_with('-') && fraction.bytes().any(|digit| digit != b'0');
    Some(if rounds_down {
        (seconds.saturating_sub(1), (1_000_000_000 - nanoseconds).min(999_999_999))
    } else {
        (seconds, nanoseconds)
    })
}
