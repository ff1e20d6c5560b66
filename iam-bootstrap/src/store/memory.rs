//! A store in memory, with faults that can be switched on: for tests and simulation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{IamStore, ItemPath, Kind, Listing, Pending, StoreError, check_size};
use crate::limits::{ITEM_BYTES_MAX, LISTED_MAX};

/// A store in memory. Clones share what it holds.
///
/// It has no clock and no tasks: how slow it is, a hook decides ([`MemoryStore::set_pace`]).
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Inner>,
}

struct Inner {
    name: Arc<str>,
    state: Mutex<State>,
}

struct State {
    items: BTreeMap<ItemPath, Vec<u8>>,
    corrupt: BTreeSet<ItemPath>,
    health: Health,
    pace: Option<Pace>,
}

/// Whether a store in memory can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Online,
    /// It says that it was never initialised, whatever it holds.
    NotInitialised,
    /// It is unavailable, for this reason.
    Offline(Arc<str>),
}

/// What is done with a store in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// An item is read.
    Read(ItemPath),
    /// An item is written.
    Write(ItemPath),
    /// An item is deleted.
    Delete(ItemPath),
    /// A kind is listed.
    List(Kind),
}

/// What each operation waits for before it is done.
pub type Pace = Arc<dyn Fn(Operation) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

impl MemoryStore {
    /// An empty store that is online.
    pub fn new(name: &str) -> Self {
        let (items, corrupt) = (BTreeMap::new(), BTreeSet::new());
        let state = State { items, corrupt, health: Health::Online, pace: None };
        Self { inner: Arc::new(Inner { name: name.into(), state: Mutex::new(state) }) }
    }

    /// From now on it can be used, or not. It keeps what it holds.
    pub fn set_health(&self, health: Health) {
        self.state().health = health;
    }

    /// From now on each operation first waits for what `pace` returns; then it is done at once.
    pub fn set_pace(&self, pace: Option<Pace>) {
        self.state().pace = pace;
    }

    /// The item cannot be read until it is written or deleted.
    pub fn corrupt(&self, path: &ItemPath) {
        self.state().corrupt.insert(path.clone());
    }

    /// All that it holds, whatever its health.
    pub fn contents(&self) -> BTreeMap<ItemPath, Vec<u8>> {
        self.state().items.clone()
    }

    /// Puts bytes at a path, whatever its health: what a disk may do to them.
    pub fn plant(&self, path: &ItemPath, bytes: impl Into<Vec<u8>>) {
        self.state().items.insert(path.clone(), bytes.into());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn turn(&self, operation: Operation) {
        let pace = self.state().pace.clone();
        if let Some(pace) = pace {
            pace(operation).await;
        }
    }

    fn online(&self) -> Result<MutexGuard<'_, State>, StoreError> {
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
        // Not the items: they may be secrets.
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

    fn read<'a>(&'a self, path: &'a ItemPath) -> Pending<'a, Vec<u8>> {
        Box::pin(async move {
            self.turn(Operation::Read(path.clone())).await;
            let state = self.online()?;
            let not_found = || StoreError::NotFound { path: path.clone() };
            let bytes = state.items.get(path).ok_or_else(not_found)?;
            if state.corrupt.contains(path) {
                let why = "it was made so by a test".into();
                return Err(StoreError::Corrupt { path: path.clone(), why });
            }
            check_size(path, bytes, ITEM_BYTES_MAX)?;
            Ok(bytes.clone())
        })
    }

    fn write<'a>(&'a self, path: &'a ItemPath, bytes: Vec<u8>) -> Pending<'a, ()> {
        Box::pin(async move {
            check_size(path, &bytes, ITEM_BYTES_MAX)?;
            self.turn(Operation::Write(path.clone())).await;
            let mut state = self.online()?;
            state.corrupt.remove(path);
            state.items.insert(path.clone(), bytes);
            Ok(())
        })
    }

    fn delete<'a>(&'a self, path: &'a ItemPath) -> Pending<'a, ()> {
        Box::pin(async move {
            self.turn(Operation::Delete(path.clone())).await;
            let mut state = self.online()?;
            state.corrupt.remove(path);
            match state.items.remove(path) {
                Some(_) => Ok(()),
                None => Err(StoreError::NotFound { path: path.clone() }),
            }
        })
    }

    fn list(&self, kind: Kind) -> Pending<'_, Listing> {
        Box::pin(async move {
            self.turn(Operation::List(kind)).await;
            let state = self.online()?;
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
