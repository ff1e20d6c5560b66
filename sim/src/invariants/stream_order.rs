//! B22, B23: messages of a stream arrive in order, none is missing and none comes twice, and all of
//! them come before a good end.

use std::collections::BTreeMap;

use super::{Facts, Invariant, Verdict};
use crate::event::{CallId, Event, HandlerEnd, Outcome, StreamSide, What};
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
        match &event.what {
            What::Sent { call, end, number } => {
                self.sent.insert((*call, *end), *number);
                Ok(())
            }
            What::Taken { call, end, number } => self.taken(*call, *end, *number),
            What::HandlerEnded { call, how } => {
                self.handlers.insert(*call, *how);
                Ok(())
            }
            What::InputOver { call, end, well: true } => self.over(*call, *end, facts),
            What::CallEnded { call, outcome } => self.ended(*call, outcome),
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
            StreamSide::Handler => plan.up,
        };
        let taken = self.taken.get(&(call, end)).copied().unwrap_or(0);
        if taken != all {
            return Err(format!(
                "{end:?} of call {call} saw a good end after {taken} of {all} messages"
            ));
        }
        Ok(())
    }

    /// A stream that ended well has a handler that returned well, and the other way round.
    fn ended(&self, call: CallId, outcome: &Outcome) -> Verdict {
        let handler = self.handlers.get(&call).copied();
        match (outcome, handler) {
            (Outcome::Answered, Some(HandlerEnd::Returned)) => Ok(()),
            (Outcome::Answered, how) => {
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
