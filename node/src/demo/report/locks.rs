//! The locks' part of the verdict and of the table.

use std::fmt;

use indicatif::HumanCount;

use crate::demo::locks::{LockLedger, LockOutcome, Tries};
use crate::latency::Shown;

/// Everything about locks that should not be. `left` of them were not over at the end.
pub(super) fn reasons(ledger: &LockLedger, left: usize) -> Vec<String> {
    let (mut reasons, count) = ledger.arena.violations();
    let more = count.saturating_sub(reasons.len() as u64);
    if more > 0 {
        reasons.push(format!("and {more} more such locks"));
    }
    for (node, tries) in ledger.nodes.iter().enumerate() {
        reasons.extend(tries_reasons(&name(node), tries));
    }
    if left > 0 {
        reasons.push(format!("{left} locks or grants of locks were left behind"));
    }
    reasons
}

fn tries_reasons(name: &str, tries: &Tries) -> Vec<String> {
    let (begun, ended) = (tries.begun(), tries.ended());
    let count = |outcome| tries.count(outcome);
    let mut reasons = Vec::new();
    if begun != ended {
        reasons.push(format!("{name}: {begun} tries for locks had {ended} outcomes"));
    }
    if count(LockOutcome::Granted) == 0 {
        reasons.push(format!("{name}: no lock was granted"));
    }
    let failed = count(LockOutcome::Failed);
    if failed > 0 {
        let texts = tries.failures().join("; ");
        reasons.push(format!("{name}: {failed} tries for locks failed: {texts}"));
    }
    let killed = count(LockOutcome::Killed);
    if killed > 0 && !tries.is_hit() {
        reasons.push(format!("{name}: {killed} holders ended, though it was not killed"));
    }
    reasons
}

fn name(node: usize) -> String {
    format!("node {}", node + 1)
}

/// One line for each server, and the sums.
pub(super) struct LockTable<'a>(pub(super) &'a LockLedger);

/// Those that have a column. What else there is shows in the sums.
const COLUMNS: [LockOutcome; 4] =
    [LockOutcome::Granted, LockOutcome::TimedOut, LockOutcome::Lost, LockOutcome::GivenUp];

impl fmt::Display for LockTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(ledger) = self;
        write!(f, "{:<17}{:>9}", "locks at", "tries")?;
        for outcome in COLUMNS {
            write!(f, "{:>11}", outcome.label())?;
        }
        writeln!(f, "{:>10}{:>10}", "median", "p99")?;
        for (node, tries) in ledger.nodes.iter().enumerate() {
            write!(f, "{:<17}{:>9}", name(node), HumanCount(tries.begun()).to_string())?;
            for outcome in COLUMNS {
                write!(f, "{:>11}", HumanCount(tries.count(outcome)).to_string())?;
            }
            let waits = tries.waits();
            writeln!(f, "{:>10}{:>10}", Shown(waits.quantile(0.5)), Shown(waits.quantile(0.99)))?;
        }
        let sums = LockOutcome::ALL.into_iter().map(|outcome| (outcome, ledger.count(outcome)));
        let sums = sums.filter(|(_, count)| *count > 0);
        let sums: Vec<_> =
            sums.map(|(outcome, n)| format!("{} {}", HumanCount(n), outcome.label())).collect();
        writeln!(f, "\n{} tries for locks: {}", HumanCount(ledger.begun()), sums.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two servers that got a lock each.
    fn ledger() -> LockLedger {
        let ledger = LockLedger::new(2).expect("the histogram's bounds are constants");
        ledger.nodes.iter().for_each(|tries| tries.begin().end(LockOutcome::Granted));
        ledger
    }

    fn assert_only_reason(ledger: &LockLedger, expected: &str) {
        assert_eq!(reasons(ledger, 0), [expected]);
    }

    #[test]
    fn what_should_not_become_of_locks_is_a_reason() {
        assert_eq!(reasons(&ledger(), 0), Vec::<String>::new());
        assert_eq!(reasons(&ledger(), 2), ["2 locks or grants of locks were left behind"]);

        let well = ledger();
        for fine in [LockOutcome::TimedOut, LockOutcome::Lost, LockOutcome::GivenUp] {
            well.nodes[0].begin().end(fine);
        }
        assert_eq!(reasons(&well, 0), Vec::<String>::new());

        let hanging = ledger();
        let _open = hanging.nodes[0].begin();
        assert_only_reason(&hanging, "node 1: 2 tries for locks had 1 outcomes");

        let failing = ledger();
        failing.nodes[1].begin().fail(&dsync::LockError::ShuttingDown);
        let expected = "node 2: 1 tries for locks failed: this server is shutting down";
        assert_only_reason(&failing, expected);

        let cut = ledger();
        drop(cut.nodes[1].begin());
        assert_only_reason(&cut, "node 2: 1 holders ended, though it was not killed");
        cut.nodes[1].hit();
        assert_eq!(reasons(&cut, 0), Vec::<String>::new());

        let never = LockLedger::new(1).expect("the histogram's bounds are constants");
        assert_only_reason(&never, "node 1: no lock was granted");
    }

    #[test]
    fn each_server_has_a_line() {
        let ledger = ledger();
        ledger.nodes[0].begin().end(LockOutcome::TimedOut);
        let shown = LockTable(&ledger).to_string();
        let line = shown.lines().find(|line| line.starts_with("node 1")).expect("it has one");
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words[..7], ["node", "1", "2", "1", "1", "0", "0"], "{shown}");
        assert!(shown.ends_with("3 tries for locks: 2 granted, 1 timed out\n"), "{shown}");
    }
}
