//! [B12], [B13], [B16]: the outcome of a call is one that its own handler can have caused.
//!
//! A response that reached another call, of either direction, would be detected: every payload
//! names its call, and an error comes only from a handler whose plan is to fail. Nor does a call
//! fail because of the network while its network is intact.
//!
//! [B12]: crate::rules#b12
//! [B13]: crate::rules#b13
//! [B16]: crate::rules#b16

use std::collections::BTreeMap;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind, Outcome};
use crate::load::{PLANNED_ERROR, PLANNED_PANIC};
use crate::plan::{Load, Node, PlannedHandlerEnd};

/// Tracks the calls made.
#[derive(Debug, Default)]
pub(super) struct Responses {
    made: BTreeMap<CallId, (Node, Node, u64)>,
}

impl Invariant for Responses {
    fn name(&self) -> &'static str {
        "responses"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        match &event.kind {
            EventKind::CallMade { call, to, .. } => {
                if let Some(from) = event.node {
                    self.made.insert(*call, (from, *to, event.at_ms));
                }
                Ok(())
            }
            EventKind::WrongInput { call, text } => {
                Err(format!("call {call} was served with {text}"))
            }
            EventKind::CallEnded { call, outcome } => {
                let Some(load) = context.load(*call) else {
                    return Err(format!("call {call} is not in the plan"));
                };
                let (ending, cancels) = match &load {
                    Load::Request(plan) => (plan.ending, plan.cancel_after_ms.is_some()),
                    Load::Stream(plan) => (plan.ending, plan.cancel_after_ms.is_some()),
                    Load::Lock(_) | Load::Force(_) | Load::Change(_) => {
                        return Err(format!("call {call} is a lock: {outcome}"));
                    }
                };
                let limits = &context.plan.cluster.limits;
                let is_possible = match outcome {
                    // Missed pings may end a stream, but not on an intact network.
                    Outcome::StreamFailed { text } => {
                        SILENCE_TEXTS.iter().any(|silence| text.contains(silence))
                            && self.had_fault(*call, context)
                    }
                    Outcome::Disconnected | Outcome::NotConnected => self.had_fault(*call, context),
                    // The callee is overloaded or draining.
                    Outcome::Refused { .. } => {
                        limits.inbound_calls_max.is_some() || self.had_fault(*call, context)
                    }
                    Outcome::NotMade { .. } => {
                        limits.outbound_calls_max.is_some() || self.had_fault(*call, context)
                    }
                    Outcome::Cancelled => cancels,
                    Outcome::Deadline => self.may_miss_deadline(*call, &load, context),
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

impl Responses {
    /// Returns whether the network between a call's two ends had a fault during the call, or too
    /// short a time before it for a dead connection to be detected.
    fn had_fault(&self, call: CallId, context: &CheckContext<'_>) -> bool {
        let Some((from, to, made)) = self.made.get(&call) else { return false };
        let healthy = context.health.healthy_since(*from, *to, context.bounds);
        healthy.is_none_or(|since| since > *made)
    }

    /// Returns whether a call may exceed its deadline: its handler needs longer, or the network had
    /// a fault.
    fn may_miss_deadline(&self, call: CallId, load: &Load, context: &CheckContext<'_>) -> bool {
        // The duration of a stream depends on how fast its two ends are.
        let Load::Request(plan) = load else { return true };
        let bounds = context.bounds;
        let timeout = plan.timeout_ms.map_or(bounds.deadline_ms(), u64::from);
        let needed = u64::from(plan.work_ms) + bounds.round_trip_ms + bounds.queue_ms();
        let never = matches!(plan.ending, PlannedHandlerEnd::Never);
        never || timeout <= needed + bounds.drift_of(needed) || self.had_fault(call, context)
    }
}

/// Texts of a stream that ends because of missed pings.
const SILENCE_TEXTS: [&str; 3] = ["ping timeout", "does not know the stream", "was cancelled"];

/// Returns whether an outcome is possible that depends on the handler's ending alone.
fn is_possible(outcome: &Outcome, ending: PlannedHandlerEnd) -> bool {
    match outcome {
        Outcome::WrongResponse { .. } => false,
        Outcome::Completed => ending == PlannedHandlerEnd::Success,
        Outcome::UnknownHandler => ending == PlannedHandlerEnd::Unknown,
        Outcome::RemoteError { text } => match ending {
            PlannedHandlerEnd::Error => text == PLANNED_ERROR,
            PlannedHandlerEnd::Panic => text.ends_with(PLANNED_PANIC),
            PlannedHandlerEnd::Success | PlannedHandlerEnd::Never | PlannedHandlerEnd::Unknown => {
                false
            }
        },
        Outcome::Crashed => true,
        Outcome::Deadline
        | Outcome::StreamFailed { .. }
        | Outcome::Refused { .. }
        | Outcome::NotConnected
        | Outcome::Disconnected
        | Outcome::Cancelled
        | Outcome::NotMade { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{
        CALLEE, CALLER, Harness, LATE, assert_violates, ended, made, request, stream,
    };
    use super::*;
    use crate::fault::Cut;
    use crate::plan::Fault;

    #[expect(clippy::needless_pass_by_value, reason = "the callers construct it in place")]
    fn ends(load: Load, outcome: Outcome) -> CheckResult {
        let mut harness = Harness::new(Responses::default(), vec![load.clone()]);
        harness.feed([(LATE, CALLER, made(0, &load))]);
        harness.at(LATE + 10, CALLER, ended(0, outcome))
    }

    fn text(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn outcome_is_one_that_the_handler_caused() {
        let ending = |ending| request(|plan| plan.ending = ending);
        let planned = || Outcome::RemoteError { text: text(PLANNED_ERROR) };
        let panicked = || Outcome::RemoteError { text: format!("it {PLANNED_PANIC}") };
        assert_eq!(ends(ending(PlannedHandlerEnd::Success), Outcome::Completed), Ok(()));
        assert_eq!(ends(ending(PlannedHandlerEnd::Error), planned()), Ok(()));
        assert_eq!(ends(ending(PlannedHandlerEnd::Panic), panicked()), Ok(()));
        assert_eq!(ends(ending(PlannedHandlerEnd::Unknown), Outcome::UnknownHandler), Ok(()));
        for (of, outcome) in [
            (PlannedHandlerEnd::Success, planned()),
            (PlannedHandlerEnd::Error, panicked()),
            (PlannedHandlerEnd::Panic, planned()),
            (PlannedHandlerEnd::Error, Outcome::Completed),
            (PlannedHandlerEnd::Never, Outcome::Completed),
            (PlannedHandlerEnd::Success, Outcome::UnknownHandler),
            (PlannedHandlerEnd::Success, Outcome::WrongResponse { text: text("of another") }),
        ] {
            assert_violates(ends(ending(of), outcome), "call 0, whose handler ends");
        }
    }

    #[test]
    fn deadline_is_exceeded_only_if_the_handler_needs_longer() {
        let within = |timeout_ms, work_ms| {
            request(|plan| (plan.timeout_ms, plan.work_ms) = (Some(timeout_ms), work_ms))
        };
        assert_violates(ends(within(1_000, 0), Outcome::Deadline), "call 0, whose handler ends");
        assert_eq!(ends(within(1_000, 1_000), Outcome::Deadline), Ok(()));
        assert_eq!(ends(within(10, 0), Outcome::Deadline), Ok(()));
        let never = request(|plan| plan.ending = PlannedHandlerEnd::Never);
        assert_eq!(ends(never, Outcome::Deadline), Ok(()));
    }

    #[test]
    fn no_call_fails_because_of_an_intact_network() {
        let silent = || Outcome::StreamFailed { text: text("ping timeout") };
        for outcome in [
            Outcome::Disconnected,
            Outcome::NotConnected,
            silent(),
            Outcome::StreamFailed { text: text("incorrect sequence") },
            Outcome::Refused { text: text("overload") },
            Outcome::NotMade { text: text("too many") },
            Outcome::Cancelled,
        ] {
            assert_violates(ends(stream(|_| {}), outcome), "call 0, whose handler ends Success");
        }
        let load = stream(|plan| plan.cancel_after_ms = Some(3));
        assert_eq!(ends(load.clone(), Outcome::Cancelled), Ok(()));
        let mut partitioned = Harness::new(Responses::default(), vec![load.clone(), load.clone()]);
        partitioned.feed([(LATE, CALLER, made(0, &load)), (LATE, CALLER, made(1, &load))]);
        partitioned.inject(LATE + 1, Fault::Cut(Cut { a: CALLER, b: CALLEE }));
        partitioned.feed([
            (LATE + 2, CALLER, ended(0, silent())),
            (LATE + 2, CALLER, ended(1, Outcome::Disconnected)),
        ]);
    }

    #[test]
    fn call_outside_the_plan_is_a_violation() {
        let mut harness = Harness::new(Responses::default(), vec![]);
        assert_violates(
            harness.at(1, CALLER, ended(3, Outcome::Completed)),
            "call 3 is not in the plan",
        );
        let wrong = EventKind::WrongInput { call: 3, text: text("damage") };
        assert_violates(harness.at(1, CALLEE, wrong), "call 3 was served with damage");
    }
}
