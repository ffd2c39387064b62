//! The store: itself an OCI layout, whose index names the images that were built.

use oci::Reference;

use super::ExportError;
use crate::build::{Exported, Services};
use crate::event::{EventKind, StepId};
use crate::image;

/// Enters the image into the store's index. All its layers' blobs are there already.
pub(super) fn export(
    result: &image::Result,
    names: &[Reference],
    services: &Services,
    step: StepId,
) -> Result<Exported, ExportError> {
    let cache = &services.cache;
    let unchanged = |name: &Reference| -> Result<bool, ExportError> {
        let known = cache.image(name)?;
        Ok(known.is_some_and(|descriptor| descriptor.digest == result.descriptor.digest))
    };
    let mut all_unchanged = !names.is_empty() && !forget_lost(result, services)?;
    for name in names {
        all_unchanged &= unchanged(name)?;
    }
    if !all_unchanged {
        for image in &result.images {
            for document in [&image.config, &image.manifest] {
                let digest = cache.add_blob(document)?;
                cache.remember_document(&digest, document)?;
            }
        }
        if let Some(index) = &result.index {
            let digest = cache.add_blob(index)?;
            cache.remember_document(&digest, index)?;
        }
        cache.tag_all(names, &result.descriptor)?;
    }
    let done = |id: String| EventKind::Progress { id, current: 0, total: 0, done: true };
    services.events.tell(step, done(format!("exporting manifest {}", result.descriptor.digest)));
    for name in names {
        services.events.tell(step, done(format!("naming to {name}")));
    }
    Ok(Exported::Store(names.to_vec()))
}

/// Forgets those documents of the image whose files somebody deleted; tells whether there were any.
fn forget_lost(result: &image::Result, services: &Services) -> Result<bool, ExportError> {
    let cache = &services.cache;
    let images =
        result.images.iter().flat_map(|image| [&image.config_descriptor, &image.descriptor]);
    let mut lost = false;
    for document in images.chain([&result.descriptor]) {
        if cache.has_blob(&document.digest)? && !cache.has_blob_file(&document.digest) {
            cache.forget_blob(&document.digest)?;
            lost = true;
        }
    }
    Ok(lost)
}
