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
