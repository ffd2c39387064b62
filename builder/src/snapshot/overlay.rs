//! Overlay mounts that have no place in the file tree: a descriptor is all there is of them.
//!
//! Layers go in by descriptor, since paths have a limit of 255 bytes there. `userxattr` is used by
//! root too: so one store has one format, and unprivileged overlays can make directories opaque.
//!
//! Kernels before 6.7 know no `lowerdir+`. There the layers go in as one list of their descriptors'
//! names, by `mount(2)`, which takes 4,095 bytes of options: [`MOST_LISTED`] layers. That call wants
//! a place in the file tree, from which the mount is detached at once. Of more layers the lower half
//! is an overlay of its own, which is the lowest layer of the other: the kernel stacks two. (The
//! upper half could not be one: what it deletes would be back.)

use std::ffi::CString;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

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
    /// The kernel takes fewer layers than the image has.
    #[error("this kernel can mount {MOST_STACKED} layers at most, and there are {layers}")]
    TooManyLayers {
        /// How many there are, the writable one left out.
        layers: usize,
    },
    /// The store can't be written.
    #[error(transparent)]
    Cache(#[from] cache::CacheError),
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

/// How many layers fit into the options of `mount(2)`, by names such as `/proc/self/fd/1234`.
const MOST_LISTED: usize = 200;

/// How many layers there can be where they are listed.
const MOST_STACKED: usize = 2 * MOST_LISTED - 1;

/// Mounts an overlay of `lowers`, uppermost first, detached: it is gone when the descriptor and
/// all its clones are closed.
///
/// Device nodes in it can't be opened. A read-only one takes two lowers at least. A kernel before
/// 6.7 needs a directory in `run_dir` for a moment.
pub fn mount(
    lowers: &[PathBuf],
    writable: Option<Writable<'_>>,
    run_dir: &Path,
) -> Result<OwnedFd, SnapshotError> {
    if takes_layers_one_by_one() {
        mount_layer_by_layer(lowers, writable)
    } else {
        mount_list(lowers, writable, run_dir)
    }
}

/// Whether the kernel knows `lowerdir+`. Before 6.5 it takes any option and refuses the mount.
fn takes_layers_one_by_one() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let takes = |key: &str| {
            let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
            rustix::mount::fsconfig_set_string(&context, key, "/")
        };
        takes("lowerdir+").is_ok() && takes("no-such-option").is_err()
    })
}

/// What the kernel lacks, and what is done instead.
pub fn fallbacks() -> Vec<String> {
    if takes_layers_one_by_one() {
        return vec![];
    }
    vec!["before 6.7: layers are given to overlayfs as one list, which can have 399".to_owned()]
}

fn mount_layer_by_layer(
    lowers: &[PathBuf],
    writable: Option<Writable<'_>>,
) -> Result<OwnedFd, SnapshotError> {
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

fn mount_list(
    lowers: &[PathBuf],
    writable: Option<Writable<'_>>,
    run_dir: &Path,
) -> Result<OwnedFd, SnapshotError> {
    if lowers.len() > MOST_STACKED {
        return Err(SnapshotError::TooManyLayers { layers: lowers.len() });
    }
    let (listed, stacked) = match lowers.split_at_checked(MOST_LISTED) {
        None | Some((_, [])) => (lowers, None),
        Some(_) => {
            let (listed, below) = lowers.split_at(MOST_LISTED - 1);
            // A kernel before 6.15 takes as a layer only what is attached.
            (listed, Some(Attached::new(mount_list(below, None, run_dir)?, run_dir)?))
        }
    };
    // Open until the kernel has looked their names up.
    let mut lower_dirs = listed.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    lower_dirs.extend(stacked.as_ref().map(|below| open(&below.place)).transpose()?);
    let mut options = format!("userxattr,index=off,lowerdir={}", list(&lower_dirs));
    let _upper_dirs = match writable {
        Some(Writable { upper, work }) => {
            let dirs = [open(upper)?, open(work)?];
            let [upper, work] = dirs.each_ref().map(name_of);
            let _infallible = write!(options, ",upperdir={upper},workdir={work},volatile");
            Some(dirs)
        }
        None => None,
    };
    let options = CString::new(options).expect("numbers and slashes have no NUL");
    let place = mount_point(run_dir)?;
    rustix::mount::mount("rbuild", &place, "overlay", MountFlags::NODEV, options.as_c_str())
        .map_err(refused("create", lowers))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mounted = rustix::mount::open_tree(CWD, &place, flags);
    rustix::mount::unmount(&place, UnmountFlags::DETACH)
        .map_err(SnapshotError::on("unmount", &place))?;
    mounted.map_err(refused("detach", lowers))
}

/// A mount that has a place as long as this lives.
struct Attached {
    place: PathBuf,
}

impl Attached {
    fn new(mount: OwnedFd, run_dir: &Path) -> Result<Self, SnapshotError> {
        let place = run_dir.join("stacked");
        std::fs::create_dir_all(&place).map_err(SnapshotError::on("create", &place))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(mount, "", CWD, &place, flags)
            .map_err(SnapshotError::on("mount", &place))?;
        Ok(Self { place })
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _the_namespace_ends_it = rustix::mount::unmount(&self.place, UnmountFlags::DETACH);
    }
}

fn list(dirs: &[OwnedFd]) -> String {
    dirs.iter().map(name_of).collect::<Vec<_>>().join(":")
}

fn name_of(dir: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", dir.as_raw_fd())
}

/// Makes an empty directory in `run_dir` where a mount can be attached for a moment.
pub fn mount_point(run_dir: &Path) -> Result<PathBuf, SnapshotError> {
    let place = run_dir.join("mount-point");
    match std::fs::create_dir(&place) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(SnapshotError::on("create", &place)(error))
        }
        _ => Ok(place),
    }
}

