//! B51: at no instant do a writer and anybody else both believe that they hold one resource.
//!
//! Looked at after each tick, by the clocks of those who believe. A node that was suspended with its
//! clocks standing cannot know, and is excused for the locks that it had then.

use super::suspended::Suspended;
use super::{Facts, Invariant, Verdict};
use crate::event::Event;
use crate::lock::Belief;

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

    fn tick(&mut self, beliefs: &[Belief], _facts: &Facts<'_>) -> Verdict {
        let believers = beliefs
            .iter()
            .filter(|belief| belief.is_believed && !self.suspended.is_over(belief.call));
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

fn shared(one: &Belief, other: &Belief) -> Option<u8> {
    one.resources.iter().copied().find(|resource| other.resources.contains(resource))
}

fn said(belief: &Belief) -> String {
    let Belief { call, node, token, .. } = belief;
    let kind = if belief.write { "writer" } else { "reader" };
    format!("the {kind} of call {call} on {node} with token {token}")
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, CALLER, SERVER, belief, bites, lock, made};
    use super::*;
    use crate::plan::{Fault, Meanwhile};

    fn bench() -> Bench {
        Bench::new(Exclusion::default(), vec![])
    }

    #[test]
    fn b51_a_writer_is_alone() {
        let (writer, reader) = (belief(0, CALLER, true), belief(1, SERVER, false));
        assert_eq!(bench().tick(9, &[belief(2, CALLER, false), reader.clone()]), Ok(()), "readers");
        bites(bench().tick(9, &[writer.clone(), reader.clone()]), "the writer of call 0");
        bites(bench().tick(9, &[reader.clone(), writer.clone()]), "hold r0");
        let other = Belief { resources: vec![1, 2], ..reader.clone() };
        assert_eq!(bench().tick(9, &[writer.clone(), other]), Ok(()), "of other resources");
        let of_both = Belief { resources: vec![1], ..writer.clone() };
        let wide = Belief { resources: vec![0, 1], ..reader.clone() };
        bites(bench().tick(9, &[of_both, wide]), "hold r1");
        let over = Belief { is_believed: false, ..reader };
        assert_eq!(bench().tick(9, &[writer, over]), Ok(()), "it knows that it lost it");
    }

    #[test]
    fn b51_who_cannot_know_is_excused_for_what_it_had_then() {
        let (node, load) = (CALLER, lock(|_| {}));
        let both = [belief(0, CALLER, true), belief(1, SERVER, true)];
        let after = |clock| {
            let mut bench = Bench::new(Exclusion::default(), vec![load.clone(), load.clone()]);
            bench.well([(1, CALLER, made(0, &load))]);
            bench.fault(2, Fault::Pause { node });
            bench.fault(3, Fault::Wake { node, clock });
            bench
        };
        assert_eq!(after(Meanwhile::Stood).tick(9, &both), Ok(()));
        bites(after(Meanwhile::Ran).tick(9, &both), "hold r0");
        let mut later = after(Meanwhile::Stood);
        later.well([(4, CALLER, made(2, &load))]);
        bites(later.tick(9, &[belief(2, CALLER, true), belief(1, SERVER, true)]), "of call 2");
    }
}
