//! Names with values: environments and ARG scopes.

/// Names and values, each name once, in the order in which the names were first set.
///
/// Searched from end to end: an environment has some tens of names, and a map would be cloned with
/// every stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variables(Vec<(String, String)>);

impl Variables {
    /// The value of `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Gives `name` a value; the last one counts.
    pub(crate) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Sets everything that an image config's `Env` sets.
    pub(crate) fn set_all(&mut self, env: &[String]) {
        for entry in env {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            self.set(name, value);
        }
    }

    /// Names and values in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter()
    }

    /// The names in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

/// Sets `name` in an image config's `Env`, in its old place if it had one.
pub(crate) fn set_config_env(env: &mut Vec<String>, name: &str, value: &str) {
    let entry = format!("{name}={value}");
    match env.iter_mut().find(|old| old.split('=').next() == Some(name)) {
        Some(old) => *old = entry,
        None => env.push(entry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_set_again_keeps_its_place() {
        let mut variables = Variables::default();
        variables.set_all(&["A=1".to_owned(), "B=x=y".to_owned(), "C".to_owned()]);
        variables.set("A", "2");
        let pairs: Vec<_> = variables.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(pairs, ["A=2", "B=x=y", "C="]);

        let mut env = vec!["AB=1".to_owned(), "A=1".to_owned()];
        set_config_env(&mut env, "A", "2");
        set_config_env(&mut env, "D", "");
        assert_eq!(env, ["AB=1", "A=2", "D="]);
    }
}
