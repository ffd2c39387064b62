//! The base images of the tests: OCI layouts that `fixtures/images/make.sh` makes, once.

use std::path::PathBuf;
use std::process::Command;

use crate::TestRegistry;
use crate::program::workspace;
use crate::validate::validate_image;

/// A base image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Debian's busybox-static: a megabyte, every applet, no `/proc`.
    Busybox,
    /// Debian's minimal system, with apt.
    Debian,
}

impl Base {
    /// What a `FROM` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Busybox => "busybox",
            Self::Debian => "debian",
        }
    }

    /// Returns its OCI layout, where the image is tagged `latest`; makes it if need be.
    ///
    /// # Panics
    ///
    /// If it can't be made; the script has said why.
    pub fn layout(self) -> PathBuf {
        let made = Command::new(workspace().join("fixtures/images/make.sh"))
            .arg(self.name())
            .status()
            .expect("fixtures/images/make.sh runs");
        assert!(made.success(), "fixtures/images/make.sh {} failed", self.name());
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
