//! Users, policies and mappings in a run: pools in memory that outlive the processes of their node,
//! and the replicas of iam-bootstrap that `software` runs over them.
//!
//! A record is recorded as an event when a pool persists it. The snapshot of readers is compared
//! after each tick, from outside of the simulation. An item has a number and a value: the value of
//! a change is the number of its call.

use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use grid::env::{Env, SystemClock};
use grid::sync::Mutex;
use iam_bootstrap::record::{Content, Record, Version};
use iam_bootstrap::store::sealed::Keys;
use iam_bootstrap::store::{IamStore, MemoryStore, Sealed};
use iam_bootstrap::{Iam, Snapshot};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::clock::EPOCH_SECONDS;
use crate::event::{IamEvent, ItemRecord, RecordVersion};
use crate::plan::Plan;

mod convergence;
mod items;
mod pool;

pub use convergence::Convergence;
pub(crate) use convergence::converged_since;
pub(crate) use items::{item, key};
pub(crate) use pool::{RecordingPool, version};

pub(crate) fn keys() -> Result<Keys, Box<dyn Error>> {
    Ok(Keys::new(b"what all nodes of the simulation know")?)
}

pub(crate) fn sealed(store: &MemoryStore) -> Result<Sealed<MemoryStore>, Box<dyn Error>> {
    let env = Env::new(SystemClock::new(), &mut StdRng::seed_from_u64(1));
    Ok(Sealed::new(store.clone(), keys()?, &env))
}

/// Creates the pools of one node, with their seeded items.
pub(crate) fn pools(plan: &Plan) -> Vec<MemoryStore> {
    let Some(iam) = &plan.cluster.iam else { return Vec::new() };
    let pools: Vec<_> =
        (0..iam.pools).map(|pool| MemoryStore::new(&format!("pool-{pool}"))).collect();
    for record in seeds(plan) {
        let index = usize::from(record.item) % pools.len().max(1);
        if let Some(store) = pools.get(index)
            && let Err(error) = seed(store, record)
        {
            grid::bug!("an item cannot be seeded: {error}");
        }
    }
    let pace = Duration::from_millis(u64::from(iam.store_ms));
    for store in pools.iter().filter(|_| !pace.is_zero()) {
        store.set_delay_hook(Some(Arc::new(move |_| Box::pin(tokio::time::sleep(pace)))));
    }
    pools
}

/// Returns the records that all nodes have at the start.
pub(crate) fn seeds(plan: &Plan) -> impl Iterator<Item = ItemRecord> {
    let seeded = plan.cluster.iam.as_ref().map_or(0, |iam| iam.seeded);
    (0..seeded).map(|item| {
        let micros = (EPOCH_SECONDS - 1_000) * 1_000_000 + u64::from(item);
        let version = RecordVersion { micros, server: 0 };
        ItemRecord { item, version, value: Some(SEEDED_VALUE_MIN + u32::from(item)) }
    })
}

/// Lowest value of seeded items.
const SEEDED_VALUE_MIN: u32 = 10_000_000;

fn seed(store: &MemoryStore, item: ItemRecord) -> Result<(), Box<dyn Error>> {
    let body = items::body(item.item, item.value.unwrap_or_default())?;
    let version = Version { micros: item.version.micros, node: item.version.server };
    let record = Record { version, content: Content::Item(body.into()) };
    let store = sealed(store)?;
    let path = items::path(item.item)?;
    let mut writing = store.write(&path, record.encode());
    match writing.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(written) => Ok(written?),
        Poll::Pending => Err("a store in memory returned pending".into()),
    }
}

/// Slot into which software puts the IAM replica of its node.
#[derive(Clone, Default)]
pub struct IamSlot {
    iam: Arc<OnceLock<Iam>>,
    last_snapshot: Arc<Mutex<Option<Arc<Snapshot>>>>,
}

impl IamSlot {
    /// Sets the replica that the load changes from now on, one for each incarnation of a node.
    pub fn set(&self, iam: Iam) {
        if self.iam.set(iam).is_err() {
            grid::bug!("an incarnation has one IAM replica");
        }
    }

    /// Returns the replica, if there is one.
    pub(crate) fn iam(&self) -> Option<Iam> {
        self.iam.get().cloned()
    }

    /// Returns the snapshot that readers see, if it has changed since the last call.
    pub(crate) fn poll_snapshot(&self) -> Option<IamEvent> {
        let now = self.iam.get()?.snapshot();
        let mut last = self.last_snapshot.lock();
        if now.as_ref().map(Arc::as_ptr) == last.as_ref().map(Arc::as_ptr) {
            return None;
        }
        (*last).clone_from(&now);
        Some(IamEvent::SnapshotChanged { items: now.map(|snapshot| items::all(&snapshot)) })
    }
}

impl std::fmt::Debug for IamSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("IamSlot").field(&self.iam.get()).finish()
    }
}
