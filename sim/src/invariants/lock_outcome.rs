//! B50: whoever asks for a lock has it or not, once, and knows in time: no later than its time-out, and by
//! that no earlier.

use std::collections::BTreeMap;

use super::suspended::Suspended;
use super::{Facts, Invariant, Verdict};
use crate::event::{CallId, Event, EventKind, LockFailure};
use crate::plan::{Load, Node};
use crate::world::NodeView;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LockOutcome {
    suspended: Suspended,
    open: BTreeMap<CallId, Open>,
}

#[derive(Debug)]
enum Open {
    Waits { node: Node, since: u64, timeout_ms: u64 },
    Holds,
    Over,
}

impl Invariant for LockOutcome {
    fn name(&self) -> &'static str {
        "lock_outcome"
    }

    fn see(&mut self, event: &Event, facts: &Facts<'_>) -> Verdict {
        self.suspended.see(event);
        match (&event.kind, event.node) {
            (EventKind::LockRequested { call, timeout_ms, .. }, Some(node)) => {
                let (since, timeout_ms) = (event.at_ms, u64::from(*timeout_ms));
                match self.open.insert(*call, Open::Waits { node, since, timeout_ms }) {
                    None => Ok(()),
                    Some(_) => Err(format!("the lock of call {call} was asked for twice")),
                }
            }
            (EventKind::LockGranted { call, .. }, _) => {
                match self.open.insert(*call, Open::Holds) {
                    Some(Open::Waits { .. }) => Ok(()),
                    _ => Err(format!("the lock of call {call} was granted, and nobody waits")),
                }
            }
            (EventKind::LockFailed { call, failure }, _) => match self
                .open
                .insert(*call, Open::Over)
            {
                Some(Open::Waits { since, timeout_ms, .. }) => {
                    may_fail(*call, failure, event.at_ms - since, timeout_ms, facts)
                }
                _ => Err(format!("the lock of call {call} failed, and nobody waits: {failure}")),
            },
            (EventKind::LockEnded { call, .. }, _) => match self.open.insert(*call, Open::Over) {
                Some(Open::Holds) => Ok(()),
                _ => Err(format!("the lock of call {call} is over, and nobody held it")),
            },
            _ => Ok(()),
        }
    }

    fn look(&mut self, _views: &[NodeView], facts: &Facts<'_>) -> Verdict {
        for (call, open) in &self.open {
            let Open::Waits { node, since, timeout_ms } = open else { continue };
            if self.suspended.is_stopped(*node) {
                continue;
            }
            // A process that was stopped measures anew: its timers are tokio's, which were not.
            let since = self.suspended.woken_at(*node).map_or(*since, |woken| woken.max(*since));
            let due = since + timeout_ms + facts.bounds.lateness_of(*timeout_ms);
            let due = due + facts.bounds.ticks_ms;
            if facts.now_ms > due {
                let late = facts.now_ms - due;
                return Err(format!("call {call} waits for its lock {late} ms beyond its time"));
            }
        }
        Ok(())
    }

    fn at_quiet(&mut self, _views: &[NodeView], _facts: &Facts<'_>) -> Verdict {
        let mut left = self.open.iter().filter(|(_, open)| !matches!(open, Open::Over));
        left.next().map_or(Ok(()), |(call, open)| {
            Err(format!("the lock of call {call} is not over: {open:?}"))
        })
    }
}

fn may_fail(
    call: CallId,
    failure: &LockFailure,
    took_ms: u64,
    timeout_ms: u64,
    facts: &Facts<'_>,
) -> Verdict {
    let gives_up = match facts.load(call) {
        Some(Load::Lock(plan)) => plan.cancel_after_ms,
        _ => None,
    };
    let grain = facts.bounds.drift_of(timeout_ms) + facts.bounds.ticks_ms;
    let is_early = match failure {
        LockFailure::TimedOut => took_ms + grain < timeout_ms,
        LockFailure::Cancelled => gives_up.is_none_or(|ms| took_ms + grain < u64::from(ms)),
        LockFailure::NotAttempted { .. } => true,
        LockFailure::ShuttingDown | LockFailure::Lost | LockFailure::Crashed => false,
    };
    if is_early {
        return Err(format!("call {call} has no lock after {took_ms} ms: {failure}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, CALLER, bites, granted, lock, made};
    use super::*;
    use crate::event::LockEnd;
    use crate::plan::{ClockWhilePaused, Fault};

    fn bench() -> Bench {
        let load = lock(|plan| plan.timeout_ms = 1_000);
        let mut bench = Bench::new(LockOutcome::default(), vec![load.clone()]);
        bench.well([(0, CALLER, made(0, &load))]);
        bench
    }

    fn failed(failure: LockFailure) -> EventKind {
        EventKind::LockFailed { call: 0, failure }
    }

    #[test]
    fn b50_whoever_asks_for_a_lock_has_it_or_not_once() {
        let over = EventKind::LockEnded { call: 0, how: LockEnd::Unlocked };
        let mut well = bench();
        bites(well.at_quiet(&[]), "call 0 is not over");
        well.well([(5, CALLER, granted(0, true, 1)), (6, CALLER, over.clone())]);
        assert_eq!(well.at_quiet(&[]), Ok(()));
        bites(well.at(7, CALLER, granted(0, true, 1)), "nobody waits");
        bites(bench().at(1, CALLER, over), "nobody held it");
        bites(bench().at(1, CALLER, made(0, &lock(|_| {}))), "asked for twice");
        let mut failing = bench();
        failing.well([(1_000, CALLER, failed(LockFailure::TimedOut))]);
        bites(failing.at(1_000, CALLER, failed(LockFailure::TimedOut)), "nobody waits");
        let mut held = bench();
        held.well([(5, CALLER, granted(0, true, 1))]);
        bites(held.at_quiet(&[]), "is not over");
    }

    #[test]
    fn b50_whoever_asks_for_a_lock_knows_in_time() {
        let grain = bench().bounds().ticks_ms;
        assert_eq!(bench().look(1_000 + grain, &[]), Ok(()));
        bites(bench().look(1_001 + grain, &[]), "1 ms beyond its time");
        bites(bench().at(900, CALLER, failed(LockFailure::TimedOut)), "after 900 ms: timed out");
        bites(bench().at(900, CALLER, failed(LockFailure::Cancelled)), "after 900 ms: cancelled");
        let text = String::new();
        bites(
            bench().at(1_000, CALLER, failed(LockFailure::NotAttempted { text })),
            "not attempted",
        );
        let mut patient = bench();
        let node = CALLER;
        patient.fault(500, Fault::Pause { node });
        assert_eq!(patient.look(90_000, &[]), Ok(()), "a process that is stopped cannot know");
        patient.fault(90_000, Fault::Resume { node, clock: ClockWhilePaused::Ran });
        assert_eq!(patient.look(91_000, &[]), Ok(()));
        bites(patient.look(92_000, &[]), "beyond its time");
    }
}
