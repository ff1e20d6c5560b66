//! The histories of the registers that the locks protect are linearizable (see
//! [`crate::linearizability`]).

use std::collections::BTreeMap;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind, StoreOp, StoreResult};
use crate::linearizability::{RegisterOp, check};
use crate::world::NodeView;

/// Records the history of each register.
#[derive(Debug, Default)]
pub(super) struct Linearizability {
    /// Number of events so far: the logical time.
    now: u64,
    open: BTreeMap<CallId, OpenOperation>,
    histories: BTreeMap<u8, Vec<RegisterOp>>,
}

#[derive(Debug)]
struct OpenOperation {
    invoked: u64,
    op: StoreOp,
    /// When its last request reached the store. The operation affects the register no later, though
    /// a holder that was paused may receive the response much later.
    reached: Option<u64>,
}

impl Invariant for Linearizability {
    fn name(&self) -> &'static str {
        "linearizability"
    }

    fn on_event(&mut self, event: &Event, _context: &CheckContext<'_>) -> CheckResult {
        self.now += 1;
        match &event.kind {
            EventKind::StoreRequested { call, op, .. } => {
                let open = OpenOperation { invoked: self.now, op: *op, reached: None };
                match self.open.insert(*call, open) {
                    None => Ok(()),
                    Some(_) => Err(format!("call {call} has two operations at once")),
                }
            }
            EventKind::StoreReached { call, .. } => {
                if let Some(open) = self.open.get_mut(call) {
                    open.reached = Some(self.now);
                }
                Ok(())
            }
            EventKind::StoreCompleted { call, resource, result } => {
                let Some(OpenOperation { invoked, op, reached }) = self.open.remove(call) else {
                    return Err(format!("call {call} has no operation: {result}"));
                };
                // Other results had no effect.
                if let Some(returned) = reached
                    && matches!(result, StoreResult::Done { .. } | StoreResult::Unknown)
                {
                    let result = *result;
                    let operation = RegisterOp { invoked, returned, op, result };
                    self.histories.entry(*resource).or_default().push(operation);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn at_quiescence(&mut self, _views: &[NodeView], _context: &CheckContext<'_>) -> CheckResult {
        if let Some((call, OpenOperation { op, .. })) = self.open.first_key_value() {
            return Err(format!("call {call} never received the result of its {op}"));
        }
        for (resource, history) in &mut self.histories {
            check(0, history).map_err(|problem| format!("r{resource}: {problem}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLER, Harness, assert_violates};
    use super::*;

    fn reached(call: CallId) -> EventKind {
        let (resource, token, value) = (0, 1, None);
        let (writer, accepted, held) = (true, true, true);
        EventKind::StoreReached { call, resource, token, writer, value, accepted, held }
    }

    fn harness(values: [u64; 2]) -> Harness {
        let mut harness = Harness::new(Linearizability::default(), vec![]);
        for (call, value) in (0..).zip(values) {
            let (resource, op) = (0, StoreOp::Increment);
            let result = StoreResult::Done { value };
            harness.feed([
                (1, CALLER, EventKind::StoreRequested { call, resource, op }),
                (1, CALLER, reached(call)),
                (2, CALLER, EventKind::StoreCompleted { call, resource, result }),
            ]);
        }
        harness
    }

    #[test]
    fn lost_update_is_a_violation() {
        assert_eq!(harness([1, 2]).at_quiescence(&[]), Ok(()));
        assert_violates(harness([1, 1]).at_quiescence(&[]), "r0: no order explains");
        let requested = EventKind::StoreRequested { call: 0, resource: 0, op: StoreOp::Read };
        let mut open = harness([1, 2]);
        open.feed([(3, CALLER, requested.clone())]);
        assert_violates(open.at_quiescence(&[]), "call 0 never received");
        assert_violates(open.at(4, CALLER, requested), "two operations at once");
        let completed =
            EventKind::StoreCompleted { call: 7, resource: 0, result: StoreResult::Refused };
        assert_violates(open.at(5, CALLER, completed), "has no operation");
    }

    #[test]
    fn operation_takes_effect_when_it_reaches_the_store() {
        let (call, resource, op) = (9, 0, StoreOp::Read);
        let read = |value| {
            let mut harness = harness([1, 2]);
            let requested = EventKind::StoreRequested { call, resource, op };
            harness.feed([(3, CALLER, requested), (4, CALLER, reached(call))]);
            for other in 10..300 {
                let (requested, result) = (
                    EventKind::StoreRequested { call: other, resource, op: StoreOp::Increment },
                    StoreResult::Done { value: u64::from(other) - 7 },
                );
                let completed = EventKind::StoreCompleted { call: other, resource, result };
                harness.feed([
                    (5, CALLER, requested),
                    (5, CALLER, reached(other)),
                    (6, CALLER, completed),
                ]);
            }
            let result = StoreResult::Done { value };
            harness.feed([(7, CALLER, EventKind::StoreCompleted { call, resource, result })]);
            harness.at_quiescence(&[])
        };
        assert_eq!(read(2), Ok(()));
        assert_violates(read(3), "no order explains");
    }
}
