//! No queue and no table grows beyond its limit.

use super::{Facts, Invariant, Verdict};
use crate::world::NodeView;

/// See the module.
#[derive(Debug)]
pub(super) struct Bounded;

impl Invariant for Bounded {
    fn name(&self) -> &'static str {
        "bounded"
    }

    fn look(&mut self, views: &[NodeView], facts: &Facts<'_>) -> Verdict {
        let limits = &facts.bounds.limits;
        for view in views {
            for stats in &view.connections {
                let sizes = [
                    (
                        stats.queued_bytes,
                        limits.queue_bytes_max + limits.control_bytes_max,
                        "bytes queued",
                    ),
                    (stats.live_calls, limits.calls_made_max, "calls made"),
                    (stats.live_served, limits.calls_served_max, "calls served"),
                    // At most one of each call, and one of each direction of a stream.
                    (
                        stats.blocked_messages,
                        limits.calls_made_max + limits.calls_served_max,
                        "messages that wait",
                    ),
                    (stats.live_handler_tasks, limits.calls_served_max, "handler tasks"),
                ];
                for (size, max, what) in sizes {
                    if size > max {
                        return Err(format!(
                            "{} has {size} {what} for {}, {max} are allowed",
                            view.node, stats.remote
                        ));
                    }
                }
            }
            if view.unauthenticated > limits.unauthenticated_max {
                return Err(format!("{} has {} strangers", view.node, view.unauthenticated));
            }
        }
        Ok(())
    }
}
