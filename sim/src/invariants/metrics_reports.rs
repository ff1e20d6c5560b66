//! [B70], [B71]: the report of a server is its last sample, or one shared within the TTL. Averages
//! and maxima cover the time since its start, and restart with it.
//!
//! [B70]: crate::rules#b70
//! [B71]: crate::rules#b71

use std::collections::BTreeMap;

use super::scrapes::{Scrape, ScrapeEvent, Scrapes};
use super::{CheckContext, CheckResult, Invariant};
use crate::event::{Event, EventKind, MetricsEvent, ReportedValues, ServerReport};
use crate::metrics::thousandths;
use crate::plan::Node;

/// Tracks the samples of every server.
#[derive(Debug, Default)]
pub(super) struct MetricsReports {
    scrapes: Scrapes,
    servers: BTreeMap<Node, ServerHistory>,
}

/// The expected reports of a server, each with its time.
#[derive(Debug, Default)]
struct ServerHistory {
    reports: Vec<(u64, ReportedValues)>,
    totals: SampleTotals,
}

/// Totals over the samples of one process.
#[derive(Debug, Default)]
struct SampleTotals {
    start_ms: u64,
    /// The server's clock in microseconds, and the bytes received until then.
    last: Option<(u64, u64)>,
    load_time_us: u128,
    total_us: u64,
    maximum: u32,
}

impl Invariant for MetricsReports {
    fn name(&self) -> &'static str {
        "metrics_reports"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        if let ScrapeEvent::Completed(on, _, scrape, servers) =
            self.scrapes.on_event(event, context)
        {
            return servers.iter().try_for_each(|(node, report)| match report {
                ServerReport::Up { report } => self.check_report(on, *node, report, scrape),
                ServerReport::Down { .. } => Ok(()),
            });
        }
        let (Some(node), EventKind::Metrics(metrics)) = (event.node, &event.kind) else {
            return Ok(());
        };
        let ServerHistory { reports, totals } = self.servers.entry(node).or_default();
        match metrics {
            MetricsEvent::Started { start_ms } => {
                *totals = SampleTotals { start_ms: *start_ms, ..SampleTotals::default() };
                let nothing =
                    ReportedValues { start_ms: Some(*start_ms), ..ReportedValues::default() };
                reports.push((event.at_ms, nothing));
            }
            MetricsEvent::Sampled { clock_us, load, received } => {
                reports.push((event.at_ms, totals.add(*clock_us, *load, *received)));
            }
            MetricsEvent::Requested { .. }
            | MetricsEvent::Completed { .. }
            | MetricsEvent::Aborted { .. } => {}
        }
        Ok(())
    }
}

impl MetricsReports {
    /// Checks that a report was current at some time since the collection began.
    fn check_report(
        &self,
        on: Node,
        of: Node,
        report: &ReportedValues,
        scrape: Scrape,
    ) -> CheckResult {
        let reports = self.servers.get(&of).map_or(&[][..], |server| &server.reports);
        let Some(found) = reports.iter().rposition(|(_, values)| is_same(values, report)) else {
            return Err(format!(
                "{on} reports values of {of} that were not sampled there: {report}"
            ));
        };
        match reports.get(found + 1) {
            Some((until_ms, _)) if *until_ms < scrape.started_ms => Err(format!(
                "{on} reports values of {of} that were {} ms out of date at its scrape: {report}",
                scrape.started_ms - until_ms
            )),
            _ => Ok(()),
        }
    }
}

impl SampleTotals {
    /// Adds a sample, and returns the report that must follow.
    fn add(&mut self, clock_us: u64, load: u32, received: u64) -> ReportedValues {
        let before = self.last.replace((clock_us, received));
        let interval = before.map(|(us, bytes)| (clock_us - us, received - bytes));
        if let Some((us, _)) = interval {
            self.load_time_us += u128::from(load) * u128::from(us);
            self.total_us += us;
        }
        self.maximum = self.maximum.max(load);
        // The first sample covers no time: it counts only while there is no other.
        let average = match self.total_us {
            0 => f64::from(load),
            us => self.load_time_us as f64 / us as f64,
        };
        let interval = interval.filter(|(us, _)| *us > 0);
        ReportedValues {
            start_ms: Some(self.start_ms),
            interval_ms: interval.map(|(us, _)| thousandths(us as f64 / 1e6)),
            load: Some(u64::from(load)),
            load_average: Some(thousandths(average)),
            load_maximum: Some(u64::from(self.maximum)),
            receive_rate: interval.map(|(us, bytes)| thousandths(bytes as f64 / (us as f64 / 1e6))),
        }
    }
}

