//! Layers and a config, assembled into the bytes of an image. Pure.
//!
//! What is here decides an image's digest: every time in it comes from the records of the layers
//! or from the base image, so that a build from the cache gives the same digest again.

use std::collections::BTreeMap;

use frontend::{Target, VertexId};
use oci::{Descriptor, DiffId, History, ImageConfig, Index, Manifest, Platform, media_type};

/// An image, ready to be exported: its layers are blobs, these are the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Whom it is for.
    pub platform: Platform,
    /// Bytes of the config blob.
    pub config: Vec<u8>,
    /// The config's descriptor.
    pub config_descriptor: Descriptor,
    /// The layers' descriptors, lowest first.
    pub layers: Vec<Descriptor>,
    /// Bytes of the manifest.
    pub manifest: Vec<u8>,
    /// The manifest's descriptor, with the platform.
    pub descriptor: Descriptor,
}

/// What a build results in: one image, or an index of several.
#[derive(Clone, Debug, PartialEq)]
pub struct Result {
    /// The images, in the order of the platforms asked for.
    pub images: Vec<Image>,
    /// Bytes of the index, if there is one.
    pub index: Option<Vec<u8>>,
    /// What a tag points at: the index, else the only manifest.
    pub descriptor: Descriptor,
}

/// A layer of an image to assemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// What it unpacks to.
    pub diff_id: DiffId,
    /// Its blob.
    pub blob: Descriptor,
}

/// Assembles the image of `target`.
///
/// `layers` are all of its layers, `created` says when a vertex's layer was made (seconds since
/// 1970), `epoch` is `SOURCE_DATE_EPOCH`: what this build adds is not younger.
pub fn assemble(
    target: &Target,
    layers: &[Layer],
    created: impl Fn(VertexId) -> Option<i64>,
    epoch: Option<i64>,
) -> Image {
    let mut config = target.config.clone();
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let base_created = config.created.take();
    let added = history(target, created, epoch);
    config.created = added
        .last()
        .map(|entry| entry.created.clone())
        .unwrap_or_else(|| clamp(base_created, epoch));
    let base_history = std::mem::take(&mut config.history);
    config.history = reconcile(base_history, added, layers.len(), config.created.as_deref());
    let platform = config.platform();
    let config = config.to_bytes();
    let config_descriptor = Descriptor::of(media_type::CONFIG, &config);
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::MANIFEST.to_owned(),
        artifact_type: None,
        config: config_descriptor.clone(),
        layers: layers.iter().map(|layer| layer.blob.clone()).collect(),
        subject: None,
        annotations: BTreeMap::new(),
    };
    let layers = manifest.layers.clone();
    let manifest = manifest.to_bytes();
    let descriptor = Descriptor {
        platform: Some(platform.clone()),
        ..Descriptor::of(media_type::MANIFEST, &manifest)
    };
    Image { platform, config, config_descriptor, layers, manifest, descriptor }
}

/// Puts `images` together: an index where there are several, or where one is wished for.
pub fn combine(images: Vec<Image>, force_index: bool) -> Result {
    if let ([image], false) = (images.as_slice(), force_index) {
        let descriptor = image.descriptor.clone();
        return Result { images, index: None, descriptor };
    }
    let index = Index {
        schema_version: 2,
        media_type: media_type::INDEX.to_owned(),
        manifests: images.iter().map(|image| image.descriptor.clone()).collect(),
        annotations: BTreeMap::new(),
    }
    .to_bytes();
    let descriptor = Descriptor::of(media_type::INDEX, &index);
    Result { images, index: Some(index), descriptor }
}

impl Result {
    /// The digest that `--iidfile` and `-q` show: the config's of a single image, else the index's.
    pub fn id(&self) -> oci::Digest {
        match (&self.index, self.images.as_slice()) {
            (None, [image]) => image.config_descriptor.digest,
            _ => self.descriptor.digest,
        }
    }
}

