//! Since when all nodes show the same.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::bounds::Bounds;
use crate::event::{Event, IamEvent, What};
use crate::plan::{Node, Plan};

/// How soon all copies of a run were the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Same {
    /// How long after all trouble was over, in milliseconds; 0 if they were before.
    pub after_ms: u64,
    /// How long it may take: [`Bounds::same_ms`].
    pub within_ms: u64,
}

impl Same {
    /// That of a run of `plan`; `None` if it has no copies, or was over before they were the same.
    pub(crate) fn of(plan: &Plan, events: &[Event]) -> Option<Self> {
        plan.cluster.iam.as_ref()?;
        let of = |what: &What| events.iter().find(|event| event.what == *what);
        let (healed, _quiet) = (of(&What::Healed)?, of(&What::Quiet)?);
        let since_ms = same_since(events, plan.cluster.nodes)?;
        let after_ms = since_ms.saturating_sub(healed.at_ms);
        Some(Self { after_ms, within_ms: Bounds::of(plan).same_ms })
    }
}

/// When readers of all `nodes` began to see the same items, of which none changed any more until
/// all was quiet, in milliseconds; `None` if they did not.
pub(crate) fn same_since(events: &[Event], nodes: u8) -> Option<u64> {
    let mut seen: BTreeMap<Node, Option<&Vec<(u8, u32)>>> = BTreeMap::new();
    let mut since = None;
    for Event { at_ms, node, what } in events {
        let Some(node) = node.filter(|node| node.0 < nodes) else {
            match what {
                What::Quiet => break,
                _ => continue,
            }
        };
        let now = match what {
            What::Started { .. } => None,
            What::Iam(IamEvent::Seen { items }) => items.as_ref(),
            _ => continue,
        };
        if seen.insert(node, now) != Some(now) {
            let first = seen.get(&Node(0)).copied().flatten();
            let is_same = |node| first.is_some() && seen.get(&Node(node)) == Some(&first);
            since = (0..nodes).all(is_same).then_some(*at_ms);
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

    fn see(at_ms: u64, node: Node, items: &[(u8, u32)]) -> Event {
        let what = What::Iam(IamEvent::Seen { items: Some(items.to_vec()) });
        Event { at_ms, node: Some(node), what }
    }

    #[test]
    fn nodes_are_the_same_since_the_last_of_them_changed() {
        let mut events = vec![see(1, A, &[(0, 1)])];
        assert_eq!(same_since(&events, 2), None, "one of them has not loaded");
        events.push(see(2, B, &[(0, 1)]));
        assert_eq!(same_since(&events, 2), Some(2));
        events.push(see(3, A, &[(0, 1)]));
        assert_eq!(same_since(&events, 2), Some(2), "another copy with the same in it");
        events.push(see(4, A, &[]));
        assert_eq!(same_since(&events, 2), None);
        events.push(see(5, B, &[]));
        assert_eq!(same_since(&events, 2), Some(5));
    }

    #[test]
    fn a_node_that_begins_again_is_not_the_same_before_it_has_loaded() {
        let mut events = vec![see(1, A, &[]), see(1, B, &[])];
        let began = What::Started { incarnation: 2 };
        events.push(Event { at_ms: 2, node: Some(B), what: began });
        assert_eq!(same_since(&events, 2), None);
        events.push(see(3, B, &[]));
        assert_eq!(same_since(&events, 2), Some(3));
        events.push(Event { at_ms: 4, node: None, what: What::Quiet });
        events.push(see(5, B, &[(0, 1)]));
        assert_eq!(same_since(&events, 2), Some(3), "what follows is the end of the run");
    }

    #[test]
    fn how_soon_they_were_the_same_counts_from_the_end_of_all_trouble() {
        let mut plan = Plan::quiet(2);
        let event = |at_ms, what| Event { at_ms, node: None, what };
        let healed = event(10, What::Healed);
        let mut events = vec![see(1, A, &[]), healed, see(17, B, &[])];
        assert_eq!(Same::of(&plan, &events), None, "there are no copies");
        plan.cluster.iam = Some(IamPlan { pools: 1, seeded: 0, refresh_ms: 1, store_ms: 0 });
        assert_eq!(Same::of(&plan, &events), None, "it may not be over yet");
        events.push(event(30, What::Quiet));
        let within_ms = Bounds::of(&plan).same_ms;
        assert_eq!(Same::of(&plan, &events), Some(Same { after_ms: 7, within_ms }));
        events.swap(1, 2);
        events[1].at_ms = 2;
        assert_eq!(Same::of(&plan, &events), Some(Same { after_ms: 0, within_ms }));
    }
}
