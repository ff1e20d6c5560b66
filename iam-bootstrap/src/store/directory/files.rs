//! The files of a directory store, through system calls that block.

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

use super::{ItemPath, Kind, Listing, StoreError};
use crate::limits::{ITEM_BYTES_MAX, LISTED_MAX, STRANGERS_MAX};

const MARKER: &str = ".iam-store";
const LOCK: &str = ".lock";
const TEMPORARY: &str = ".tmp-";
const MARKER_WORDS: &str = "iam-store format ";
const FORMAT: u32 = 1;
const MARKER_BYTES_MAX: u64 = 64;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Not to wait at a pipe that somebody put in place of a file.
const READ: OFlags =
    OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
const CREATE: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Where a store is or may be.
pub(super) struct Place {
    root: PathBuf,
    name: Arc<str>,
}

/// A store that is open. Its lock is held as long as this lives.
pub(super) struct Files {
    name: Arc<str>,
    root: OwnedFd,
    kinds: BTreeMap<Kind, OwnedFd>,
    _lock: File,
    /// The next temporary file's number: nobody else makes any, and those of others are gone.
    next: AtomicU64,
}

impl Place {
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

    fn failed(&self, what: &str) -> impl Fn(Errno) -> StoreError {
        failed(&self.name, what)
    }

    /// The marker comes last: a store that has one is complete.
    pub(super) fn initialise(&self) -> Result<(), StoreError> {
        std::fs::create_dir_all(&self.root)
            .map_err(|error| self.unavailable(format!("cannot create it: {error}")))?;
        let root = self.open_root()?;
        match self.check_marker(&root) {
            Err(StoreError::NotInitialised { .. }) => {}
            is_a_store => return is_a_store,
        }
        rustix::fs::fchmod(&root, Mode::RWXU).map_err(self.failed("cannot set its mode"))?;
        let _lock = self.take_lock(&root)?;
        for kind in Kind::ALL {
            match rustix::fs::mkdirat(&root, kind.prefix(), Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(self.failed("cannot create a directory")(error)),
            }
        }
        // What an earlier attempt began, and the directory's own entry in its parent, where that can
        // be opened.
        clean(&root).map_err(self.failed("cannot be cleaned"))?;
        let marker = format!("{MARKER_WORDS}{FORMAT}\n");
        replace(&root, &format!("{TEMPORARY}0"), MARKER, marker.as_bytes())
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
            opened => opened.map_err(self.failed("cannot open it")),
        }
    }

    /// Whether there is a marker, and one that we know.
    fn check_marker(&self, root: &OwnedFd) -> Result<(), StoreError> {
        let marker = match rustix::fs::openat(root, MARKER, READ, Mode::empty()) {
            Ok(marker) => File::from(marker),
            Err(Errno::NOENT) => return Err(self.without_marker(root)),
            Err(error) => return Err(self.failed("cannot open its marker")(error)),
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
            None => Err(self.unavailable(format!("its marker {MARKER} is none of ours"))),
        }
    }

    /// A directory without a marker may become a store if there is nothing in it but what an
    /// interrupted initialisation has left.
    fn without_marker(&self, root: &OwnedFd) -> StoreError {
        let is_ours = |name: &str| {
            name == LOCK
                || name.starts_with(TEMPORARY)
                || Kind::ALL.iter().any(|kind| kind.prefix() == name)
        };
        let mut stranger = None;
        let looked = for_each_name(root, |name| {
            if !name.is_some_and(is_ours) {
                stranger = Some(name.unwrap_or("a name that is no text").to_owned());
            }
            stranger.is_none()
        });
        match (looked, stranger) {
            (Err(error), _) => self.failed("cannot list it")(error),
            (Ok(()), None) => StoreError::NotInitialised { store: Arc::clone(&self.name) },
            (Ok(()), Some(stranger)) => self.unavailable(format!(
                "it has no marker {MARKER} and holds {stranger:?}, so it is no store; give another directory"
            )),
        }
    }

    fn take_lock(&self, root: &OwnedFd) -> Result<File, StoreError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(root, LOCK, flags, Mode::RUSR | Mode::WUSR)
            .map_err(self.failed("cannot open its lock"))?;
        let lock = File::from(lock);
        match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(std::fs::TryLockError::WouldBlock) => Err(self
                .unavailable("another process has it open; stop that, or give another directory")),
            Err(std::fs::TryLockError::Error(error)) => {
                Err(self.unavailable(format!("cannot lock it: {error}")))
            }
        }
    }
}

impl Files {
    pub(super) fn open(place: &Place) -> Result<Self, StoreError> {
        let root = place.open_root()?;
        place.check_marker(&root)?;
        let lock = place.take_lock(&root)?;
        let mut kinds = BTreeMap::new();
        for kind in Kind::ALL {
            let flags = DIRECTORY | OFlags::NOFOLLOW;
            let directory = rustix::fs::openat(&root, kind.prefix(), flags, Mode::empty())
                .map_err(place.failed(&format!("cannot open its directory {kind}")))?;
            clean(&directory).map_err(place.failed("cannot be cleaned"))?;
            kinds.insert(kind, directory);
        }
        clean(&root).map_err(place.failed("cannot be cleaned"))?;
        let name = Arc::clone(&place.name);
        Ok(Self { name, root, kinds, _lock: lock, next: AtomicU64::new(0) })
    }

