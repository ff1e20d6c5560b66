//! Storage of items: the interface to one pool, and its implementations.
//!
//! An *item* is a byte string at an [`ItemPath`]; a store does not interpret it. A store promises
//! that a read returns the last complete write, that an acknowledged write is durable, and that an
//! error says whether the item does not exist, the store is uninitialised or unreachable, or the
//! data is damaged.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

#[cfg(unix)]
pub mod directory;
pub mod memory;
pub mod path;
pub mod sealed;

#[cfg(unix)]
pub use directory::DirectoryStore;
pub use memory::MemoryStore;
pub use path::{ItemKind, ItemPath, PathError};
pub use sealed::Sealed;

use crate::limits::{ITEMS_PER_READ, STORE_TIMEOUT};

/// Error of a store operation.
///
/// After a failed write or deletion the item is either unchanged or fully changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store was never initialised. Wait for the server that initialises it, or for its disk.
    #[error("{store} is not initialised: wait until it is online, or initialise it")]
    NotInitialised {
        /// Name of the store.
        store: Arc<str>,
    },
    /// The store has no such item.
    #[error("there is no {path}")]
    NotFound {
        /// Path of the item.
        path: ItemPath,
    },
    /// The store cannot be used now; its content is unknown. Retry later.
    #[error("{store} is unavailable: {cause}")]
    Unavailable {
        /// Name of the store.
        store: Arc<str>,
        /// Cause of the failure.
        cause: Arc<str>,
    },
    /// The item exists but is damaged. Retrying does not help; restore, rewrite or delete the item.
    #[error("{path} is corrupt: {cause}")]
    Corrupt {
        /// Path of the item.
        path: ItemPath,
        /// Reason why it is considered damaged.
        cause: Arc<str>,
    },
    /// The item is sealed with a key that this server does not have.
    #[error(
        "{path} is sealed with key {key}, which is not derived from the root secret: add the secret that it was sealed with as an older one"
    )]
    WrongKey {
        /// Path of the item.
        path: ItemPath,
        /// Id of the key that it was sealed with.
        key: Arc<str>,
    },
    /// The item exceeds the size limit.
    #[error("{path} has {bytes} bytes, and an item may have {max}")]
    TooLarge {
        /// Path of the item.
        path: ItemPath,
        /// Size of the item in bytes.
        bytes: u64,
        /// [`ITEM_BYTES_MAX`](crate::limits::ITEM_BYTES_MAX), or less where a header or seal is
        /// added.
        max: usize,
    },
    /// The store has more items of a kind than it lists.
    #[error("{store} holds more than {max} {kind}, which is the limit")]
    TooMany {
        /// Name of the store.
        store: Arc<str>,
        /// Kind of the items.
        kind: ItemKind,
        /// [`LISTED_MAX`](crate::limits::LISTED_MAX).
        max: usize,
    },
    /// The store, or an item, was written by a newer version.
    #[error("{what} was written in format {found}, and this version knows up to {max}: upgrade")]
    Unsupported {
        /// Name of the store, or path of the item.
        what: Arc<str>,
        /// Format that was found.
        found: u32,
        /// Newest format that this version reads.
        max: u32,
    },
}

impl StoreError {
    /// Returns whether a retry may succeed without a repair of the store's content.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::NotInitialised { .. } | Self::Unavailable { .. })
    }

    /// Returns whether the error concerns one item alone, so that others can be read.
    pub fn affects_one_item(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::Corrupt { .. }
            | Self::WrongKey { .. }
            | Self::TooLarge { .. } => true,
            Self::Unsupported { what, .. } => what.parse::<ItemPath>().is_ok(),
            Self::NotInitialised { .. } | Self::Unavailable { .. } | Self::TooMany { .. } => false,
        }
    }
}

/// Future of a store operation.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// Items of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Paths, in order.
    pub paths: Vec<ItemPath>,
    /// Names in the listing that are not item names, the first few. An operator should check them.
    pub unrecognised: Vec<String>,
    /// Number of such names.
    pub unrecognised_total: usize,
}

/// One item of a bulk read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadItem {
    /// Path of the item.
    pub path: ItemPath,
    /// Bytes of the item, or the error of this one item.
    pub bytes: Result<Vec<u8>, StoreError>,
}

