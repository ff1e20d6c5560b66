//! The end of an outage of a pool.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::{Effect, FaultClass, FaultKind, SpanChange, Target};

/// A pool of a node becomes usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolUp {
    /// The node.
    pub node: Node,
    /// Index of the pool.
    pub pool: u8,
}

impl FaultKind for PoolUp {
    fn name(&self) -> &'static str {
        "pool_up"
    }

    fn nodes(&self) -> Vec<Node> {
        vec![self.node]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, target: &mut dyn Target) {
        target.set_outage(self.node, self.pool, None);
    }

    fn heal(_: &mut dyn Target) {
        // It ends a fault, and leaves nothing to heal.
    }

    fn effect(&self) -> Effect {
        Effect::PoolRecovers { node: self.node, pool: self.pool }
    }

    fn span(&self) -> SpanChange {
        SpanChange::None
    }

    fn classes() -> &'static [FaultClass] {
        &[]
    }
}

impl fmt::Display for PoolUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, pool } = self;
        write!(f, "pool {pool} of {node} is online")
    }
}
