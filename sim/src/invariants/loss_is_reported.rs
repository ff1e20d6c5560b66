//! [B52]: a holder whose lock is no longer certain is notified. It does not keep the lock for ever,
//! and at quiescence no lock is held.
//!
//! [B52]: crate::rules#b52

use std::collections::BTreeMap;

use super::suspended::SuspendedHolders;
use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event};
use crate::lock::HoldView;
use crate::plan::Load;
use crate::world::NodeView;

/// Tracks holders that have lost their lock.
#[derive(Debug, Default)]
pub(super) struct LossIsReported {
    suspended: SuspendedHolders,
    /// For each holder, since when it does not see `is_held()`, if so.
    holders: BTreeMap<CallId, Option<u64>>,
}

impl Invariant for LossIsReported {
    fn name(&self) -> &'static str {
        "loss_is_reported"
    }

    fn on_event(&mut self, event: &Event, _context: &CheckContext<'_>) -> CheckResult {
        self.suspended.on_event(event);
        Ok(())
    }

    fn on_tick(&mut self, hold_views: &[HoldView], context: &CheckContext<'_>) -> CheckResult {
        let before = std::mem::take(&mut self.holders);
        let lease_ms = context.bounds.lease_ms;
        for hold in hold_views {
            let HoldView { call, node, is_held, .. } = hold;
            let lost = before.get(call).copied().flatten().unwrap_or(context.now_ms);
            self.holders.insert(*call, (!is_held).then_some(lost));
            if *is_held || self.suspended.is_paused(*node) {
                continue;
            }
            // It resumes with timers that were set before the pause.
            let woken = self.suspended.resumed_at(*node).map_or(0, |woken| woken + lease_ms);
            let allowance = context.bounds.lateness_of(lease_ms) + store_delay_ms(*call, context);
            if context.now_ms > lost.max(woken) + allowance + context.bounds.timer_resolution_ms {
                let late = context.now_ms - lost;
                return Err(format!(
                    "the holder of call {call} on {node} was not notified of the loss of its lock \
                     since {late} ms"
                ));
            }
        }
        Ok(())
    }

    fn at_quiescence(&mut self, _views: &[NodeView], _context: &CheckContext<'_>) -> CheckResult {
        match self.holders.first_key_value() {
            None => Ok(()),
            Some((call, _)) => Err(format!("a node still holds the lock of call {call}")),
        }
    }
}

/// A holder checks its lock only between two operations.
fn store_delay_ms(call: CallId, context: &CheckContext<'_>) -> u64 {
    match context.load(call) {
        Some(Load::Lock(plan)) => {
            4 * (u64::from(plan.store_ms) + context.bounds.timer_resolution_ms)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLER, Harness, assert_violates, hold};
    use super::*;
    use crate::fault::{Pause, Resume};
    use crate::plan::{ClockWhilePaused, Fault};

    #[test]
    fn b52_holder_is_notified() {
        let mut harness = Harness::new(LossIsReported::default(), vec![]);
        let tolerance = harness.bounds().lateness_of(0) + harness.bounds().timer_resolution_ms;
        let lost = [HoldView { is_held: false, ..hold(0, CALLER, true) }];
        assert_eq!(harness.on_tick(9, &lost), Ok(()));
        assert_eq!(harness.on_tick(9 + tolerance, &lost), Ok(()));
        assert_violates(
            harness.on_tick(10 + tolerance, &lost),
            "call 0 on node-0 was not notified",
        );
        assert_eq!(harness.on_tick(90, &[hold(0, CALLER, true)]), Ok(()));
        let node = CALLER;
        harness.inject(100, Fault::Pause(Pause { node }));
        assert_eq!(harness.on_tick(200, &lost), Ok(()));
        assert_eq!(harness.on_tick(90_000, &lost), Ok(()), "a paused process cannot be notified");
        harness.inject(90_000, Fault::Resume(Resume { node, clock: ClockWhilePaused::Ran }));
        assert_eq!(harness.on_tick(90_000 + tolerance, &lost), Ok(()));
        assert_violates(harness.on_tick(90_001 + tolerance, &lost), "was not notified");
    }

    #[test]
    fn b52_no_lock_is_held_at_quiescence() {
        let mut harness = Harness::new(LossIsReported::default(), vec![]);
        harness.on_tick(9, &[hold(0, CALLER, true)]).expect("it may hold it");
        assert_violates(harness.at_quiescence(&[]), "a node still holds the lock of call 0");
        harness.on_tick(10, &[]).expect("it has released the lock");
        assert_eq!(harness.at_quiescence(&[]), Ok(()));
    }
}
