//! What the locks protect looks as if everything done to it was done at one instant: histories of each
//! register are linearizable (see [`crate::history`]).

use std::collections::BTreeMap;

use super::{Facts, Invariant, Verdict};
use crate::event::{CallId, Event, EventKind, StoreOp, StoreResult};
use crate::history::{Operation, check};
use crate::world::NodeView;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Register {
    /// Events seen so far: the order in which things happened.
    now: u64,
    open: BTreeMap<CallId, Open>,
    histories: BTreeMap<u8, Vec<Operation>>,
}

#[derive(Debug)]
struct Open {
    invoked: u64,
    op: StoreOp,
    /// When the last of it reached the store. Nothing happens to the register after that, though its holder
    /// may hear of it much later, if its process was stopped.
    reached: Option<u64>,
}

impl Invariant for Register {
    fn name(&self) -> &'static str {
        "register"
    }

    fn see(&mut self, event: &Event, _facts: &Facts<'_>) -> Verdict {
        self.now += 1;
        match &event.kind {
            EventKind::StoreRequested { call, op, .. } => {
                let open = Open { invoked: self.now, op: *op, reached: None };
                match self.open.insert(*call, open) {
                    None => Ok(()),
                    Some(_) => Err(format!("call {call} wants two things at once")),
                }
            }
            EventKind::StoreReached { call, .. } => {
                if let Some(open) = self.open.get_mut(call) {
                    open.reached = Some(self.now);
                }
                Ok(())
            }
            EventKind::StoreCompleted { call, resource, result } => {
                let Some(Open { invoked, op, reached }) = self.open.remove(call) else {
                    return Err(format!("call {call} wanted nothing: {result}"));
                };
                // What was not done has left no trace.
                if let Some(returned) = reached
                    && matches!(result, StoreResult::Done { .. } | StoreResult::Unknown)
                {
                    let result = *result;
                    let operation = Operation { invoked, returned, op, result };
                    self.histories.entry(*resource).or_default().push(operation);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn at_quiet(&mut self, _views: &[NodeView], _facts: &Facts<'_>) -> Verdict {
        if let Some((call, Open { op, .. })) = self.open.first_key_value() {
            return Err(format!("call {call} never learned what came of its {op}"));
        }
        for (resource, history) in &mut self.histories {
            check(0, history).map_err(|problem| format!("r{resource}: {problem}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, CALLER, bites};
    use super::*;

    fn reached(call: CallId) -> EventKind {
        let (resource, token, value) = (0, 1, None);
        let (writer, accepted, held) = (true, true, true);
        EventKind::StoreReached { call, resource, token, writer, value, accepted, held }
    }

    fn bench(values: [u64; 2]) -> Bench {
        let mut bench = Bench::new(Register::default(), vec![]);
        for (call, value) in (0..).zip(values) {
            let (resource, op) = (0, StoreOp::Increment);
            let result = StoreResult::Done { value };
            bench.well([
                (1, CALLER, EventKind::StoreRequested { call, resource, op }),
                (1, CALLER, reached(call)),
                (2, CALLER, EventKind::StoreCompleted { call, resource, result }),
            ]);
        }
        bench
    }

    #[test]
    fn an_update_that_is_lost_is_seen() {
        assert_eq!(bench([1, 2]).at_quiet(&[]), Ok(()));
        bites(bench([1, 1]).at_quiet(&[]), "r0: no order explains");
        let asked = EventKind::StoreRequested { call: 0, resource: 0, op: StoreOp::Read };
        let mut open = bench([1, 2]);
        open.well([(3, CALLER, asked.clone())]);
        bites(open.at_quiet(&[]), "call 0 never learned");
        bites(open.at(4, CALLER, asked), "two things at once");
        let answered =
            EventKind::StoreCompleted { call: 7, resource: 0, result: StoreResult::Refused };
        bites(open.at(5, CALLER, answered), "wanted nothing");
    }

    #[test]
    fn what_its_holder_hears_of_late_is_done_when_it_has_reached_the_store() {
        let (call, resource, op) = (9, 0, StoreOp::Read);
        let read = |value| {
            let mut bench = bench([1, 2]);
            let asked = EventKind::StoreRequested { call, resource, op };
            bench.well([(3, CALLER, asked), (4, CALLER, reached(call))]);
            for other in 10..300 {
                let (asked, result) = (
                    EventKind::StoreRequested { call: other, resource, op: StoreOp::Increment },
                    StoreResult::Done { value: u64::from(other) - 7 },
                );
                let answered = EventKind::StoreCompleted { call: other, resource, result };
                bench.well([
                    (5, CALLER, asked),
                    (5, CALLER, reached(other)),
                    (6, CALLER, answered),
                ]);
            }
            let result = StoreResult::Done { value };
            bench.well([(7, CALLER, EventKind::StoreCompleted { call, resource, result })]);
            bench.at_quiet(&[])
        };
        assert_eq!(read(2), Ok(()));
        bites(read(3), "no order explains");
    }
}
