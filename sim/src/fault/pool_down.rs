//! A pool of users, policies and mappings that becomes unusable.

use std::fmt;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::{Drawing, Effect, FaultClass, FaultKind, Outage, PoolUp, SpanChange, Target};

/// A pool of a node becomes unusable. It keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolDown {
    /// The node.
    pub node: Node,
    /// Index of the pool.
    pub pool: u8,
    /// The reason that the pool reports.
    pub reason: Outage,
}

impl FaultKind for PoolDown {
    fn name(&self) -> &'static str {
        "pool_down"
    }

    fn nodes(&self) -> Vec<Node> {
        vec![self.node]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, target: &mut dyn Target) {
        target.set_outage(self.node, self.pool, Some(self.reason));
    }

    fn heal(target: &mut dyn Target) {
        target.restore_pools();
    }

    fn effect(&self) -> Effect {
        Effect::PoolFails { node: self.node, pool: self.pool }
    }

    fn span(&self) -> SpanChange {
        SpanChange::None
    }

    fn classes() -> &'static [FaultClass] {
        &[OUTAGE, LATE_POOLS]
    }
}

impl fmt::Display for PoolDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, pool, reason } = self;
        write!(f, "pool {pool} of {node} is {reason}")
    }
}

/// A pool is unusable for a time.
pub(crate) const OUTAGE: FaultClass = FaultClass { name: "outage", draw: outage };

/// Pools are unusable when their node starts, and become usable in any order.
pub(crate) const LATE_POOLS: FaultClass = FaultClass { name: "late_pools", draw: late_pools };

fn outage(drawing: &mut Drawing<'_>) {
    let node = drawing.node();
    let pool = drawing.rng.random_range(0..drawing.pools);
    add_outage(drawing, (node, pool), drawing.from);
}

fn late_pools(drawing: &mut Drawing<'_>) {
    for node in drawing.all() {
        let mut late: Vec<u8> = (0..drawing.pools).collect();
        late.retain(|_| drawing.rng.random_bool(0.5));
        for pool in late {
            add_outage(drawing, (node, pool), 0);
        }
    }
}

fn add_outage(drawing: &mut Drawing<'_>, (node, pool): (Node, u8), from: u64) {
    let reason = drawing.pick(&[Outage::NotInitialised, Outage::Unavailable]);
    let to = from + drawing.pick(&[200, 2_000, 8_000, 20_000]);
    drawing.add(from, PoolDown { node, pool, reason });
    drawing.add(to, PoolUp { node, pool });
}
