//! [B62]: within a bound after healing, the readers of all nodes see the same: the latest version
//! of each item that was stored anywhere. Only a later change restores a deleted item.
//!
//! All nodes then store that record. For a deletion this is more than readers can see: a node that
//! never had the item must store its tombstone, or it would accept the item from a node that
//! returns with it.
//!
//! [B62]: crate::rules#b62

use std::collections::BTreeMap;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{Event, EventKind, IamEvent, ItemRecord, RecordVersion};
use crate::iam;
use crate::plan::Node;
use crate::world::NodeView;

/// Tracks the views and the stored records of all nodes.
#[derive(Debug, Default)]
pub(super) struct IamConvergence {
    latest: BTreeMap<u8, ItemRecord>,
    /// The readers' view on each node; none before it has loaded.
    seen: BTreeMap<Node, Option<Vec<(u8, u32)>>>,
    /// The stored version of each item on each node.
    stored: BTreeMap<(Node, u8), RecordVersion>,
    healed_ms: Option<u64>,
}

impl IamConvergence {
    /// Records that a node stored a record.
    fn record(&mut self, record: ItemRecord) {
        let latest = self.latest.entry(record.item).or_insert(record);
        if latest.version < record.version {
            *latest = record;
        }
    }

    fn check_convergence(&self, context: &CheckContext<'_>) -> CheckResult {
        if context.plan.cluster.iam.is_none() {
            return Ok(());
        }
        self.check_views(context)?;
        for node in (0..context.plan.cluster.nodes).map(Node) {
            let lacks = |record: &&ItemRecord| {
                self.stored.get(&(node, record.item)) != Some(&record.version)
            };
            if let Some(record) = self.latest.values().find(lacks) {
                return Err(format!("{node} lacks the latest record: {record}"));
            }
        }
        Ok(())
    }

    fn check_views(&self, context: &CheckContext<'_>) -> CheckResult {
        let value = |record: &ItemRecord| Some((record.item, record.value?));
        let must: Vec<_> = self.latest.values().filter_map(value).collect();
        for node in (0..context.plan.cluster.nodes).map(Node) {
            let Some(Some(seen)) = self.seen.get(&node) else {
                return Err(format!("{node} has not loaded its replica"));
            };
            if *seen == must {
                continue;
            }
            let one = |list: &[(u8, u32)], item: u8| {
                list.iter().find(|(number, _)| *number == item).map(|(_, value)| *value)
            };
            let differs = self.latest.values().find(|k| one(seen, k.item) != one(&must, k.item));
            return Err(match differs {
                Some(record @ ItemRecord { item, value: None, .. }) => {
                    let value = one(seen, *item);
                    format!(
                        "{node} shows a deleted item: {value:?}, and the latest record is {record}"
                    )
                }
                Some(record) => {
                    let value = one(seen, record.item);
                    format!("{node} missed a change: {value:?}, not {record}")
                }
                None => format!("{node} shows an item that was never stored"),
            });
        }
        Ok(())
    }
}

impl Invariant for IamConvergence {
    fn name(&self) -> &'static str {
        "iam_convergence"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        if context.plan.cluster.iam.is_none() {
            return Ok(());
        }
        if self.latest.is_empty() {
            for record in iam::seeds(context.plan) {
                self.record(record);
                let nodes = (0..context.plan.cluster.nodes).map(Node);
                self.stored.extend(nodes.map(|node| ((node, record.item), record.version)));
            }
        }
        match (&event.kind, event.node) {
            (EventKind::Healed, _) => self.healed_ms = Some(event.at_ms),
            (EventKind::Started { .. }, Some(node)) => drop(self.seen.insert(node, None)),
            (EventKind::Iam(IamEvent::Persisted { record, .. }), Some(node)) => {
                self.record(*record);
                self.stored.insert((node, record.item), record.version);
            }
            (EventKind::Iam(IamEvent::SnapshotChanged { items }), Some(node)) => {
                self.seen.insert(node, items.clone());
            }
            _ => {}
        }
        Ok(())
    }

    fn on_view(&mut self, _views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        let bound = self.healed_ms.map(|healed| healed + context.bounds.converge_ms);
        let is_due = bound.is_some_and(|bound| context.now_ms > bound);
        if is_due { self.check_convergence(context) } else { Ok(()) }
    }

    fn has_converged(&self, context: &CheckContext<'_>) -> bool {
        self.check_convergence(context).is_ok()
    }

    fn at_quiescence(&mut self, _views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        self.check_convergence(context)
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLEE, CALLER, Harness, assert_violates, persisted, visible};
    use super::*;

    #[test]
    fn b62_all_nodes_show_the_latest_records() {
        let mut harness = Harness::with_iam(IamConvergence::default());
        assert_violates(harness.at_quiescence(&[]), "node-0 has not loaded");
        harness.feed([
            (1, CALLER, persisted(0, 10, Some(1))),
            (1, CALLER, persisted(1, 11, Some(2))),
            (2, CALLER, persisted(0, 12, None)),
            (3, CALLER, visible(&[(1, 2)])),
            (3, CALLEE, visible(&[(0, 1), (1, 2)])),
        ]);
        assert_violates(harness.at_quiescence(&[]), "node-1 shows a deleted item");
        harness.feed([(4, CALLEE, visible(&[]))]);
        assert_violates(harness.at_quiescence(&[]), "node-1 missed a change");
        harness.feed([(5, CALLEE, persisted(1, 11, Some(2))), (5, CALLEE, visible(&[(1, 2)]))]);
        assert_violates(
            harness.at_quiescence(&[]),
            "node-1 lacks the latest record: item 0 deleted",
        );
        harness.feed([(6, CALLEE, persisted(0, 12, None))]);
        assert_eq!(harness.at_quiescence(&[]), Ok(()));
    }
}
