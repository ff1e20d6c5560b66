//! B14: every call ends in exactly one way; never none, never two.

use std::collections::BTreeMap;

use super::{Facts, Invariant, Verdict};
use crate::event::{CallId, Event, EventKind};
use crate::world::NodeView;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OneOutcome {
    /// How often each call that was made has ended.
    ends: BTreeMap<CallId, u32>,
}

impl Invariant for OneOutcome {
    fn name(&self) -> &'static str {
        "one_outcome"
    }

    fn see(&mut self, event: &Event, _facts: &Facts<'_>) -> Verdict {
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

    fn at_quiet(&mut self, _views: &[NodeView], _facts: &Facts<'_>) -> Verdict {
        let open: Vec<_> = self.ends.iter().filter(|(_, ends)| **ends == 0).collect();
        match open.first() {
            None => Ok(()),
            Some((call, _)) => Err(format!("{} calls never ended, call {call} first", open.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, CALLER, bites, ended, made, request};
    use super::*;
    use crate::event::Outcome;

    #[test]
    fn every_call_ends_once() {
        let load = request(|_| {});
        let mut bench = Bench::new(OneOutcome::default(), vec![load.clone(), load.clone()]);
        bites(bench.at(1, CALLER, ended(0, Outcome::Completed)), "call 0 ended");
        bench.well([(1, CALLER, made(0, &load)), (2, CALLER, made(1, &load))]);
        bites(bench.at(3, CALLER, made(1, &load)), "call 1 was made twice");
        bench.well([(4, CALLER, ended(0, Outcome::Completed))]);
        bites(bench.at_quiet(&[]), "call 1 first");
        bench.well([(5, CALLER, ended(1, Outcome::Disconnected))]);
        assert_eq!(bench.at_quiet(&[]), Ok(()));
        bites(bench.at(6, CALLER, ended(1, Outcome::Completed)), "call 1 ended twice");
    }
}
