//! B71: once all trouble is over, every server tells within a bound that all are up.

use std::collections::BTreeSet;

use super::scrapes::plan_of;
use super::{Facts, Invariant, Verdict};
use crate::event::{Event, EventKind, MetricsEvent, ServerReport};
use crate::metrics::PAUSE_MS;
use crate::plan::Node;
use crate::world::NodeView;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct MetricsRecovery {
    healed_ms: Option<u64>,
    /// Who has told since that all are up.
    whole: BTreeSet<Node>,
}

impl Invariant for MetricsRecovery {
    fn name(&self) -> &'static str {
        "metrics_recovery"
    }

    fn see(&mut self, event: &Event, facts: &Facts<'_>) -> Verdict {
        match &event.kind {
            EventKind::Healed => {
                self.healed_ms = Some(event.at_ms);
                self.whole.clear();
            }
            EventKind::Metrics(MetricsEvent::Completed { servers, .. }) => {
                let up = servers.iter().filter(|(_, told)| matches!(told, ServerReport::Up { .. }));
                if up.count() == usize::from(facts.plan.cluster.nodes) {
                    self.whole.extend(event.node);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn look(&mut self, _views: &[NodeView], facts: &Facts<'_>) -> Verdict {
        let Some(healed_ms) = self.healed_ms else { return Ok(()) };
        match facts.now_ms > healed_ms + bound_ms(facts) {
            true => self.at_quiet(&[], facts),
            false => Ok(()),
        }
    }

    fn at_quiet(&mut self, _views: &[NodeView], facts: &Facts<'_>) -> Verdict {
        let Some(_) = plan_of(facts) else { return Ok(()) };
        let mut nodes = (0..facts.plan.cluster.nodes).map(Node);
        match nodes.find(|node| !self.whole.contains(node)) {
            None => Ok(()),
            Some(node) => Err(format!(
                "all trouble is over, and {node} has not told within {} ms that all are up",
                bound_ms(facts)
            )),
        }
    }
}

/// What died is found, all connect again, a collection that began before is over, and so is what comes
/// after it.
fn bound_ms(facts: &Facts<'_>) -> u64 {
    let bounds = facts.bounds;
    let scrape_ms = plan_of(facts).map_or(0, |plan| u64::from(plan.deadline_ms + plan.ttl_ms));
    bounds.settle_ms + bounds.reconnect_ms + 2 * (scrape_ms + PAUSE_MS + bounds.ticks_ms)
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, CALLER, LATE, SERVER, bites};
    use super::super::scrapes::bench::{answered, metrics};
    use super::*;
    use crate::event::ReportedValues;

    fn all_up() -> EventKind {
        let up = || ServerReport::Up { report: ReportedValues::default() };
        answered(0, vec![(CALLER, up()), (SERVER, up())])
    }

    #[test]
    fn b71_everybody_is_up_again_within_a_bound() {
        let mut bench = Bench::with_metrics(MetricsRecovery::default(), metrics());
        bench.well([(10, CALLER, all_up()), (10, SERVER, all_up())]);
        assert_eq!(bench.look(LATE, &[]), Ok(()), "trouble is not over");
        bench.well([(LATE, CALLER, EventKind::Healed)]);
        assert_eq!(bench.look(LATE + 1_000, &[]), Ok(()), "there is time");
        bites(bench.look(2 * LATE, &[]), "and node-0 has not told");
        bites(bench.at_quiet(&[]), "and node-0 has not told");
        bench.well([(LATE + 1_000, CALLER, all_up())]);
        let down = ServerReport::Down { reason: "timeout".to_owned() };
        bench.well([(LATE + 1_000, SERVER, answered(0, vec![(CALLER, down)]))]);
        bites(bench.at_quiet(&[]), "and node-1 has not told");
        bench.well([(LATE + 2_000, SERVER, all_up())]);
        assert_eq!(bench.look(2 * LATE, &[]), Ok(()));
        assert_eq!(bench.at_quiet(&[]), Ok(()));
    }
}