/// Returns whether two reports are equal except for rounding.
fn is_same(one: &ReportedValues, other: &ReportedValues) -> bool {
    let is_near = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (Some(one), Some(other)) => one.abs_diff(other) <= 1,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    (one.load, one.load_maximum) == (other.load, other.load_maximum)
        && is_near(one.start_ms, other.start_ms)
        && is_near(one.interval_ms, other.interval_ms)
        && is_near(one.load_average, other.load_average)
        && is_near(one.receive_rate, other.receive_rate)
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLEE, CALLER, Harness, assert_violates};
    use super::super::scrapes::harness::{completed, metrics, requested, started};
    use super::*;

    fn sampled(second: u64, load: u32, received: u64) -> EventKind {
        let clock_us = second * 1_000_000;
        EventKind::Metrics(MetricsEvent::Sampled { clock_us, load, received })
    }

    /// The values after loads of 10, 20 and, after a missed sample, 50: computed by hand.
    fn after_three_samples() -> ReportedValues {
        ReportedValues {
            start_ms: Some(1),
            interval_ms: Some(10_000),
            load: Some(50),
            load_average: Some(40_000),
            load_maximum: Some(50),
            receive_rate: Some(30_500),
        }
    }

    fn harness() -> Harness {
        let mut harness = Harness::with_metrics(MetricsReports::default(), metrics());
        harness.feed([(0, CALLER, started()), (0, CALLEE, started())]);
        harness.feed([(1, CALLEE, sampled(0, 10, 7)), (5_000, CALLEE, sampled(5, 20, 107))]);
        harness.feed([(15_000, CALLEE, sampled(15, 50, 412)), (16_000, CALLER, requested(0))]);
        harness
    }

    fn reports(harness: &mut Harness, report: ReportedValues) -> CheckResult {
        harness.at(16_010, CALLER, completed(0, vec![(CALLEE, ServerReport::Up { report })]))
    }

    #[test]
    fn b71_reported_values_were_sampled() {
        reports(&mut harness(), after_three_samples()).expect("the last sample");
        let wrong: [fn(&mut ReportedValues); 6] = [
            |report| report.start_ms = Some(1_000),
            |report| report.interval_ms = Some(5_000),
            |report| report.load = None,
            |report| report.load_average = Some(26_667), // Every sample with the same weight.
            |report| report.load_maximum = Some(51),
            |report| report.receive_rate = Some(61_000), // Two intervals in one.
        ];
        for change in wrong {
            let mut report = after_three_samples();
            change(&mut report);
            assert_violates(
                reports(&mut harness(), report),
                "node-0 reports values of node-1 that were not sampled there",
            );
        }
    }

    #[test]
    fn b70_restart_discards_earlier_values_and_averages() {
        let mut harness = harness();
        harness.feed([(
            15_500,
            CALLEE,
            EventKind::Metrics(MetricsEvent::Started { start_ms: 15_500 }),
        )]);
        assert_violates(
            reports(&mut harness, after_three_samples()),
            "that were 500 ms out of date",
        );
        harness.feed([(15_500, CALLEE, sampled(15, 30, 1)), (16_011, CALLER, requested(0))]);
        let alone = ReportedValues {
            start_ms: Some(15_500),
            load: Some(30),
            load_average: Some(30_000),
            load_maximum: Some(30),
            ..ReportedValues::default()
        };
        reports(&mut harness, alone).expect("all values are those of the new process");
    }

    #[test]
    fn b71_value_that_changed_during_collection_may_be_old_or_new() {
        let mut harness = harness();
        harness.feed([(16_005, CALLEE, sampled(16, 1, 500)), (16_006, CALLER, requested(1))]);
        reports(&mut harness, after_three_samples()).expect("it was current at the scrape");
    }
}