/// Names a directory by descriptor, or by the descriptor's name for kernels before 6.13.
fn add_directory(context: BorrowedFd<'_>, key: &str, path: &Path) -> Result<(), SnapshotError> {
    let dir = open(path)?;
    let add = rustix::mount::fsconfig_set_fd(context, key, &dir)
        .or_else(|_| rustix::mount::fsconfig_set_string(context, key, name_of(&dir)));
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
        other => other,
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
        for count in [2, 100, MOST_LISTED] {
            let dir = tempfile::tempdir().unwrap();
            let layers = layers(dir.path(), count);
            for root in [
                mount_layer_by_layer(&layers, None).unwrap(),
                mount_list(&layers, None, dir.path()).unwrap(),
            ] {
                assert_eq!(read(&root, "top").unwrap(), "0");
                assert_eq!(read(&root, &format!("of-{}", count - 1)).unwrap(), "");
            }
        }
    }

    #[test]
    fn a_list_of_layers_leaves_no_mount_behind_and_no_device_can_be_opened() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let layers = layers(dir.path(), 2);
        let null = rustix::fs::makedev(1, 3);
        let (kind, mode) = (rustix::fs::FileType::CharacterDevice, Mode::from_raw_mode(0o666));
        rustix::fs::mknodat(CWD, layers[0].join("null"), kind, mode, null).unwrap();
        let root = mount_list(&layers, None, dir.path()).unwrap();
        assert_eq!(read(&root, "null").unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
    }

    #[test]
    fn more_layers_than_a_list_may_have_are_told() {
        let layers = vec![PathBuf::from("/nowhere"); MOST_STACKED + 1];
        let error = mount_list(&layers, None, Path::new("/nowhere")).unwrap_err();
        let told = "this kernel can mount 399 layers at most, and there are 400";
        assert_eq!(error.to_string(), told);
    }

    #[test]
    fn more_layers_than_one_list_takes_are_stacked_with_what_they_delete() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let layers = layers(dir.path(), MOST_STACKED);
        let [upper, lowest] = [&layers[1], &layers[MOST_STACKED - 1]];
        fs::write(lowest.join("deleted"), "").unwrap();
        fs::write(lowest.join("kept"), "kept").unwrap();
        let (kind, none) = (rustix::fs::FileType::CharacterDevice, Mode::empty());
        rustix::fs::mknodat(CWD, upper.join("deleted"), kind, none, 0).unwrap();
        let run_dir = tempfile::tempdir_in(dir.path()).unwrap();
        let [upper, work] = ["upper", "work"].map(|name| run_dir.path().join(name));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let writable = Writable { upper: &upper, work: &work };
        let root = mount_list(&layers, Some(writable), run_dir.path()).unwrap();
        assert_eq!(read(&root, "kept").unwrap(), "kept");
        assert_eq!(read(&root, "deleted").unwrap_err().kind(), io::ErrorKind::NotFound);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
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
        let layers = layers(dir.path(), 1);
        let write = |root: OwnedFd, name: &str| {
            fs::write(format!("/proc/self/fd/{}/{name}", root.as_raw_fd()), "written").unwrap();
            drop(root);
            assert_eq!(fs::read_to_string(upper.join(name)).unwrap(), "written");
        };
        let writable = Writable { upper: &upper, work: &work };
        write(mount_layer_by_layer(&layers, Some(writable)).unwrap(), "one");
        let work = dir.path().join("another-work");
        fs::create_dir(&work).unwrap();
        let writable = Writable { upper: &upper, work: &work };
        write(mount_list(&layers, Some(writable), dir.path()).unwrap(), "another");
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error_that_says_how_many_layers() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let layers = layers(dir.path(), 1);
        for error in [
            mount_layer_by_layer(&layers, None).unwrap_err(),
            mount_list(&layers, None, dir.path()).unwrap_err(),
        ] {
            let told = error.to_string();
            assert!(told.starts_with("cannot create an overlay of 1 layers"), "{told}");
        }
    }

    #[test]
    fn a_missing_layer_is_named() {
        let missing = [PathBuf::from("/nowhere/layer")];
        let error = mount(&missing, None, Path::new("/nowhere")).unwrap_err();
        assert!(
            !rustix::process::geteuid().is_root()
                || error.to_string() == "cannot open /nowhere/layer"
        );
    }
}
