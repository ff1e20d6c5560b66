//! One server's replica in memory: the snapshot that readers see, the versions of its items, and
//! the phase.
//!
//! ```text
//!              pools online              caught up
//!   Loading ─────────────────► CatchingUp ─────────────► Ready
//!      │
//!      └────────────────────► Failed     permanent error
//! ```
//!
//! Readers take the snapshot, without a lock. `startup` loads it and moves the phase; after that
//! `writer` alone changes it.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use grid::sync::Mutex;
use tokio::sync::watch;

use crate::codec::{self, Change};
use crate::load::{LoadError, Progress};
use crate::record::Version;
use crate::replica::Replica;
use crate::snapshot::{Item, ItemKey, Snapshot};
use crate::store::ItemPath;

/// State of this server's replica.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The pools are being read.
    Loading(Progress),
    /// The pools are loaded; changes that this server missed are being fetched from peers.
    CatchingUp,
    /// Snapshots are complete, and changes are accepted.
    Ready,
    /// Loading failed for good.
    Failed(LoadError),
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loading(progress) => write!(f, "loading IAM: {progress}"),
            Self::CatchingUp => f.write_str("catching up with the changes of other servers"),
            Self::Ready => f.write_str("ready"),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

/// Snapshot, versions and phase of one replica.
pub(crate) struct IamState {
    /// Snapshot that readers see; `None` until it is complete.
    current: ArcSwapOption<Snapshot>,
    /// Versions of the items in `current`, changed together with it.
    replica: Mutex<Option<Replica>>,
    phase: watch::Sender<Phase>,
}

impl IamState {
    /// Creates the state of a replica that is not loaded.
    pub(crate) fn new() -> Self {
        Self {
            current: ArcSwapOption::empty(),
            replica: Mutex::default(),
            phase: watch::Sender::new(Phase::Loading(Progress::default())),
        }
    }

    /// Returns the snapshot that readers see; `None` until everything is loaded.
    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// Returns whether everything is loaded.
    pub(crate) fn is_loaded(&self) -> bool {
        self.current.load().is_some()
    }

    /// Returns whether the current snapshot has such an item.
    pub(crate) fn contains(&self, key: &ItemKey) -> bool {
        self.current.load().as_ref().is_some_and(|snapshot| snapshot.contains(key))
    }

    /// Returns the current phase.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Returns a receiver of the phases from now on.
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Sets the phase.
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Makes a complete load visible.
    pub(crate) fn install(&self, snapshot: Snapshot, replica: Replica) {
        let mut current = self.replica.lock();
        self.show(snapshot, &replica);
        *current = Some(replica);
    }

    /// Reads the versions; `None` before everything is loaded.
    pub(crate) fn with_replica<T>(&self, read: impl FnOnce(&Replica) -> T) -> Option<T> {
        self.replica.lock().as_ref().map(read)
    }

    /// Updates the versions and the snapshot together. For the writer alone, once everything is
    /// loaded.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Replica, &Snapshot) -> Snapshot) {
        let mut current = self.replica.lock();
        let (Some(replica), Some(snapshot)) = (current.as_mut(), self.snapshot()) else {
            debug_assert!(false, "the writer starts after the load");
            return;
        };
        let changed = change(replica, &snapshot);
        self.show(changed, replica);
    }

    /// Replaces the snapshot that readers see. The caller holds the lock of the versions.
    fn show(&self, snapshot: Snapshot, replica: &Replica) {
        debug_assert!(
            snapshot.len() <= replica.len(),
            "snapshot.len() is {}, and only {} items have a version",
            snapshot.len(),
            replica.len()
        );
        self.current.store(Some(Arc::new(snapshot)));
    }

    /// Returns the items past their retention, with the index of their pool.
    pub(crate) fn collectable(&self, wall_micros: u64) -> Vec<(ItemPath, usize)> {
        let Some(snapshot) = self.snapshot() else { return Vec::new() };
        let collectable = |replica: &Replica| {
            let all = replica.iter().filter(|(path, known)| {
                is_collectable(&snapshot, path, known.version, wall_micros)
            });
            all.map(|(path, known)| (path.clone(), known.pool)).collect()
        };
        self.with_replica(collectable).unwrap_or_default()
    }
}

fn is_collectable(
    snapshot: &Snapshot,
    path: &ItemPath,
    version: Version,
    wall_micros: u64,
) -> bool {
    let Some(Ok(key)) = codec::key_of(path) else { return false };
    let temporary = match &key {
        ItemKey::Temporary(access_key) => snapshot.temporary(access_key),
        _ => None,
    };
    let change = match temporary {
        Some(credential) => Change::Put(Item::Temporary(credential.clone())),
        None if snapshot.contains(&key) => return false,
        None => Change::Delete(key),
    };
    change.is_collectable(version, wall_micros)
}
