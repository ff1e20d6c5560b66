//! [B71]: a scrape of all servers completes by the deadline, whatever the state of the others.
//! [B71]: crate::rules#b71

use super::scrapes::{ScrapeEvent, Scrapes, metrics_plan};
use super::{CheckContext, CheckResult, Invariant};
use crate::event::{Event, EventKind};
use crate::fault::Effect;
use crate::world::NodeView;

/// Checks the time of every scrape.
#[derive(Debug, Default)]
pub(super) struct MetricsDeadline {
    scrapes: Scrapes,
}

impl Invariant for MetricsDeadline {
    fn name(&self) -> &'static str {
        "metrics_deadline"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        if let EventKind::Fault { fault } = &event.kind
            && let Effect::NodeFails { node } = fault.effect()
        {
            self.scrapes.forget(node);
        }
        let ScrapeEvent::Completed(node, scrape, collected, _) =
            self.scrapes.on_event(event, context)
        else {
            return Ok(());
        };
        match event.at_ms.checked_sub(collected.requested_ms + due_ms(context) + 1) {
            None => Ok(()),
            Some(late) => Err(format!(
                "a response came after its deadline: scrape {scrape} of {node}, by {} ms",
                late + 1
            )),
        }
    }

    fn on_view(&mut self, _views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        let overdue = context.now_ms.checked_sub(due_ms(context) + 1);
        match overdue.and_then(|requested_ms| self.scrapes.outstanding_since(requested_ms)) {
            None => Ok(()),
            Some((node, scrape, collected)) => Err(format!(
                "no response came by its deadline: scrape {scrape} of {node}, begun at {} ms",
                collected.requested_ms
            )),
        }
    }
}

/// Returns the time that a scrape may take. It waits by tokio's timers, which do not drift.
fn due_ms(context: &CheckContext<'_>) -> u64 {
    let deadline_ms = metrics_plan(context).map_or(0, |plan| u64::from(plan.deadline_ms));
    deadline_ms + context.bounds.drift_of(deadline_ms) + context.bounds.timer_resolution_ms
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLER, Harness, assert_violates};
    use super::super::scrapes::harness::{completed, metrics, requested, started};
    use super::*;
    use crate::fault::PowerLoss;
    use crate::plan::Fault;

    fn harness() -> Harness {
        let mut harness = Harness::with_metrics(MetricsDeadline::default(), metrics());
        harness.feed([(0, CALLER, started()), (1_000, CALLER, requested(0))]);
        harness
    }

    #[test]
    fn b71_scrape_completes_by_its_deadline() {
        let due = 1_000 + u64::from(metrics().deadline_ms) + harness().bounds().timer_resolution_ms;
        harness().feed([(due, CALLER, completed(0, vec![]))]);
        assert_violates(
            harness().at(due + 1, CALLER, completed(0, vec![])),
            "came after its deadline",
        );
        assert_eq!(harness().on_view(due, &[]), Ok(()));
        assert_violates(harness().on_view(due + 1, &[]), "no response came by its deadline");
        let mut crashed = harness();
        crashed.inject(1_001, Fault::PowerLoss(PowerLoss { node: CALLER }));
        assert_eq!(crashed.on_view(due + 1, &[]), Ok(()), "the scrape has ended with its process");
    }
}
