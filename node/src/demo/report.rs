//! The table at the end of the demo, and the verdict.

use std::fmt;
use std::time::Duration;

use indicatif::HumanCount;

use super::cluster::End;
use super::ledger::{Ledger, Pair};
use super::load::Stopped;
use super::view::describe;
use crate::latency::{Latencies, Shown};
use crate::outcome::Outcome;

/// What was found when the load had ended.
pub(super) struct Findings {
    pub(super) ledger: Ledger,
    pub(super) stopped: Stopped,
    /// Both ends of all connections, when all was calm or the patience over.
    pub(super) ends: Vec<End>,
    /// Ends of connections that were up, and that should have been.
    pub(super) connected: usize,
    pub(super) expected: usize,
    /// What grid holds to be impossible, and yet met.
    pub(super) bugs: u64,
}

impl Findings {
    /// Everything that should not be.
    pub(super) fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<_> =
            self.ledger.pairs().iter().flat_map(|pair| pair_reasons(pair)).collect();
        let Stopped { hanging, panicked } = self.stopped;
        if hanging > 0 {
            reasons.push(format!("{hanging} callers wait for answers that do not come"));
        }
        if panicked > 0 {
            reasons.push(format!("{panicked} callers panicked"));
        }
        if self.connected != self.expected {
            let Self { connected, expected, .. } = self;
            reasons.push(format!("{connected} of {expected} ends of connections are up"));
        }
        let left = self.ends.iter().filter(|end| !end.stats.is_quiescent());
        reasons.extend(left.map(|End { from, to, stats }| {
            format!(
                "{} left behind: {} calls, {} served, {} handlers, {} bytes, {} messages",
                arrow(*from, *to),
                stats.live_calls,
                stats.live_served,
                stats.live_handler_tasks,
                stats.queued_bytes,
                stats.blocked_messages,
            )
        }));
        if self.bugs > 0 {
            reasons.push(format!("grid met {} bugs of its own; see the log", self.bugs));
        }
        reasons
    }

    /// The last line, when there are no reasons.
    pub(super) fn verdict(&self) -> String {
        let calls = HumanCount(self.ledger.started());
        let connections = match self.connected / 2 {
            1 => "the connection is".to_owned(),
            several => format!("all {several} connections are"),
        };
        format!("every one of {calls} calls had exactly one outcome; {connections} up at both ends")
    }
}

fn pair_reasons(pair: &Pair) -> Vec<String> {
    let mut reasons = Vec::new();
    let name = arrow(pair.from, pair.to);
    let (started, ended) = (pair.started(), pair.ended());
    if started != ended {
        reasons.push(format!("{name}: {started} calls had {ended} outcomes"));
    }
    if pair.count(Outcome::Answered) == 0 {
        reasons.push(format!("{name}: no call was answered"));
    }
    if !pair.is_hit() {
        for outcome in [Outcome::Disconnected, Outcome::NotConnected, Outcome::Killed] {
            let count = pair.count(outcome);
            if count > 0 {
                let label = outcome.label();
                reasons.push(format!("{name}: {count} calls {label}, though neither was killed"));
            }
        }
    }
    let (surprises, count) = pair.surprises();
    let more = count.saturating_sub(surprises.len() as u64);
    reasons.extend(surprises.iter().map(|surprise| format!("{name}: unexpected: {surprise}")));
    if more > 0 {
        reasons.push(format!("{name}: and {more} more unexpected outcomes"));
    }
    reasons
}

fn arrow(from: usize, to: usize) -> String {
    format!("node {} → node {}", from + 1, to + 1)
}

/// The table, and the sums below it.
pub(super) struct Report<'a>(pub(super) &'a Findings);

/// One line of the table.
struct Line {
    name: String,
    calls: u64,
    answered: u64,
    latencies: Latencies,
    reconnects: u64,
    recovered_after: Option<Duration>,
}

