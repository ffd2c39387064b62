//! How a build talks to registries: what the user has configured, and the flags for one build.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use frontend::NamedContext;
use registry_client::{
    Certificates, CertificatesError, Client, ClientOptions, Credential, Credentials,
    RegistriesConf, RegistriesConfError, Secret,
};

use super::args::BuildArgs;
use super::build::UsageError;
use super::logins::Logins;
use super::settings::Settings;
use super::{outputs, values};
use crate::export::Output;
use crate::pin::Pull;
use crate::sandbox::Sandbox;

/// Why registries can't be used as the flags and files say.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistriesError {
    /// The configuration of mirrors can't be used.
    #[error(transparent)]
    Configuration(#[from] RegistriesConfError),
    /// The certificates can't be used.
    #[error("--cert-dir: {0}")]
    Certificates(#[from] CertificatesError),
    /// `--creds` has no password.
    #[error("--creds is USER:PASSWORD")]
    NoPassword,
    /// `--creds` is for no registry.
    #[error(
        "--creds: no name on the command line says for which registry: give the image its name with \
         -t REGISTRY/NAME, or log in with `docker login` or `podman login`"
    )]
    NoRegistry,
    /// `--authfile` is not there.
    #[error("--authfile: there is no file {}", .0.display())]
    NoAuthfile(PathBuf),
}

/// Refuses what [`client`] would, as far as the command line tells.
pub(crate) fn check(args: &BuildArgs) -> Result<(), UsageError> {
    if let Some(path) = args.others.authfile.as_ref().filter(|path| !path.exists()) {
        return Err(RegistriesError::NoAuthfile(path.clone()).into());
    }
    certificates(args)?;
    given_credentials(args).map(drop)
}

/// The client for one build.
pub(crate) fn client(
    args: &BuildArgs,
    settings: &Settings,
    logins: &Logins,
    sandbox: &std::sync::Arc<Sandbox>,
) -> Result<Client, UsageError> {
    let conf = |error: RegistriesConfError| RegistriesError::from(error);
    let mut hosts = RegistriesConf::load(&settings.registries_conf()).map_err(conf)?;
    if !args.others.tls_verify {
        hosts.trust_all();
    }
    Ok(Client::new(ClientOptions {
        hosts,
        credentials: given_credentials(args)?.or(logins.credentials(sandbox)),
        certificates: certificates(args)?,
        reads: args.pull != Pull::Never,
        user_agent: concat!("rbuild/", env!("CARGO_PKG_VERSION")).to_owned(),
        ..ClientOptions::default()
    }))
}

fn certificates(args: &BuildArgs) -> Result<Certificates, RegistriesError> {
    let directory = args.others.cert_dir.as_deref();
    Ok(directory.map(|path: &Path| Certificates::load(path)).transpose()?.unwrap_or_default())
}

/// `--creds`: for the registries that the command line names, and for no other.
fn given_credentials(args: &BuildArgs) -> Result<Credentials, UsageError> {
    let Some(given) = &args.others.creds else { return Ok(Credentials::default()) };
    let (username, password) = given
        .reveal()
        .split_once(':')
        .filter(|(username, _)| !username.is_empty())
        .ok_or(RegistriesError::NoPassword)?;
    let registries = named_registries(args)?;
    if registries.is_empty() {
        return Err(RegistriesError::NoRegistry.into());
    }
    let password = Secret::new(password);
    let credential = Credential::Password { username: username.to_owned(), password };
    Ok(Credentials::for_registries(registries, &credential).called("--creds"))
}

/// The registries of tags, outputs and named contexts.
fn named_registries(args: &BuildArgs) -> Result<BTreeSet<String>, UsageError> {
    let outputs = outputs::outputs(args, &outputs::tags(args)?, std::io::stdout().is_terminal())?;
    let options = outputs.iter().filter_map(|output| match output {
        Output::Store(options) | Output::Load(options) | Output::Registry(options) => Some(options),
        _ => None,
    });
    let mut named: BTreeSet<String> =
        options.flat_map(|options| &options.names).map(|name| name.registry.clone()).collect();
    for text in &args.build_context {
        let (_, context) = values::named_context(text)?;
        if let values::ContextValue::Other(NamedContext::Image(image)) = context {
            named.insert(image.registry);
        }
    }
    // A name without a registry is one of Docker Hub, or of this machine alone.
    let texts = args.tag.iter().chain(&args.output).chain(&args.build_context);
    if !texts.into_iter().any(|text| text.contains("docker.io/")) {
        named.remove("docker.io");
    }
    Ok(named)
}
