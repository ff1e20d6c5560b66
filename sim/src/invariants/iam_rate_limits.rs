//! [B61], [B62]: loading is logged once in a process, and reconciliations with a peer are spaced,
//! however often it reconnects.
//!
//! [B61]: crate::rules#b61
//! [B62]: crate::rules#b62

use std::collections::BTreeMap;

use iam_bootstrap::limits::RECONCILE_SPACING;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{Event, EventKind, IamEvent};
use crate::plan::Node;
use crate::world::NodeView;

/// Counts log lines and reconciliations.
#[derive(Debug, Default)]
pub(super) struct IamRateLimits {
    logged: BTreeMap<Node, u32>,
    reconciled: BTreeMap<(Node, Node), Vec<u64>>,
}

/// Reconciliations with one peer that may begin at once: during catch-up, when the node is ready,
/// and one that a full socket has delayed.
const RECONCILIATIONS_BURST_MAX: u64 = 3;

/// Number of past reconciliations that are checked.
const WINDOW: usize = 12;

impl Invariant for IamRateLimits {
    fn name(&self) -> &'static str {
        "iam_rate_limits"
    }

    fn on_event(&mut self, event: &Event, _context: &CheckContext<'_>) -> CheckResult {
        let Some(node) = event.node else { return Ok(()) };
        match &event.kind {
            EventKind::Started { .. } => {
                self.logged.insert(node, 0);
                self.reconciled.retain(|(of, _), _| *of != node);
            }
            EventKind::Iam(IamEvent::LoadLogged { .. }) => {
                let logged = self.logged.entry(node).or_default();
                *logged += 1;
                if *logged > 1 {
                    return Err(format!("{node} logged {logged} times that IAM is loaded"));
                }
            }
            EventKind::Iam(IamEvent::Reconciles { with }) => {
                let times = self.reconciled.entry((node, *with)).or_default();
                times.push(event.at_ms);
                let spacing = u64::try_from(RECONCILE_SPACING.as_millis()).unwrap_or(u64::MAX);
                for (count, since) in (1..).zip(times.iter().rev()).take(WINDOW) {
                    let passed = event.at_ms - since;
                    if count > RECONCILIATIONS_BURST_MAX + passed / spacing {
                        return Err(format!(
                            "{node} began {count} reconciliations with {with} in {passed} ms"
                        ));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn at_quiescence(&mut self, _views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        let all = (0..context.plan.cluster.nodes).map(Node);
        let silent = all.clone().find(|node| self.logged.get(node) != Some(&1));
        match silent.filter(|_| context.plan.cluster.iam.is_some()) {
            Some(node) => Err(format!("{node} has not logged that IAM is loaded")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLEE, CALLER, Harness, assert_violates};
    use super::*;

    #[test]
    fn b61_loading_is_logged_once_in_a_process() {
        let mut harness = Harness::with_iam(IamRateLimits::default());
        let (started, logged) = (
            EventKind::Started { incarnation: 1 },
            EventKind::Iam(IamEvent::LoadLogged { retries: 0 }),
        );
        harness.feed([
            (1, CALLEE, logged.clone()),
            (2, CALLEE, started),
            (3, CALLEE, logged.clone()),
        ]);
        assert_violates(harness.at_quiescence(&[]), "node-0 has not logged");
        assert_violates(harness.at(4, CALLEE, logged), "node-1 logged 2 times");
    }

    #[test]
    fn b62_reconciliations_with_a_peer_are_spaced() {
        let mut harness = Harness::with_iam(IamRateLimits::default());
        let reconciles = |with| EventKind::Iam(IamEvent::Reconciles { with });
        harness.feed((0..20).map(|second| (second * 1_000, CALLER, reconciles(CALLEE))));
        harness.feed([(19_001, CALLER, reconciles(CALLEE)), (19_002, CALLEE, reconciles(CALLER))]);
        harness.feed([(19_003, CALLER, reconciles(CALLEE))]);
        assert_violates(
            harness.at(19_004, CALLER, reconciles(CALLEE)),
            "node-0 began 4 reconciliations",
        );
    }
}
