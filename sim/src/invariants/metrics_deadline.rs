//! B71: whoever asks for the metrics of all servers has an answer by the deadline, whatever has become of
//! the others.

use super::scrapes::{Happened, Scrapes, plan_of};
use super::{Facts, Invariant, Verdict};
use crate::event::{Event, EventKind};
use crate::plan::Fault;
use crate::world::NodeView;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct MetricsDeadline {
    scrapes: Scrapes,
}

impl Invariant for MetricsDeadline {
    fn name(&self) -> &'static str {
        "metrics_deadline"
    }

    fn see(&mut self, event: &Event, facts: &Facts<'_>) -> Verdict {
        if let EventKind::Fault { fault: Fault::PowerLoss { node } } = event.kind {
            self.scrapes.forget(node);
        }
        let Happened::Answered(node, scrape, scraped, _) = self.scrapes.see(event, facts) else {
            return Ok(());
        };
        match event.at_ms.checked_sub(scraped.asked_ms + due_ms(facts) + 1) {
            None => Ok(()),
            Some(late) => Err(format!(
                "an answer came after its deadline: scrape {scrape} of {node}, by {} ms",
                late + 1
            )),
        }
    }

    fn look(&mut self, _views: &[NodeView], facts: &Facts<'_>) -> Verdict {
        let overdue = facts.now_ms.checked_sub(due_ms(facts) + 1);
        match overdue.and_then(|asked_ms| self.scrapes.open_since(asked_ms)) {
            None => Ok(()),
            Some((node, scrape, scraped)) => Err(format!(
                "an answer did not come by its deadline: scrape {scrape} of {node}, asked at {} ms",
                scraped.asked_ms
            )),
        }
    }
}

/// How long an answer may take. Who waits does so by tokio's timers.
fn due_ms(facts: &Facts<'_>) -> u64 {
    let deadline_ms = plan_of(facts).map_or(0, |plan| u64::from(plan.deadline_ms));
    deadline_ms + facts.bounds.drift_of(deadline_ms) + facts.bounds.ticks_ms
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, CALLER, bites};
    use super::super::scrapes::bench::{answered, asked, began, metrics};
    use super::*;

    fn bench() -> Bench {
        let mut bench = Bench::with_metrics(MetricsDeadline::default(), metrics());
        bench.well([(0, CALLER, began()), (1_000, CALLER, asked(0))]);
        bench
    }

    #[test]
    fn b71_an_answer_comes_by_its_deadline() {
        let due = 1_000 + u64::from(metrics().deadline_ms) + bench().bounds().ticks_ms;
        bench().well([(due, CALLER, answered(0, vec![]))]);
        bites(bench().at(due + 1, CALLER, answered(0, vec![])), "came after its deadline");
        assert_eq!(bench().look(due, &[]), Ok(()));
        bites(bench().look(due + 1, &[]), "did not come by its deadline");
        let mut crashed = bench();
        crashed.fault(1_001, Fault::PowerLoss { node: CALLER });
        assert_eq!(crashed.look(due + 1, &[]), Ok(()), "nobody waits any more");
    }
}
