//! [B04]: two nodes whose network is intact reconnect within a bound.
//! [B04]: crate::rules#b04

use grid::ConnectionState;

use super::{CheckContext, CheckResult, Invariant};
use crate::node::node_of;
use crate::world::NodeView;

/// Checks the time without a connection.
#[derive(Debug)]
pub(super) struct Reconnects;

impl Invariant for Reconnects {
    fn name(&self) -> &'static str {
        "reconnects"
    }

    fn on_view(&mut self, views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        for view in views.iter().filter(|view| view.is_running) {
            for stats in &view.connections {
                if stats.state == ConnectionState::Connected {
                    continue;
                }
                let remote = node_of(&stats.remote);
                let Some(since) = context.health.fault_free_since(view.node, remote) else {
                    continue;
                };
                let fault_free_ms = context.now_ms.saturating_sub(since);
                if fault_free_ms > context.bounds.reconnect_ms {
                    let cause = stats.last_failure.as_ref().map(ToString::to_string);
                    return Err(format!(
                        "{} is not connected to {remote} {fault_free_ms} ms after a fault: {}",
                        view.node,
                        cause.unwrap_or_default()
                    ));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLEE, CALLER, Harness, LATE, assert_violates, views};
    use super::*;
    use crate::fault::{Cut, Repair};
    use crate::plan::Fault;

    #[test]
    fn b04_two_nodes_connect_within_the_bound_after_their_last_fault() {
        let mut harness = Harness::new(Reconnects, vec![]);
        let mut views = views();
        assert_eq!(harness.on_view(LATE, &views), Ok(()));
        views[0].connections[0].state = ConnectionState::Backoff;
        let bound = harness.bounds().reconnect_ms;
        assert_eq!(harness.on_view(bound, &views), Ok(()));
        assert_violates(harness.on_view(bound + 1, &views), "node-0 is not connected to node-1");
        harness.inject(LATE, Fault::Cut(Cut { a: CALLER, b: CALLEE }));
        assert_eq!(harness.on_view(2 * LATE, &views), Ok(()));
        harness.inject(2 * LATE, Fault::Repair(Repair { a: CALLER, b: CALLEE }));
        assert_eq!(harness.on_view(2 * LATE + bound, &views), Ok(()));
        assert_violates(
            harness.on_view(2 * LATE + bound + 1, &views),
            "node-0 is not connected to node-1",
        );
        views[0].is_running = false;
        assert_eq!(harness.on_view(9 * LATE, &views), Ok(()));
    }
}
