//! The time since which all nodes show equal replicas.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bounds::Bounds;
use crate::event::{Event, EventKind, IamEvent};
use crate::plan::{Node, Plan};

/// How soon all replicas of a run converged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Convergence {
    /// Time from the healing of all faults to convergence, in milliseconds; 0 if they had
    /// converged.
    pub after_ms: u64,
    /// The bound on that time: [`Bounds::converge_ms`].
    pub within_ms: u64,
}

impl Convergence {
    /// Computes it for a run of `plan`; `None` without replicas, or if the run ended before they
    /// converged.
    pub(crate) fn of(plan: &Plan, events: &[Event]) -> Option<Self> {
        plan.cluster.iam.as_ref()?;
        let of = |kind: &EventKind| events.iter().find(|event| event.kind == *kind);
        let (healed, _quiet) = (of(&EventKind::Healed)?, of(&EventKind::Quiet)?);
        let since_ms = converged_since(events, plan.cluster.nodes)?;
        let after_ms = since_ms.saturating_sub(healed.at_ms);
        Some(Self { after_ms, within_ms: Bounds::of(plan).converge_ms })
    }
}

/// Returns the time since which readers of all `nodes` saw equal items, without a change until the
/// cluster was quiet, in milliseconds; `None` if they did not.
pub(crate) fn converged_since(events: &[Event], nodes: u8) -> Option<u64> {
    let mut shown: BTreeMap<Node, Option<&Vec<(u8, u32)>>> = BTreeMap::new();
    let mut since = None;
    for Event { at_ms, node, kind } in events {
        let Some(node) = node.filter(|node| node.0 < nodes) else {
            match kind {
                EventKind::Quiet => break,
                _ => continue,
            }
        };
        let now = match kind {
            EventKind::Started { .. } => None,
            EventKind::Iam(IamEvent::SnapshotChanged { items }) => items.as_ref(),
            _ => continue,
        };
        if shown.insert(node, now) != Some(now) {
            let first = shown.get(&Node(0)).copied().flatten();
            let is_equal = |node| first.is_some() && shown.get(&Node(node)) == Some(&first);
            since = (0..nodes).all(is_equal).then_some(*at_ms);
        }
    }
    since
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::IamPlan;

    const A: Node = Node(0);
    const B: Node = Node(1);

    fn snapshot(at_ms: u64, node: Node, items: &[(u8, u32)]) -> Event {
        let kind = EventKind::Iam(IamEvent::SnapshotChanged { items: Some(items.to_vec()) });
        Event { at_ms, node: Some(node), kind }
    }

    #[test]
    fn nodes_have_converged_since_the_last_change_of_any() {
        let mut events = vec![snapshot(1, A, &[(0, 1)])];
        assert_eq!(converged_since(&events, 2), None, "one of them has not loaded");
        events.push(snapshot(2, B, &[(0, 1)]));
        assert_eq!(converged_since(&events, 2), Some(2));
        events.push(snapshot(3, A, &[(0, 1)]));
        assert_eq!(converged_since(&events, 2), Some(2), "another replica with equal items");
        events.push(snapshot(4, A, &[]));
        assert_eq!(converged_since(&events, 2), None);
        events.push(snapshot(5, B, &[]));
        assert_eq!(converged_since(&events, 2), Some(5));
    }

    #[test]
    fn restarted_node_has_not_converged_before_it_has_loaded() {
        let mut events = vec![snapshot(1, A, &[]), snapshot(1, B, &[])];
        let started = EventKind::Started { incarnation: 2 };
        events.push(Event { at_ms: 2, node: Some(B), kind: started });
        assert_eq!(converged_since(&events, 2), None);
        events.push(snapshot(3, B, &[]));
        assert_eq!(converged_since(&events, 2), Some(3));
        events.push(Event { at_ms: 4, node: None, kind: EventKind::Quiet });
        events.push(snapshot(5, B, &[(0, 1)]));
        assert_eq!(
            converged_since(&events, 2),
            Some(3),
            "the shutdown that follows does not count"
        );
    }

    #[test]
    fn time_to_convergence_counts_from_the_healing_of_all_faults() {
        let mut plan = Plan::quiet(2);
        let event = |at_ms, kind| Event { at_ms, node: None, kind };
        let healed = event(10, EventKind::Healed);
        let mut events = vec![snapshot(1, A, &[]), healed, snapshot(17, B, &[])];
        assert_eq!(Convergence::of(&plan, &events), None, "there are no replicas");
        plan.cluster.iam = Some(IamPlan { pools: 1, seeded: 0, refresh_ms: 1, store_ms: 0 });
        assert_eq!(Convergence::of(&plan, &events), None, "the run may not have ended yet");
        events.push(event(30, EventKind::Quiet));
        let within_ms = Bounds::of(&plan).converge_ms;
        assert_eq!(Convergence::of(&plan, &events), Some(Convergence { after_ms: 7, within_ms }));
        events.swap(1, 2);
        events[1].at_ms = 2;
        assert_eq!(Convergence::of(&plan, &events), Some(Convergence { after_ms: 0, within_ms }));
    }
}