/// Seconds since 1970 as RFC 3339.
pub fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// The entries that this build adds. A step without a layer has the time of the layer before it,
/// or, where there is none, of the first one after it.
fn history(
    target: &Target,
    created: impl Fn(VertexId) -> Option<i64>,
    epoch: Option<i64>,
) -> Vec<History> {
    let times: Vec<_> = target.history.iter().map(|step| step.layer.and_then(&created)).collect();
    let first = times.iter().flatten().next().copied();
    let mut latest = first;
    let mut entries = vec![];
    for (step, time) in target.history.iter().zip(times) {
        latest = time.or(latest);
        let base = target.config.created.clone();
        let created = latest.map(rfc3339).or(base);
        entries.push(History {
            created: clamp(created, epoch),
            created_by: step.created_by.clone(),
            comment: "buildkit.dockerfile.v0".to_owned(),
            empty_layer: step.layer.is_none(),
            ..History::default()
        });
    }
    entries
}

/// A time that is not later than `epoch`; `epoch` itself where there was none.
fn clamp(time: Option<String>, epoch: Option<i64>) -> Option<String> {
    let Some(epoch) = epoch else { return time };
    let seconds = time
        .as_ref()
        .and_then(|time| time.parse::<jiff::Timestamp>().ok())
        .map(|time| time.as_second());
    match seconds {
        Some(seconds) if seconds <= epoch => time,
        _ => Some(rfc3339(epoch)),
    }
}

/// Makes the entries with a layer as many as there are layers, as BuildKit does: surplus ones of
/// the base become empty from the end, missing ones are added behind the base's.
fn reconcile(
    mut base: Vec<History>,
    added: Vec<History>,
    layers: usize,
    created: Option<&str>,
) -> Vec<History> {
    let with_layer =
        |entries: &[History]| entries.iter().filter(|entry| !entry.empty_layer).count();
    let base_layers = layers.saturating_sub(with_layer(&added));
    let mut surplus = with_layer(&base).saturating_sub(base_layers);
    for entry in base.iter_mut().rev().filter(|entry| !entry.empty_layer) {
        if surplus == 0 {
            break;
        }
        entry.empty_layer = true;
        surplus -= 1;
    }
    for _ in with_layer(&base)..base_layers {
        base.push(History {
            created: created.map(str::to_owned),
            comment: "buildkit.exporter.image.v0".to_owned(),
            ..History::default()
        });
    }
    base.extend(added);
    base
}

/// The config of a pulled image, or of one that was built here.
pub fn config_of(image: &Image) -> ImageConfig {
    serde_json::from_slice(&image.config).expect("our own config reads back")
}

#[cfg(test)]
mod tests {
    use frontend::{Graph, HistoryStep, Op};
    use oci::Digest;

    use super::*;

    fn vertex() -> VertexId {
        Graph::default().add(Op::Scratch, "", 0..0, false)
    }

    fn target(history: &[(&str, bool)]) -> Target {
        let step = |&(created_by, has_layer): &(&str, bool)| HistoryStep {
            created_by: created_by.to_owned(),
            layer: has_layer.then(vertex),
        };
        let config = ImageConfig {
            os: "linux".into(),
            architecture: "amd64".into(),
            ..ImageConfig::default()
        };
        Target {
            platform: config.platform(),
            vertex: vertex(),
            config,
            history: history.iter().map(step).collect(),
        }
    }

    fn layers(count: usize) -> Vec<Layer> {
        let layer = |n| Layer {
            diff_id: DiffId(Digest::of(format!("{n}"))),
            blob: Descriptor::of(media_type::LAYER_GZIP, format!("{n}").as_bytes()),
        };
        (0..count).map(layer).collect()
    }

