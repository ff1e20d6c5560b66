//! [B10]: no call exceeds its deadline by more than the timer resolution, whatever the network
//! does, and none ends with `Deadline` before it. The same holds for its handler, which receives
//! the remaining time.
//!
//! [B10]: crate::rules#b10

use std::collections::BTreeMap;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, CallKind, Event, EventKind, HandlerEnd, Outcome};
use crate::plan::{CAPACITIES, Load, Node};
use crate::world::NodeView;

/// Tracks the deadlines of calls and handlers.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// For each open call: the earliest and the latest time to end by its deadline.
    due: BTreeMap<CallId, (u64, u64)>,
    /// The latest time for each running handler to end.
    handlers_due: BTreeMap<CallId, u64>,
    /// Open calls: caller, callee, start, and the earliest time to end by a deadline.
    open: BTreeMap<CallId, (Node, Node, u64, Option<u64>)>,
}

impl Invariant for Deadlines {
    fn name(&self) -> &'static str {
        "deadlines"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        match &event.kind {
            EventKind::CallMade { call, kind, timeout_ms, to } => {
                if let Some(from) = event.node {
                    let timeout = timeout_of(*kind, *timeout_ms, context);
                    let tolerance =
                        |ms| context.bounds.drift_of(ms) + context.bounds.timer_resolution_ms;
                    let early = timeout.map(|ms| (event.at_ms + ms).saturating_sub(tolerance(ms)));
                    self.open.insert(*call, (from, *to, event.at_ms, early));
                }
                if let Some(timeout) = timeout_of(*kind, *timeout_ms, context) {
                    let drift = context.bounds.drift_of(timeout);
                    let early = event.at_ms
                        + timeout.saturating_sub(drift + context.bounds.timer_resolution_ms);
                    let lateness =
                        context.bounds.lateness_of(timeout) + context.bounds.timer_resolution_ms;
                    let late = event.at_ms + timeout + lateness;
                    self.due.insert(*call, (early, late + reader_delay_ms(*call, context)));
                }
            }
            EventKind::HandlerStarted { call, .. } => {
                // The remaining time travels, so the handler has less than this.
                if let Some(timeout) = load_timeout(*call, context) {
                    let tolerance =
                        context.bounds.lateness_of(timeout) + context.bounds.timer_resolution_ms;
                    self.handlers_due.insert(*call, event.at_ms + timeout + tolerance);
                }
            }
            EventKind::HandlerEnded { call, how } => {
                if *how == HandlerEnd::Cancelled {
                    self.check_not_early(*call, event.at_ms, context)?;
                }
                let due = self.handlers_due.remove(call);
                if let Some(late) = due.and_then(|due| event.at_ms.checked_sub(due + 1)) {
                    return Err(format!(
                        "the handler of call {call} ended {} ms after its deadline",
                        late + 1
                    ));
                }
            }
            EventKind::CallEnded { call, outcome } => {
                self.open.remove(call);
                return self.on_call_ended(*call, outcome, event.at_ms);
            }
            _ => {}
        }
        Ok(())
    }

    fn on_view(&mut self, _views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        let now = context.now_ms;
        if let Some((call, (_, due))) = self.due.iter().find(|(_, (_, due))| *due < now) {
            return Err(format!("call {call} is open {} ms after its deadline", now - due));
        }
        if let Some((call, due)) = self.handlers_due.iter().find(|(_, due)| **due < now) {
            return Err(format!(
                "the handler of call {call} runs {} ms after its deadline",
                now - due
            ));
        }
        Ok(())
    }
}

impl Deadlines {
    /// Checks that a handler was cancelled because of its caller, its connection or its deadline.
    fn check_not_early(&self, call: CallId, at: u64, context: &CheckContext<'_>) -> CheckResult {
        let Some((from, to, made, early)) = self.open.get(&call) else { return Ok(()) };
        let healthy = context.health.healthy_since(*from, *to, context.bounds);
        if healthy.is_none_or(|since| since > *made) || early.is_some_and(|early| early <= at) {
            return Ok(());
        }
        Err(format!("the handler of call {call} was cancelled, and its caller still waits"))
    }

    fn on_call_ended(&mut self, call: CallId, outcome: &Outcome, at: u64) -> CheckResult {
        match (self.due.remove(&call), outcome) {
            (Some((early, _)), Outcome::Deadline) if at < early => {
                Err(format!("call {call} ended {} ms before its deadline", early - at))
            }
            (None, Outcome::Deadline) => Err(format!("call {call} has no deadline: {outcome}")),
            (Some((_, due)), _) if at > due => {
                Err(format!("call {call} ended ({outcome}) {} ms after its deadline", at - due))
            }
            _ => Ok(()),
        }
    }
}

/// Returns the timeout of a call. A stream has none unless its caller sets one.
fn timeout_of(kind: CallKind, timeout_ms: Option<u32>, context: &CheckContext<'_>) -> Option<u64> {
    let default = context.bounds.limits.deadline_default.as_millis();
    let default = u64::try_from(default).unwrap_or(u64::MAX);
    match kind {
        CallKind::Request => Some(timeout_ms.map_or(default, u64::from)),
        CallKind::Stream => timeout_ms.map(u64::from),
    }
}

