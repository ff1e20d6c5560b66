//! [B71]: after all faults have ended, every server reports within a bound that all are up.
//! [B71]: crate::rules#b71

use std::collections::BTreeSet;

use super::scrapes::metrics_plan;
use super::{CheckContext, CheckResult, Invariant};
use crate::event::{Event, EventKind, MetricsEvent, ServerReport};
use crate::metrics::PAUSE_MS;
use crate::plan::Node;
use crate::world::NodeView;

/// Tracks the reports since healing.
#[derive(Debug, Default)]
pub(super) struct MetricsRecovery {
    healed_ms: Option<u64>,
    /// Nodes that have reported all servers as up since healing.
    saw_all_up: BTreeSet<Node>,
}

impl Invariant for MetricsRecovery {
    fn name(&self) -> &'static str {
        "metrics_recovery"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        match &event.kind {
            EventKind::Healed => {
                self.healed_ms = Some(event.at_ms);
                self.saw_all_up.clear();
            }
            EventKind::Metrics(MetricsEvent::Completed { servers, .. }) => {
                let up =
                    servers.iter().filter(|(_, report)| matches!(report, ServerReport::Up { .. }));
                if up.count() == usize::from(context.plan.cluster.nodes) {
                    self.saw_all_up.extend(event.node);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn on_view(&mut self, _views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        let Some(healed_ms) = self.healed_ms else { return Ok(()) };
        match context.now_ms > healed_ms + bound_ms(context) {
            true => self.at_quiescence(&[], context),
            false => Ok(()),
        }
    }

    fn at_quiescence(&mut self, _views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        let Some(_) = metrics_plan(context) else { return Ok(()) };
        let mut nodes = (0..context.plan.cluster.nodes).map(Node);
        match nodes.find(|node| !self.saw_all_up.contains(node)) {
            None => Ok(()),
            Some(node) => Err(format!(
                "all faults have ended, and {node} has not reported within {} ms that all are up",
                bound_ms(context)
            )),
        }
    }
}

/// Dead connections are detected, all nodes reconnect, and a collection that began before has
/// completed, as has the next one.
fn bound_ms(context: &CheckContext<'_>) -> u64 {
    let bounds = context.bounds;
    let scrape_ms =
        metrics_plan(context).map_or(0, |plan| u64::from(plan.deadline_ms + plan.ttl_ms));
    bounds.settle_ms + bounds.reconnect_ms + 2 * (scrape_ms + PAUSE_MS + bounds.timer_resolution_ms)
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLEE, CALLER, Harness, LATE, assert_violates};
    use super::super::scrapes::harness::{completed, metrics};
    use super::*;
    use crate::event::ReportedValues;

    fn all_up() -> EventKind {
        let up = || ServerReport::Up { report: ReportedValues::default() };
        completed(0, vec![(CALLER, up()), (CALLEE, up())])
    }

    #[test]
    fn b71_every_server_is_up_again_within_a_bound() {
        let mut harness = Harness::with_metrics(MetricsRecovery::default(), metrics());
        harness.feed([(10, CALLER, all_up()), (10, CALLEE, all_up())]);
        assert_eq!(harness.on_view(LATE, &[]), Ok(()), "faults have not ended");
        harness.feed([(LATE, CALLER, EventKind::Healed)]);
        assert_eq!(harness.on_view(LATE + 1_000, &[]), Ok(()), "the bound has not passed");
        assert_violates(harness.on_view(2 * LATE, &[]), "and node-0 has not reported");
        assert_violates(harness.at_quiescence(&[]), "and node-0 has not reported");
        harness.feed([(LATE + 1_000, CALLER, all_up())]);
        let down = ServerReport::Down { reason: "timeout".to_owned() };
        harness.feed([(LATE + 1_000, CALLEE, completed(0, vec![(CALLER, down)]))]);
        assert_violates(harness.at_quiescence(&[]), "and node-1 has not reported");
        harness.feed([(LATE + 2_000, CALLEE, all_up())]);
        assert_eq!(harness.on_view(2 * LATE, &[]), Ok(()));
        assert_eq!(harness.at_quiescence(&[]), Ok(()));
    }
}