    #[test]
    fn a_step_without_a_layer_has_the_time_of_a_neighbour() {
        let target = target(&[("ENV A=1", false), ("RUN x", true), ("CMD", false)]);
        let config = config_of(&assemble(&target, &layers(1), |_| Some(86_400), None));
        let times: Vec<_> =
            config.history.iter().map(|entry| entry.created.clone().unwrap()).collect();
        assert_eq!(times, ["1970-01-02T00:00:00Z"; 3]);
        assert_eq!(config.created.unwrap(), "1970-01-02T00:00:00Z");
        assert_eq!(
            config.history.iter().map(|entry| entry.empty_layer).collect::<Vec<_>>(),
            [true, false, true]
        );
    }

    #[test]
    fn the_epoch_is_the_latest_time_of_what_is_new() {
        let mut target = target(&[("RUN x", true)]);
        target.config.history =
            vec![History { created: Some("2030-01-01T00:00:00Z".into()), ..History::default() }];
        let config = config_of(&assemble(&target, &layers(2), |_| Some(86_400), Some(10)));
        assert_eq!(
            config.history[0].created.as_deref(),
            Some("2030-01-01T00:00:00Z"),
            "the base's stays"
        );
        assert_eq!(config.history[1].created.as_deref(), Some("1970-01-01T00:00:10Z"));
        assert_eq!(config.created.as_deref(), Some("1970-01-01T00:00:10Z"));
    }

    #[test]
    fn what_has_no_time_gets_the_epoch() {
        let config = config_of(&assemble(&target(&[("CMD", false)]), &[], |_| None, Some(10)));
        assert_eq!(config.history[0].created.as_deref(), Some("1970-01-01T00:00:10Z"));
        assert_eq!(config.created.as_deref(), Some("1970-01-01T00:00:10Z"));
    }

    #[test]
    fn an_earlier_time_is_not_the_epoch() {
        let created = |_| Some(5);
        let config =
            config_of(&assemble(&target(&[("RUN x", true)]), &layers(1), created, Some(10)));
        assert_eq!(config.created.as_deref(), Some("1970-01-01T00:00:05Z"));
    }

    #[test]
    fn every_entry_says_who_made_it() {
        let mut target = target(&[("RUN x", true), ("CMD", false)]);
        target.config.history = vec![History { comment: "base".into(), ..History::default() }];
        let config = config_of(&assemble(&target, &layers(3), |_| Some(1), None));
        let said = config.history.iter().map(|entry| (&*entry.comment, &*entry.created_by));
        let ours = "buildkit.dockerfile.v0";
        let missing = ("buildkit.exporter.image.v0", "");
        assert_eq!(
            said.collect::<Vec<_>>(),
            [("base", ""), missing, (ours, "RUN x"), (ours, "CMD")]
        );
    }

    #[test]
    fn of_too_many_entries_the_last_ones_of_the_base_become_empty() {
        let mut target = target(&[("RUN x", true)]);
        target.config.history = vec![History::default(); 3];
        let config = config_of(&assemble(&target, &layers(2), |_| Some(1), None));
        let empty: Vec<_> = config.history.iter().map(|entry| entry.empty_layer).collect();
        assert_eq!(empty, [false, true, true, false]);
    }

    #[test]
    fn history_and_layers_are_as_many() {
        let counted = |base: usize, layer_count| {
            let mut target = target(&[("RUN x", true)]);
            target.config.history = vec![History::default(); base];
            let config = config_of(&assemble(&target, &layers(layer_count), |_| Some(1), None));
            config.history.iter().filter(|entry| !entry.empty_layer).count()
        };
        assert_eq!(counted(3, 2), 2);
        assert_eq!(counted(0, 3), 3);
    }

    #[test]
    fn one_image_is_no_index_unless_wished() {
        let image = assemble(&target(&[]), &[], |_| None, None);
        assert_eq!(combine(vec![image.clone()], false).index, None);
        assert!(combine(vec![image.clone()], true).index.is_some());
        assert_eq!(combine(vec![image.clone()], false).id(), image.config_descriptor.digest);
    }
}
