//! A clean restart of a process.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::{Drawing, Effect, FaultClass, FaultKind, SpanChange, Target};

/// A node's process shuts down cleanly and starts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounce {
    /// The node.
    pub node: Node,
    /// How long outstanding calls may take to finish, in milliseconds.
    pub grace_ms: u32,
}

impl FaultKind for Bounce {
    fn name(&self) -> &'static str {
        "bounce"
    }

    fn nodes(&self) -> Vec<Node> {
        vec![self.node]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, target: &mut dyn Target) {
        target.bounce(self.node, Duration::from_millis(u64::from(self.grace_ms)));
    }

    fn heal(_: &mut dyn Target) {
        // The process starts again by itself.
    }

    fn effect(&self) -> Effect {
        Effect::NodeRestarts { node: self.node }
    }

    fn span(&self) -> SpanChange {
        SpanChange::None
    }

    fn classes() -> &'static [FaultClass] {
        &[BOUNCE]
    }
}

impl fmt::Display for Bounce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, grace_ms } = self;
        write!(f, "bounce of {node}, grace {grace_ms} ms")
    }
}

/// A process shuts down and starts again.
pub(crate) const BOUNCE: FaultClass = FaultClass { name: "bounce", draw: bounce };

fn bounce(drawing: &mut Drawing<'_>) {
    let (node, _) = drawing.link();
    let grace_ms = drawing.pick(&[0, 200, 3_000]);
    drawing.add(drawing.from, Bounce { node, grace_ms });
}
