//! What to do about a registry that says no, or nothing.

use registry_client::{Error, Obstacle};

/// What to do where `image` could not be got.
pub(super) fn help(error: &Error, image: &str) -> Option<String> {
    let host = image.split('/').next().unwrap_or_default();
    if let Some(obstacle) = error.obstacle() {
        return Some(reach(obstacle, host));
    }
    if let Error::NeverAsked { .. } = error {
        return Some(
            "--pull=never builds with what is in the store: --pull=missing gets it once".into(),
        );
    }
    let answer = error.answer()?;
    match answer.status {
        401 | 403 => Some(log_in(answer.credentials.as_deref(), host)),
        429 => Some(format!(
            "{host} limits how often it is asked: wait a while, or log in, which usually raises the limit"
        )),
        500..=599 => Some(format!("{host} failed: try again later")),
        _ => None,
    }
}

/// What to do where `image` could not be pushed.
pub(super) fn help_with_push(error: &Error, image: &str) -> String {
    let name = image.split(['@']).next().unwrap_or_default();
    if error.is_not_found() {
        return format!(
            "does the repository of `{name}` exist? Some registries need it to be created first"
        );
    }
    if error.answer().is_some_and(|answer| answer.status == 413) {
        return "a proxy in front of the registry limits the size of uploads: raise its limit (nginx: \
                client_max_body_size)"
            .to_owned();
    }
    help(error, image).unwrap_or_else(|| {
        "all layers are in the store: the same command pushes the rest without building again"
            .to_owned()
    })
}

fn log_in(sent: Option<&str>, host: &str) -> String {
    match sent {
        Some(sent) => format!(
            "it was sent {sent}; does that user have access? `docker login {host}` or `podman login \
             {host}` stores other credentials"
        ),
        None => format!(
            "no credentials were sent: there are none for {host} in $DOCKER_CONFIG/config.json, \
             ~/.docker/config.json and podman's auth.json; log in with `docker login {host}` or \
             `podman login {host}`"
        ),
    }
}

fn reach(obstacle: &Obstacle, host: &str) -> String {
    match obstacle {
        Obstacle::UnknownHost(_) => format!(
            "is `{host}` spelled right? Does this machine have a network, and a name server in \
             /etc/resolv.conf?"
        ),
        Obstacle::NotListening => {
            format!("is a registry running at {host}, and is the port right?")
        }
        Obstacle::NoAnswer | Obstacle::Cut(_) | Obstacle::Other(_) => {
            format!("can this machine reach {host}? If it needs a proxy, set HTTPS_PROXY")
        }
        Obstacle::Untrusted(_) => format!(
            "get the certificate of the authority that signed it, and put it into a directory as ca.crt \
             for --cert-dir=DIRECTORY, or set SSL_CERT_FILE=FILE, or add it to this machine's with \
             update-ca-certificates; without a check: --tls-verify=false, or `insecure = true` for \
             {host} in {CONF}"
        ),
        Obstacle::Authority => format!(
            "give {host} a certificate with `basicConstraints=CA:FALSE`; without a check: \
             --tls-verify=false, or `insecure = true` for it in {CONF}"
        ),
        Obstacle::Expired(_) => {
            format!("renew the certificate of {host}, or set the clock of this machine")
        }
        Obstacle::OtherHost(_) => {
            format!("use a name that is in the certificate of {host}")
        }
        Obstacle::NotTls => format!(
            "for a registry without HTTPS give --tls-verify=false, or write a `[[registry]]` with \
             `location = \"{host}\"` and `insecure = true` into {CONF}"
        ),
    }
}

/// Where registries are configured.
const CONF: &str = "/etc/containers/registries.conf";
