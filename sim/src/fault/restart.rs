//! The start of a node that lost power.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::{Effect, FaultClass, FaultKind, SpanChange, Target};

/// A node that lost power starts again. Without effect on one that runs, or has not started yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// The node.
    pub node: Node,
}

impl FaultKind for Restart {
    fn name(&self) -> &'static str {
        "restart"
    }

    fn nodes(&self) -> Vec<Node> {
        vec![self.node]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, target: &mut dyn Target) {
        target.power_on(self.node);
    }

    fn heal(_: &mut dyn Target) {
        // It ends a fault, and leaves nothing to heal.
    }

    fn effect(&self) -> Effect {
        Effect::NodeStarts { node: self.node }
    }

    fn span(&self) -> SpanChange {
        SpanChange::NodeStarts(self.node)
    }

    fn classes() -> &'static [FaultClass] {
        &[]
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node } = self;
        write!(f, "restart of {node}")
    }
}
