//! A directory as a store: one file per item. Writes are atomic: after a crash or power loss, each
//! item has its old or its new content.
//!
//! ```text
//!   <root>/.iam-store          marker with the format; written last
//!   <root>/.lock               held by the process that has the store open
//!   <root>/format, deployment
//!   <root>/users/alice         an item; its name is encoded as in its path
//!   <root>/users/.tmp-17       unfinished write; leftovers are removed when the store is opened
//! ```
//!
//! Each directory is opened once and used through relative operations that do not follow symbolic
//! links, so no file outside is ever read or written. `files` does the I/O, on tokio's blocking
//! threads; this file opens the store on first use, and again after its directory was lost.

mod files;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grid::sync::Mutex;

use super::{
    IamStore, ItemKind, ItemPath, Listing, ReadItem, StoreError, StoreFuture, check_size, push_read,
};
use crate::limits::{DIRECTORY_READERS, ITEM_BYTES_MAX};
use files::{OpenStore, StoreLocation};

/// A store in a dedicated directory, which at most one process at a time may have open. Clones
/// share it.
///
/// It is opened on first use, so that a disk may be mounted later than the server starts. A
/// directory that has no marker and is otherwise empty is
/// [`NotInitialised`](StoreError::NotInitialised); only [`DirectoryStore::initialise`] makes it a
/// store. A server must not automatically initialise a disk that it has used before: the empty
/// mount point of an unmounted disk looks the same.
///
/// Must be used inside a tokio runtime.
#[derive(Clone)]
pub struct DirectoryStore {
    inner: Arc<DirectoryInner>,
}

struct DirectoryInner {
    location: StoreLocation,
    /// Locked while the store is being opened, and only on blocking threads.
    open: Mutex<OpenState>,
}

#[derive(Default)]
struct OpenState {
    store: Option<Arc<OpenStore>>,
    /// A store that was open once and has disappeared is unavailable, not uninitialised.
    was_open: bool,
}

impl DirectoryStore {
    /// Returns the store in this directory. Nothing is opened yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let inner =
            DirectoryInner { location: StoreLocation::new(root.into()), open: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the directory.
    pub fn root(&self) -> &Path {
        self.inner.location.root()
    }

    /// Initialises a store in a directory that is empty or does not exist. Does nothing if it is a
    /// store already.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the directory holds other files, is in use, or cannot be
    /// written.
    ///
    /// # Cancel safety
    ///
    /// A cancelled initialisation may or may not happen; the next call completes it.
    pub async fn initialise(&self) -> Result<(), StoreError> {
        self.run_blocking(|inner| {
            inner.location.initialise().and_then(|()| inner.store().map(drop))
        })
        .await
    }

    /// Opens the store, if it is not open: acquires its lock, and removes the leftovers of
    /// interrupted writes.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotInitialised`], [`StoreError::Unavailable`] (also if another process has it
    /// open), [`StoreError::Unsupported`].
    pub async fn open(&self) -> Result<(), StoreError> {
        self.run_blocking(|inner| inner.store().map(drop)).await
    }

    async fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DirectoryInner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let joined = tokio::task::spawn_blocking(move || work(&inner)).await;
        joined.unwrap_or_else(|error| {
            Err(self.inner.location.unavailable(format!("I/O task failed: {error}")))
        })
    }

    async fn with_open_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&OpenStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run_blocking(move |inner| {
            let store = inner.store()?;
            let result = work(&store);
            if matches!(&result, Err(StoreError::Unavailable { .. })) && !store.is_present() {
                inner.close_if_current(&store);
            }
            result
        })
        .await
    }
}

impl DirectoryInner {
    fn store(&self) -> Result<Arc<OpenStore>, StoreError> {
        let mut open_state = self.open.lock();
        if let Some(store) = &open_state.store {
            return Ok(Arc::clone(store));
        }
        match OpenStore::open(&self.location) {
            Ok(store) => {
                let store = Arc::new(store);
                open_state.store = Some(Arc::clone(&store));
                open_state.was_open = true;
                Ok(store)
            }
            Err(StoreError::NotInitialised { .. }) if open_state.was_open => {
                Err(self.location.unavailable("its marker has disappeared; is its disk mounted?"))
            }
            Err(error) => Err(error),
        }
    }

    /// Drops an open store whose directory was removed; the next use opens it again.
    fn close_if_current(&self, store: &Arc<OpenStore>) {
        let mut open_state = self.open.lock();
        if open_state.store.as_ref().is_some_and(|known| Arc::ptr_eq(known, store)) {
            open_state.store = None;
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
        self.inner.location.name()
    }

    fn read<'a>(&'a self, path: &'a ItemPath) -> StoreFuture<'a, Vec<u8>> {
        let path = path.clone();
        Box::pin(self.with_open_store(move |store| store.read(&path)))
    }

    fn write<'a>(&'a self, path: &'a ItemPath, bytes: Vec<u8>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            check_size(path, &bytes, ITEM_BYTES_MAX)?;
            let path = path.clone();
            self.with_open_store(move |store| store.write(&path, &bytes)).await
        })
    }

    fn delete<'a>(&'a self, path: &'a ItemPath) -> StoreFuture<'a, ()> {
        let path = path.clone();
        Box::pin(self.with_open_store(move |store| store.delete(&path)))
    }

    fn list(&self, kind: ItemKind) -> StoreFuture<'_, Listing> {
        Box::pin(self.with_open_store(move |store| store.list(kind)))
    }

    fn read_many<'a>(&'a self, paths: &'a [ItemPath]) -> StoreFuture<'a, Vec<ReadItem>> {
        Box::pin(async move {
            let chunk_len = paths.len().div_ceil(DIRECTORY_READERS).max(1);
            let mut tasks = Vec::with_capacity(DIRECTORY_READERS);
            for paths in paths.chunks(chunk_len) {
                let (paths, store) = (paths.to_vec(), self.clone());
                tasks.push(tokio::spawn(async move {
                    store.with_open_store(move |store| read_chunk(store, paths)).await
                }));
            }
            let mut items = Vec::with_capacity(paths.len());
            for task in tasks {
                let failed =
                    |error| self.inner.location.unavailable(format!("I/O task failed: {error}"));
                items.append(&mut task.await.map_err(failed)??);
            }
            Ok(items)
        })
    }
}

fn read_chunk(store: &OpenStore, paths: Vec<ItemPath>) -> Result<Vec<ReadItem>, StoreError> {
    let mut items = Vec::with_capacity(paths.len());
    for path in paths {
        let read = store.read(&path);
        push_read(&mut items, path, read)?;
    }
    Ok(items)
}
