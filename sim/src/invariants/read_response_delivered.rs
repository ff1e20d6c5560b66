//! [B14]: a response that was read before the connection ended is delivered, not lost.
//! [B14]: crate::rules#b14

use std::collections::{BTreeMap, BTreeSet};

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind, Outcome, SocketId};
use crate::plan::Node;

/// Tracks responses in flight.
#[derive(Debug, Default)]
pub(super) struct ReadResponseDelivered {
    /// Responses in flight: the sender and the call of each message of a socket.
    in_flight: BTreeMap<(SocketId, u64), (Node, CallId)>,
    open: BTreeSet<CallId>,
    /// Open calls whose response was read by their caller.
    read: BTreeSet<CallId>,
}

impl Invariant for ReadResponseDelivered {
    fn name(&self) -> &'static str {
        "read_response_delivered"
    }

    fn on_event(&mut self, event: &Event, _context: &CheckContext<'_>) -> CheckResult {
        match (&event.kind, event.node) {
            (EventKind::CallMade { call, .. }, _) => drop(self.open.insert(*call)),
            (EventKind::MessageSent { socket, index, message }, Some(node)) => {
                if let ("Response", Some(call)) = (message.op.as_str(), message.call) {
                    self.in_flight.insert((*socket, *index), (node, call));
                }
            }
            (EventKind::MessageReceived { socket, index }, Some(node)) => {
                let key = (*socket, *index);
                // Each direction counts its own messages: this is the one that the node did not
                // send.
                if self.in_flight.get(&key).is_some_and(|(sender, _)| *sender != node) {
                    let call = self.in_flight.remove(&key).map(|(_, call)| call);
                    self.read.extend(call.filter(|call| self.open.contains(call)));
                }
            }
            (EventKind::CallEnded { call, outcome }, _) => {
                self.open.remove(call);
                if self.read.remove(call) && *outcome == Outcome::Disconnected {
                    return Err(format!(
                        "call {call} ended ({outcome}) after its response was read"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLEE, CALLER, Harness, assert_violates, ended, made, request};
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
        harness.feed([(1, CALLER, made(0, &load)), (2, CALLEE, response(0))]);
        harness
    }

    #[test]
    fn b14_read_response_is_not_lost_with_the_connection() {
        let read = EventKind::MessageReceived { socket: 1, index: 4 };
        let mut completed = harness();
        completed.feed([(3, CALLER, read.clone()), (3, CALLER, ended(0, Outcome::Completed))]);
        let mut lost = harness();
        lost.feed([(3, CALLER, read)]);
        assert_violates(lost.at(3, CALLER, ended(0, Outcome::Disconnected)), "call 0 ended");
    }

    #[test]
    fn unread_response_may_be_lost() {
        let mut harness = harness();
        // The other direction has a message of this index too.
        harness.feed([
            (3, CALLEE, EventKind::MessageReceived { socket: 1, index: 4 }),
            (4, CALLER, ended(0, Outcome::Disconnected)),
        ]);
    }
}
