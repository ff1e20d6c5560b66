//! B51: at no instant do a writer and anybody else both believe that they hold one resource.
//!
//! Looked at after each tick, by the clocks of those who believe. A node that was suspended with its
//! clocks standing cannot know, and is excused for the locks that it had then.

use super::suspended::Suspended;
use super::{Facts, Invariant, Verdict};
use crate::event::Event;
use crate::lock::HoldView;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Exclusion {
    suspended: Suspended,
}

impl Invariant for Exclusion {
    fn name(&self) -> &'static str {
        "exclusion"
    }

    fn see(&mut self, event: &Event, _facts: &Facts<'_>) -> Verdict {
        self.suspended.see(event);
        Ok(())
    }

    fn tick(&mut self, hold_views: &[HoldView], _facts: &Facts<'_>) -> Verdict {
        let believers = hold_views
            .iter()
            .filter(|hold_view| hold_view.is_held && !self.suspended.is_over(hold_view.call));
        let believers: Vec<_> = believers.collect();
        for (place, one) in believers.iter().enumerate() {
            for other in &believers[place + 1..] {
                if (one.write || other.write)
                    && let Some(resource) = shared(one, other)
                {
                    return Err(format!(
                        "two believe that they hold r{resource}: {} and {}",
                        said(one),
                        said(other)
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

fn said(hold_view: &HoldView) -> String {
    let HoldView { call, node, token, .. } = hold_view;
    let kind = if hold_view.write { "writer" } else { "reader" };
    format!("the {kind} of call {call} on {node} with token {token}")
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, CALLER, SERVER, bites, hold_view, lock, made};
    use super::*;
    use crate::plan::{ClockWhilePaused, Fault};

    fn bench() -> Bench {
        Bench::new(Exclusion::default(), vec![])
    }

    #[test]
    fn b51_a_writer_is_alone() {
        let (writer, reader) = (hold_view(0, CALLER, true), hold_view(1, SERVER, false));
        assert_eq!(
            bench().tick(9, &[hold_view(2, CALLER, false), reader.clone()]),
            Ok(()),
            "readers"
        );
        bites(bench().tick(9, &[writer.clone(), reader.clone()]), "the writer of call 0");
        bites(bench().tick(9, &[reader.clone(), writer.clone()]), "hold r0");
        let other = HoldView { resources: vec![1, 2], ..reader.clone() };
        assert_eq!(bench().tick(9, &[writer.clone(), other]), Ok(()), "of other resources");
        let of_both = HoldView { resources: vec![1], ..writer.clone() };
        let wide = HoldView { resources: vec![0, 1], ..reader.clone() };
        bites(bench().tick(9, &[of_both, wide]), "hold r1");
        let over = HoldView { is_held: false, ..reader };
        assert_eq!(bench().tick(9, &[writer, over]), Ok(()), "it knows that it lost it");
    }

    #[test]
    fn b51_who_cannot_know_is_excused_for_what_it_had_then() {
        let (node, load) = (CALLER, lock(|_| {}));
        let both = [hold_view(0, CALLER, true), hold_view(1, SERVER, true)];
        let after = |clock| {
            let mut bench = Bench::new(Exclusion::default(), vec![load.clone(), load.clone()]);
            bench.well([(1, CALLER, made(0, &load))]);
            bench.fault(2, Fault::Pause { node });
            bench.fault(3, Fault::Resume { node, clock });
            bench
        };
        assert_eq!(after(ClockWhilePaused::Frozen).tick(9, &both), Ok(()));
        bites(after(ClockWhilePaused::Ran).tick(9, &both), "hold r0");
        let mut later = after(ClockWhilePaused::Frozen);
        later.well([(4, CALLER, made(2, &load))]);
        bites(
            later.tick(9, &[hold_view(2, CALLER, true), hold_view(1, SERVER, true)]),
            "of call 2",
        );
    }
}
