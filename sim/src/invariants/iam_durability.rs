//! [B62]: a change is stored before its caller is notified, and the stored version of an item only
//! increases, across all processes of a node.
//!
//! [B62]: crate::rules#b62

use std::collections::BTreeMap;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{Event, EventKind, IamEvent, ItemRecord};
use crate::plan::Node;

/// Tracks the stored version of each item on each node.
#[derive(Debug, Default)]
pub(super) struct IamDurability {
    latest: BTreeMap<(Node, u8), ItemRecord>,
}

impl Invariant for IamDurability {
    fn name(&self) -> &'static str {
        "iam_durability"
    }

    fn on_event(&mut self, event: &Event, _context: &CheckContext<'_>) -> CheckResult {
        let (Some(node), EventKind::Iam(iam)) = (event.node, &event.kind) else { return Ok(()) };
        match iam {
            IamEvent::Persisted { record, .. } => {
                let before = self.latest.insert((node, record.item), *record);
                match before.filter(|before| before.version >= record.version) {
                    Some(before) => Err(format!("{node} stored {record} after {before}")),
                    None => Ok(()),
                }
            }
            IamEvent::Removed { item } => {
                Err(format!("{node} removed its record of item {item} too early"))
            }
            IamEvent::Changed { call, record, .. } => {
                let latest = self.latest.get(&(node, record.item));
                match latest.is_some_and(|latest| latest.version >= record.version) {
                    true => Ok(()),
                    false => {
                        Err(format!("call {call} succeeded, and {node} has not stored {record}"))
                    }
                }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLEE, CALLER, Harness, assert_violates, persisted, record};
    use super::*;

    #[test]
    fn b62_stored_versions_only_grow() {
        let mut harness = Harness::with_iam(IamDurability::default());
        harness.feed([(1, CALLEE, persisted(0, 10, None)), (2, CALLER, persisted(0, 9, Some(1)))]);
        assert_violates(harness.at(3, CALLEE, persisted(0, 9, Some(1))), "item 0 = 1");
        let removed = EventKind::Iam(IamEvent::Removed { item: 0 });
        assert_violates(harness.at(4, CALLEE, removed), "removed its record of item 0");
    }

    #[test]
    fn b62_reported_change_is_stored() {
        let mut harness = Harness::with_iam(IamDurability::default());
        let changed = || {
            let (record, peer_errors) = (record(0, 10, Some(1)), Vec::new());
            EventKind::Iam(IamEvent::Changed { call: 1, record, peer_errors })
        };
        assert_violates(harness.at(1, CALLEE, changed()), "node-1 has not stored item 0");
        harness.feed([(2, CALLEE, persisted(0, 10, Some(1))), (3, CALLEE, changed())]);
    }
}