fn load_timeout(call: CallId, context: &CheckContext<'_>) -> Option<u64> {
    match context.load(call)? {
        Load::Request(plan) => timeout_of(CallKind::Request, plan.timeout_ms, context),
        Load::Stream(plan) => timeout_of(CallKind::Stream, plan.timeout_ms, context),
        Load::Lock(_) | Load::Force(_) | Load::Change(_) => None,
    }
}

/// Returns the time until a caller notices the end of a stream: after all messages that it receives
/// before, and when it sends the next.
fn reader_delay_ms(call: CallId, context: &CheckContext<'_>) -> u64 {
    match context.load(call) {
        Some(Load::Stream(plan)) => match plan.receive_pace_ms {
            Some(take) => {
                let (_, output) = CAPACITIES[usize::from(plan.capacities) % CAPACITIES.len()];
                // Each pause begins in the tick in which the previous one ended.
                let pause = |ms: u32| u64::from(ms) + context.plan.cluster.tick_ms;
                pause(take) * u64::from(output + 2) + pause(plan.up_pace_ms)
            }
            None => u64::from(u32::MAX),
        },
        Some(Load::Request(_) | Load::Lock(_) | Load::Force(_) | Load::Change(_)) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{
        CALLEE, CALLER, Harness, assert_violates, ended, made, request, served, stream,
    };
    use super::*;
    use crate::event::HandlerEnd;

    /// A request of a second, made at 0.
    #[expect(clippy::needless_pass_by_value, reason = "the callers construct it in place")]
    fn harness(load: Load) -> Harness {
        let mut harness = Harness::new(Deadlines::default(), vec![load.clone()]);
        harness.feed([(0, CALLER, made(0, &load))]);
        harness
    }

    fn handler_ended() -> EventKind {
        EventKind::HandlerEnded { call: 0, how: HandlerEnd::Cancelled }
    }

    #[test]
    fn b10_call_ends_neither_before_nor_after_its_deadline() {
        let load = || request(|_| {});
        let late = 1_001 + harness(load()).bounds().timer_resolution_ms;
        harness(load()).feed([(1_001, CALLER, ended(0, Outcome::Deadline))]);
        harness(load()).feed([(5, CALLER, ended(0, Outcome::Completed))]);
        assert_violates(
            harness(load()).at(900, CALLER, ended(0, Outcome::Deadline)),
            "call 0 ended 9",
        );
        assert_violates(
            harness(load()).at(late, CALLER, ended(0, Outcome::Completed)),
            "call 0 ended (completed)",
        );
        assert_eq!(harness(load()).on_view(late - 1, &[]), Ok(()));
        assert_violates(harness(load()).on_view(late, &[]), "call 0 is open 1 ms");
        // A call without its own timeout has the default.
        let load = || request(|plan| plan.timeout_ms = None);
        let default = harness(load()).bounds().limits.deadline_default.as_millis() as u64;
        assert_eq!(harness(load()).on_view(default, &[]), Ok(()));
        assert_violates(harness(load()).on_view(default + late, &[]), "call 0 is open");
    }

    #[test]
    fn b10_stream_has_a_deadline_only_if_its_caller_sets_one() {
        let given = || stream(|plan| plan.timeout_ms = Some(1_000));
        assert_violates(harness(given()).on_view(2_000, &[]), "call 0 is open");
        harness(given()).feed([(1_000, CALLER, ended(0, Outcome::Deadline))]);
        let slow =
            stream(|plan| (plan.timeout_ms, plan.receive_pace_ms) = (Some(1_000), Some(300)));
        assert_eq!(harness(slow).on_view(2_000, &[]), Ok(()));
        let idle = stream(|plan| (plan.timeout_ms, plan.receive_pace_ms) = (Some(1_000), None));
        assert_eq!(harness(idle).on_view(9_000, &[]), Ok(()));
        assert_eq!(harness(stream(|_| {})).on_view(90_000, &[]), Ok(()));
        let none = harness(stream(|_| {})).at(9_000, CALLER, ended(0, Outcome::Deadline));
        assert_violates(none, "call 0 has no deadline");
    }

    #[test]
    fn b10_handler_does_not_outlive_the_deadline_of_its_call() {
        let harness = || {
            let mut harness = harness(request(|_| {}));
            harness.feed([(50, CALLEE, served(0)), (999, CALLER, ended(0, Outcome::Deadline))]);
            harness
        };
        assert_eq!(harness().on_view(1_050, &[]), Ok(()));
        assert_violates(harness().on_view(1_100, &[]), "the handler of call 0 runs");
        assert_violates(
            harness().at(1_100, CALLEE, handler_ended()),
            "the handler of call 0 ended",
        );
        let mut in_time = harness();
        in_time.feed([(1_000, CALLEE, handler_ended())]);
        assert_eq!(in_time.on_view(9_000, &[]), Ok(()));
    }
}
