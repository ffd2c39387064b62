//! Any bytes are a manifest, an index or an image config, or an error. What was read is written to
//! bytes that can be read again. The first line is the media type that they came with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci::{ImageConfig, ManifestOrIndex};

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|&byte| byte == b'\n').unwrap_or(0);
    let (served_as, document) = input.split_at(end);
    let served_as = String::from_utf8_lossy(served_as);
    if let Ok(read) = ManifestOrIndex::parse(document, &served_as) {
        let bytes = match &read {
            ManifestOrIndex::Manifest(manifest) => manifest.to_bytes(),
            ManifestOrIndex::Index(index) => index.to_bytes(),
        };
        ManifestOrIndex::parse(&bytes, &served_as).expect("what we write can be read");
    }
    if let Ok(config) = ImageConfig::from_bytes(document) {
        // Not as the same: a number that no field of ours holds may lose its last digits.
        ImageConfig::from_bytes(&config.to_bytes()).expect("what we write can be read");
    }
});
