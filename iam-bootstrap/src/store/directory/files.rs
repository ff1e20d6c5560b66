//! The files of a directory store, through blocking system calls.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{ItemKind, ItemPath, Listing, StoreError};
use crate::limits::{
    ITEM_BYTES_MAX, LISTED_MAX, STORE_LOCK_ATTEMPTS, STORE_LOCK_RETRY, UNRECOGNISED_MAX,
};

const MARKER: &str = ".iam-store";
const LOCK: &str = ".lock";
const TEMPORARY: &str = ".tmp-";
const MARKER_WORDS: &str = "iam-store format ";
const FORMAT: u32 = 1;
const MARKER_BYTES_MAX: u64 = 64;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Nonblocking: a pipe in place of a file must not block the open.
const READ: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const CREATE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Directory of a store, which may not exist yet.
pub(super) struct StoreLocation {
    root: PathBuf,
    name: Arc<str>,
}

/// An open store. Holds the lock until it is dropped.
pub(super) struct OpenStore {
    name: Arc<str>,
    root: OwnedFd,
    kinds: BTreeMap<ItemKind, OwnedFd>,
    _lock: File,
    /// Number of the next temporary file: the lock excludes other writers, and their leftovers were
    /// removed.
    next: AtomicU64,
}

impl StoreLocation {
    pub(super) fn new(root: PathBuf) -> Self {
        let name = root.display().to_string().into();
        Self { root, name }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn unavailable(&self, cause: impl Into<Arc<str>>) -> StoreError {
        StoreError::Unavailable { store: Arc::clone(&self.name), cause: cause.into() }
    }

    fn io_error(&self, what: &str) -> impl Fn(Errno) -> StoreError {
        io_error(&self.name, what)
    }

    /// Initialises the store. The marker is written last: a store that has one is complete.
    pub(super) fn initialise(&self) -> Result<(), StoreError> {
        std::fs::create_dir_all(&self.root)
            .map_err(|error| self.unavailable(format!("cannot create it: {error}")))?;
        let root = self.open_root()?;
        match self.check_marker(&root) {
            Err(StoreError::NotInitialised { .. }) => {}
            store => return store,
        }
        rustix::fs::fchmod(&root, Mode::RWXU).map_err(self.io_error("cannot set its mode"))?;
        let _lock = self.lock_exclusive(&root, pause)?;
        for kind in ItemKind::ALL {
            match rustix::fs::mkdirat(&root, kind.prefix(), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(self.io_error("cannot create a directory")(error)),
            }
        }
        // The leftovers of an earlier attempt, and the directory's own entry in its parent, where
        // that can be opened.
        remove_temporaries(&root).map_err(self.io_error("cannot be cleaned"))?;
        let marker = format!("{MARKER_WORDS}{FORMAT}\n");
        write_replacing(&root, &format!("{TEMPORARY}0"), MARKER, marker.as_bytes())
            .map_err(|error| self.unavailable(format!("cannot write its marker: {error}")))?;
        if let Some(parent) = self.root.parent().and_then(|parent| File::open(parent).ok()) {
            parent
                .sync_all()
                .map_err(|error| self.unavailable(format!("cannot sync its parent: {error}")))?;
        }
        Ok(())
    }

    fn open_root(&self) -> Result<OwnedFd, StoreError> {
        match rustix::fs::openat(CWD, &self.root, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => Err(StoreError::NotInitialised { store: Arc::clone(&self.name) }),
            opened => opened.map_err(self.io_error("cannot open it")),
        }
    }

    /// Checks that there is a marker of a known format.
    fn check_marker(&self, root: &OwnedFd) -> Result<(), StoreError> {
        let marker = match rustix::fs::openat(root, MARKER, READ, Mode::empty()) {
            Ok(marker) => File::from(marker),
            Err(Errno::NOENT) => return Err(self.error_without_marker(root)),
            Err(error) => return Err(self.io_error("cannot open its marker")(error)),
        };
        let mut text = String::new();
        marker
            .take(MARKER_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| self.unavailable(format!("cannot read its marker: {error}")))?;
        let format = text.trim_end().strip_prefix(MARKER_WORDS).and_then(|word| word.parse().ok());
        match format {
            Some(FORMAT) => Ok(()),
            Some(found) => {
                let what = Arc::clone(&self.name);
                Err(StoreError::Unsupported { what, found, max: FORMAT })
            }
            None => {
                Err(self
                    .unavailable(format!("its marker {MARKER} was not written by this program")))
            }
        }
    }

    /// Returns the error for a directory without a marker. It may become a store if it contains
    /// nothing but the leftovers of an interrupted initialisation.
    fn error_without_marker(&self, root: &OwnedFd) -> StoreError {
        let is_recognised = |name: &str| {
            name == LOCK
                || name.starts_with(TEMPORARY)
                || ItemKind::ALL.iter().any(|kind| kind.prefix() == name)
        };
        let mut unrecognised = None;
        let listed = for_each_name(root, |name| {
            if !name.is_some_and(is_recognised) {
                unrecognised = Some(name.unwrap_or("a name that is not UTF-8").to_owned());
            }
            unrecognised.is_none()
        });
        match (listed, unrecognised) {
            (Err(error), _) => self.io_error("cannot list it")(error),
            (Ok(()), None) => StoreError::NotInitialised { store: Arc::clone(&self.name) },
            (Ok(()), Some(unrecognised)) => self.unavailable(format!(
                "it has no marker {MARKER} and holds {unrecognised:?}, so it is not a store; use another directory"
            )),
        }
    }

    /// Takes the lock of the store. Waits a bounded time for it, calling `pause` between two
    /// attempts: a child process may hold an inherited descriptor of it until its exec.
    fn lock_exclusive(&self, root: &OwnedFd, mut pause: impl FnMut()) -> Result<File, StoreError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(root, LOCK, flags, Mode::RUSR | Mode::WUSR)
            .map_err(self.io_error("cannot open its lock"))?;
        let lock = File::from(lock);
        for attempt in 1..=STORE_LOCK_ATTEMPTS {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(std::fs::TryLockError::WouldBlock) if attempt < STORE_LOCK_ATTEMPTS => pause(),
                Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(error)) => {
                    return Err(self.unavailable(format!("cannot lock it: {error}")));
                }
            }
        }
        Err(self.unavailable(
            "another process has it open; stop that process, or use another directory",
        ))
    }
}

