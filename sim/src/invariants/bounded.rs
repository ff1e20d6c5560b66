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

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, bites, views};
    use super::*;

    #[test]
    fn each_size_is_held_to_its_limit() {
        let mut bench = Bench::new(Bounded, vec![]);
        assert_eq!(bench.look(1, &views()), Ok(()));
        let grow: [(fn(&mut NodeView), &str); 6] = [
            (|view| view.connections[0].queued_bytes = 1 << 30, "bytes queued"),
            (|view| view.connections[0].live_calls = 1 << 20, "calls made"),
            (|view| view.connections[0].live_served = 1 << 20, "calls served"),
            (|view| view.connections[0].blocked_messages = 1 << 20, "messages that wait"),
            (|view| view.connections[0].live_handler_tasks = 1 << 20, "handler tasks"),
            (|view| view.unauthenticated = 1 << 20, "node-1 has 1048576 strangers"),
        ];
        for (grow, names) in grow {
            let mut views = views();
            grow(&mut views[1]);
            let verdict = bench.look(1, &views);
            bites(verdict.clone(), names);
            bites(verdict, "node-1 has");
        }
    }
}
