//! B12, B13, B16: an outcome is one that the call's own handler can have caused.
//!
//! A response that reached another call, of this or of the other direction, would show here: every
//! payload says which call it belongs to, and an error only comes from a handler that was to fail.

use std::collections::BTreeMap;

use super::{Facts, Invariant, Verdict};
use crate::event::{CallId, Event, Outcome, What};
use crate::load::{PLANNED_ERROR, PLANNED_PANIC};
use crate::plan::{Ending, Load, Node};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Answers {
    made: BTreeMap<CallId, (Node, Node, u64)>,
}

impl Invariant for Answers {
    fn name(&self) -> &'static str {
        "answers"
    }

    fn see(&mut self, event: &Event, facts: &Facts<'_>) -> Verdict {
        match &event.what {
            What::CallMade { call, to, .. } => {
                if let Some(from) = event.node {
                    self.made.insert(*call, (from, *to, event.at_ms));
                }
                Ok(())
            }
            What::WrongInput { call, text } => Err(format!("call {call} was served with {text}")),
            What::CallEnded { call, outcome } => {
                let ending = match facts.load(*call) {
                    Some(Load::Request(plan)) => plan.ending,
                    Some(Load::Stream(plan)) => plan.ending,
                    None => return Err(format!("call {call} is not in the plan")),
                };
                let is_possible = match outcome {
                    Outcome::StreamFailed { text } => {
                        // Silence is what a stream may die of, but not on a whole network.
                        let is_silence = SILENCE.iter().any(|silence| text.contains(silence));
                        is_silence && self.had_trouble(*call, facts)
                    }
                    outcome => is_possible(outcome, ending),
                };
                is_possible.then_some(()).ok_or_else(|| {
                    format!("call {call}, whose handler ends {ending:?}, ended: {outcome}")
                })
            }
            _ => Ok(()),
        }
    }
}

impl Answers {
    /// Whether the network between a call's two ends was not whole all the time, or not long enough
    /// for a dead connection to be found.
    fn had_trouble(&self, call: CallId, facts: &Facts<'_>) -> bool {
        let Some((from, to, made)) = self.made.get(&call) else { return false };
        let since = facts.calm.since(*from, *to);
        since.is_none_or(|since| since + facts.bounds.reconnect_ms > *made)
    }
}

/// What a stream that ends for want of signs of life says.
const SILENCE: [&str; 3] = ["no sign of life", "does not know the stream", "was cancelled"];

fn is_possible(outcome: &Outcome, ending: Ending) -> bool {
    match outcome {
        Outcome::WrongAnswer { .. } => false,
        Outcome::Answered => ending == Ending::Well,
        Outcome::UnknownHandler => ending == Ending::Unknown,
        Outcome::RemoteError { text } => match ending {
            Ending::Error => text == PLANNED_ERROR,
            Ending::Panic => text.ends_with(PLANNED_PANIC),
            Ending::Well | Ending::Never | Ending::Unknown => false,
        },
        // The other side takes no new calls, or has too many.
        Outcome::Refused { .. } => true,
        Outcome::StreamFailed { .. } => false,
        Outcome::NotConnected
        | Outcome::Disconnected
        | Outcome::Deadline
        | Outcome::GaveUp
        | Outcome::NotMade { .. }
        | Outcome::Crashed => true,
    }
}
