//! B22, B23: messages of a stream arrive in order, none is missing and none comes twice, and all of
//! them come before a good end.

use std::collections::BTreeMap;

use super::{Facts, Invariant, Verdict};
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

    fn see(&mut self, event: &Event, facts: &Facts<'_>) -> Verdict {
        match &event.kind {
            EventKind::Sent { call, end, number } => {
                self.sent.insert((*call, *end), *number);
                Ok(())
            }
            EventKind::Received { call, end, number } => self.taken(*call, *end, *number),
            EventKind::HandlerEnded { call, how } => {
                self.handlers.insert(*call, *how);
                Ok(())
            }
            EventKind::InputEnded { call, end, clean: true } => self.over(*call, *end, facts),
            EventKind::CallEnded { call, outcome } => {
                self.ended(*call, outcome)?;
                self.all_before_an_error(*call, outcome)
            }
            _ => Ok(()),
        }
    }
}

impl StreamOrder {
    fn taken(&mut self, call: CallId, end: StreamSide, number: u32) -> Verdict {
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
    fn over(&self, call: CallId, end: StreamSide, facts: &Facts<'_>) -> Verdict {
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
    fn all_before_an_error(&self, call: CallId, outcome: &Outcome) -> Verdict {
        let Outcome::RemoteError { .. } = outcome else { return Ok(()) };
        let sent = self.sent.get(&(call, StreamSide::Callee)).copied().unwrap_or(0);
        let taken = self.taken.get(&(call, StreamSide::Caller)).copied().unwrap_or(0);
        if taken < sent {
            return Err(format!("call {call} ended ({outcome}) after {taken} of {sent} messages"));
        }
        Ok(())
    }

    /// A stream that ended well has a handler that returned well, and the other way round.
    fn ended(&self, call: CallId, outcome: &Outcome) -> Verdict {
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
    use super::super::bench::{Bench, CALLER, SERVER, bites, ended, request, stream};
    use super::*;

    const CALLING: StreamSide = StreamSide::Caller;
    const SERVING: StreamSide = StreamSide::Callee;

    fn sent(end: StreamSide, number: u32) -> EventKind {
        EventKind::Sent { call: 0, end, number }
    }

    fn taken(end: StreamSide, number: u32) -> EventKind {
        EventKind::Received { call: 0, end, number }
    }

    fn over(end: StreamSide) -> EventKind {
        EventKind::InputEnded { call: 0, end, clean: true }
    }

    fn bench() -> Bench {
        Bench::new(StreamOrder::default(), vec![stream(|plan| (plan.up, plan.down) = (2, 0))])
    }

    #[test]
    fn messages_come_in_order_and_all_before_the_end() {
        let mut bench = bench();
        bench.well([
            (1, CALLER, sent(CALLING, 1)),
            (2, SERVER, taken(SERVING, 1)),
            (2, SERVER, taken(SERVING, 2)),
            (3, CALLER, sent(CALLING, 2)),
            (4, SERVER, over(SERVING)),
            (4, SERVER, EventKind::HandlerEnded { call: 0, how: HandlerEnd::Returned }),
            (5, CALLER, over(CALLING)),
            (5, CALLER, ended(0, Outcome::Completed)),
        ]);
    }

    #[test]
    fn b24_an_error_comes_behind_all_messages_that_came_before_it() {
        let failed = EventKind::HandlerEnded { call: 0, how: HandlerEnd::Failed };
        let error = || ended(0, Outcome::RemoteError { text: "planned".to_owned() });
        let mut bench = bench();
        bench.well([
            (1, SERVER, sent(SERVING, 1)),
            (1, SERVER, sent(SERVING, 2)),
            (1, SERVER, failed),
            (2, CALLER, taken(CALLING, 1)),
        ]);
        bites(bench.at(3, CALLER, error()), "call 0 ended");
        bench.well([(3, CALLER, taken(CALLING, 2)), (3, CALLER, error())]);
    }

    #[test]
    fn a_gap_a_duplicate_and_an_early_end_are_refused() {
        bites(bench().at(1, SERVER, taken(SERVING, 2)), "call 0 took 2 after 0");
        let mut twice = bench();
        twice.well([(1, SERVER, taken(SERVING, 1))]);
        bites(twice.at(2, SERVER, taken(SERVING, 1)), "call 0 took 1 after 1");
        bites(twice.at(2, SERVER, taken(SERVING, 2)), "call 0 took 2, and 0 were sent");
        let mut short = bench();
        short.well([(1, SERVER, taken(SERVING, 1))]);
        bites(short.at(2, SERVER, over(SERVING)), "call 0 saw a good end after 1 of 2");
        let mut other = Bench::new(StreamOrder::default(), vec![request(|_| {})]);
        bites(other.at(2, SERVER, over(SERVING)), "call 0 is no stream");
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
            let mut bench = bench();
            bench.well(how.map(|how| (1, SERVER, EventKind::HandlerEnded { call: 0, how })));
            bites(bench.at(2, CALLER, ended(0, outcome)), names);
        }
        for (how, outcome) in [
            (HandlerEnd::Panicked, remote()),
            (HandlerEnd::Cancelled, failed("was cancelled")),
            (HandlerEnd::Returned, Outcome::Deadline),
        ] {
            bench().well([
                (1, SERVER, EventKind::HandlerEnded { call: 0, how }),
                (2, CALLER, ended(0, outcome)),
            ]);
        }
    }
}