/// Waits before the next attempt to take a lock.
#[expect(clippy::disallowed_methods, reason = "files are used on blocking threads only")]
fn pause() {
    std::thread::sleep(STORE_LOCK_RETRY);
}

impl OpenStore {
    pub(super) fn open(location: &StoreLocation) -> Result<Self, StoreError> {
        let root = location.open_root()?;
        location.check_marker(&root)?;
        let lock = location.lock_exclusive(&root, pause)?;
        let mut kinds = BTreeMap::new();
        for kind in ItemKind::ALL {
            let flags = DIRECTORY | OFlags::NOFOLLOW;
            let directory = rustix::fs::openat(&root, kind.prefix(), flags, Mode::empty())
                .map_err(location.io_error(&format!("cannot open its directory {kind}")))?;
            remove_temporaries(&directory).map_err(location.io_error("cannot be cleaned"))?;
            kinds.insert(kind, directory);
        }
        remove_temporaries(&root).map_err(location.io_error("cannot be cleaned"))?;
        let name = Arc::clone(&location.name);
        Ok(Self { name, root, kinds, _lock: lock, next: AtomicU64::new(0) })
    }

    /// Returns whether the open directories are still linked.
    pub(super) fn is_present(&self) -> bool {
        let has_name =
            |directory: &OwnedFd| rustix::fs::fstat(directory).is_ok_and(|stat| stat.st_nlink > 0);
        has_name(&self.root)
            && self.kinds.values().all(has_name)
            && rustix::fs::statat(&self.root, MARKER, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    pub(super) fn read(&self, path: &ItemPath) -> Result<Vec<u8>, StoreError> {
        let corrupt =
            |cause: String| StoreError::Corrupt { path: path.clone(), cause: cause.into() };
        let directory = self.directory(path)?;
        let file = rustix::fs::openat(directory, path.file_name(), READ, Mode::empty());
        let file = file.map_err(|error| self.item_error(path, "cannot open", error))?;
        let stat = rustix::fs::fstat(&file).map_err(self.io_error("cannot stat a file"))?;
        let bytes = size_of(&stat).map_err(corrupt)?;
        let too_large = StoreError::TooLarge { path: path.clone(), bytes, max: ITEM_BYTES_MAX };
        let size = usize::try_from(bytes).map_err(|_| too_large.clone())?;
        if size > ITEM_BYTES_MAX {
            return Err(too_large);
        }
        let mut content = vec![0; size];
        match File::from(file).read_exact(&mut content) {
            Ok(()) => Ok(content),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                Err(corrupt("it became shorter while it was read".to_owned()))
            }
            Err(error) => Err(self.unavailable(format!("cannot read {path}: {error}"))),
        }
    }

    pub(super) fn write(&self, path: &ItemPath, bytes: &[u8]) -> Result<(), StoreError> {
        let directory = self.directory(path)?;
        let temporary = format!("{TEMPORARY}{}", self.next.fetch_add(1, Ordering::Relaxed));
        write_replacing(directory, &temporary, path.file_name(), bytes)
            .map_err(|error| self.unavailable(format!("cannot write {path}: {error}")))?;
        // A removed directory accepts files until its last descriptor is closed.
        self.check_present()
    }

    pub(super) fn delete(&self, path: &ItemPath) -> Result<(), StoreError> {
        let directory = self.directory(path)?;
        rustix::fs::unlinkat(directory, path.file_name(), AtFlags::empty())
            .map_err(|error| self.item_error(path, "cannot delete", error))?;
        rustix::fs::fsync(directory).map_err(self.io_error("cannot sync a directory"))
    }

    pub(super) fn list(&self, kind: ItemKind) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        for_each_name(self.directory_of(Some(kind))?, |name| {
            match name.ok_or(()).and_then(|name| ItemPath::of_file_name(kind, name).map_err(drop)) {
                Ok(path) => listing.paths.push(path),
                Err(()) if name.is_some_and(|name| name.starts_with(TEMPORARY)) => {}
                Err(()) => {
                    listing.unrecognised_total += 1;
                    if listing.unrecognised.len() < UNRECOGNISED_MAX {
                        listing
                            .unrecognised
                            .push(name.unwrap_or("a name that is not UTF-8").to_owned());
                    }
                }
            }
            listing.paths.len() <= LISTED_MAX
        })
        .map_err(self.io_error("cannot list a directory"))?;
        self.check_present()?;
        if listing.paths.len() > LISTED_MAX {
            let store = Arc::clone(&self.name);
            return Err(StoreError::TooMany { store, kind, max: LISTED_MAX });
        }
        listing.paths.sort_unstable();
        listing.unrecognised.sort_unstable();
        Ok(listing)
    }

