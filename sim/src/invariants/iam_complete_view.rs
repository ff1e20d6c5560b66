//! [B61]: readers see a complete replica: everything that the pools had when the process started,
//! or later versions stored since. They never see a part, nothing again, or an older version.
//!
//! [B61]: crate::rules#b61

use std::collections::BTreeMap;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{Event, EventKind, IamEvent, ItemRecord, RecordVersion};
use crate::iam;
use crate::plan::Node;

/// Tracks the records and the view of each node.
#[derive(Debug, Default)]
pub(super) struct IamCompleteView {
    replicas: BTreeMap<Node, NodeReplica>,
}

#[derive(Debug, Default)]
struct NodeReplica {
    /// All records ever stored of each item, by their versions.
    stored: BTreeMap<u8, BTreeMap<RecordVersion, Option<u32>>>,
    /// The oldest version of each item that readers may still see.
    floor: BTreeMap<u8, RecordVersion>,
    was_visible: bool,
}

impl NodeReplica {
    fn record(&mut self, record: ItemRecord) {
        self.stored.entry(record.item).or_default().insert(record.version, record.value);
    }

    fn start(&mut self) {
        let latest =
            self.stored.iter().filter_map(|(item, all)| Some((*item, *all.keys().last()?)));
        self.floor = latest.collect();
        self.was_visible = false;
    }

    fn check_view(&mut self, items: Option<&[(u8, u32)]>) -> CheckResult {
        let Some(items) = items else {
            return match self.was_visible {
                true => Err("see nothing after they saw a replica".to_owned()),
                false => Ok(()),
            };
        };
        self.was_visible = true;
        let seen: BTreeMap<_, _> = items.iter().copied().collect();
        if let Some(item) = seen.keys().find(|item| !self.stored.contains_key(item)) {
            return Err(format!("see item {item}, which was never stored there"));
        }
        for (item, all) in &self.stored {
            let value = seen.get(item).copied();
            let floor = self.floor.get(item).copied().unwrap_or_default();
            let is_fine = all.range(floor..).find(|(_, record)| **record == value);
            match is_fine {
                Some((version, _)) => drop(self.floor.insert(*item, *version)),
                // An item may be absent until it is stored for the first time.
                None if value.is_none() && !self.floor.contains_key(item) => {}
                None => {
                    let must = all.get(&floor).copied().flatten();
                    return Err(format!(
                        "see {value:?} as item {item}, not {must:?} of {floor} or a later value"
                    ));
                }
            }
        }
        Ok(())
    }
}

impl Invariant for IamCompleteView {
    fn name(&self) -> &'static str {
        "iam_complete_view"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        let (Some(node), true) = (event.node, context.plan.cluster.iam.is_some()) else {
            return Ok(());
        };
        let replica = self.replicas.entry(node).or_insert_with(|| {
            let mut replica = NodeReplica::default();
            iam::seeds(context.plan).for_each(|record| replica.record(record));
            replica
        });
        match &event.kind {
            EventKind::Started { .. } => replica.start(),
            EventKind::Iam(IamEvent::Persisted { record, .. }) => replica.record(*record),
            EventKind::Iam(IamEvent::SnapshotChanged { items }) => {
                let seen = replica.check_view(items.as_deref());
                return seen.map_err(|text| format!("readers of {node} {text}"));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLEE, Harness, assert_violates, persisted, visible};
    use super::*;

    fn started_twice() -> Harness {
        let mut harness = Harness::with_iam(IamCompleteView::default());
        let started = |incarnation| EventKind::Started { incarnation };
        harness.feed([
            (0, CALLEE, started(1)),
            (1, CALLEE, persisted(0, 10, Some(1))),
            (1, CALLEE, persisted(1, 11, Some(2))),
            (2, CALLEE, visible(&[(0, 1), (1, 2)])),
            (3, CALLEE, persisted(0, 12, None)),
            (4, CALLEE, started(2)),
        ]);
        harness
    }

    #[test]
    fn b61_partial_view_is_a_violation() {
        let mut harness = started_twice();
        assert_violates(harness.at(5, CALLEE, visible(&[])), "see None as item 1, not Some(2)");
        let mut harness = started_twice();
        harness.feed([(5, CALLEE, visible(&[(1, 2)])), (6, CALLEE, persisted(1, 13, Some(3)))]);
        harness.feed([(6, CALLEE, visible(&[(1, 3)]))]);
        assert_violates(harness.at(7, CALLEE, visible(&[(1, 2)])), "see Some(2) as item 1");
    }

    #[test]
    fn b61_view_is_stored_before_and_never_vanishes() {
        let mut harness = started_twice();
        assert_violates(
            harness.at(5, CALLEE, visible(&[(1, 2), (7, 7)])),
            "item 7, which was never stored",
        );
        let mut harness = started_twice();
        harness.feed([(5, CALLEE, visible(&[(1, 2)]))]);
        let nothing = EventKind::Iam(IamEvent::SnapshotChanged { items: None });
        assert_violates(harness.at(6, CALLEE, nothing), "see nothing after they saw a replica");
    }

    #[test]
    fn b62_deleted_item_stays_deleted() {
        let mut harness = started_twice();
        assert_violates(harness.at(5, CALLEE, visible(&[(0, 1), (1, 2)])), "see Some(1) as item 0");
    }
}
