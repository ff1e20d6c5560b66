//! B14: an answer that was read before the connection ended is read_response_delivered, not lost.

use std::collections::{BTreeMap, BTreeSet};

use super::{CheckResult, Facts, Invariant};
use crate::event::{CallId, Event, EventKind, Outcome, SocketId};
use crate::plan::Node;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ReadResponseDelivered {
    /// Responses on their way: which call's each message of a socket is.
    in_flight: BTreeMap<(SocketId, u64), (Node, CallId)>,
    open: BTreeSet<CallId>,
    /// Open calls whose answer was read where they were made.
    read: BTreeSet<CallId>,
}

impl Invariant for ReadResponseDelivered {
    fn name(&self) -> &'static str {
        "read_response_delivered"
    }

    fn on_event(&mut self, event: &Event, _facts: &Facts<'_>) -> CheckResult {
        match (&event.kind, event.node) {
            (EventKind::CallMade { call, .. }, _) => drop(self.open.insert(*call)),
            (EventKind::MessageSent { socket, index, message }, Some(node)) => {
                if let ("Response", Some(call)) = (message.op.as_str(), message.call) {
                    self.in_flight.insert((*socket, *index), (node, call));
                }
            }
            (EventKind::MessageReceived { socket, index }, Some(node)) => {
                let key = (*socket, *index);
                // Each direction has its own numbers: it is the one that this node did not send.
                if self.in_flight.get(&key).is_some_and(|(sender, _)| *sender != node) {
                    let call = self.in_flight.remove(&key).map(|(_, call)| call);
                    self.read.extend(call.filter(|call| self.open.contains(call)));
                }
            }
            (EventKind::CallEnded { call, outcome }, _) => {
                self.open.remove(call);
                if self.read.remove(call) && *outcome == Outcome::Disconnected {
                    return Err(format!("call {call} ended ({outcome}) after its answer was read"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLER, Harness, SERVER, assert_violates, ended, made, request};
    use super::*;
    use crate::event::MessageSummary;

    fn response(call: CallId) -> EventKind {
        let op = "Response".to_owned();
        let message =
            MessageSummary { op, mux_id: 1, sequence: 0, flags: 3, bytes: 16, call: Some(call) };
        EventKind::MessageSent { socket: 1, index: 4, message }
    }

    fn harness() -> Harness {
        let load = request(|_| {});
        let mut harness = Harness::new(ReadResponseDelivered::default(), vec![load.clone()]);
        harness.feed([(1, CALLER, made(0, &load)), (2, SERVER, response(0))]);
        harness
    }

    #[test]
    fn b14_an_answer_that_was_read_is_not_lost_with_the_connection() {
        let read = EventKind::MessageReceived { socket: 1, index: 4 };
        let mut answered = harness();
        answered.feed([(3, CALLER, read.clone()), (3, CALLER, ended(0, Outcome::Completed))]);
        let mut lost = harness();
        lost.feed([(3, CALLER, read)]);
        assert_violates(lost.at(3, CALLER, ended(0, Outcome::Disconnected)), "call 0 ended");
    }

    #[test]
    fn an_answer_that_was_not_read_may_be_lost() {
        let mut harness = harness();
        // The other direction has a message of this number too.
        harness.feed([
            (3, SERVER, EventKind::MessageReceived { socket: 1, index: 4 }),
            (4, CALLER, ended(0, Outcome::Disconnected)),
        ]);
    }
}