    fn directory(&self, path: &ItemPath) -> Result<BorrowedFd<'_>, StoreError> {
        self.directory_of(path.kind())
    }

    fn directory_of(&self, kind: Option<ItemKind>) -> Result<BorrowedFd<'_>, StoreError> {
        let Some(kind) = kind else { return Ok(self.root.as_fd()) };
        let directory = self.kinds.get(&kind).map(AsFd::as_fd);
        directory.ok_or_else(|| self.unavailable(format!("its directory {kind} is not open")))
    }

    /// Converts an error on one item; distinguishes a missing item from a missing directory.
    fn item_error(&self, path: &ItemPath, what: &str, error: Errno) -> StoreError {
        match error {
            Errno::NOENT => {
                let gone = self.check_present().err();
                gone.unwrap_or_else(|| StoreError::NotFound { path: path.clone() })
            }
            Errno::LOOP | Errno::MLINK => not_a_file(path, "a symbolic link"),
            Errno::ISDIR => not_a_file(path, "a directory"),
            Errno::NXIO => not_a_file(path, "a socket or pipe"),
            error => self.unavailable(format!("{what} {path}: {error}")),
        }
    }

    fn check_present(&self) -> Result<(), StoreError> {
        match self.is_present() {
            true => Ok(()),
            false => Err(self.unavailable("its directory was removed while it was open")),
        }
    }

    fn unavailable(&self, cause: impl Into<Arc<str>>) -> StoreError {
        StoreError::Unavailable { store: Arc::clone(&self.name), cause: cause.into() }
    }

    fn io_error(&self, what: &str) -> impl Fn(Errno) -> StoreError {
        io_error(&self.name, what)
    }
}

