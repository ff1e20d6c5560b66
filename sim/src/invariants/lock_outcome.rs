//! [B50]: a lock request is granted or fails, once, no later than its timeout, and times out no
//! earlier.
//!
//! [B50]: crate::rules#b50

use std::collections::BTreeMap;

use super::suspended::SuspendedHolders;
use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind, LockFailure};
use crate::plan::{Load, Node};
use crate::world::NodeView;

/// Tracks the phase of every lock request.
#[derive(Debug, Default)]
pub(super) struct LockOutcome {
    suspended: SuspendedHolders,
    open: BTreeMap<CallId, LockPhase>,
}

#[derive(Debug)]
enum LockPhase {
    Waiting { node: Node, since: u64, timeout_ms: u64 },
    Held,
    Ended,
}

impl Invariant for LockOutcome {
    fn name(&self) -> &'static str {
        "lock_outcome"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        self.suspended.on_event(event);
        match (&event.kind, event.node) {
            (EventKind::LockRequested { call, timeout_ms, .. }, Some(node)) => {
                let (since, timeout_ms) = (event.at_ms, u64::from(*timeout_ms));
                match self.open.insert(*call, LockPhase::Waiting { node, since, timeout_ms }) {
                    None => Ok(()),
                    Some(_) => Err(format!("the lock of call {call} was requested twice")),
                }
            }
            (EventKind::LockGranted { call, .. }, _) => {
                match self.open.insert(*call, LockPhase::Held) {
                    Some(LockPhase::Waiting { .. }) => Ok(()),
                    _ => Err(format!("the lock of call {call} was granted without a waiter")),
                }
            }
            (EventKind::LockFailed { call, failure }, _) => {
                match self.open.insert(*call, LockPhase::Ended) {
                    Some(LockPhase::Waiting { since, timeout_ms, .. }) => {
                        may_fail(*call, failure, event.at_ms - since, timeout_ms, context)
                    }
                    _ => Err(format!("the lock of call {call} failed without a waiter: {failure}")),
                }
            }
            (EventKind::LockEnded { call, .. }, _) => {
                match self.open.insert(*call, LockPhase::Ended) {
                    Some(LockPhase::Held) => Ok(()),
                    _ => Err(format!("the lock of call {call} ended without a holder")),
                }
            }
            _ => Ok(()),
        }
    }

    fn on_view(&mut self, _views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        for (call, open) in &self.open {
            let LockPhase::Waiting { node, since, timeout_ms } = open else { continue };
            if self.suspended.is_paused(*node) {
                continue;
            }
            // A resumed process measures its timeout anew: its timers are tokio's, which kept
            // running.
            let since = self.suspended.resumed_at(*node).map_or(*since, |woken| woken.max(*since));
            let due = since + timeout_ms + context.bounds.lateness_of(*timeout_ms);
            let due = due + context.bounds.timer_resolution_ms;
            if context.now_ms > due {
                let late = context.now_ms - due;
                return Err(format!("call {call} waits for its lock {late} ms beyond its timeout"));
            }
        }
        Ok(())
    }

    fn at_quiescence(&mut self, _views: &[NodeView], _context: &CheckContext<'_>) -> CheckResult {
        let mut left = self.open.iter().filter(|(_, open)| !matches!(open, LockPhase::Ended));
        left.next().map_or(Ok(()), |(call, open)| {
            Err(format!("the lock of call {call} has not ended: {open:?}"))
        })
    }
}

fn may_fail(
    call: CallId,
    failure: &LockFailure,
    took_ms: u64,
    timeout_ms: u64,
    context: &CheckContext<'_>,
) -> CheckResult {
    let cancels = match context.load(call) {
        Some(Load::Lock(plan)) => plan.cancel_after_ms,
        _ => None,
    };
    let tolerance = context.bounds.drift_of(timeout_ms) + context.bounds.timer_resolution_ms;
    let is_early = match failure {
        LockFailure::TimedOut => took_ms + tolerance < timeout_ms,
        LockFailure::Cancelled => cancels.is_none_or(|ms| took_ms + tolerance < u64::from(ms)),
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
    use super::super::harness::{CALLER, Harness, assert_violates, granted, lock, made};
    use super::*;
    use crate::event::LockEnd;
    use crate::fault::{Pause, Resume};
    use crate::plan::{ClockWhilePaused, Fault};

    fn harness() -> Harness {
        let load = lock(|plan| plan.timeout_ms = 1_000);
        let mut harness = Harness::new(LockOutcome::default(), vec![load.clone()]);
        harness.feed([(0, CALLER, made(0, &load))]);
        harness
    }

    fn failed(failure: LockFailure) -> EventKind {
        EventKind::LockFailed { call: 0, failure }
    }

    #[test]
    fn b50_lock_request_ends_once() {
        let over = EventKind::LockEnded { call: 0, how: LockEnd::Unlocked };
        let mut granted_lock = harness();
        assert_violates(granted_lock.at_quiescence(&[]), "call 0 has not ended");
        granted_lock.feed([(5, CALLER, granted(0, true, 1)), (6, CALLER, over.clone())]);
        assert_eq!(granted_lock.at_quiescence(&[]), Ok(()));
        assert_violates(granted_lock.at(7, CALLER, granted(0, true, 1)), "without a waiter");
        assert_violates(harness().at(1, CALLER, over), "without a holder");
        assert_violates(harness().at(1, CALLER, made(0, &lock(|_| {}))), "requested twice");
        let mut failing = harness();
        failing.feed([(1_000, CALLER, failed(LockFailure::TimedOut))]);
        assert_violates(
            failing.at(1_000, CALLER, failed(LockFailure::TimedOut)),
            "without a waiter",
        );
        let mut held = harness();
        held.feed([(5, CALLER, granted(0, true, 1))]);
        assert_violates(held.at_quiescence(&[]), "has not ended");
    }

    #[test]
    fn b50_lock_request_ends_in_time() {
        let tolerance = harness().bounds().timer_resolution_ms;
        assert_eq!(harness().on_view(1_000 + tolerance, &[]), Ok(()));
        assert_violates(harness().on_view(1_001 + tolerance, &[]), "1 ms beyond its timeout");
        assert_violates(
            harness().at(900, CALLER, failed(LockFailure::TimedOut)),
            "after 900 ms: timed out",
        );
        assert_violates(
            harness().at(900, CALLER, failed(LockFailure::Cancelled)),
            "after 900 ms: cancelled",
        );
        let text = String::new();
        assert_violates(
            harness().at(1_000, CALLER, failed(LockFailure::NotAttempted { text })),
            "not attempted",
        );
        let mut paused = harness();
        let node = CALLER;
        paused.inject(500, Fault::Pause(Pause { node }));
        assert_eq!(paused.on_view(90_000, &[]), Ok(()), "a paused process cannot notice");
        paused.inject(90_000, Fault::Resume(Resume { node, clock: ClockWhilePaused::Ran }));
        assert_eq!(paused.on_view(91_000, &[]), Ok(()));
        assert_violates(paused.on_view(92_000, &[]), "beyond its timeout");
    }
}
