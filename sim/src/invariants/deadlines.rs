//! B10: no request outlives its deadline by more than a timer's grain, whatever the network does.

use std::collections::BTreeMap;

use super::{Facts, Invariant, Verdict};
use crate::event::{CallId, CallKind, Event, What};
use crate::world::NodeView;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// When each open request must be over.
    due: BTreeMap<CallId, u64>,
}

impl Invariant for Deadlines {
    fn name(&self) -> &'static str {
        "deadlines"
    }

    fn see(&mut self, event: &Event, facts: &Facts<'_>) -> Verdict {
        match &event.what {
            // When a stream is seen to be over is a matter of when its caller looks.
            What::CallMade { call, kind: CallKind::Request, timeout_ms, .. } => {
                let default = facts.bounds.limits.deadline_default.as_millis();
                let default = u64::try_from(default).unwrap_or(u64::MAX);
                let timeout = timeout_ms.map_or(default, u64::from);
                // A clock may run slow by a hundredth.
                let due = event.at_ms + timeout + timeout / 50 + facts.bounds.ticks_ms;
                self.due.insert(*call, due);
            }
            What::CallEnded { call, outcome } => {
                if let Some(due) = self.due.remove(call)
                    && event.at_ms > due
                {
                    return Err(format!(
                        "call {call} ended ({outcome}) {} ms after its deadline",
                        event.at_ms - due
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn look(&mut self, _views: &[NodeView], facts: &Facts<'_>) -> Verdict {
        match self.due.iter().find(|(_, due)| **due < facts.now_ms) {
            None => Ok(()),
            Some((call, due)) => {
                Err(format!("call {call} is open {} ms after its deadline", facts.now_ms - due))
            }
        }
    }
}
