//! The base images of the tests: OCI layouts that the scripts in `fixtures/images` make, once.

use std::path::PathBuf;
use std::process::Command;

use crate::TestRegistry;
use crate::program::{rbuild, workspace};
use crate::validate::validate_image;

/// A base image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Debian's busybox-static: a megabyte, every applet, no `/proc`.
    Busybox,
    /// Debian's minimal system, with apt.
    Debian,
    /// A target of `fixtures/images/languages/Dockerfile`, such as `python`. It is large, and made
    /// with rbuild and Debian's mirror: not for tests of the gate.
    Language(&'static str),
}

impl Base {
    /// What a `FROM` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Busybox => "busybox",
            Self::Debian => "debian",
            Self::Language(name) => name,
        }
    }

    /// Returns its OCI layout, where the image is tagged `latest`; makes it if need be.
    ///
    /// # Panics
    ///
    /// If it can't be made; the script has said why.
    pub fn layout(self) -> PathBuf {
        let script = match self {
            Self::Busybox | Self::Debian => "fixtures/images/make.sh",
            Self::Language(_) => "fixtures/images/languages.sh",
        };
        let made = Command::new(workspace().join(script))
            .arg(self.name())
            .env("RBUILD", rbuild())
            .status()
            .unwrap_or_else(|e| panic!("{script} runs: {e}"));
        assert!(made.success(), "{script} {} failed", self.name());
        workspace().join("target/fixtures/images").join(self.name())
    }

    /// Puts it into a registry as `repository:latest`.
    pub fn push_to(self, registry: &TestRegistry, repository: &str) {
        let layout = self.layout();
        let image = validate_image(&layout, "latest");
        let read = |digest: oci::Digest| {
            std::fs::read(layout.join("blobs/sha256").join(digest.hex())).expect("it is valid")
        };
        for descriptor in image.manifest.layers.iter().chain([&image.manifest.config]) {
            registry.put_blob(repository, read(descriptor.digest));
        }
        let manifest = read(image.digest);
        registry.put_manifest(repository, "latest", &image.manifest.media_type, manifest);
    }
}
