//! B04: two nodes whose network is whole are connected again within a bound.

use grid::ConnectionState;

use super::{Facts, Invariant, Verdict};
use crate::world::{NodeView, node_of};

/// See the module.
#[derive(Debug)]
pub(super) struct Reconnects;

impl Invariant for Reconnects {
    fn name(&self) -> &'static str {
        "reconnects"
    }

    fn look(&mut self, views: &[NodeView], facts: &Facts<'_>) -> Verdict {
        for view in views.iter().filter(|view| view.is_running) {
            for stats in &view.connections {
                if stats.state == ConnectionState::Connected {
                    continue;
                }
                let remote = node_of(&stats.remote);
                let Some(since) = facts.calm.since(view.node, remote) else { continue };
                let calm_ms = facts.now_ms.saturating_sub(since);
                if calm_ms > facts.bounds.reconnect_ms {
                    let cause = stats.last_failure.as_ref().map(ToString::to_string);
                    return Err(format!(
                        "{} is not connected to {remote} after {calm_ms} ms without trouble: {}",
                        view.node,
                        cause.unwrap_or_default()
                    ));
                }
            }
        }
        Ok(())
    }
}
