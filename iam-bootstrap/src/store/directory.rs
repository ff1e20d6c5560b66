//! A directory as a store: one file an item, written so that a process that is killed, or a machine that
//! loses power, leaves each item wholly old or wholly new.
//!
//! ```text
//!   <root>/.iam-store          the marker: what this is, in which format; written last of all
//!   <root>/.lock               held by the process that has the store open
//!   <root>/format, deployment
//!   <root>/users/alice         an item; its name is encoded as in its path
//!   <root>/users/.tmp-17       being written, or left by who was killed; removed when the store is opened
//! ```
//!
//! Each directory is opened once and everything done relative to it, without following symbolic links,
//! so nothing outside is ever read or written. `files` does the work, on tokio's blocking threads; this
//! file opens the store when it is first used and again after it was lost.

mod files;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{IamStore, Item, ItemPath, Kind, Listing, Pending, StoreError, check_size, keep};
use crate::limits::{DIRECTORY_READERS, ITEM_BYTES_MAX};
use files::{Files, Place};

/// A store in a directory of its own, which one process at a time may have open. Clones share it.
///
/// It is opened when it is first used, so that a disk may come later than the server. A directory that
/// has no marker and nothing else is [`NotInitialised`](StoreError::NotInitialised); only
/// [`DirectoryStore::initialise`] makes a store of it. A server must not do so by itself for a disk that
/// it has used before: the directory where that disk is to be mounted looks just the same.
///
/// Must be used inside a tokio runtime.
#[derive(Clone)]
pub struct DirectoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    place: Place,
    /// Held while the store is opened, by a blocking thread alone.
    open: Mutex<Opened>,
}

#[derive(Default)]
struct Opened {
    files: Option<Arc<Files>>,
    /// What was a store once has not become uninitialised if it is gone, but unavailable.
    was_open: bool,
}

impl DirectoryStore {
    /// The store in this directory. Nothing is opened yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let inner = Inner { place: Place::new(root.into()), open: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        self.inner.place.root()
    }

    /// Makes a store of a directory that is empty or not there. Does nothing to one that is a store.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the directory holds something else, is in use, or cannot be written.
    ///
    /// # Cancel safety
    ///
    /// It may be done or not; what was begun is completed by the next call.
    pub async fn initialise(&self) -> Result<(), StoreError> {
        self.on_a_thread(|inner| inner.place.initialise().and_then(|()| inner.files().map(drop)))
            .await
    }

    /// Opens it, if it is not open: takes its lock, and removes what interrupted writes have left.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotInitialised`], [`StoreError::Unavailable`] (also if another process has it
    /// open), [`StoreError::Unsupported`].
    pub async fn open(&self) -> Result<(), StoreError> {
        self.on_a_thread(|inner| inner.files().map(drop)).await
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.unwrap_or_else(|error| Err(self.inner.place.unavailable(format!("stopped: {error}"))))
    }

    async fn with_files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.on_a_thread(move |inner| {
            let files = inner.files()?;
            let done = work(&files);
            if matches!(&done, Err(StoreError::Unavailable { .. })) && !files.are_there() {
                inner.forget(&files);
            }
            done
        })
        .await
    }
}

impl Inner {
    fn files(&self) -> Result<Arc<Files>, StoreError> {
        let mut opened = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = &opened.files {
            return Ok(Arc::clone(files));
        }
        match Files::open(&self.place) {
            Ok(files) => {
                let files = Arc::new(files);
                opened.files = Some(Arc::clone(&files));
                opened.was_open = true;
                Ok(files)
            }
            Err(StoreError::NotInitialised { .. }) if opened.was_open => {
                Err(self.place.unavailable("it was a store, and its marker is gone; is its disk?"))
            }
            Err(error) => Err(error),
        }
    }

    /// The directory was removed under the store: it is opened again when it is used again.
    fn forget(&self, files: &Arc<Files>) {
        let mut opened = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.files.as_ref().is_some_and(|known| Arc::ptr_eq(known, files)) {
            opened.files = None;
        }
    }
}

impl fmt::Debug for DirectoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryStore").field("root", &self.root()).finish_non_exhaustive()
    }
}

impl IamStore for DirectoryStore {
    fn name(&self) -> &str {
        self.inner.place.name()
    }

    fn read<'a>(&'a self, path: &'a ItemPath) -> Pending<'a, Vec<u8>> {
        let path = path.clone();
        Box::pin(self.with_files(move |files| files.read(&path)))
    }

    fn write<'a>(&'a self, path: &'a ItemPath, bytes: Vec<u8>) -> Pending<'a, ()> {
        Box::pin(async move {
            check_size(path, &bytes, ITEM_BYTES_MAX)?;
            let path = path.clone();
            self.with_files(move |files| files.write(&path, &bytes)).await
        })
    }

    fn delete<'a>(&'a self, path: &'a ItemPath) -> Pending<'a, ()> {
        let path = path.clone();
        Box::pin(self.with_files(move |files| files.delete(&path)))
    }

    fn list(&self, kind: Kind) -> Pending<'_, Listing> {
        Box::pin(self.with_files(move |files| files.list(kind)))
    }

    fn read_many<'a>(&'a self, paths: &'a [ItemPath]) -> Pending<'a, Vec<Item>> {
        Box::pin(async move {
            let part = paths.len().div_ceil(DIRECTORY_READERS).max(1);
            let mut reading = Vec::with_capacity(DIRECTORY_READERS);
            for paths in paths.chunks(part) {
                let (paths, store) = (paths.to_vec(), self.clone());
                reading.push(tokio::spawn(async move {
                    store.with_files(move |files| read_part(files, paths)).await
                }));
            }
            let mut items = Vec::with_capacity(paths.len());
            for part in reading {
                let stopped = |error| self.inner.place.unavailable(format!("stopped: {error}"));
                items.append(&mut part.await.map_err(stopped)??);
            }
            Ok(items)
        })
    }
}

fn read_part(files: &Files, paths: Vec<ItemPath>) -> Result<Vec<Item>, StoreError> {
    let mut items = Vec::with_capacity(paths.len());
    for path in paths {
        let read = files.read(&path);
        keep(&mut items, path, read)?;
    }
    Ok(items)
}
