//! A node that loses power.

use std::fmt;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::{Drawing, Effect, FaultClass, FaultKind, Restart, SpanChange, Target};

/// A node loses power: its process ends at once, and no peer is notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerLoss {
    /// The node.
    pub node: Node,
}

impl FaultKind for PowerLoss {
    fn name(&self) -> &'static str {
        "power_loss"
    }

    fn nodes(&self) -> Vec<Node> {
        vec![self.node]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, target: &mut dyn Target) {
        target.power_off(self.node);
    }

    fn heal(target: &mut dyn Target) {
        target.power_on_all();
    }

    fn effect(&self) -> Effect {
        Effect::NodeFails { node: self.node }
    }

    fn span(&self) -> SpanChange {
        SpanChange::NodeStops(self.node)
    }

    fn classes() -> &'static [FaultClass] {
        &[POWER_LOSS, BLACKOUT]
    }
}

impl fmt::Display for PowerLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node } = self;
        write!(f, "power loss of {node}")
    }
}

/// A node loses power and restarts.
pub(crate) const POWER_LOSS: FaultClass = FaultClass { name: "power_loss", draw: power_loss };

/// Several nodes lose power at the same moment, and restart one after the other.
pub(crate) const BLACKOUT: FaultClass = FaultClass { name: "blackout", draw: blackout };

fn power_loss(drawing: &mut Drawing<'_>) {
    let (node, _) = drawing.link();
    drawing.add_lasting(PowerLoss { node }, Restart { node });
}

fn blackout(drawing: &mut Drawing<'_>) {
    // Not used, but drawn since the first seeds: every class of the swarm of locks begins with it.
    let _node = drawing.node();
    let share = drawing.pick(&[0.4, 0.7, 1.0]);
    for node in drawing.all() {
        if drawing.rng.random_bool(share) {
            drawing.add(drawing.from, PowerLoss { node });
            let back = drawing.from + drawing.pick(&[50, 500, 3_000]);
            drawing.add(back, Restart { node });
        }
    }
}
