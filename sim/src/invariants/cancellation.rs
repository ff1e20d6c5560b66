//! B11, B25: a handler whose caller has gone is cancelled: at once if the network is whole, and
//! otherwise once the dead connection is found.

use std::collections::BTreeMap;

use super::{Facts, Invariant, Verdict};
use crate::event::{CallId, Event, EventKind};
use crate::plan::Node;
use crate::world::NodeView;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Cancellation {
    /// Handlers that run.
    running: BTreeMap<CallId, (Node, Node)>,
    /// When their calls ended.
    ended: BTreeMap<CallId, u64>,
}

impl Invariant for Cancellation {
    fn name(&self) -> &'static str {
        "cancellation"
    }

    fn see(&mut self, event: &Event, _facts: &Facts<'_>) -> Verdict {
        match (&event.kind, event.node) {
            (EventKind::HandlerStarted { call, from }, Some(node)) => {
                self.running.insert(*call, (*from, node));
            }
            (EventKind::HandlerEnded { call, .. }, _) => {
                self.running.remove(call);
                self.ended.remove(call);
            }
            (EventKind::CallEnded { call, .. }, _) => drop(self.ended.insert(*call, event.at_ms)),
            _ => {}
        }
        Ok(())
    }

    fn look(&mut self, _views: &[NodeView], facts: &Facts<'_>) -> Verdict {
        for (call, (from, to)) in &self.running {
            let Some(ended) = self.ended.get(call) else { continue };
            let bounds = facts.bounds;
            // Until then its connection may be dead, and nobody knows it yet.
            let Some(whole) = facts.calm.whole_since(*from, *to, bounds) else { continue };
            let due = whole.max(*ended) + bounds.round_trip_ms + bounds.queue_ms();
            if facts.now_ms > due {
                return Err(format!(
                    "the handler of call {call} still runs {} ms after the call ended",
                    facts.now_ms - ended
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, CALLER, LATE, SERVER, bites, ended, request, served};
    use super::*;
    use crate::event::{HandlerEnd, Outcome};
    use crate::plan::Fault;

    fn bench() -> Bench {
        let mut bench = Bench::new(Cancellation::default(), vec![request(|_| {})]);
        bench.well([(LATE, SERVER, served(0)), (LATE, CALLER, ended(0, Outcome::Cancelled))]);
        bench
    }

    #[test]
    fn b11_a_handler_ends_soon_after_its_caller_has_gone() {
        let mut bench = bench();
        let soon = LATE + bench.bounds().round_trip_ms;
        let queue_ms = bench.bounds().queue_ms();
        assert_eq!(bench.look(soon, &[]), Ok(()));
        bites(bench.look(soon + queue_ms + 1, &[]), "the handler of call 0 still runs");
        bench.well([(
            soon,
            SERVER,
            EventKind::HandlerEnded { call: 0, how: HandlerEnd::Cancelled },
        )]);
        assert_eq!(bench.look(soon + queue_ms + 1, &[]), Ok(()));
    }

    #[test]
    fn on_a_dead_connection_it_ends_once_that_is_found() {
        let mut bench = bench();
        bench.fault(LATE + 1, Fault::Cut { a: CALLER, b: SERVER });
        assert_eq!(bench.look(2 * LATE, &[]), Ok(()), "nobody can know yet");
        bench.fault(2 * LATE, Fault::Repair { a: CALLER, b: SERVER });
        let bounds = bench.bounds();
        let found = 2 * LATE + bounds.reconnect_ms + bounds.round_trip_ms + bounds.queue_ms();
        assert_eq!(bench.look(found, &[]), Ok(()));
        bites(bench.look(found + 1, &[]), "the handler of call 0 still runs");
    }
}
