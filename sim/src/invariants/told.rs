//! B52: a holder whose lock is not certain any more is told; it does not hold on for ever, and when all
//! is quiet nobody holds anything.

use std::collections::BTreeMap;

use super::suspended::Suspended;
use super::{Facts, Invariant, Verdict};
use crate::event::{CallId, Event};
use crate::lock::HoldView;
use crate::plan::Load;
use crate::world::NodeView;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Told {
    suspended: Suspended,
    /// Since when somebody who has not let go does not believe in its lock any more, if so.
    holders: BTreeMap<CallId, Option<u64>>,
}

impl Invariant for Told {
    fn name(&self) -> &'static str {
        "told"
    }

    fn see(&mut self, event: &Event, _facts: &Facts<'_>) -> Verdict {
        self.suspended.see(event);
        Ok(())
    }

    fn tick(&mut self, hold_views: &[HoldView], facts: &Facts<'_>) -> Verdict {
        let before = std::mem::take(&mut self.holders);
        let lease_ms = facts.bounds.lease_ms;
        for hold_view in hold_views {
            let HoldView { call, node, is_held, .. } = hold_view;
            let lost = before.get(call).copied().flatten().unwrap_or(facts.now_ms);
            self.holders.insert(*call, (!is_held).then_some(lost));
            if *is_held || self.suspended.is_stopped(*node) {
                continue;
            }
            // It goes on with timers that were set while it was stopped.
            let woken = self.suspended.woken_at(*node).map_or(0, |woken| woken + lease_ms);
            let patience = facts.bounds.lateness_of(lease_ms) + at_store(*call, facts);
            if facts.now_ms > lost.max(woken) + patience + facts.bounds.ticks_ms {
                let late = facts.now_ms - lost;
                return Err(format!(
                    "the holder of call {call} on {node} was not told that its lock is lost since \
                     {late} ms"
                ));
            }
        }
        Ok(())
    }

    fn at_quiet(&mut self, _views: &[NodeView], _facts: &Facts<'_>) -> Verdict {
        match self.holders.first_key_value() {
            None => Ok(()),
            Some((call, _)) => Err(format!("somebody still has the lock of call {call}")),
        }
    }
}

/// A holder looks up only between two operations.
fn at_store(call: CallId, facts: &Facts<'_>) -> u64 {
    match facts.load(call) {
        Some(Load::Lock(plan)) => 4 * (u64::from(plan.store_ms) + facts.bounds.ticks_ms),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, CALLER, bites, hold_view};
    use super::*;
    use crate::plan::{ClockWhilePaused, Fault};

    #[test]
    fn b52_a_holder_is_told() {
        let mut bench = Bench::new(Told::default(), vec![]);
        let grain = bench.bounds().lateness_of(0) + bench.bounds().ticks_ms;
        let lost = [HoldView { is_held: false, ..hold_view(0, CALLER, true) }];
        assert_eq!(bench.tick(9, &lost), Ok(()));
        assert_eq!(bench.tick(9 + grain, &lost), Ok(()));
        bites(bench.tick(10 + grain, &lost), "call 0 on node-0 was not told");
        assert_eq!(bench.tick(90, &[hold_view(0, CALLER, true)]), Ok(()));
        let node = CALLER;
        bench.fault(100, Fault::Pause { node });
        assert_eq!(bench.tick(200, &lost), Ok(()));
        assert_eq!(bench.tick(90_000, &lost), Ok(()), "nobody can tell it");
        bench.fault(90_000, Fault::Resume { node, clock: ClockWhilePaused::Ran });
        assert_eq!(bench.tick(90_000 + grain, &lost), Ok(()));
        bites(bench.tick(90_001 + grain, &lost), "was not told");
    }

    #[test]
    fn b52_nobody_holds_anything_when_all_is_quiet() {
        let mut bench = Bench::new(Told::default(), vec![]);
        bench.tick(9, &[hold_view(0, CALLER, true)]).expect("it may hold it");
        bites(bench.at_quiet(&[]), "somebody still has the lock of call 0");
        bench.tick(10, &[]).expect("it let go");
        assert_eq!(bench.at_quiet(&[]), Ok(()));
    }
}
