//! `rbuild images`: what is in the store by name.

use std::io::{self, Write};
use std::path::Path;

use cache::{Cache, CacheError, OwnershipMap};
use clap::{Parser, ValueEnum};
use indicatif::DecimalBytes;
use oci::{Descriptor, Digest, ImageConfig, ManifestOrIndex, Reference};

use super::args::StoreRoot;
use super::visible::visible;

/// Larger configs are not read.
const MAX_CONFIG: u64 = 4 << 20;

/// The arguments of `rbuild images`.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "rbuild images",
    bin_name = "rbuild images",
    about = "Lists the images of the store",
    override_usage = "rbuild images [FLAGS]"
)]
pub(crate) struct ImagesArgs {
    /// Print digests alone
    #[arg(short, long)]
    quiet: bool,
    /// table, or json: an object for each line
    #[arg(long, value_enum, value_name = "HOW", default_value_t, hide_possible_values = true)]
    format: Format,
    #[command(flatten)]
    pub(crate) root: StoreRoot,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Table,
    Json,
}

/// Why the images can't be listed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImagesError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    #[error("cannot write to standard output")]
    Print(#[from] io::Error),
}

/// An image as it is listed.
#[derive(serde::Serialize)]
struct Listed {
    name: String,
    digest: Digest,
    platforms: Vec<String>,
    created: Option<String>,
    /// Of its blobs, in bytes.
    size: u64,
}

/// Prints the images of the store in `root`. A store that was never made has none.
pub(crate) fn run(args: &ImagesArgs, root: &Path) -> Result<(), ImagesError> {
    let mut listed = vec![];
    if root.exists() {
        // What is listed is the same whoever unpacked the layers.
        let cache = Cache::open(root, OwnershipMap::Real)?;
        for (name, image) in cache.images()? {
            listed.push(Listed::read(&cache, &name, &image)?);
        }
    }
    let mut out = io::stdout().lock();
    match args.format {
        _ if args.quiet => {
            listed.iter().try_for_each(|image| writeln!(out, "{}", image.digest))?;
        }
        Format::Json => {
            for image in &listed {
                serde_json::to_writer(&mut out, image).map_err(io::Error::from)?;
                writeln!(out)?;
            }
        }
        Format::Table => print_table(&mut out, &listed)?,
    }
    Ok(())
}

impl Listed {
    fn read(cache: &Cache, name: &Reference, image: &Descriptor) -> Result<Self, CacheError> {
        let mut size = 0;
        for blob in cache.image_blobs(image)? {
            size += cache.blob_size(&blob)?.unwrap_or(0);
        }
        let configs = configs(cache, &image.digest)?;
        Ok(Self {
            name: name.familiar(),
            digest: image.digest,
            platforms: configs.iter().map(|config| config.platform().to_string()).collect(),
            created: configs.iter().filter_map(|config| config.created.clone()).max(),
            size,
        })
    }
}

/// The configs of an image, one for each platform, as far as they can be read.
fn configs(cache: &Cache, image: &Digest) -> Result<Vec<ImageConfig>, CacheError> {
    let manifests = match cache.manifest(image)? {
        Some(ManifestOrIndex::Index(index)) => {
            let mut manifests = vec![];
            for descriptor in index.manifests {
                manifests.extend(cache.manifest(&descriptor.digest)?);
            }
            manifests
        }
        manifest => manifest.into_iter().collect(),
    };
    let mut configs = vec![];
    for manifest in manifests {
        let ManifestOrIndex::Manifest(manifest) = manifest else { continue };
        if let Ok(bytes) = cache.blob_bytes(&manifest.config.digest, MAX_CONFIG) {
            configs.extend(ImageConfig::from_bytes(&bytes));
        }
    }
    Ok(configs)
}

fn print_table(out: &mut impl Write, images: &[Listed]) -> io::Result<()> {
    let mut rows = vec![["NAME", "DIGEST", "PLATFORM", "CREATED", "SIZE"].map(str::to_owned)];
    rows.extend(images.iter().map(|image| {
        [
            image.name.clone(),
            image.digest.hex()[..12].to_owned(),
            visible(&image.platforms.join(",")).into_owned(),
            visible(&image.created.as_deref().map_or_else(String::new, shown_time)).into_owned(),
            DecimalBytes(image.size).to_string(),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [_; 4] = std::array::from_fn(|column| width(column).unwrap_or(0));
    for row in &rows {
        for (cell, width) in row.iter().zip(widths) {
            write!(out, "{cell:width$}   ")?;
        }
        writeln!(out, "{}", row[4])?;
    }
    Ok(())
}

/// A time of a config to the minute.
fn shown_time(time: &str) -> String {
    time.get(..16).unwrap_or(time).replace('T', " ")
}
