//! A store in memory with injectable faults, for tests and simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use grid::sync::{Mutex, MutexGuard};

use super::{IamStore, ItemKind, ItemPath, Listing, StoreError, StoreFuture, check_size};
use crate::limits::{ITEM_BYTES_MAX, LISTED_MAX};

/// A store in memory. Clones share the content.
///
/// It has no clock and no tasks: a hook determines its latency ([`MemoryStore::set_delay_hook`]).
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<MemoryInner>,
}

struct MemoryInner {
    name: Arc<str>,
    state: Mutex<MemoryState>,
}

struct MemoryState {
    items: BTreeMap<ItemPath, Vec<u8>>,
    corrupt: BTreeSet<ItemPath>,
    health: Health,
    delay_hook: Option<DelayHook>,
}

/// Availability of a store in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// All operations succeed.
    Online,
    /// All operations fail as if the store was never initialised, whatever its content.
    NotInitialised,
    /// All operations fail as unavailable, for this reason.
    Offline(Arc<str>),
}

/// An operation on a store in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Read of an item.
    Read(ItemPath),
    /// Write of an item.
    Write(ItemPath),
    /// Deletion of an item.
    Delete(ItemPath),
    /// Listing of a kind.
    List(ItemKind),
}

/// Hook whose future each operation awaits first.
pub type DelayHook =
    Arc<dyn Fn(Operation) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

impl MemoryStore {
    /// Returns an empty store that is online.
    pub fn new(name: &str) -> Self {
        let (items, corrupt) = (BTreeMap::new(), BTreeSet::new());
        let state = MemoryState { items, corrupt, health: Health::Online, delay_hook: None };
        Self { inner: Arc::new(MemoryInner { name: name.into(), state: Mutex::new(state) }) }
    }

    /// Sets the availability. The content is kept.
    pub fn set_health(&self, health: Health) {
        self.state().health = health;
    }

    /// Sets the hook that each operation awaits before it executes without further delay.
    pub fn set_delay_hook(&self, delay_hook: Option<DelayHook>) {
        self.state().delay_hook = delay_hook;
    }

    /// Marks an item as corrupt: it cannot be read until it is written or deleted.
    pub fn mark_corrupt(&self, path: &ItemPath) {
        self.state().corrupt.insert(path.clone());
    }

    /// Returns the whole content, whatever the store's health.
    pub fn contents(&self) -> BTreeMap<ItemPath, Vec<u8>> {
        self.state().items.clone()
    }

    /// Overwrites the bytes at a path, whatever the store's health, as a faulty disk might.
    pub fn overwrite_raw(&self, path: &ItemPath, bytes: impl Into<Vec<u8>>) {
        self.state().items.insert(path.clone(), bytes.into());
    }

    fn state(&self) -> MutexGuard<'_, MemoryState> {
        self.inner.state.lock()
    }

    async fn await_delay_hook(&self, operation: Operation) {
        let delay_hook = self.state().delay_hook.clone();
        if let Some(delay_hook) = delay_hook {
            delay_hook(operation).await;
        }
    }

    fn require_online(&self) -> Result<MutexGuard<'_, MemoryState>, StoreError> {
        let state = self.state();
        let store = Arc::clone(&self.inner.name);
        match &state.health {
            Health::Online => Ok(state),
            Health::NotInitialised => Err(StoreError::NotInitialised { store }),
            Health::Offline(cause) => {
                Err(StoreError::Unavailable { store, cause: Arc::clone(cause) })
            }
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Omits the items: they may be secrets.
        let state = self.state();
        f.debug_struct("MemoryStore")
            .field("name", &self.inner.name)
            .field("items", &state.items.len())
            .field("health", &state.health)
            .finish_non_exhaustive()
    }
}

impl IamStore for MemoryStore {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn read<'a>(&'a self, path: &'a ItemPath) -> StoreFuture<'a, Vec<u8>> {
        Box::pin(async move {
            self.await_delay_hook(Operation::Read(path.clone())).await;
            let state = self.require_online()?;
            let not_found = || StoreError::NotFound { path: path.clone() };
            let bytes = state.items.get(path).ok_or_else(not_found)?;
            if state.corrupt.contains(path) {
                let cause = "marked corrupt by a test".into();
                return Err(StoreError::Corrupt { path: path.clone(), cause });
            }
            check_size(path, bytes, ITEM_BYTES_MAX)?;
            Ok(bytes.clone())
        })
    }

    fn write<'a>(&'a self, path: &'a ItemPath, bytes: Vec<u8>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            check_size(path, &bytes, ITEM_BYTES_MAX)?;
            self.await_delay_hook(Operation::Write(path.clone())).await;
            let mut state = self.require_online()?;
            state.corrupt.remove(path);
            state.items.insert(path.clone(), bytes);
            Ok(())
        })
    }

    fn delete<'a>(&'a self, path: &'a ItemPath) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            self.await_delay_hook(Operation::Delete(path.clone())).await;
            let mut state = self.require_online()?;
            state.corrupt.remove(path);
            match state.items.remove(path) {
                Some(_) => Ok(()),
                None => Err(StoreError::NotFound { path: path.clone() }),
            }
        })
    }

    fn list(&self, kind: ItemKind) -> StoreFuture<'_, Listing> {
        Box::pin(async move {
            self.await_delay_hook(Operation::List(kind)).await;
            let state = self.require_online()?;
            let of_kind = state.items.keys().filter(|path| path.kind() == Some(kind));
            let paths: Vec<_> = of_kind.take(LISTED_MAX + 1).cloned().collect();
            if paths.len() > LISTED_MAX {
                let store = Arc::clone(&self.inner.name);
                return Err(StoreError::TooMany { store, kind, max: LISTED_MAX });
            }
            Ok(Listing { paths, ..Listing::default() })
        })
    }
}
