//! The world around a Dockerfile, made up for the benchmark and for the fuzz targets: every name that
//! it asks for stands for something.

use frontend::{
    Diagnostic, Dockerfile, Origin, Pinned, PinnedImage, Pins, Plan, PlanRequest, Planning,
    SourceRef, plan,
};
use oci::{ContainerConfig, Descriptor, DiffId, Digest, ImageConfig, Platform, media_type};

/// Asks for the last stage, for linux/amd64.
pub(crate) fn request() -> PlanRequest {
    PlanRequest::new("linux/amd64".parse().expect("a platform"))
}

/// Plans, and looks up whatever is asked for until nothing is.
pub(crate) fn planned(dockerfile: &Dockerfile, request: &PlanRequest) -> Result<Plan, Diagnostic> {
    let mut pins = Pins::new();
    loop {
        match plan(dockerfile, request, &pins)? {
            Planning::Ready(plan) => return Ok(*plan),
            Planning::Needs(needs) => {
                assert!(!needs.is_empty(), "nothing is asked for");
                for source in needs.into_keys() {
                    let pinned = pin(&source);
                    assert!(pins.insert(source, pinned).is_none(), "asked for twice");
                }
            }
        }
    }
}

fn pin(source: &SourceRef) -> Pinned {
    match source {
        SourceRef::Image { reference, platform, .. } => image(&reference.familiar(), platform),
        SourceRef::OciLayout { tag, platform, .. } => image(tag, platform),
        SourceRef::Http { url, .. } => {
            Pinned::File { digest: Digest::of(url.reveal()), modified: 5 }
        }
        SourceRef::Git { remote, .. } => Pinned::Commit(frontend::PinnedCommit {
            id: Digest::of(remote.reveal()).hex(),
            name: None,
        }),
        SourceRef::GitTime { .. } => Pinned::Time(7),
    }
}

/// An image with one layer; `onbuild` in its name gives it triggers.
fn image(name: &str, platform: &Platform) -> Pinned {
    let digest = Digest::of(format!("{name} {platform}"));
    let triggers = ["COPY . /app/", "ARG IN=1", "RUN <<E\nmake $IN\nE"];
    let on_build = triggers.into_iter().filter(|_| name.contains("onbuild"));
    let config = ContainerConfig {
        env: vec!["PATH=/bin".to_owned()],
        on_build: on_build.map(str::to_owned).collect(),
        ..ContainerConfig::default()
    };
    let config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        config,
        ..ImageConfig::default()
    };
    Pinned::Image(PinnedImage {
        name: name.to_owned(),
        origin: Origin::Store,
        manifest: digest,
        layers: vec![(DiffId(digest), Descriptor::new(media_type::LAYER, digest, 1))],
        config,
    })
}
