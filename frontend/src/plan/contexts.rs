//! `--build-context`: what names stand for something else than a stage or an image.

use std::collections::HashMap;

use oci::{Platform, Reference};

use super::NamedContext;

/// The named contexts, by name and platform.
#[derive(Debug, Default)]
pub(crate) struct NamedContexts<'a>(HashMap<String, Found<'a>>);

/// A named context and the key that the caller gave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    /// The name of its [`crate::FileSource::Context`].
    pub(crate) key: &'a str,
    /// What it is.
    pub(crate) context: &'a NamedContext,
}

impl<'a> NamedContexts<'a> {
    /// Prepares `contexts` for look-ups.
    pub(crate) fn new(contexts: impl IntoIterator<Item = (&'a String, &'a NamedContext)>) -> Self {
        let entries = contexts.into_iter().map(|(key, context)| {
            let name = match key.split_once("::") {
                Some((name, platform)) => {
                    let parsed = platform.parse().map(|platform: Platform| platform.to_string());
                    let platform = parsed.unwrap_or_else(|_| platform.to_owned());
                    format!("{}::{platform}", normalised(name))
                }
                None => normalised(key),
            };
            (name, Found { key, context })
        });
        Self(entries.collect())
    }

    /// Finds what replaces `name`: the context for `platform`, else the one for all.
    pub(crate) fn find(&self, name: &str, platform: &Platform) -> Option<Found<'a>> {
        if self.0.is_empty() || matches!(name, "scratch" | "context") {
            return None;
        }
        let name = normalised(name);
        self.0.get(&format!("{name}::{platform}")).or_else(|| self.0.get(&name)).copied()
    }
}

/// The name as people write it, so that `docker.io/library/alpine:latest` and `alpine` are one.
fn normalised(name: &str) -> String {
    let familiar = name.parse().map_or_else(|_| name.to_owned(), |name: Reference| name.familiar());
    familiar.strip_suffix(":latest").map(str::to_owned).unwrap_or(familiar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_people_write_them_and_platforms_go_first() {
        let context = NamedContext::Directory;
        let keys = ["docker.io/library/alpine", "x", "x::linux/aarch64", "scratch"];
        let contexts: HashMap<_, _> =
            keys.map(|key| (key.to_owned(), context.clone())).into_iter().collect();
        let contexts = NamedContexts::new(&contexts);
        let find = |name: &str, platform: &str| {
            contexts.find(name, &platform.parse().unwrap()).map(|found| found.key)
        };
        assert_eq!(find("alpine:latest", "linux/amd64"), Some("docker.io/library/alpine"));
        assert_eq!(find("alpine:3", "linux/amd64"), None);
        assert_eq!(find("x", "linux/arm64"), Some("x::linux/aarch64"));
        assert_eq!(find("x", "linux/amd64"), Some("x"));
        assert_eq!(find("scratch", "linux/amd64"), None);
    }
}
