//! The lock part of the table, and of the failures.

use std::fmt;

use indicatif::HumanCount;

use super::{short_count, wrap};
use crate::demo::locks::{LockAttempts, LockCounters, LockOutcome};
use crate::latency::DisplayLatency;

/// All failures of locks. `left` locks were still held or granted at the end.
pub(super) fn failures(counters: &LockCounters, left: usize) -> Vec<String> {
    let (mut failures, count) = counters.exclusion.violations();
    let more = count.saturating_sub(failures.len() as u64);
    if more > 0 {
        failures.push(format!("and {more} more such violations"));
    }
    for (node, attempts) in counters.nodes.iter().enumerate() {
        failures.extend(attempt_failures(&name(node), attempts));
    }
    if left > 0 {
        failures.push(format!("{left} locks or grants remain"));
    }
    failures
}

fn attempt_failures(name: &str, attempts: &LockAttempts) -> Vec<String> {
    let (started, ended) = (attempts.started(), attempts.ended());
    let count = |outcome| attempts.count(outcome);
    let mut failures = Vec::new();
    if started != ended {
        failures.push(format!("{name}: {started} lock attempts had {ended} outcomes"));
    }
    if count(LockOutcome::Granted) == 0 {
        failures.push(format!("{name}: no lock was granted"));
    }
    let failed = count(LockOutcome::Failed);
    if failed > 0 {
        let texts = attempts.failures().join("; ");
        failures.push(format!("{name}: {failed} lock attempts failed: {texts}"));
    }
    let killed = count(LockOutcome::Killed);
    if killed > 0 && !attempts.was_killed() {
        failures.push(format!("{name}: {killed} holders ended, though the node was not killed"));
    }
    failures
}

fn name(node: usize) -> String {
    format!("node {}", node + 1)
}

/// One row for each server, and the sums.
pub(super) struct LockTable<'a>(pub(super) &'a LockCounters);

/// Outcomes with a column. The sums have all outcomes.
const COLUMNS: [LockOutcome; 4] =
    [LockOutcome::Granted, LockOutcome::TimedOut, LockOutcome::Lost, LockOutcome::Cancelled];

impl fmt::Display for LockTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(counters) = self;
        write!(f, "{:<8}{:>10}", "locks at", "attempts")?;
        for outcome in COLUMNS {
            write!(f, "{:>11}", outcome.label())?;
        }
        writeln!(f, "{:>9}{:>9}", "median", "p99")?;
        for (node, attempts) in counters.nodes.iter().enumerate() {
            write!(f, "{:<8}{:>10}", name(node), short_count(attempts.started()))?;
            for outcome in COLUMNS {
                write!(f, "{:>11}", short_count(attempts.count(outcome)))?;
            }
            let waits = attempts.waits();
            let (median, p99) = (waits.quantile(0.5), waits.quantile(0.99));
            writeln!(f, "{:>9}{:>9}", DisplayLatency(median), DisplayLatency(p99))?;
        }
        let sums = LockOutcome::ALL.into_iter().map(|outcome| (outcome, counters.count(outcome)));
        let sums = sums.filter(|(_, count)| *count > 0);
        let sums: Vec<_> =
            sums.map(|(outcome, n)| format!("{} {}", HumanCount(n), outcome.label())).collect();
        let sums = format!("{} lock attempts: {}", HumanCount(counters.started()), sums.join(", "));
        writeln!(f, "\n{}", wrap(&sums))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counters of two servers that held a lock each.
    fn counters() -> LockCounters {
        let counters = LockCounters::new(2).expect("the histogram's bounds are constants");
        counters.nodes.iter().for_each(|attempts| attempts.begin().end(LockOutcome::Granted));
        counters
    }

    fn assert_only_failure(counters: &LockCounters, expected: &str) {
        assert_eq!(failures(counters, 0), [expected]);
    }

    #[test]
    fn unexpected_lock_outcomes_are_failures() {
        assert_eq!(failures(&counters(), 0), Vec::<String>::new());
        assert_eq!(failures(&counters(), 2), ["2 locks or grants remain"]);

        let clean = counters();
        for outcome in [LockOutcome::TimedOut, LockOutcome::Lost, LockOutcome::Cancelled] {
            clean.nodes[0].begin().end(outcome);
        }
        assert_eq!(failures(&clean, 0), Vec::<String>::new());

        let hanging = counters();
        let _open = hanging.nodes[0].begin();
        assert_only_failure(&hanging, "node 1: 2 lock attempts had 1 outcomes");

        let failing = counters();
        failing.nodes[1].begin().fail(&dsync::LockError::ShuttingDown);
        let expected = "node 2: 1 lock attempts failed: this server is shutting down";
        assert_only_failure(&failing, expected);

        let killed = counters();
        drop(killed.nodes[1].begin());
        assert_only_failure(&killed, "node 2: 1 holders ended, though the node was not killed");
        killed.nodes[1].mark_killed();
        assert_eq!(failures(&killed, 0), Vec::<String>::new());

        let unused = LockCounters::new(1).expect("the histogram's bounds are constants");
        assert_only_failure(&unused, "node 1: no lock was granted");
    }

    #[test]
    fn lock_table_has_a_row_per_server() {
        let counters = counters();
        counters.nodes[0].begin().end(LockOutcome::TimedOut);
        let shown = LockTable(&counters).to_string();
        let line = shown.lines().find(|line| line.starts_with("node 1")).expect("it has one");
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[..7], ["node", "1", "2", "1", "1", "0", "0"], "{shown}");
        assert!(shown.ends_with("3 lock attempts: 2 granted, 1 timed out\n"), "{shown}");
    }
}
