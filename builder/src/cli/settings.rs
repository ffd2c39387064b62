//! What the environment says: the only place that reads it.

use std::env;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Paths and variables that the command line does not give.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    home: Option<PathBuf>,
    user: u32,
    /// `--authfile`.
    authfile: Option<PathBuf>,
}

impl Settings {
    /// Reads the environment.
    pub(crate) fn read() -> Self {
        Self {
            home: path_variable("HOME"),
            user: rustix::process::geteuid().as_raw(),
            authfile: None,
        }
    }

    /// Has `file`, if there is one, say who the user is to registries.
    pub(crate) fn with_authfile(&self, file: Option<&Path>) -> Self {
        Self { authfile: file.map(Path::to_owned), ..self.clone() }
    }

    /// The value of a variable, if it is set and text.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        env::var(name).ok()
    }

    /// The store: the one that is named, else one for each user, in that user's own directories
    /// where there are any.
    pub(crate) fn store(&self) -> PathBuf {
        if let Some(named) = path_variable("RBUILD_ROOT") {
            return named;
        }
        if self.user == 0 {
            return PathBuf::from("/var/lib/rbuild");
        }
        let absolute = |path: &PathBuf| path.is_absolute();
        let data_home = path_variable("XDG_DATA_HOME").filter(absolute);
        let home = self.home.clone().filter(absolute).or_else(|| own_home(self.user));
        data_home
            .or_else(|| home.map(|home| home.join(".local/share")))
            .map(|data_home| data_home.join("rbuild"))
            // Never the same name for two users: one of them could lay it out for the other.
            .unwrap_or_else(|| env::temp_dir().join(format!("rbuild-{}", self.user)))
    }

    /// The program that is running.
    pub(crate) fn executable(&self) -> PathBuf {
        env::current_exe().unwrap_or_else(|_| PathBuf::from("rbuild"))
    }

    /// The user for whom root acts: `sudo` sets it.
    pub(crate) fn sudo_user(&self) -> Option<u32> {
        self.variable("SUDO_UID")?.parse().ok()
    }

    /// Where registries are configured: the file that is named, else the usual places in turn.
    pub(crate) fn registries_conf(&self) -> Vec<PathBuf> {
        if let Some(named) = path_variable("CONTAINERS_REGISTRIES_CONF") {
            return vec![named];
        }
        let own = self.home.as_deref().map(|home| home.join(".config/containers/registries.conf"));
        let first = own
            .into_iter()
            .chain([PathBuf::from("/etc/containers/registries.conf")])
            .find(|p| p.exists());
        first.into_iter().collect()
    }

    /// Where podman and buildah keep credentials: the file that is named, else the usual places; and
    /// whether it is named.
    pub(crate) fn containers_auth(&self) -> Vec<(PathBuf, bool)> {
        if let Some(named) = &self.authfile {
            return vec![(named.clone(), true)];
        }
        if let Some(named) = path_variable("REGISTRY_AUTH_FILE") {
            return vec![(named, true)];
        }
        let runtime = match path_variable("XDG_RUNTIME_DIR") {
            Some(directory) => directory.join("containers"),
            None => Path::new("/run/containers").join(self.user.to_string()),
        };
        let config = path_variable("XDG_CONFIG_HOME");
        let config = config.or_else(|| Some(self.home.as_deref()?.join(".config")));
        let places = std::iter::once(runtime).chain(config.map(|config| config.join("containers")));
        places.map(|place| (place.join("auth.json"), false)).collect()
    }

    /// Docker's `config.json`, where credentials are.
    pub(crate) fn docker_config(&self) -> Option<PathBuf> {
        if self.authfile.is_some() {
            return None;
        }
        let directory = path_variable("DOCKER_CONFIG");
        let directory =
            directory.or_else(|| self.home.as_deref().map(|home| home.join(".docker")))?;
        Some(directory.join("config.json"))
    }
}

/// The path in a variable. An empty one counts as unset: else it would be the working directory.
fn path_variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The home of `user` by `/etc/passwd`, if it is there and theirs.
fn own_home(user: u32) -> Option<PathBuf> {
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    let home = PathBuf::from(passwd_home(&passwd, user)?);
    std::fs::metadata(&home).is_ok_and(|home| home.uid() == user).then_some(home)
}

fn passwd_home(passwd: &str, user: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let is_user = fields.next()?.parse() == Ok(user);
        is_user.then(|| fields.nth(2)).flatten()
    })
}

/// `path`, with `~/` standing for the home directory.
pub(crate) fn expand_home(path: &str, settings: &Settings) -> PathBuf {
    match (path.strip_prefix("~/"), &settings.home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => Path::new(path).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_found_by_its_users_number() {
        let passwd =
            "root:x:0:0::/root:/bin/sh\nshort:x:7\nbuilder:x:1000:1000:B:/home/b:/bin/sh\n";
        assert_eq!(passwd_home(passwd, 1000), Some("/home/b"));
        assert_eq!(passwd_home(passwd, 7), None);
        assert_eq!(passwd_home(passwd, 1), None);
    }
}
