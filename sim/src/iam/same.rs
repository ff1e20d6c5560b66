//! Since when all nodes show the same.

use std::collections::BTreeMap;

use crate::event::{Event, IamEvent, What};
use crate::plan::Node;

/// When readers of all `nodes` began to see the same items, of which none changed any more until all was
/// quiet, in milliseconds; `None` if they did not.
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
}