    /// Whether the directories that were opened still have names.
    pub(super) fn are_there(&self) -> bool {
        let has_name =
            |directory: &OwnedFd| rustix::fs::fstat(directory).is_ok_and(|stat| stat.st_nlink > 0);
        has_name(&self.root)
            && self.kinds.values().all(has_name)
            && rustix::fs::statat(&self.root, MARKER, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    pub(super) fn read(&self, path: &ItemPath) -> Result<Vec<u8>, StoreError> {
        let corrupt = |why: String| StoreError::Corrupt { path: path.clone(), why: why.into() };
        let directory = self.directory(path)?;
        let file = rustix::fs::openat(directory, path.file_name(), READ, Mode::empty());
        let file = file.map_err(|error| self.of_item(path, "cannot open", error))?;
        let stat = rustix::fs::fstat(&file).map_err(self.failed("cannot look at a file"))?;
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
        replace(directory, &temporary, path.file_name(), bytes)
            .map_err(|error| self.unavailable(format!("cannot write {path}: {error}")))?;
        // A directory that was removed takes files until the last one is closed.
        self.check_there()
    }

    pub(super) fn delete(&self, path: &ItemPath) -> Result<(), StoreError> {
        let directory = self.directory(path)?;
        rustix::fs::unlinkat(directory, path.file_name(), AtFlags::empty())
            .map_err(|error| self.of_item(path, "cannot delete", error))?;
        rustix::fs::fsync(directory).map_err(self.failed("cannot sync a directory"))
    }

    pub(super) fn list(&self, kind: Kind) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        for_each_name(self.directory_of(Some(kind))?, |name| {
            match name.ok_or(()).and_then(|name| ItemPath::of_file_name(kind, name).map_err(drop)) {
                Ok(path) => listing.paths.push(path),
                Err(()) if name.is_some_and(|name| name.starts_with(TEMPORARY)) => {}
                Err(()) => {
                    listing.strangers_total += 1;
                    if listing.strangers.len() < STRANGERS_MAX {
                        listing.strangers.push(name.unwrap_or("a name that is no text").to_owned());
                    }
                }
            }
            listing.paths.len() <= LISTED_MAX
        })
        .map_err(self.failed("cannot list a directory"))?;
        self.check_there()?;
        if listing.paths.len() > LISTED_MAX {
            let store = Arc::clone(&self.name);
            return Err(StoreError::TooMany { store, kind, max: LISTED_MAX });
        }
        listing.paths.sort_unstable();
        listing.strangers.sort_unstable();
        Ok(listing)
    }

    fn directory(&self, path: &ItemPath) -> Result<BorrowedFd<'_>, StoreError> {
        self.directory_of(path.kind())
    }

    fn directory_of(&self, kind: Option<Kind>) -> Result<BorrowedFd<'_>, StoreError> {
        let Some(kind) = kind else { return Ok(self.root.as_fd()) };
        let directory = self.kinds.get(&kind).map(AsFd::as_fd);
        directory.ok_or_else(|| self.unavailable(format!("its directory {kind} is not open")))
    }

    /// An item that is not there, in a directory that is.
    fn of_item(&self, path: &ItemPath, what: &str, error: Errno) -> StoreError {
        match error {
            Errno::NOENT => {
                let gone = self.check_there().err();
                gone.unwrap_or_else(|| StoreError::NotFound { path: path.clone() })
            }
            Errno::LOOP | Errno::MLINK => not_a_file(path, "a symbolic link"),
            Errno::ISDIR => not_a_file(path, "a directory"),
            Errno::NXIO => not_a_file(path, "a socket or pipe"),
            error => self.unavailable(format!("{what} {path}: {error}")),
        }
    }

    fn check_there(&self) -> Result<(), StoreError> {
        match self.are_there() {
            true => Ok(()),
            false => Err(self.unavailable("its directory was removed while it was open")),
        }
    }

    fn unavailable(&self, cause: impl Into<Arc<str>>) -> StoreError {
        StoreError::Unavailable { store: Arc::clone(&self.name), cause: cause.into() }
    }

    fn failed(&self, what: &str) -> impl Fn(Errno) -> StoreError {
        failed(&self.name, what)
    }
}

fn failed(name: &Arc<str>, what: &str) -> impl Fn(Errno) -> StoreError + use<> {
    let (store, what) = (Arc::clone(name), what.to_owned());
    move |error: Errno| {
        let cause = format!("{what}: {error}").into();
        StoreError::Unavailable { store: Arc::clone(&store), cause }
    }
}

fn not_a_file(path: &ItemPath, what: impl Display) -> StoreError {
    StoreError::Corrupt { path: path.clone(), why: format!("it is {what}, and no file").into() }
}

fn size_of(stat: &Stat) -> Result<u64, String> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            u64::try_from(stat.st_size).map_err(|_| "its size is negative".to_owned())
        }
        other => Err(format!("it is no file, but {other:?}")),
    }
}

/// Writes a file in place of another: whoever looks sees one of the two, also after a crash, and after
/// it has returned only the new one.
fn replace(directory: impl AsFd, temporary: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let directory = directory.as_fd();
    let mode = Mode::RUSR | Mode::WUSR;
    let mut file = File::from(rustix::fs::openat(directory, temporary, CREATE, mode)?);
    let renamed = file
        .write_all(bytes)
        .and_then(|()| file.sync_all()) // Before it gets the name: a name never has half a file.
        .and_then(|()| Ok(rustix::fs::renameat(directory, temporary, directory, name)?));
    if renamed.is_err() {
        // It would be removed when the store is opened; until then it takes room.
        let _ = rustix::fs::unlinkat(directory, temporary, AtFlags::empty());
    }
    renamed?;
    Ok(rustix::fs::fsync(directory)?)
}

/// Removes what interrupted writes have left. Only who holds the lock may.
fn clean(directory: &OwnedFd) -> Result<(), Errno> {
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

/// Names in a directory, `None` for those that are no text, until `next` says no.
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
