//! B05: of what is over nothing is left: no call, no task, no queued byte.

use super::{Facts, Invariant, Verdict};
use crate::world::NodeView;

/// See the module.
#[derive(Debug)]
pub(super) struct NothingLeft;

/// Tasks of a node at rest, for each remote: its own, and the one that writes the trace.
const TASKS_PER_REMOTE: usize = 2;

impl Invariant for NothingLeft {
    fn name(&self) -> &'static str {
        "nothing_left"
    }

    fn at_quiet(&mut self, views: &[NodeView], _facts: &Facts<'_>) -> Verdict {
        for view in views {
            if let Some(stats) = view.connections.iter().find(|stats| !stats.is_quiescent()) {
                return Err(format!("{} is not at rest: {stats:?}", view.node));
            }
            if view.unauthenticated > 0 {
                return Err(format!("{} has {} strangers", view.node, view.unauthenticated));
            }
            let expected = TASKS_PER_REMOTE * (views.len() - 1);
            if view.tasks != expected {
                return Err(format!(
                    "{} has {} tasks at rest instead of {expected}",
                    view.node, view.tasks
                ));
            }
        }
        Ok(())
    }

    fn at_end(&mut self, views: &[NodeView], _facts: &Facts<'_>) -> Verdict {
        match views.iter().find(|view| view.tasks > 0) {
            None => Ok(()),
            Some(view) => Err(format!("{} left {} tasks behind", view.node, view.tasks)),
        }
    }
}
