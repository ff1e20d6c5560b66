//! [B51]: at no instant do a writer and another holder of one resource both see `is_held()`.
//!
//! Checked after each tick, by the holders' clocks. A node that was suspended with its clocks
//! frozen cannot know of its loss, and is exempt for the locks that it had then.
//!
//! [B51]: crate::rules#b51

use super::suspended::SuspendedHolders;
use super::{CheckContext, CheckResult, Invariant};
use crate::event::Event;
use crate::lock::HoldView;

/// Checks the holders that see `is_held()`.
#[derive(Debug, Default)]
pub(super) struct MutualExclusion {
    suspended: SuspendedHolders,
}

impl Invariant for MutualExclusion {
    fn name(&self) -> &'static str {
        "mutual_exclusion"
    }

    fn on_event(&mut self, event: &Event, _context: &CheckContext<'_>) -> CheckResult {
        self.suspended.on_event(event);
        Ok(())
    }

    fn on_tick(&mut self, hold_views: &[HoldView], _context: &CheckContext<'_>) -> CheckResult {
        let holders =
            hold_views.iter().filter(|hold| hold.is_held && !self.suspended.is_exempt(hold.call));
        let holders: Vec<_> = holders.collect();
        // Readers do not exclude each other, and there may be a thousand of them.
        for (place, one) in holders.iter().enumerate().filter(|(_, hold)| hold.write) {
            let others = holders.iter().enumerate();
            for (_, other) in others.filter(|(index, other)| *index > place || !other.write) {
                if let Some(resource) = shared(one, other) {
                    return Err(format!(
                        "two nodes hold r{resource}: {} and {}",
                        describe(one),
                        describe(other)
                    ));
                }
            }
        }
        Ok(())
    }
}

fn shared(one: &HoldView, other: &HoldView) -> Option<u8> {
    one.resources.iter().copied().find(|resource| other.resources.contains(resource))
}

fn describe(hold: &HoldView) -> String {
    let HoldView { call, node, token, .. } = hold;
    let kind = if hold.write { "writer" } else { "reader" };
    format!("the {kind} of call {call} on {node} with token {token}")
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLEE, CALLER, Harness, assert_violates, hold, lock, made};
    use super::*;
    use crate::fault::{Pause, Resume};
    use crate::plan::{ClockWhilePaused, Fault};

    fn harness() -> Harness {
        Harness::new(MutualExclusion::default(), vec![])
    }

    #[test]
    fn b51_writer_excludes_all_others() {
        let (writer, reader) = (hold(0, CALLER, true), hold(1, CALLEE, false));
        assert_eq!(
            harness().on_tick(9, &[hold(2, CALLER, false), reader.clone()]),
            Ok(()),
            "readers"
        );
        assert_violates(
            harness().on_tick(9, &[writer.clone(), reader.clone()]),
            "the writer of call 0",
        );
        assert_violates(harness().on_tick(9, &[reader.clone(), writer.clone()]), "hold r0");
        let other = HoldView { resources: vec![1, 2], ..reader.clone() };
        assert_eq!(harness().on_tick(9, &[writer.clone(), other]), Ok(()), "of other resources");
        let of_both = HoldView { resources: vec![1], ..writer.clone() };
        let wide = HoldView { resources: vec![0, 1], ..reader.clone() };
        assert_violates(harness().on_tick(9, &[of_both, wide]), "hold r1");
        let over = HoldView { is_held: false, ..reader };
        assert_eq!(harness().on_tick(9, &[writer, over]), Ok(()), "it sees that its lock is lost");
    }

    #[test]
    fn b51_suspended_holder_is_exempt_for_its_locks_of_that_time() {
        let (node, load) = (CALLER, lock(|_| {}));
        let both = [hold(0, CALLER, true), hold(1, CALLEE, true)];
        let after = |clock| {
            let mut harness =
                Harness::new(MutualExclusion::default(), vec![load.clone(), load.clone()]);
            harness.feed([(1, CALLER, made(0, &load))]);
            harness.inject(2, Fault::Pause(Pause { node }));
            harness.inject(3, Fault::Resume(Resume { node, clock }));
            harness
        };
        assert_eq!(after(ClockWhilePaused::Frozen).on_tick(9, &both), Ok(()));
        assert_violates(after(ClockWhilePaused::Ran).on_tick(9, &both), "hold r0");
        let mut later = after(ClockWhilePaused::Frozen);
        later.feed([(4, CALLER, made(2, &load))]);
        assert_violates(
            later.on_tick(9, &[hold(2, CALLER, true), hold(1, CALLEE, true)]),
            "of call 2",
        );
    }
}
