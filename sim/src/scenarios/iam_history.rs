//! Clusters whose nodes keep copies, and what a trace says of each, for the expectations of scenarios.

use iam_bootstrap::limits;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::begin;
use crate::bounds::Bounds;
use crate::event::{Event, EventKind, IamEvent, ItemRecord, LinkState};
use crate::iam;
use crate::invariants::CheckResult;
use crate::plan::{Fault, IamPlan, Node, Plan};

/// A plan of `nodes` nodes with two pools each. They compare their copies by themselves every few minutes:
/// what becomes the same sooner does so for another reason.
pub(super) fn begin_copies(name: &str, seed: u64, nodes: u8, duration_ms: u64) -> (Plan, SmallRng) {
    let (mut plan, mut rng) = begin(name, seed, nodes, duration_ms);
    plan.cluster.tick_ms = 5;
    let store_ms = rng.random_range(0..20);
    plan.cluster.iam = Some(IamPlan { pools: 2, seeded: 12, refresh_ms: 300_000, store_ms });
    (plan, rng)
}

/// A trace, by its copies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copies<'a> {
    plan: &'a Plan,
    events: &'a [Event],
}

impl<'a> Copies<'a> {
    /// Those of a run.
    pub(super) fn of(plan: &'a Plan, events: &'a [Event]) -> Self {
        Self { plan, events }
    }

    /// What happened on a node, and when.
    fn on(self, node: Node) -> impl Iterator<Item = (u64, &'a EventKind)> {
        let own = self.events.iter().filter(move |event| event.node == Some(node));
        own.map(|event| (event.at_ms, &event.kind))
    }

    /// When its process began; each time.
    pub(super) fn starts(self, node: Node) -> Vec<u64> {
        let is_start = |kind: &EventKind| matches!(kind, EventKind::Started { .. });
        self.on(node).filter(|(_, kind)| is_start(kind)).map(|(at_ms, _)| at_ms).collect()
    }

    /// How often it logged that everything is loaded.
    pub(super) fn loads(self, node: Node) -> usize {
        self.on(node)
            .filter(|(_, kind)| matches!(kind, EventKind::Iam(IamEvent::LoadLogged { .. })))
            .count()
    }

    /// When it was connected to another anew; each time.
    pub(super) fn connects(self, node: Node, other: Node) -> Vec<u64> {
        let is_it = |kind: &EventKind| {
            let connected = LinkState::Connected;
            matches!(kind, EventKind::State { remote, state, .. } if *remote == other && *state == connected)
        };
        self.on(node).filter(|(_, kind)| is_it(kind)).map(|(at_ms, _)| at_ms).collect()
    }

    /// When it began to compare with another; each time.
    pub(super) fn comparisons(self, node: Node, other: Node) -> Vec<u64> {
        let is_it = |kind: &EventKind| matches!(kind, EventKind::Iam(IamEvent::Reconciles { with }) if *with == other);
        self.on(node).filter(|(_, kind)| is_it(kind)).map(|(at_ms, _)| at_ms).collect()
    }

    /// When it kept a record of this item that is, or is not, a deletion; the first time after
    /// `after_ms`.
    pub(super) fn kept(self, node: Node, item: u8, kind: Is, after_ms: u64) -> Option<u64> {
        let is_it =
            |kept: &ItemRecord| kept.item == item && kept.value.is_some() == (kind == Is::There);
        let mut kept = self.on(node).filter(|(_, kind)| match kind {
            EventKind::Iam(IamEvent::Persisted { record: kept, .. }) => is_it(kept),
            _ => false,
        });
        kept.find(|(at_ms, _)| *at_ms >= after_ms).map(|(at_ms, _)| at_ms)
    }

    /// What its readers see at this time.
    pub(super) fn seen(self, node: Node, at_ms: u64) -> Option<&'a [(u8, u32)]> {
        let mut seen = None;
        for (at, kind) in self.on(node) {
            match kind {
                _ if at > at_ms => break,
                EventKind::Started { .. } => seen = None,
                EventKind::Iam(IamEvent::SnapshotChanged { items }) => seen = items.as_deref(),
                _ => {}
            }
        }
        seen
    }

    /// When the run was over.
    pub(super) fn end_ms(self) -> u64 {
        self.events.last().map_or(0, |event| event.at_ms)
    }

    /// Its readers must see this item at this time, or must not.
    pub(super) fn must_see(self, node: Node, item: u8, kind: Is, at_ms: u64) -> CheckResult {
        let Some(seen) = self.seen(node, at_ms) else {
            return Err(format!("readers of {node} must see something at {at_ms} ms"));
        };
        let is_there = seen.iter().any(|(number, _)| *number == item);
        match is_there == (kind == Is::There) {
            true => Ok(()),
            false if is_there => Err(format!("{node} must not show item {item} at {at_ms} ms")),
            false => Err(format!("{node} must show item {item} at {at_ms} ms")),
        }
    }

    /// All nodes must be the same soon after `since_ms`: no later than if they compared every few
    /// seconds, although their intervals are long, because they were cut off from each other.
    pub(super) fn must_be_same_soon(self, since_ms: u64) -> CheckResult {
        let limit = since_ms + soon_ms(self.plan);
        match iam::converged_since(self.events, self.plan.cluster.nodes) {
            Some(at_ms) if at_ms <= limit => Ok(()),
            other => Err(format!("all copies must converge by {limit} ms, and did at {other:?}")),
        }
    }
}

/// Whether an item is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    /// It is.
    There,
    /// It was deleted, or never put.
    Gone,
}

/// How long nodes of `plan` may take to be the same if none of them waits for its interval.
pub(super) fn soon_ms(plan: &Plan) -> u64 {
    let mut eager = plan.clone();
    let retry = u32::try_from(limits::RETRY_MAX.as_millis()).unwrap_or(u32::MAX);
    if let Some(iam) = &mut eager.cluster.iam {
        iam.refresh_ms = iam.refresh_ms.min(retry);
    }
    Bounds::of(&eager).converge_ms
}

/// When the last fault of the plan that `is_meant` happens.
pub(super) fn last_fault(plan: &Plan, is_meant: impl Fn(&Fault) -> bool) -> Result<u64, String> {
    let found = plan.faults.iter().rev().find(|(_, fault)| is_meant(fault));
    found.map(|(at_ms, _)| *at_ms).ok_or_else(|| "the plan lacks a fault".to_owned())
}

/// Whether this mends a link.
pub(super) fn is_mend(fault: &Fault) -> bool {
    matches!(fault, Fault::Repair { .. })
}
