//! Checks an image as whoever receives it could: every built image of the tests goes through here.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use oci::{Descriptor, Digest, ImageConfig, Index, Manifest, media_type};

use crate::image::{Image, Layer};

/// The annotations that may name an image in an index: the specification's, then containerd's.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// Reads the image that `index.json` of an OCI layout calls `reference` and checks that all of it
/// is there, is what its digests say and fits together. An empty `reference` means the only image.
///
/// # Panics
///
/// If anything is wrong with it.
pub fn validate_image(layout: &Path, reference: &str) -> Image {
    let marker = read(&layout.join("oci-layout"));
    assert_eq!(json(&marker)["imageLayoutVersion"], "1.0.0", "the version of the layout");
    let index: Index = serde_json::from_slice(&read(&layout.join("index.json"))).expect("an index");
    assert_eq!(index.schema_version, 2);
    let descriptor = find(&index, reference);
    let bytes = blob(layout, descriptor);
    let manifest: Manifest = serde_json::from_slice(&bytes).expect("a manifest");
    assert_eq!(manifest.schema_version, 2);
    assert_eq!(manifest.media_type, descriptor.media_type, "inside and outside of the manifest");
    let config = read_config(&blob(layout, &manifest.config));
    let layers = read_layers(layout, &manifest, &config);
    check_history(&config);
    Image { digest: descriptor.digest, manifest, config, layers }
}

/// The one entry of an index that has a name.
fn find<'a>(index: &'a Index, reference: &str) -> &'a Descriptor {
    let is_named = |descriptor: &&Descriptor| {
        let names = NAMES.iter().filter_map(|name| descriptor.annotations.get(*name));
        reference.is_empty() || names.into_iter().any(|name| name == reference)
    };
    let found: Vec<_> = index.manifests.iter().filter(is_named).collect();
    assert_eq!(found.len(), 1, "the index has one `{reference}`: {:#?}", index.manifests);
    found[0]
}

/// A blob's bytes; they must be as many as the descriptor says, and these.
fn blob(layout: &Path, descriptor: &Descriptor) -> Vec<u8> {
    let bytes = read(&layout.join("blobs/sha256").join(descriptor.digest.hex()));
    assert_eq!(bytes.len() as u64, descriptor.size, "the size of {}", descriptor.digest);
    assert_eq!(Digest::of(&bytes), descriptor.digest, "the digest of a {}", descriptor.media_type);
    bytes
}

fn read_config(bytes: &[u8]) -> ImageConfig {
    let config = ImageConfig::from_bytes(bytes).expect("a config");
    assert_eq!(config.os, "linux");
    assert!(!config.architecture.is_empty(), "the config names its architecture");
    assert_eq!(config.rootfs.kind, "layers");
    config
}

fn read_layers(layout: &Path, manifest: &Manifest, config: &ImageConfig) -> Vec<Layer> {
    let diff_ids = &config.rootfs.diff_ids;
    assert_eq!(manifest.layers.len(), diff_ids.len(), "a diff ID for every layer");
    let pairs = manifest.layers.iter().zip(diff_ids);
    pairs
        .map(|(descriptor, diff_id)| {
            let tar = decompress(&descriptor.media_type, blob(layout, descriptor));
            assert_eq!(
                Digest::of(&tar).to_string(),
                diff_id.to_string(),
                "the diff ID of {}",
                descriptor.digest
            );
            Layer::read(&tar)
        })
        .collect()
}

/// The tar in a layer's blob.
fn decompress(kind: &str, bytes: Vec<u8>) -> Vec<u8> {
    let mut tar = Vec::new();
    match kind {
        media_type::LAYER | media_type::DOCKER_LAYER => return bytes,
        media_type::LAYER_GZIP | media_type::DOCKER_LAYER_GZIP => {
            let read = flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut tar);
            read.expect("the layer is gzip");
        }
        media_type::LAYER_ZSTD | media_type::DOCKER_LAYER_ZSTD => {
            tar = zstd::decode_all(&bytes[..]).expect("the layer is zstd");
        }
        other => panic!("`{other}` is no layer"),
    }
    tar
}

/// The history tells of each layer, and of nothing that has none.
fn check_history(config: &ImageConfig) {
    let with_layer = config.history.iter().filter(|entry| !entry.empty_layer).count();
    let layers = config.rootfs.diff_ids.len();
    assert_eq!(with_layer, layers, "the history fits the layers: {:#?}", config.history);
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).expect("JSON")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{Base, Kind};

    /// A copy of the busybox image in which a test may break something.
    fn copy() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let layout = dir.path().join("layout");
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .arg(Base::Busybox.layout())
            .arg(&layout)
            .status();
        assert!(copied.unwrap().success());
        (dir, layout)
    }

    #[test]
    fn the_base_images_are_valid() {
        let busybox = validate_image(&Base::Busybox.layout(), "latest");
        assert_eq!(busybox.config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        let rootfs = busybox.rootfs();
        assert_eq!(rootfs.file("/tmp").access(), "1777 0:0");
        assert!(matches!(rootfs.0["/bin/sh"].kind, Kind::HardLink(_)));
        assert!(rootfs.text("/etc/passwd").starts_with("root:x:0:0:"));
        assert!(!rootfs.has("/proc"));

        let debian = validate_image(&Base::Debian.layout(), "latest").rootfs();
        assert!(debian.text("/etc/apt/sources.list").contains("http://"));
        assert_eq!(debian.below("/proc"), [""; 0]);
    }

    #[test]
    #[should_panic(expected = "the digest of a application/vnd.oci.image.layer.v1.tar+gzip")]
    fn a_changed_byte_is_noticed() {
        let (_dir, layout) = copy();
        let layer = validate_image(&layout, "latest").manifest.layers[0].clone();
        let path = layout.join("blobs/sha256").join(layer.digest.hex());
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] ^= 1;
        fs::write(&path, bytes).unwrap();
        validate_image(&layout, "latest");
    }

    #[test]
    #[should_panic(expected = "cannot read")]
    fn a_missing_blob_is_noticed() {
        let (_dir, layout) = copy();
        let config = validate_image(&layout, "latest").manifest.config;
        fs::remove_file(layout.join("blobs/sha256").join(config.digest.hex())).unwrap();
        validate_image(&layout, "latest");
    }

    #[test]
    #[should_panic(expected = "the index has one `other`")]
    fn a_name_that_the_index_lacks_is_noticed() {
        validate_image(&Base::Busybox.layout(), "other");
    }
}
