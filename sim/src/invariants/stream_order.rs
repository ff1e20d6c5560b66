//! B22, B23: messages of a stream arrive in order, none is missing and none comes twice, and all of
//! them come before a good end.

use std::collections::BTreeMap;

use super::{CheckResult, Facts, Invariant};
use crate::event::{CallId, Event, EventKind, HandlerEnd, Outcome, StreamSide};
use crate::plan::Load;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct StreamOrder {
    sent: BTreeMap<(CallId, StreamSide), u32>,
    taken: BTreeMap<(CallId, StreamSide), u32>,
    handlers: BTreeMap<CallId, HandlerEnd>,
}

impl Invariant for StreamOrder {
    fn name(&self) -> &'static str {
        "stream_order"
    }

    fn on_event(&mut self, event: &Event, facts: &Facts<'_>) -> CheckResult {
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
                self.on_input_end(*call, *end, facts)
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
        let taken = self.taken.entry((call, end)).or_default();
        if number != *taken + 1 {
            return Err(format!("{end:?} of call {call} took {number} after {taken}"));
        }
        *taken = number;
        // A message is on its way before whoever sent it is told so.
        let sent = self.sent.get(&(call, end.other())).copied().unwrap_or(0);
        if number > sent + 1 {
            return Err(format!("{end:?} of call {call} took {number}, and {sent} were sent"));
        }
        Ok(())
    }

    /// An end that says that it was the last message.
    fn on_input_end(&self, call: CallId, end: StreamSide, facts: &Facts<'_>) -> CheckResult {
        let Some(Load::Stream(plan)) = facts.load(call) else {
            return Err(format!("call {call} is no stream"));
        };
        let all = match end {
            StreamSide::Caller => plan.down,
            StreamSide::Callee => plan.up,
        };
        let taken = self.taken.get(&(call, end)).copied().unwrap_or(0);
        if taken != all {
            return Err(format!(
                "{end:?} of call {call} saw a good end after {taken} of {all} messages"
            ));
        }
        Ok(())
    }

    /// What a handler sent before it failed is received before its error is (B24).
    fn check_all_before_error(&self, call: CallId, outcome: &Outcome) -> CheckResult {
        let Outcome::RemoteError { .. } = outcome else { return Ok(()) };
        let sent = self.sent.get(&(call, StreamSide::Callee)).copied().unwrap_or(0);
        let taken = self.taken.get(&(call, StreamSide::Caller)).copied().unwrap_or(0);
        if taken < sent {
            return Err(format!("call {call} ended ({outcome}) after {taken} of {sent} messages"));
        }
        Ok(())
    }

    /// A stream that ended well has a handler that returned well, and the other way round.
    fn check_matches_handler(&self, call: CallId, outcome: &Outcome) -> CheckResult {
        let handler = self.handlers.get(&call).copied();
        match (outcome, handler) {
            (Outcome::Completed, Some(HandlerEnd::Returned)) => Ok(()),
            (Outcome::Completed, how) => {
                Err(format!("call {call} was answered by a handler that ended {how:?}"))
            }
            (Outcome::RemoteError { .. }, Some(HandlerEnd::Failed | HandlerEnd::Panicked)) => {
                Ok(())
            }
            (Outcome::RemoteError { .. }, how) => {
                Err(format!("call {call} ended ({outcome}), and its handler {how:?}"))
            }
            // A handler that returned well is never seen as cancelled (B23).
            (Outcome::StreamFailed { text }, Some(HandlerEnd::Returned))
                if text.contains("cancelled") =>
            {
                Err(format!("call {call} ended ({outcome}) though its handler returned well"))
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
    use super::super::harness::{CALLER, Harness, SERVER, assert_violates, ended, request, stream};
    use super::*;

    const CALLER_END: StreamSide = StreamSide::Caller;
    const HANDLER_END: StreamSide = StreamSide::Callee;

    fn sent(end: StreamSide, number: u32) -> EventKind {
        EventKind::Sent { call: 0, end, number }
    }

    fn taken(end: StreamSide, number: u32) -> EventKind {
        EventKind::Received { call: 0, end, number }
    }

    fn over(end: StreamSide) -> EventKind {
        EventKind::InputEnded { call: 0, end, clean: true }
    }

    fn harness() -> Harness {
        Harness::new(StreamOrder::default(), vec![stream(|plan| (plan.up, plan.down) = (2, 0))])
    }

    #[test]
    fn messages_come_in_order_and_all_before_the_end() {
        let mut harness = harness();
        harness.feed([
            (1, CALLER, sent(CALLER_END, 1)),
            (2, SERVER, taken(HANDLER_END, 1)),
            (2, SERVER, taken(HANDLER_END, 2)),
            (3, CALLER, sent(CALLER_END, 2)),
            (4, SERVER, over(HANDLER_END)),
            (4, SERVER, EventKind::HandlerEnded { call: 0, how: HandlerEnd::Returned }),
            (5, CALLER, over(CALLER_END)),
            (5, CALLER, ended(0, Outcome::Completed)),
        ]);
    }

    #[test]
    fn b24_an_error_comes_behind_all_messages_that_came_before_it() {
        let failed = EventKind::HandlerEnded { call: 0, how: HandlerEnd::Failed };
        let error = || ended(0, Outcome::RemoteError { text: "planned".to_owned() });
        let mut harness = harness();
        harness.feed([
            (1, SERVER, sent(HANDLER_END, 1)),
            (1, SERVER, sent(HANDLER_END, 2)),
            (1, SERVER, failed),
            (2, CALLER, taken(CALLER_END, 1)),
        ]);
        assert_violates(harness.at(3, CALLER, error()), "call 0 ended");
        harness.feed([(3, CALLER, taken(CALLER_END, 2)), (3, CALLER, error())]);
    }

    #[test]
    fn a_gap_a_duplicate_and_an_early_end_are_refused() {
        assert_violates(harness().at(1, SERVER, taken(HANDLER_END, 2)), "call 0 took 2 after 0");
        let mut twice = harness();
        twice.feed([(1, SERVER, taken(HANDLER_END, 1))]);
        assert_violates(twice.at(2, SERVER, taken(HANDLER_END, 1)), "call 0 took 1 after 1");
        assert_violates(
            twice.at(2, SERVER, taken(HANDLER_END, 2)),
            "call 0 took 2, and 0 were sent",
        );
        let mut short = harness();
        short.feed([(1, SERVER, taken(HANDLER_END, 1))]);
        assert_violates(
            short.at(2, SERVER, over(HANDLER_END)),
            "call 0 saw a good end after 1 of 2",
        );
        let mut other = Harness::new(StreamOrder::default(), vec![request(|_| {})]);
        assert_violates(other.at(2, SERVER, over(HANDLER_END)), "call 0 is no stream");
    }

    #[test]
    fn b23_an_end_is_that_of_the_handler() {
        let failed = |text: &str| Outcome::StreamFailed { text: text.to_owned() };
        let remote = || Outcome::RemoteError { text: "planned".to_owned() };
        let cases = [
            (Some(HandlerEnd::Failed), Outcome::Completed, "answered by a handler that ended"),
            (None, Outcome::Completed, "answered by a handler that ended None"),
            (Some(HandlerEnd::Returned), remote(), "call 0 ended (remote error"),
            (Some(HandlerEnd::Cancelled), remote(), "call 0 ended (remote error"),
            (Some(HandlerEnd::Returned), failed("was cancelled"), "though its handler returned"),
            (Some(HandlerEnd::Returned), Outcome::UnknownHandler, "call 0 ended (unknown handler"),
        ];
        for (how, outcome, names) in cases {
            let mut harness = harness();
            harness.feed(how.map(|how| (1, SERVER, EventKind::HandlerEnded { call: 0, how })));
            assert_violates(harness.at(2, CALLER, ended(0, outcome)), names);
        }
        for (how, outcome) in [
            (HandlerEnd::Panicked, remote()),
            (HandlerEnd::Cancelled, failed("was cancelled")),
            (HandlerEnd::Returned, Outcome::Deadline),
        ] {
            harness().feed([
                (1, SERVER, EventKind::HandlerEnded { call: 0, how }),
                (2, CALLER, ended(0, outcome)),
            ]);
        }
    }
}
