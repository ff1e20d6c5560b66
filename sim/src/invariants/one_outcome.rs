//! [B14]: every call ends exactly once.
//! [B14]: crate::rules#b14

use std::collections::BTreeMap;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind};
use crate::world::NodeView;

/// Counts the ends of each call.
#[derive(Debug, Default)]
pub(super) struct OneOutcome {
    /// Number of ends of each call made.
    ends: BTreeMap<CallId, u32>,
}

impl Invariant for OneOutcome {
    fn name(&self) -> &'static str {
        "one_outcome"
    }

    fn on_event(&mut self, event: &Event, _context: &CheckContext<'_>) -> CheckResult {
        match &event.kind {
            EventKind::CallMade { call, .. } => match self.ends.insert(*call, 0) {
                None => Ok(()),
                Some(_) => Err(format!("call {call} was made twice")),
            },
            EventKind::CallEnded { call, outcome } => match self.ends.get_mut(call) {
                None => Err(format!("call {call} ended ({outcome}) and was never made")),
                Some(ends) => {
                    *ends += 1;
                    let is_first = *ends == 1;
                    is_first.then_some(()).ok_or(format!("call {call} ended twice: now {outcome}"))
                }
            },
            _ => Ok(()),
        }
    }

    fn at_quiescence(&mut self, _views: &[NodeView], _context: &CheckContext<'_>) -> CheckResult {
        let open: Vec<_> = self.ends.iter().filter(|(_, ends)| **ends == 0).collect();
        match open.first() {
            None => Ok(()),
            Some((call, _)) => Err(format!("{} calls never ended, call {call} first", open.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLER, Harness, assert_violates, ended, made, request};
    use super::*;
    use crate::event::Outcome;

    #[test]
    fn every_call_ends_once() {
        let load = request(|_| {});
        let mut harness = Harness::new(OneOutcome::default(), vec![load.clone(), load.clone()]);
        assert_violates(harness.at(1, CALLER, ended(0, Outcome::Completed)), "call 0 ended");
        harness.feed([(1, CALLER, made(0, &load)), (2, CALLER, made(1, &load))]);
        assert_violates(harness.at(3, CALLER, made(1, &load)), "call 1 was made twice");
        harness.feed([(4, CALLER, ended(0, Outcome::Completed))]);
        assert_violates(harness.at_quiescence(&[]), "call 1 first");
        harness.feed([(5, CALLER, ended(1, Outcome::Disconnected))]);
        assert_eq!(harness.at_quiescence(&[]), Ok(()));
        assert_violates(harness.at(6, CALLER, ended(1, Outcome::Completed)), "call 1 ended twice");
    }
}
