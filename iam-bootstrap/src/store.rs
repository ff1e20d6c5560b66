//! Where items are kept: an interface to one pool, and stores that are ready to use.
//!
//! An *item* is some bytes at an [`ItemPath`]. A store knows nothing of what they mean; it promises that
//! an item is wholly what was written last, that what was acknowledged is kept, and that each failure
//! says which it is: nothing there, not there yet, not reachable, or damaged.

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
pub use path::{ItemPath, Kind, PathError};
pub use sealed::Sealed;

use crate::limits::ITEMS_PER_READ;

/// Why a store did not do what it was asked.
///
/// After a failed write or deletion the item is either what it was or what it was to become.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Nothing was ever kept here. Wait for the server that initialises it, or for its disk.
    #[error("{store} is not initialised: wait until it is online, or initialise it")]
    NotInitialised {
        /// The store's name.
        store: Arc<str>,
    },
    /// The store is there and has no such item.
    #[error("there is no {path}")]
    NotFound {
        /// The item.
        path: ItemPath,
    },
    /// The store cannot be used now; what it holds is not known. Worth trying again.
    #[error("{store} is unavailable: {cause}")]
    Unavailable {
        /// The store's name.
        store: Arc<str>,
        /// What failed.
        cause: Arc<str>,
    },
    /// The item is there, but not as it was written. Trying again does not help; restore it, write it
    /// anew or delete it.
    #[error("{path} is corrupt: {why}")]
    Corrupt {
        /// The item.
        path: ItemPath,
        /// How that is known.
        why: Arc<str>,
    },
    /// The item is sealed with a key that this server does not have.
    #[error(
        "{path} is sealed with the key {key}, and the root secret makes another: give the secret that it was written with as an older one"
    )]
    WrongKey {
        /// The item.
        path: ItemPath,
        /// The id of the key that it was sealed with.
        key: Arc<str>,
    },
    /// The item is larger than any may be.
    #[error("{path} has {bytes} bytes, and an item may have {max}")]
    TooLarge {
        /// The item.
        path: ItemPath,
        /// How large it is.
        bytes: u64,
        /// [`ITEM_BYTES_MAX`](crate::limits::ITEM_BYTES_MAX), or less where something is added to it.
        max: usize,
    },
    /// There are more items of a kind than a store lists.
    #[error("{store} holds more than {max} {kind}, which is the limit")]
    TooMany {
        /// The store's name.
        store: Arc<str>,
        /// The kind.
        kind: Kind,
        /// [`LISTED_MAX`](crate::limits::LISTED_MAX).
        max: usize,
    },
    /// The store, or an item, was written by a newer version than this.
    #[error("{what} was written in format {found}, and this version knows up to {max}: upgrade")]
    Unsupported {
        /// The store's name or the item's path.
        what: Arc<str>,
        /// The format that it is in.
        found: u32,
        /// The newest that is known.
        max: u32,
    },
}

impl StoreError {
    /// Whether the same may succeed later without anybody mending the store's content.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::NotInitialised { .. } | Self::Unavailable { .. })
    }

    /// Whether it is about one item alone: others can be read.
    pub fn is_of_one_item(&self) -> bool {
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

/// What a store is about to say.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// The items of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Their paths, in order.
    pub paths: Vec<ItemPath>,
    /// Names that were found among them and are no items', the first few: somebody should look.
    pub strangers: Vec<String>,
    /// How many such names there are.
    pub strangers_total: usize,
}

/// One item of many that were read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its path.
    pub path: ItemPath,
    /// Its bytes, or what is wrong with this one item.
    pub bytes: Result<Vec<u8>, StoreError>,
}

/// One pool that keeps items. Implementations are used behind `Arc<dyn IamStore>`.
pub trait IamStore: Send + Sync + 'static {
    /// What it is called in logs and errors: one store's name differs from all others'.
    fn name(&self) -> &str;

    /// Reads an item.
    ///
    /// # Errors
    ///
    /// Each of [`StoreError`] but `TooMany`.
    fn read<'a>(&'a self, path: &'a ItemPath) -> Pending<'a, Vec<u8>>;

    /// Writes an item in place of what was there. When it has returned, it is kept, and no reader ever
    /// sees a part of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooLarge`] and, where the outcome is not known, [`StoreError::Unavailable`].
    ///
    /// # Cancel safety
    ///
    /// A write whose future is dropped may be done or not, but never in part.
    fn write<'a>(&'a self, path: &'a ItemPath, bytes: Vec<u8>) -> Pending<'a, ()>;

    /// Deletes an item. When it has returned, the item does not come back.
    ///
    /// # Errors
    ///
    /// [`StoreError::NotFound`] if it was not there.
    fn delete<'a>(&'a self, path: &'a ItemPath) -> Pending<'a, ()>;

    /// Lists the items of a kind.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooMany`], and those that are not of one item.
    fn list(&self, kind: Kind) -> Pending<'_, Listing>;

    /// Reads many items, in their order. Those that are not there any more are left out; what is wrong
    /// with one of them is said in its place.
    ///
    /// # Errors
    ///
    /// Those that are not of one item.
    fn read_many<'a>(&'a self, paths: &'a [ItemPath]) -> Pending<'a, Vec<Item>> {
        Box::pin(async move {
            let mut items = Vec::with_capacity(paths.len());
            for path in paths {
                keep(&mut items, path.clone(), self.read(path).await)?;
            }
            Ok(items)
        })
    }

    /// Reads all items of a kind, [`ITEMS_PER_READ`] at a time. Whoever tells progress lists them and
    /// reads them in parts.
    ///
    /// # Errors
    ///
    /// [`StoreError::TooMany`], and those that are not of one item.
    fn read_all(&self, kind: Kind) -> Pending<'_, Vec<Item>> {
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

/// Adds what was read of one of many items.
fn keep(
    items: &mut Vec<Item>,
    path: ItemPath,
    read: Result<Vec<u8>, StoreError>,
) -> Result<(), StoreError> {
    match read {
        Err(StoreError::NotFound { .. }) => Ok(()), // Deleted since it was listed.
        Err(error) if !error.is_of_one_item() => Err(error),
        bytes => {
            items.push(Item { path, bytes });
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

/// So that a store can be shared and wrapped.
impl<S: IamStore + ?Sized> IamStore for Arc<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn read<'a>(&'a self, path: &'a ItemPath) -> Pending<'a, Vec<u8>> {
        (**self).read(path)
    }

    fn write<'a>(&'a self, path: &'a ItemPath, bytes: Vec<u8>) -> Pending<'a, ()> {
        (**self).write(path, bytes)
    }

    fn delete<'a>(&'a self, path: &'a ItemPath) -> Pending<'a, ()> {
        (**self).delete(path)
    }

    fn list(&self, kind: Kind) -> Pending<'_, Listing> {
        (**self).list(kind)
    }

    fn read_many<'a>(&'a self, paths: &'a [ItemPath]) -> Pending<'a, Vec<Item>> {
        (**self).read_many(paths)
    }

    fn read_all(&self, kind: Kind) -> Pending<'_, Vec<Item>> {
        (**self).read_all(kind)
    }
}
