//! Users, policies and mappings as a run sees them: iam-bootstrap on every node, over pools in
//! memory that outlive its processes.
//!
//! What a pool keeps is written down as it is kept, and what readers see is looked at after each
//! tick, from outside of the simulation. An item has a number and a value: of a change, the number
//! of its call.

use std::error::Error;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use iam_bootstrap::model::UserName;
use iam_bootstrap::record::{Content, Record, Version};
use iam_bootstrap::store::sealed::Keys;
use iam_bootstrap::store::{IamStore, MemoryStore, Sealed};
use iam_bootstrap::{Iam, Snapshot};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::event::{IamEvent, Kept, RecordVersion};
use crate::plan::{IamPlan, Plan};
use crate::world::{EPOCH_SECONDS, Host, Software};

mod items;
mod pool;
mod same;

pub(crate) use items::{item, key};
pub(crate) use pool::version;
pub use same::Same;
pub(crate) use same::same_since;

/// What the nodes of `plan` run besides the load: iam-bootstrap, if the plan has what it keeps.
pub fn software(plan: &Plan) -> Arc<dyn Software> {
    match &plan.cluster.iam {
        Some(iam) => Arc::new(Cluster(iam.clone())),
        None => Arc::new(()),
    }
}

struct Cluster(IamPlan);

impl Software for Cluster {
    fn install(&self, host: &Host) -> Result<(), Box<dyn Error>> {
        let refresh = Duration::from_millis(u64::from(self.0.refresh_ms));
        let mut iam = Iam::builder(&host.manager, UserName::new("root")?, keys()?)
            .refresh_interval(refresh)
            .clock(host.clock.clone())
            .rng(StdRng::seed_from_u64(host.seed ^ 0x0069_616d));
        for (index, store) in (0..).zip(&host.pools) {
            iam = iam.pool(pool::Pool::new(index, sealed(store)?, &host.pen));
        }
        let iam = iam.build()?;
        iam.start();
        host.iam.offer(iam);
        Ok(())
    }
}

fn keys() -> Result<Keys, Box<dyn Error>> {
    Ok(Keys::new(b"what all nodes of the simulation know")?)
}

fn sealed(store: &MemoryStore) -> Result<Sealed<MemoryStore>, Box<dyn Error>> {
    Ok(Sealed::new(store.clone(), keys()?, StdRng::seed_from_u64(1)))
}

/// The pools of one node, with what they have from the beginning.
pub(crate) fn pools(plan: &Plan) -> Vec<MemoryStore> {
    let Some(iam) = &plan.cluster.iam else { return Vec::new() };
    let pools: Vec<_> =
        (0..iam.pools).map(|pool| MemoryStore::new(&format!("pool-{pool}"))).collect();
    for kept in seeds(plan) {
        let place = usize::from(kept.item) % pools.len().max(1);
        if let Some(store) = pools.get(place)
            && let Err(error) = seed(store, kept)
        {
            grid::bug!("an item cannot be there from the beginning: {error}");
        }
    }
    let pace = Duration::from_millis(u64::from(iam.store_ms));
    for store in pools.iter().filter(|_| !pace.is_zero()) {
        store.set_pace(Some(Arc::new(move |_| Box::pin(tokio::time::sleep(pace)))));
    }
    pools
}

/// What all nodes have from the beginning.
pub(crate) fn seeds(plan: &Plan) -> impl Iterator<Item = Kept> {
    let seeded = plan.cluster.iam.as_ref().map_or(0, |iam| iam.seeded);
    (0..seeded).map(|item| {
        let micros = (EPOCH_SECONDS - 1_000) * 1_000_000 + u64::from(item);
        let version = RecordVersion { micros, server: 0 };
        Kept { item, version, value: Some(SEEDED + u32::from(item)) }
    })
}

/// Values from here on were there from the beginning.
const SEEDED: u32 = 10_000_000;

fn seed(store: &MemoryStore, kept: Kept) -> Result<(), Box<dyn Error>> {
    let body = items::body(kept.item, kept.value.unwrap_or_default())?;
    let version = Version { micros: kept.version.micros, node: kept.version.server };
    let record = Record { version, content: Content::Item(body.into()) };
    let store = sealed(store)?;
    let path = items::path(kept.item)?;
    let mut writing = store.write(&path, record.encode());
    match writing.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(written) => Ok(written?),
        Poll::Pending => Err("a store in memory makes wait".into()),
    }
}

/// Where software leaves the copy of its node.
#[derive(Clone, Default)]
pub struct Seat {
    iam: Arc<OnceLock<Iam>>,
    seen: Arc<Mutex<Option<Arc<Snapshot>>>>,
}

impl Seat {
    /// The load changes this copy from now on. One for each incarnation of a node.
    pub fn offer(&self, iam: Iam) {
        if self.iam.set(iam).is_err() {
            grid::bug!("a node has one copy");
        }
    }

    /// The copy, if there is one.
    pub(crate) fn iam(&self) -> Option<Iam> {
        self.iam.get().cloned()
    }

    /// What readers see, if that is not what they saw when this was asked last.
    pub(crate) fn look(&self) -> Option<IamEvent> {
        let now = self.iam.get()?.snapshot();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now.as_ref().map(Arc::as_ptr) == seen.as_ref().map(Arc::as_ptr) {
            return None;
        }
        (*seen).clone_from(&now);
        Some(IamEvent::Seen { items: now.map(|snapshot| items::all(&snapshot)) })
    }
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Seat").field(&self.iam.get()).finish()
    }
}
