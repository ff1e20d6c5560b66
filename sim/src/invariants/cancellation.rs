//! B11, B25: a handler whose caller has gone is cancelled: at once if the network is whole, and
//! otherwise once the dead connection is found.

use std::collections::BTreeMap;

use super::{Facts, Invariant, Verdict};
use crate::event::{CallId, Event, What};
use crate::plan::Node;
use crate::world::NodeView;

/// How long a cancellation may take behind what waits to be written before it, on a whole network.
const QUEUE_MS: u64 = 200;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Cancellation {
    /// Handlers that run.
    running: BTreeMap<CallId, (Node, Node)>,
    /// When their calls ended.
    ended: BTreeMap<CallId, u64>,
}

impl Invariant for Cancellation {
    fn name(&self) -> &'static str {
        "cancellation"
    }

    fn see(&mut self, event: &Event, _facts: &Facts<'_>) -> Verdict {
        match (&event.what, event.node) {
            (What::HandlerStarted { call, from }, Some(node)) => {
                self.running.insert(*call, (*from, node));
            }
            (What::HandlerEnded { call, .. }, _) => {
                self.running.remove(call);
                self.ended.remove(call);
            }
            (What::CallEnded { call, .. }, _) => drop(self.ended.insert(*call, event.at_ms)),
            _ => {}
        }
        Ok(())
    }

    fn look(&mut self, _views: &[NodeView], facts: &Facts<'_>) -> Verdict {
        for (call, (from, to)) in &self.running {
            let Some(ended) = self.ended.get(call) else { continue };
            let bounds = facts.bounds;
            let due = match facts.calm.since(*from, *to) {
                Some(since) if since + bounds.reconnect_ms < *ended => {
                    ended + bounds.round_trip_ms + QUEUE_MS
                }
                // The connection may be dead, and nobody knows it yet.
                Some(since) => since.max(*ended) + bounds.reconnect_ms,
                None => continue,
            };
            if facts.now_ms > due {
                return Err(format!(
                    "the handler of call {call} still runs {} ms after the call ended",
                    facts.now_ms - ended
                ));
            }
        }
        Ok(())
    }
}
