//! [B14]: the result of a handler reaches its caller: without faults, no response is lost and no
//! call hangs.
//!
//! [B14]: crate::rules#b14

use std::collections::BTreeMap;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind, HandlerEnd};
use crate::plan::{Load, Node};
use crate::world::NodeView;

/// Time for the end of a stream to arrive behind messages that its caller has yet to receive.
const STREAM_MS: u64 = 3_000;

/// Tracks calls whose handler has returned.
#[derive(Debug, Default)]
pub(super) struct HandlerResultArrives {
    open: BTreeMap<CallId, (Node, Node)>,
    /// Open calls whose handler has returned, and when.
    ended: BTreeMap<CallId, u64>,
}

impl Invariant for HandlerResultArrives {
    fn name(&self) -> &'static str {
        "handler_result_arrives"
    }

    fn on_event(&mut self, event: &Event, _context: &CheckContext<'_>) -> CheckResult {
        match (&event.kind, event.node) {
            (EventKind::CallMade { call, to, .. }, Some(from)) => {
                self.open.insert(*call, (from, *to));
            }
            (EventKind::HandlerEnded { call, how }, _) if self.open.contains_key(call) => match how
            {
                HandlerEnd::Returned | HandlerEnd::Failed | HandlerEnd::Panicked => {
                    self.ended.insert(*call, event.at_ms);
                }
                HandlerEnd::Cancelled | HandlerEnd::Crashed => {}
            },
            (EventKind::CallEnded { call, .. }, _) => {
                self.open.remove(call);
                self.ended.remove(call);
            }
            _ => {}
        }
        Ok(())
    }

    fn on_view(&mut self, _views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        let bounds = context.bounds;
        for (call, ended) in &self.ended {
            let Some((from, to)) = self.open.get(call) else { continue };
            let allowance = match context.load(*call) {
                Some(Load::Request(_)) => 0,
                // Its caller needs time for each message.
                Some(Load::Stream(plan)) if plan.receive_pace_ms.is_some_and(|ms| ms <= 5) => {
                    STREAM_MS
                }
                Some(Load::Stream(_) | Load::Lock(_) | Load::Force(_) | Load::Change(_)) | None => {
                    continue;
                }
            };
            let Some(healthy) = context.health.healthy_since(*from, *to, bounds) else { continue };
            let due = healthy.max(*ended) + bounds.round_trip_ms + bounds.queue_ms() + allowance;
            if context.now_ms > due {
                let late = context.now_ms - ended;
                return Err(format!("call {call} is open {late} ms after its handler ended"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{
        CALLEE, CALLER, Harness, LATE, assert_violates, ended, made, request, stream,
    };
    use super::*;
    use crate::event::Outcome;

    fn harness(load: &Load) -> Harness {
        let mut harness = Harness::new(HandlerResultArrives::default(), vec![load.clone()]);
        let returned = EventKind::HandlerEnded { call: 0, how: HandlerEnd::Returned };
        harness.feed([(LATE, CALLER, made(0, load)), (LATE, CALLEE, returned)]);
        harness
    }

    #[test]
    fn b14_returned_response_arrives() {
        let mut harness = harness(&request(|_| {}));
        let due = LATE + harness.bounds().round_trip_ms + harness.bounds().queue_ms();
        assert_eq!(harness.on_view(due, &[]), Ok(()));
        assert_violates(harness.on_view(due + 1, &[]), "call 0 is open");
        harness.feed([(due, CALLER, ended(0, Outcome::Completed))]);
        assert_eq!(harness.on_view(2 * LATE, &[]), Ok(()));
    }

    #[test]
    fn stream_ends_after_its_caller_has_received_all() {
        let mut quick = harness(&stream(|_| {}));
        assert_violates(quick.on_view(LATE + STREAM_MS + 1_000, &[]), "call 0 is open");
        let mut slow = harness(&stream(|plan| plan.receive_pace_ms = None));
        assert_eq!(slow.on_view(2 * LATE, &[]), Ok(()));
    }
}
