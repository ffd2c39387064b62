//! What a token allows: actions on repositories, as the token specification writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A union of permissions, such as `repository:a/b:pull,push repository:base:pull`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scope(BTreeMap<String, BTreeSet<String>>);

impl Scope {
    /// Reading from `repository`.
    pub(crate) fn pull(repository: &str) -> Self {
        Self::default().with(repository, &["pull"])
    }

    /// Writing to `repository`, which includes to see what is there.
    pub(crate) fn push(repository: &str) -> Self {
        Self::default().with(repository, &["pull", "push"])
    }

    /// Writing to `repository` and mounting blobs of `from` there.
    pub(crate) fn mount(repository: &str, from: &str) -> Self {
        Self::push(repository).with(from, &["pull"])
    }

    /// Reads the scope of a challenge; what has not the form `type:name:actions` is dropped.
    pub(crate) fn parse(text: &str) -> Self {
        let mut scope = Self::default();
        for (resource, actions) in text.split_whitespace().filter_map(|one| one.rsplit_once(':')) {
            scope.add(resource, actions.split(',').filter(|action| !action.is_empty()));
        }
        scope
    }

    /// Both together.
    pub(crate) fn union(mut self, other: &Self) -> Self {
        for (resource, actions) in &other.0 {
            self.add(resource, actions.iter().map(String::as_str));
        }
        self
    }

    /// Each resource's scope, as a token server wants them.
    pub(crate) fn parts(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(resource, actions)| {
            let actions: Vec<&str> = actions.iter().map(String::as_str).collect();
            format!("{resource}:{}", actions.join(","))
        })
    }

    fn with(mut self, repository: &str, actions: &[&str]) -> Self {
        self.add(&format!("repository:{repository}"), actions.iter().copied());
        self
    }

    fn add<'a>(&mut self, resource: &str, actions: impl Iterator<Item = &'a str>) {
        self.0.entry(resource.to_owned()).or_default().extend(actions.map(str::to_owned));
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts().collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_of_one_repository_merge() {
        let wanted = Scope::mount("a/b", "base").union(&Scope::parse("repository:a/b:pull,delete"));
        let text = "repository:a/b:delete,pull,push repository:base:pull";
        assert_eq!(wanted.to_string(), text);
        assert_eq!(Scope::parse(text), wanted);
        assert_eq!(Scope::mount("a", "a"), Scope::push("a"));
    }
}