impl Line {
    fn new(pair: &Pair, ends: &[End]) -> Self {
        let end = ends.iter().find(|end| end.from == pair.from && end.to == pair.to);
        let connections = pair.connections_before() + end.map_or(0, |end| end.stats.connections);
        Self {
            name: arrow(pair.from, pair.to),
            calls: pair.started(),
            answered: pair.count(Outcome::Answered),
            latencies: pair.latencies(),
            reconnects: connections.saturating_sub(1),
            recovered_after: pair.recovered_after(),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recovered = self.recovered_after.map(|after| format!("{} ms", after.as_millis()));
        write!(
            f,
            "{:<18}{:>12}{:>12}{:>11}{:>11}{:>12}{:>12}",
            self.name,
            HumanCount(self.calls).to_string(),
            HumanCount(self.answered).to_string(),
            Shown(self.latencies.quantile(0.5)),
            Shown(self.latencies.quantile(0.99)),
            self.reconnects,
            recovered.as_deref().unwrap_or("-"),
        )
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(Findings { ledger, ends, .. }) = self;
        writeln!(
            f,
            "\n{:<18}{:>12}{:>12}{:>11}{:>11}{:>12}{:>12}",
            "from → to", "calls", "answered", "median", "p99", "reconnects", "recovered"
        )?;
        for pair in ledger.pairs() {
            writeln!(f, "{}", Line::new(pair, ends))?;
        }
        writeln!(f, "\n{} calls: {}", HumanCount(ledger.started()), describe(&ledger.outcomes()))?;
        f.write_str("recovered: from when the killed server listened again until that end was up\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A demo of two servers, in which each had one call answered.
    fn findings() -> Findings {
        let ledger = Ledger::new(2).expect("the histogram's bounds are constants");
        for pair in ledger.pairs() {
            pair.begin().end(Outcome::Answered);
        }
        let stopped = Stopped { hanging: 0, panicked: 0 };
        Findings { ledger, stopped, ends: Vec::new(), connected: 2, expected: 2, bugs: 0 }
    }

    fn assert_only_reason(findings: &Findings, expected: &str) {
        let reasons = findings.reasons();
        assert_eq!(reasons.len(), 1, "{reasons:?}");
        assert!(reasons[0].contains(expected), "{reasons:?}");
    }

    #[test]
    fn a_demo_in_which_all_was_well_has_no_reasons_to_fail() {
        let findings = findings();
        assert_eq!(findings.reasons(), Vec::<String>::new());
        assert_eq!(
            findings.verdict(),
            "every one of 2 calls had exactly one outcome; the connection is up at both ends"
        );
    }

    #[test]
    fn a_call_without_an_outcome_is_a_reason() {
        let findings = findings();
        let _open = findings.ledger.pairs()[0].begin();
        assert_only_reason(&findings, "node 1 → node 2: 2 calls had 1 outcomes");
    }

    #[test]
    fn a_lost_call_is_a_reason_only_where_nobody_was_killed() {
        let findings = findings();
        let pair = &findings.ledger.pairs()[1];
        pair.begin().end(Outcome::Disconnected);
        assert_only_reason(&findings, "1 calls disconnected, though neither was killed");
        pair.hit();
        assert_eq!(findings.reasons(), Vec::<String>::new());
    }

    #[test]
    fn what_else_should_not_be_is_a_reason() {
        let surprising = findings();
        surprising.ledger.pairs()[0].surprised("Small: WRONG");
        assert_only_reason(&surprising, "node 1 → node 2: unexpected: Small: WRONG");
        assert_only_reason(&Findings { connected: 1, ..findings() }, "1 of 2 ends");
        assert_only_reason(&Findings { bugs: 1, ..findings() }, "grid met 1 bugs");
        let stopped = Stopped { hanging: 1, panicked: 0 };
        assert_only_reason(&Findings { stopped, ..findings() }, "1 callers wait for answers");
    }
}
