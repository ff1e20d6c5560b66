//! [B22], [B23]: the messages of a stream arrive in order, none is missing or duplicated, and all
//! precede a clean end.
//!
//! [B22]: crate::rules#b22
//! [B23]: crate::rules#b23

use std::collections::BTreeMap;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind, HandlerEnd, Outcome, StreamSide};
use crate::plan::Load;

/// Tracks the messages of every stream.
#[derive(Debug, Default)]
pub(super) struct StreamOrder {
    sent: BTreeMap<(CallId, StreamSide), u32>,
    received: BTreeMap<(CallId, StreamSide), u32>,
    handlers: BTreeMap<CallId, HandlerEnd>,
}

impl Invariant for StreamOrder {
    fn name(&self) -> &'static str {
        "stream_order"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        match &event.kind {
            EventKind::Sent { call, end, number } => {
                self.sent.insert((*call, *end), *number);
                Ok(())
            }
            EventKind::Received { call, end, number } => self.on_received(*call, *end, *number),
            EventKind::HandlerEnded { call, how } => {
                self.handlers.insert(*call, *how);
                Ok(())
            }
            EventKind::InputEnded { call, end, clean: true } => {
                self.on_input_end(*call, *end, context)
            }
            EventKind::CallEnded { call, outcome } => {
                self.check_matches_handler(*call, outcome)?;
                self.check_all_before_error(*call, outcome)
            }
            _ => Ok(()),
        }
    }
}

impl StreamOrder {
    fn on_received(&mut self, call: CallId, end: StreamSide, number: u32) -> CheckResult {
        let received = self.received.entry((call, end)).or_default();
        if number != *received + 1 {
            return Err(format!("{end:?} of call {call} received {number} after {received}"));
        }
        *received = number;
        // A message is in flight before its send resolves.
        let sent = self.sent.get(&(call, end.other())).copied().unwrap_or(0);
        if number > sent + 1 {
            return Err(format!("{end:?} of call {call} received {number}, and {sent} were sent"));
        }
        Ok(())
    }

    /// Handles a clean end of the input.
    fn on_input_end(
        &self,
        call: CallId,
        end: StreamSide,
        context: &CheckContext<'_>,
    ) -> CheckResult {
        let Some(Load::Stream(plan)) = context.load(call) else {
            return Err(format!("call {call} is not a stream"));
        };
        let all = match end {
            StreamSide::Caller => plan.down,
            StreamSide::Callee => plan.up,
        };
        let received = self.received.get(&(call, end)).copied().unwrap_or(0);
        if received != all {
            return Err(format!(
                "{end:?} of call {call} saw a clean end after {received} of {all} messages"
            ));
        }
        Ok(())
    }

    /// [B24]: checks that the messages that a handler sent before it failed arrived before its
    /// error.
    /// [B24]: crate::rules#b24
    fn check_all_before_error(&self, call: CallId, outcome: &Outcome) -> CheckResult {
        let Outcome::RemoteError { .. } = outcome else { return Ok(()) };
        let sent = self.sent.get(&(call, StreamSide::Callee)).copied().unwrap_or(0);
        let received = self.received.get(&(call, StreamSide::Caller)).copied().unwrap_or(0);
        if received < sent {
            return Err(format!(
                "call {call} ended ({outcome}) after {received} of {sent} messages"
            ));
        }
        Ok(())
    }