/// One pool that keeps items. Implementations are used behind `Arc<dyn IamStore>`.
pub trait IamStore: Send + Sync + 'static {
    /// Returns the name for logs and errors, unique among the stores of a server.
    fn name(&self) -> &str;

    /// Reads an item.
    ///
    /// # Errors
    ///
    /// Any [`StoreError`] except `TooMany`.
    fn read<'a>(&'a self, path: &'a ItemPath) -> StoreFuture<'a, Vec<u8>>;

    /// Writes an item, replacing the previous content. When it has returned, the write is durable;
    /// no reader ever sees a part of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`] and, where the outcome is not known, [`StoreError::Unavailable`].
    ///
    /// # Cancel safety
    ///
    /// A write whose future is dropped may or may not happen, but never in part.
    fn write<'a>(&'a self, path: &'a ItemPath, bytes: Vec<u8>) -> StoreFuture<'a, ()>;

    /// Deletes an item. When it has returned, the deletion is durable.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] if there was no such item.
    fn delete<'a>(&'a self, path: &'a ItemPath) -> StoreFuture<'a, ()>;

    /// Lists the items of a kind.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooMany`], and those that do not concern one item alone.
    fn list(&self, kind: ItemKind) -> StoreFuture<'_, Listing>;

    /// Reads many items, in order. Items that no longer exist are left out; the error of a single
    /// item is returned in its place.
    ///
    /// # Errors
    ///
    /// Those that do not concern one item alone.
    fn read_many<'a>(&'a self, paths: &'a [ItemPath]) -> StoreFuture<'a, Vec<ReadItem>> {
        Box::pin(async move {
            let mut items = Vec::with_capacity(paths.len());
            for path in paths {
                push_read(&mut items, path.clone(), self.read(path).await)?;
            }
            Ok(items)
        })
    }

    /// Reads all items of a kind, [`ITEMS_PER_READ`] at a time. A caller that reports progress
    /// lists the items and reads them in parts.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooMany`], and those that do not concern one item alone.
    fn read_all(&self, kind: ItemKind) -> StoreFuture<'_, Vec<ReadItem>> {
        Box::pin(async move {
            let paths = self.list(kind).await?.paths;
            let mut items = Vec::with_capacity(paths.len());
            for part in paths.chunks(ITEMS_PER_READ) {
                items.append(&mut self.read_many(part).await?);
            }
            Ok(items)
        })
    }
}

/// Limits a store operation to [`STORE_TIMEOUT`]; a store that does not respond in time is
/// unavailable.
pub(crate) async fn with_store_timeout<T>(
    pool: &dyn IamStore,
    pending: StoreFuture<'_, T>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(STORE_TIMEOUT, pending).await {
        Ok(result) => result,
        Err(_) => Err(StoreError::Unavailable {
            store: pool.name().into(),
            cause: format!("no answer within {STORE_TIMEOUT:?}").into(),
        }),
    }
}

/// Appends the result of reading one item of a bulk read.
fn push_read(
    items: &mut Vec<ReadItem>,
    path: ItemPath,
    read: Result<Vec<u8>, StoreError>,
) -> Result<(), StoreError> {
    match read {
        Err(StoreError::NotFound { .. }) => Ok(()), // Deleted since it was listed.
        Err(error) if !error.affects_one_item() => Err(error),
        bytes => {
            items.push(ReadItem { path, bytes });
            Ok(())
        }
    }
}

fn check_size(path: &ItemPath, bytes: &[u8], max: usize) -> Result<(), StoreError> {
    if bytes.len() > max {
        let bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        return Err(StoreError::TooLarge { path: path.clone(), bytes, max });
    }
    Ok(())
}

/// A shared store is a store, so that it can be wrapped.
impl<S: IamStore + ?Sized> IamStore for Arc<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn read<'a>(&'a self, path: &'a ItemPath) -> StoreFuture<'a, Vec<u8>> {
        (**self).read(path)
    }

    fn write<'a>(&'a self, path: &'a ItemPath, bytes: Vec<u8>) -> StoreFuture<'a, ()> {
        (**self).write(path, bytes)
    }

    fn delete<'a>(&'a self, path: &'a ItemPath) -> StoreFuture<'a, ()> {
        (**self).delete(path)
    }

    fn list(&self, kind: ItemKind) -> StoreFuture<'_, Listing> {
        (**self).list(kind)
    }

    fn read_many<'a>(&'a self, paths: &'a [ItemPath]) -> StoreFuture<'a, Vec<ReadItem>> {
        (**self).read_many(paths)
    }

    fn read_all(&self, kind: ItemKind) -> StoreFuture<'_, Vec<ReadItem>> {
        (**self).read_all(kind)
    }
}
