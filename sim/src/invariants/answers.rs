//! B12, B13, B16: an outcome is one that the call's own handler can have caused.
//!
//! A response that reached another call, of this or of the other direction, would show here: every
//! payload says which call it belongs to, and an error only comes from a handler that was to fail.

use super::{Facts, Invariant, Verdict};
use crate::event::{Event, Outcome, What};
use crate::load::{PLANNED_ERROR, PLANNED_PANIC};
use crate::plan::{Ending, Load};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Answers;

impl Invariant for Answers {
    fn name(&self) -> &'static str {
        "answers"
    }

    fn see(&mut self, event: &Event, facts: &Facts<'_>) -> Verdict {
        match &event.what {
            What::WrongInput { call, text } => Err(format!("call {call} was served with {text}")),
            What::CallEnded { call, outcome } => {
                let ending = match facts.load(*call) {
                    Some(Load::Request(plan)) => plan.ending,
                    Some(Load::Stream(plan)) => plan.ending,
                    None => return Err(format!("call {call} is not in the plan")),
                };
                let is_possible = is_possible(outcome, ending);
                is_possible.then_some(()).ok_or_else(|| {
                    format!("call {call}, whose handler ends {ending:?}, ended: {outcome}")
                })
            }
            _ => Ok(()),
        }
    }
}

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