    /// Checks that a stream succeeded if, and only if, its handler returned success.
    fn check_matches_handler(&self, call: CallId, outcome: &Outcome) -> CheckResult {
        let handler = self.handlers.get(&call).copied();
        match (outcome, handler) {
            (Outcome::Completed, Some(HandlerEnd::Returned)) => Ok(()),
            (Outcome::Completed, how) => {
                Err(format!("call {call} succeeded with a handler that ended {how:?}"))
            }
            (Outcome::RemoteError { .. }, Some(HandlerEnd::Failed | HandlerEnd::Panicked)) => {
                Ok(())
            }
            (Outcome::RemoteError { .. }, how) => {
                Err(format!("call {call} ended ({outcome}), and its handler {how:?}"))
            }
            // A handler that returned success is never reported as cancelled (B23).
            (Outcome::StreamFailed { text }, Some(HandlerEnd::Returned))
                if text.contains("cancelled") =>
            {
                Err(format!("call {call} ended ({outcome}) though its handler returned success"))
            }
            (Outcome::UnknownHandler, Some(how)) => {
                Err(format!("call {call} ended ({outcome}), and its handler {how:?}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLEE, CALLER, Harness, assert_violates, ended, request, stream};
    use super::*;

    const CALLER_END: StreamSide = StreamSide::Caller;
    const HANDLER_END: StreamSide = StreamSide::Callee;

    fn sent(end: StreamSide, number: u32) -> EventKind {
        EventKind::Sent { call: 0, end, number }
    }

    fn received(end: StreamSide, number: u32) -> EventKind {
        EventKind::Received { call: 0, end, number }
    }

    fn input_ended(end: StreamSide) -> EventKind {
        EventKind::InputEnded { call: 0, end, clean: true }
    }

    fn harness() -> Harness {
        Harness::new(StreamOrder::default(), vec![stream(|plan| (plan.up, plan.down) = (2, 0))])
    }

    #[test]
    fn ordered_messages_before_the_end_pass() {
        let mut harness = harness();
        harness.feed([
            (1, CALLER, sent(CALLER_END, 1)),
            (2, CALLEE, received(HANDLER_END, 1)),
            (2, CALLEE, received(HANDLER_END, 2)),
            (3, CALLER, sent(CALLER_END, 2)),
            (4, CALLEE, input_ended(HANDLER_END)),
            (4, CALLEE, EventKind::HandlerEnded { call: 0, how: HandlerEnd::Returned }),
            (5, CALLER, input_ended(CALLER_END)),
            (5, CALLER, ended(0, Outcome::Completed)),
        ]);
    }

    #[test]
    fn b24_error_arrives_after_all_messages_sent_before_it() {
        let failed = EventKind::HandlerEnded { call: 0, how: HandlerEnd::Failed };
        let error = || ended(0, Outcome::RemoteError { text: "planned".to_owned() });
        let mut harness = harness();
        harness.feed([
            (1, CALLEE, sent(HANDLER_END, 1)),
            (1, CALLEE, sent(HANDLER_END, 2)),
            (1, CALLEE, failed),
            (2, CALLER, received(CALLER_END, 1)),
        ]);
        assert_violates(harness.at(3, CALLER, error()), "call 0 ended");
        harness.feed([(3, CALLER, received(CALLER_END, 2)), (3, CALLER, error())]);
    }

    #[test]
    fn gap_duplicate_and_early_end_are_violations() {
        assert_violates(
            harness().at(1, CALLEE, received(HANDLER_END, 2)),
            "call 0 received 2 after 0",
        );
        let mut twice = harness();
        twice.feed([(1, CALLEE, received(HANDLER_END, 1))]);
        assert_violates(twice.at(2, CALLEE, received(HANDLER_END, 1)), "call 0 received 1 after 1");
        assert_violates(
            twice.at(2, CALLEE, received(HANDLER_END, 2)),
            "call 0 received 2, and 0 were sent",
        );
        let mut short = harness();
        short.feed([(1, CALLEE, received(HANDLER_END, 1))]);
        assert_violates(
            short.at(2, CALLEE, input_ended(HANDLER_END)),
            "call 0 saw a clean end after 1 of 2",
        );
        let mut other = Harness::new(StreamOrder::default(), vec![request(|_| {})]);
        assert_violates(other.at(2, CALLEE, input_ended(HANDLER_END)), "call 0 is not a stream");
    }

    #[test]
    fn b23_stream_ends_as_its_handler() {
        let failed = |text: &str| Outcome::StreamFailed { text: text.to_owned() };
        let remote = || Outcome::RemoteError { text: "planned".to_owned() };
        let cases = [
            (Some(HandlerEnd::Failed), Outcome::Completed, "succeeded with a handler that ended"),
            (None, Outcome::Completed, "succeeded with a handler that ended None"),
            (Some(HandlerEnd::Returned), remote(), "call 0 ended (remote error"),
            (Some(HandlerEnd::Cancelled), remote(), "call 0 ended (remote error"),
            (Some(HandlerEnd::Returned), failed("was cancelled"), "though its handler returned"),
            (Some(HandlerEnd::Returned), Outcome::UnknownHandler, "call 0 ended (unknown handler"),
        ];
        for (how, outcome, names) in cases {
            let mut harness = harness();
            harness.feed(how.map(|how| (1, CALLEE, EventKind::HandlerEnded { call: 0, how })));
            assert_violates(harness.at(2, CALLER, ended(0, outcome)), names);
        }
        for (how, outcome) in [
            (HandlerEnd::Panicked, remote()),
            (HandlerEnd::Cancelled, failed("was cancelled")),
            (HandlerEnd::Returned, Outcome::Deadline),
        ] {
            harness().feed([
                (1, CALLEE, EventKind::HandlerEnded { call: 0, how }),
                (2, CALLER, ended(0, outcome)),
            ]);
        }
    }
}
