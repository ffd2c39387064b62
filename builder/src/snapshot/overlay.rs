//! Overlay mounts that have no place in the file tree: a descriptor is all there is of them.
//!
//! Layers go in by descriptor, since paths have a limit of 255 bytes there. `userxattr` is used by
//! root too: so one store has one format, and unprivileged overlays can make directories opaque.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

/// Why a snapshot could not be mounted or turned into a layer's directory.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A path of the store could not be used.
    #[error("cannot {action} {path}")]
    Path {
        /// What was attempted.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The kernel refuses the overlay.
    #[error("cannot {action} an overlay of {layers} layers{said}")]
    Overlay {
        /// What was attempted.
        action: &'static str,
        /// How many layers it has, the writable one left out.
        layers: usize,
        /// The kernel's own words, after a colon.
        said: String,
        /// Why it failed.
        source: io::Error,
    },
    /// What a step wrote could not be made a layer.
    #[error(transparent)]
    Diff(#[from] crate::layer::DiffError),
}

impl SnapshotError {
    /// Says that `action` failed on `path`; to be given to `map_err`.
    pub(crate) fn on<E: Into<io::Error>>(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Path { action, path: path.to_owned(), source: source.into() }
    }
}

/// The directories that make an overlay writable; both on one filesystem.
#[derive(Clone, Copy, Debug)]
pub struct Writable<'a> {
    /// Gets what is written.
    pub upper: &'a Path,
    /// An empty directory for the kernel. It can't be used for a second mount.
    pub work: &'a Path,
}

/// Mounts an overlay of `lowers`, uppermost first, detached: it is gone when the descriptor and
/// all its clones are closed.
///
/// Device nodes in it can't be opened. A read-only one takes two lowers at least.
pub fn mount(lowers: &[PathBuf], writable: Option<Writable<'_>>) -> Result<OwnedFd, SnapshotError> {
    let failed = |action| {
        move |source: Errno| SnapshotError::Overlay {
            action,
            layers: lowers.len(),
            said: String::new(),
            source: source.into(),
        }
    };
    let context =
        rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(failed("open"))?;
    let configured = configure(context.as_fd(), lowers, writable);
    let configured = configured.and_then(|()| {
        let created = rustix::mount::fsconfig_create(&context);
        created.map_err(failed("create"))
    });
    configured.map_err(|error| with_words_of(context.as_fd(), error))?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    rustix::mount::fsmount(context.as_fd(), flags, MountAttrFlags::MOUNT_ATTR_NODEV)
        .map_err(failed("mount"))
}

fn configure(
    context: BorrowedFd<'_>,
    lowers: &[PathBuf],
    writable: Option<Writable<'_>>,
) -> Result<(), SnapshotError> {
    let set = |key: &'static str, value: &str| {
        rustix::mount::fsconfig_set_string(context, key, value).map_err(refused(key, lowers))
    };
    set("source", "rbuild")?;
    rustix::mount::fsconfig_set_flag(context, "userxattr")
        .map_err(refused("set userxattr of", lowers))?;
    set("index", "off")?;
    for lower in lowers {
        add_directory(context, "lowerdir+", lower)?;
    }
    if let Some(Writable { upper, work }) = writable {
        add_directory(context, "upperdir", upper)?;
        add_directory(context, "workdir", work)?;
        // A build that did not end is done again, so nothing in it needs to reach the disk.
        rustix::mount::fsconfig_set_flag(context, "volatile")
            .map_err(refused("set volatile of", lowers))?;
    }
    Ok(())
}

fn refused(action: &'static str, lowers: &[PathBuf]) -> impl FnOnce(Errno) -> SnapshotError {
    let layers = lowers.len();
    move |source| SnapshotError::Overlay {
        action,
        layers,
        said: String::new(),
        source: source.into(),
    }
}

/// Names a directory by descriptor, or by the descriptor's name for kernels before 6.13.
fn add_directory(context: BorrowedFd<'_>, key: &str, path: &Path) -> Result<(), SnapshotError> {
    let dir = open(path)?;
    let add = rustix::mount::fsconfig_set_fd(context, key, &dir).or_else(|_| {
        let name = format!("/proc/self/fd/{}", dir.as_raw_fd());
        rustix::mount::fsconfig_set_string(context, key, &name)
    });
    add.map_err(SnapshotError::on("add to an overlay", path))
        .map_err(|error| with_words_of(context, error))
}

/// Opens a directory of the store. Kernels before 6.15 do not take `O_PATH` for a layer.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, SnapshotError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(SnapshotError::on("open", path))
}

/// Adds what the kernel wrote into the context: the error number says next to nothing.
fn with_words_of(context: BorrowedFd<'_>, error: SnapshotError) -> SnapshotError {
    let mut words = vec![];
    let mut buffer = [0; 512];
    while let Ok(count) = rustix::io::read(context, &mut buffer) {
        // Each message begins with its level.
        let message = String::from_utf8_lossy(&buffer[..count]);
        words.push(message.trim().trim_start_matches(['e', 'w', 'i']).trim().to_owned());
    }
    if words.is_empty() {
        return error;
    }
    match error {
        SnapshotError::Overlay { action, layers, source, .. } => SnapshotError::Overlay {
            action,
            layers,
            said: format!(": {}", words.join("; ")),
            source,
        },
        SnapshotError::Path { action, path, source } => {
            let source = io::Error::new(source.kind(), format!("{source}: {}", words.join("; ")));
            SnapshotError::Path { action, path, source }
        }
        SnapshotError::Diff(error) => SnapshotError::Diff(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn layers(dir: &Path, count: usize) -> Vec<PathBuf> {
        let layer = |number: usize| {
            let layer = dir.join(format!("{number}"));
            fs::create_dir(&layer).unwrap();
            fs::write(layer.join(format!("of-{number}")), "").unwrap();
            fs::write(layer.join("top"), number.to_string()).unwrap();
            layer
        };
        (0..count).map(layer).collect()
    }

    fn read(root: &OwnedFd, name: &str) -> io::Result<String> {
        fs::read_to_string(format!("/proc/self/fd/{}/{name}", root.as_raw_fd()))
    }

    #[test]
    fn any_number_of_layers_is_merged_the_first_on_top() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        for count in [2, 100] {
            let dir = tempfile::tempdir().unwrap();
            let root = mount(&layers(dir.path(), count), None).unwrap();
            assert_eq!(read(&root, "top").unwrap(), "0");
            assert_eq!(read(&root, &format!("of-{}", count - 1)).unwrap(), "");
        }
    }

    #[test]
    fn one_layer_is_enough_for_a_writable_mount() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let [upper, work] = ["upper", "work"].map(|name| dir.path().join(name));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let writable = Writable { upper: &upper, work: &work };
        let root = mount(&layers(dir.path(), 1), Some(writable)).unwrap();
        fs::write(format!("/proc/self/fd/{}/new", root.as_raw_fd()), "written").unwrap();
        drop(root);
        assert_eq!(fs::read_to_string(upper.join("new")).unwrap(), "written");
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error_that_says_how_many_layers() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let error = mount(&layers(dir.path(), 1), None).unwrap_err();
        assert!(error.to_string().contains("overlay"), "{error}");
        assert!(error.to_string().starts_with("cannot create an overlay of 1 layers"), "{error}");
    }

    #[test]
    fn a_missing_layer_is_named() {
        let error = mount(&[PathBuf::from("/nowhere/layer")], None).unwrap_err();
        assert!(
            !rustix::process::geteuid().is_root()
                || error.to_string() == "cannot open /nowhere/layer"
        );
    }
}
