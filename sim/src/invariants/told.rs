//! B52: a holder whose lock is not certain any more is told; it does not hold on for ever, and when all
//! is quiet nobody holds anything.

use super::suspended::Suspended;
use super::{Facts, Invariant, Verdict};
use crate::event::Event;
use crate::lock::Belief;
use crate::plan::Load;
use crate::world::NodeView;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Told {
    suspended: Suspended,
    /// Who holds what now.
    beliefs: Vec<Belief>,
}

impl Invariant for Told {
    fn name(&self) -> &'static str {
        "told"
    }

    fn see(&mut self, event: &Event, _facts: &Facts<'_>) -> Verdict {
        self.suspended.see(event);
        Ok(())
    }

    fn tick(&mut self, beliefs: &[Belief], facts: &Facts<'_>) -> Verdict {
        self.beliefs = beliefs.to_vec();
        let lease_ms = facts.bounds.lease_ms;
        for belief in beliefs {
            let Belief { call, node, overdue_ms, .. } = belief;
            // It goes on with timers that were set while it was stopped.
            let woken = self.suspended.woken_at(*node);
            let has_just_woken = woken.is_some_and(|woken| facts.now_ms <= woken + lease_ms);
            if self.suspended.is_stopped(*node) || has_just_woken {
                continue;
            }
            let patience = facts.bounds.lateness_of(lease_ms) + at_store(*call, facts);
            if *overdue_ms > patience + facts.bounds.ticks_ms {
                return Err(format!(
                    "the holder of call {call} on {node} was not told that its lock is lost since \
                     {overdue_ms} ms"
                ));
            }
        }
        Ok(())
    }

    fn at_quiet(&mut self, _views: &[NodeView], _facts: &Facts<'_>) -> Verdict {
        match self.beliefs.first() {
            None => Ok(()),
            Some(Belief { call, node, .. }) => {
                Err(format!("{node} still has the lock of call {call}"))
            }
        }
    }
}

/// A holder looks up only between two operations.
fn at_store(call: crate::event::CallId, facts: &Facts<'_>) -> u64 {
    match facts.load(call) {
        Some(Load::Lock(plan)) => 4 * (u64::from(plan.store_ms) + facts.bounds.ticks_ms),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, CALLER, belief, bites};
    use super::*;
    use crate::plan::{Fault, Meanwhile};

    #[test]
    fn b52_a_holder_is_told() {
        let mut bench = Bench::new(Told::default(), vec![]);
        let overdue = |overdue_ms| [Belief { overdue_ms, ..belief(0, CALLER, true) }];
        assert_eq!(bench.tick(9, &overdue(0)), Ok(()));
        let grain = bench.bounds().ticks_ms;
        assert_eq!(bench.tick(9, &overdue(grain)), Ok(()));
        bites(bench.tick(9, &overdue(grain + 1)), "call 0 on node-0 was not told");
        let node = CALLER;
        bench.fault(10, Fault::Pause { node });
        assert_eq!(bench.tick(90_000, &overdue(80_000)), Ok(()), "nobody can tell it");
        bench.fault(90_000, Fault::Wake { node, clock: Meanwhile::Ran });
        bites(bench.tick(90_001, &overdue(80_001)), "was not told");
    }

    #[test]
    fn b52_nobody_holds_anything_when_all_is_quiet() {
        let mut bench = Bench::new(Told::default(), vec![]);
        bench.tick(9, &[belief(0, CALLER, true)]).expect("it may hold it");
        bites(bench.at_quiet(&[]), "node-0 still has the lock of call 0");
        bench.tick(10, &[]).expect("it let go");
        assert_eq!(bench.at_quiet(&[]), Ok(()));
    }
}