fn io_error(name: &Arc<str>, what: &str) -> impl Fn(Errno) -> StoreError + use<> {
    let (store, what) = (Arc::clone(name), what.to_owned());
    move |error: Errno| {
        let cause = format!("{what}: {error}").into();
        StoreError::Unavailable { store: Arc::clone(&store), cause }
    }
}

fn not_a_file(path: &ItemPath, what: impl Display) -> StoreError {
    StoreError::Corrupt {
        path: path.clone(),
        cause: format!("it is {what}, not a regular file").into(),
    }
}

fn size_of(stat: &Stat) -> Result<u64, String> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            u64::try_from(stat.st_size).map_err(|_| "its size is negative".to_owned())
        }
        other => Err(format!("it is not a regular file, but {other:?}")),
    }
}

/// Replaces a file atomically: a reader sees the old or the new content, also after a crash, and
/// only the new one after this has returned.
fn write_replacing(
    directory: impl AsFd,
    temporary: &str,
    name: &str,
    bytes: &[u8],
) -> std::io::Result<()> {
    let directory = directory.as_fd();
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file = File::from(rustix::fs::openat(directory, temporary, CREATE, mode)?);
    let renamed = file
        .write_all(bytes)
        .and_then(|()| file.sync_all()) // Before the rename: a name never refers to a partial file.
        .and_then(|()| Ok(rustix::fs::renameat(directory, temporary, directory, name)?));
    if renamed.is_err() {
        // The next open would remove it; until then it takes space.
        let _ = rustix::fs::unlinkat(directory, temporary, AtFlags::empty());
    }
    renamed?;
    Ok(rustix::fs::fsync(directory)?)
}

/// Removes the leftovers of interrupted writes. Requires the lock.
fn remove_temporaries(directory: &OwnedFd) -> Result<(), Errno> {
    let mut left = Vec::new();
    for_each_name(directory, |name| {
        left.extend(name.filter(|name| name.starts_with(TEMPORARY)).map(str::to_owned));
        true
    })?;
    for name in left {
        rustix::fs::unlinkat(directory, name.as_str(), AtFlags::empty())?;
    }
    Ok(())
}

/// Calls `next` with each name in a directory, `None` for names that are not UTF-8, until it
/// returns false.
fn for_each_name(
    directory: impl AsFd,
    mut next: impl FnMut(Option<&str>) -> bool,
) -> Result<(), Errno> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_str().ok();
        if matches!(name, Some("." | "..")) {
            continue;
        }
        if !next(name) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location() -> (tempfile::TempDir, StoreLocation, OwnedFd) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let location = StoreLocation::new(directory.path().to_path_buf());
        let root = location.open_root().expect("the directory exists");
        (directory, location, root)
    }

    #[test]
    fn b61_lock_that_is_released_meanwhile_is_taken() {
        let (_directory, location, root) = location();
        let mut held = Some(location.lock_exclusive(&root, || unreachable!()).expect("free"));
        let mut pauses = 0;
        let taken = location.lock_exclusive(&root, || {
            pauses += 1;
            if pauses == 3 {
                held = None;
            }
        });
        assert!(taken.is_ok(), "{taken:?}");
        assert_eq!(pauses, 3);
    }

    #[test]
    fn b61_lock_that_is_never_released_is_reported_after_a_bounded_wait() {
        let (_directory, location, root) = location();
        let _held = location.lock_exclusive(&root, || unreachable!()).expect("free");
        let mut pauses = 0;
        let refused = location.lock_exclusive(&root, || pauses += 1).expect_err("it is held");
        assert!(refused.to_string().contains("another process has it open"), "{refused}");
        assert_eq!(pauses, STORE_LOCK_ATTEMPTS - 1);
    }
}
