//! What images say of their layers.
//!
//! A config says what the layers unpack to, and a manifest which blobs they are. Whoever made the
//! image has written both, and may have named layers of others. So a claim counts for the image that
//! makes it, and says nothing about another one. That it is true is known of blobs that were read here.

use std::collections::HashMap;
use std::sync::Arc;

use cache::Snapshot;
use frontend::{Graph, Op, Origin, PinnedImage};
use oci::{ChainId, Descriptor, DiffId, Reference};

use crate::event::StepId;

/// What an image says of one of its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The image's name.
    pub image: Arc<str>,
    /// What the layer unpacks to.
    pub layer: DiffId,
    /// The layer's blob.
    pub blob: Descriptor,
    /// Where the image has it.
    pub origin: Origin,
}

impl Claim {
    /// The registry and name that the layer comes from.
    pub fn registry(&self) -> Option<&Reference> {
        match &self.origin {
            Origin::Registry(reference) => Some(reference),
            Origin::OciLayout(_) | Origin::Store => None,
        }
    }
}

/// The claims of one image, each by the layer and all that is below it.
type OfImage = Arc<HashMap<ChainId, Claim>>;

/// The claims of the images of a build, by the steps that build on them.
#[derive(Debug)]
pub(super) struct Claims(HashMap<StepId, OfImage>);

impl Claims {
    /// Gathers the claims of all images in `graph`.
    pub(super) fn new(graph: &Graph) -> Self {
        let mut claims = HashMap::new();
        for (_, vertex) in graph.vertices() {
            // The first is the lowest: a stack has its own layers above those of an image.
            let base = vertex.op.bases().first().map(|base| StepId(graph[*base].digest));
            let of_vertex = match &vertex.op {
                Op::Image(image) => Some(Arc::new(of_image(image))),
                _ => base.and_then(|base| claims.get(&base).cloned()),
            };
            claims.extend(of_vertex.map(|claims| (StepId(vertex.digest), claims)));
        }
        Self(claims)
    }

    /// What the image that `step` builds on says of the top layer of `snapshot`, if the layer is its.
    pub(super) fn of(&self, step: StepId, snapshot: &Snapshot) -> Option<&Claim> {
        self.0.get(&step)?.get(&snapshot.chain_id()?)
    }
}

fn of_image(image: &PinnedImage) -> HashMap<ChainId, Claim> {
    let name: Arc<str> = image.name.as_str().into();
    let mut chain = None;
    let claim = |(layer, blob): &(DiffId, Descriptor)| {
        let below = ChainId::on(chain, *layer);
        chain = Some(below);
        let (image, origin) = (name.clone(), image.origin.clone());
        (below, Claim { image, layer: *layer, blob: blob.clone(), origin })
    };
    image.layers.iter().map(claim).collect()
}

/// A base image's layer as our manifests describe it: of what its own manifest says beside media type,
/// digest and size, annotations stay that are about the content.
pub(super) fn plain(blob: &Descriptor) -> Descriptor {
    let media_type = distributable(&blob.media_type);
    let mut plain = Descriptor::new(&media_type, blob.digest, blob.size);
    // Docker's types have none.
    if media_type.starts_with("application/vnd.oci.") {
        plain.annotations = blob.annotations.clone();
        plain.annotations.retain(|name, _| !is_of_a_store(name));
    }
    plain
}

/// Whether an annotation is about the store or registry where a blob once was.
fn is_of_a_store(annotation: &str) -> bool {
    ["containerd.io/uncompressed", "buildkit/createdat"].contains(&annotation)
        || annotation.starts_with("containerd.io/distribution.source.")
}

/// The media type of a layer that may be handed on: what is pushed is there for all who may pull.
fn distributable(kind: &str) -> String {
    kind.replace(".image.layer.nondistributable.v1.", ".image.layer.v1.")
        .replace(".image.rootfs.foreign.diff.", ".image.rootfs.diff.")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use oci::{Digest, media_type};

    use super::*;

    fn described(kind: &str) -> Descriptor {
        let names = [
            "a.b/toc",
            "containerd.io/uncompressed",
            "buildkit/createdat",
            "containerd.io/distribution.source.docker.io",
        ];
        Descriptor {
            urls: vec!["http://evil.example/".to_owned()],
            annotations: names.map(|name| (name.to_owned(), "x".to_owned())).into(),
            data: Some("QUFB".to_owned()),
            artifact_type: Some("x".to_owned()),
            platform: Some("linux/amd64".parse().unwrap()),
            ..Descriptor::new(kind, Digest::of("blob"), 4)
        }
    }

    /// Issue 9, 1.
    #[test]
    fn of_a_descriptor_only_what_is_about_the_content_is_passed_on() {
        let annotations = BTreeMap::from([("a.b/toc".to_owned(), "x".to_owned())]);
        let bare = |kind| Descriptor::new(kind, Digest::of("blob"), 4);
        let plain = |kind| plain(&described(kind));
        assert_eq!(
            plain(media_type::LAYER_GZIP),
            Descriptor { annotations, ..bare(media_type::LAYER_GZIP) }
        );
        assert_eq!(plain(media_type::DOCKER_LAYER_GZIP), bare(media_type::DOCKER_LAYER_GZIP));
    }

    /// Outputs 3.1.1: what is foreign becomes distributable.
    #[test]
    fn foreign_layers_become_layers() {
        for (foreign, kind) in [
            ("application/vnd.docker.image.rootfs.foreign.diff.tar", media_type::DOCKER_LAYER),
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                media_type::DOCKER_LAYER_GZIP,
            ),
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd",
                media_type::DOCKER_LAYER_ZSTD,
            ),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar", media_type::LAYER),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                media_type::LAYER_GZIP,
            ),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
                media_type::LAYER_ZSTD,
            ),
        ] {
            assert_eq!(plain(&described(foreign)).media_type, kind);
        }
        assert_eq!(plain(&described("application/x")).media_type, "application/x");
    }
}
