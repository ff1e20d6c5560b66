//! Plans of clusters with IAM, and queries of a trace for the expectations of scenarios.

use iam_bootstrap::limits;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::new_plan;
use crate::bounds::Bounds;
use crate::event::{ConnectionState, Event, EventKind, IamEvent, ItemRecord};
use crate::iam;
use crate::invariants::CheckResult;
use crate::plan::{Fault, IamPlan, Node, Plan};

/// Creates a plan of `nodes` nodes with two pools each. Periodic reconciliation happens every few
/// minutes: earlier convergence has another cause.
pub(super) fn new_iam_plan(name: &str, seed: u64, nodes: u8, duration_ms: u64) -> (Plan, SmallRng) {
    let (mut plan, mut rng) = new_plan(name, seed, nodes, duration_ms);
    plan.cluster.tick_ms = 5;
    let store_ms = rng.random_range(0..20);
    plan.cluster.iam = Some(IamPlan { pools: 2, seeded: 12, refresh_ms: 300_000, store_ms });
    (plan, rng)
}

/// The IAM events of a trace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replicas<'a> {
    plan: &'a Plan,
    events: &'a [Event],
}

impl<'a> Replicas<'a> {
    /// Creates the view of a run.
    pub(super) fn of(plan: &'a Plan, events: &'a [Event]) -> Self {
        Self { plan, events }
    }

    /// Returns the events of a node, with their times.
    fn on(self, node: Node) -> impl Iterator<Item = (u64, &'a EventKind)> {
        let events = self.events.iter().filter(move |event| event.node == Some(node));
        events.map(|event| (event.at_ms, &event.kind))
    }

    /// Returns the times at which its process started.
    pub(super) fn starts(self, node: Node) -> Vec<u64> {
        let is_start = |kind: &EventKind| matches!(kind, EventKind::Started { .. });
        self.on(node).filter(|(_, kind)| is_start(kind)).map(|(at_ms, _)| at_ms).collect()
    }

    /// Returns how often it logged that everything is loaded.
    pub(super) fn loads(self, node: Node) -> usize {
        self.on(node)
            .filter(|(_, kind)| matches!(kind, EventKind::Iam(IamEvent::LoadLogged { .. })))
            .count()
    }

    /// Returns the times at which it connected to another node.
    pub(super) fn connects(self, node: Node, other: Node) -> Vec<u64> {
        let matches = |kind: &EventKind| {
            let connected = ConnectionState::Connected;
            matches!(kind, EventKind::State { remote, state, .. }
                if *remote == other && *state == connected)
        };
        self.on(node).filter(|(_, kind)| matches(kind)).map(|(at_ms, _)| at_ms).collect()
    }

    /// Returns the times at which it started a reconciliation with another node.
    pub(super) fn reconciliations(self, node: Node, other: Node) -> Vec<u64> {
        let matches = |kind: &EventKind| match kind {
            EventKind::Iam(IamEvent::Reconciles { with }) => *with == other,
            _ => false,
        };
        self.on(node).filter(|(_, kind)| matches(kind)).map(|(at_ms, _)| at_ms).collect()
    }

    /// Returns the first time after `after_ms` at which it persisted an item or, if `Absent`, a
    /// tombstone.
    pub(super) fn persisted(
        self,
        node: Node,
        item: u8,
        presence: Presence,
        after_ms: u64,
    ) -> Option<u64> {
        let matches = |record: &ItemRecord| {
            record.item == item && record.value.is_some() == (presence == Presence::Present)
        };
        let mut persisted = self.on(node).filter(|(_, kind)| match kind {
            EventKind::Iam(IamEvent::Persisted { record, .. }) => matches(record),
            _ => false,
        });
        persisted.find(|(at_ms, _)| *at_ms >= after_ms).map(|(at_ms, _)| at_ms)
    }

    /// Returns the snapshot that its readers see at this time.
    pub(super) fn snapshot(self, node: Node, at_ms: u64) -> Option<&'a [(u8, u32)]> {
        let mut snapshot = None;
        for (at, kind) in self.on(node) {
            match kind {
                _ if at > at_ms => break,
                EventKind::Started { .. } => snapshot = None,
                EventKind::Iam(IamEvent::SnapshotChanged { items }) => snapshot = items.as_deref(),
                _ => {}
            }
        }
        snapshot
    }

    /// Returns the end of the run.
    pub(super) fn end_ms(self) -> u64 {
        self.events.last().map_or(0, |event| event.at_ms)
    }

    /// Checks that its readers see this item at this time, or do not.
    pub(super) fn must_see(
        self,
        node: Node,
        item: u8,
        presence: Presence,
        at_ms: u64,
    ) -> CheckResult {
        let Some(items) = self.snapshot(node, at_ms) else {
            return Err(format!("readers of {node} must see something at {at_ms} ms"));
        };
        let exists = items.iter().any(|(number, _)| *number == item);
        match exists == (presence == Presence::Present) {
            true => Ok(()),
            false if exists => Err(format!("{node} must not show item {item} at {at_ms} ms")),
            false => Err(format!("{node} must show item {item} at {at_ms} ms")),
        }
    }

    /// Checks that all nodes converge soon after `since_ms`: as soon as with an interval of a few
    /// seconds, although their interval is long, because a reconnect starts a reconciliation.
    pub(super) fn must_converge_soon(self, since_ms: u64) -> CheckResult {
        let limit = since_ms + soon_limit_ms(self.plan);
        match iam::converged_since(self.events, self.plan.cluster.nodes) {
            Some(at_ms) if at_ms <= limit => Ok(()),
            other => Err(format!("all replicas must converge by {limit} ms, and did at {other:?}")),
        }
    }
}

/// Whether an item exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    /// It exists.
    Present,
    /// It was deleted, or never put.
    Absent,
}

/// Returns the time to convergence of `plan` if no node waits for its interval.
pub(super) fn soon_limit_ms(plan: &Plan) -> u64 {
    let mut eager = plan.clone();
    let retry = u32::try_from(limits::RETRY_MAX.as_millis()).unwrap_or(u32::MAX);
    if let Some(iam) = &mut eager.cluster.iam {
        iam.refresh_ms = iam.refresh_ms.min(retry);
    }
    Bounds::of(&eager).converge_ms
}

/// Returns the time of the last fault of the plan that `is_match` selects.
pub(super) fn last_fault(plan: &Plan, is_match: impl Fn(&Fault) -> bool) -> Result<u64, String> {
    let found = plan.faults.iter().rev().find(|(_, fault)| is_match(fault));
    found.map(|(at_ms, _)| *at_ms).ok_or_else(|| "the plan lacks a fault".to_owned())
}

/// Returns whether this repairs a link.
pub(super) fn is_repair(fault: &Fault) -> bool {
    matches!(fault, Fault::Repair(_))
}
