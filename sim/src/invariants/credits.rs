//! B21: a sender never has more messages under way than the capacity of its direction.

use std::collections::BTreeMap;

use super::{Facts, Invariant, Verdict};
use crate::event::{CallId, Event, StreamSide, What};
use crate::plan::{CAPACITIES, Load};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Credits {
    sent: BTreeMap<(CallId, StreamSide), u32>,
    taken: BTreeMap<(CallId, StreamSide), u32>,
}

impl Invariant for Credits {
    fn name(&self) -> &'static str {
        "credits"
    }

    fn see(&mut self, event: &Event, facts: &Facts<'_>) -> Verdict {
        match &event.what {
            What::Taken { call, end, .. } => {
                *self.taken.entry((*call, end.other())).or_default() += 1;
                Ok(())
            }
            What::Sent { call, end, .. } => {
                let sent = self.sent.entry((*call, *end)).or_default();
                *sent += 1;
                let taken = self.taken.get(&(*call, *end)).copied().unwrap_or(0);
                let Some(Load::Stream(plan)) = facts.load(*call) else {
                    return Err(format!("call {call} is no stream"));
                };
                let (input, output) = CAPACITIES[usize::from(plan.capacities) % CAPACITIES.len()];
                let capacity = match end {
                    StreamSide::Caller => input,
                    StreamSide::Handler => output,
                };
                let under_way = sent.saturating_sub(taken);
                if under_way > capacity {
                    return Err(format!(
                        "{end:?} of call {call} has {under_way} messages under way of {capacity}"
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, CALLER, SERVER, bites, request, stream};
    use super::*;

    #[test]
    fn b21_no_end_has_more_under_way_than_its_capacity() {
        for (end, capacity, here, there) in
            [(StreamSide::Caller, 2, CALLER, SERVER), (StreamSide::Handler, 3, SERVER, CALLER)]
        {
            let sent = |number| What::Sent { call: 0, end, number };
            let mut bench = Bench::new(Credits::default(), vec![stream(|_| {})]);
            bench.well((1..=capacity).map(|number| (1, here, sent(number))));
            let taken = What::Taken { call: 0, end: end.other(), number: 1 };
            bench.well([(2, there, taken), (3, here, sent(capacity + 1))]);
            bites(bench.at(4, here, sent(capacity + 2)), "of call 0 has");
        }
    }

    #[test]
    fn what_is_sent_by_a_request_is_refused() {
        let mut bench = Bench::new(Credits::default(), vec![request(|_| {})]);
        let sent = What::Sent { call: 0, end: StreamSide::Caller, number: 1 };
        bites(bench.at(1, CALLER, sent), "call 0 is no stream");
    }
}
