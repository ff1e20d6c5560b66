//! A link whose segments are held.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::{Drawing, Effect, FaultClass, FaultKind, Repair, SpanChange, Target};

/// Holds all segments between two nodes; none is lost: a congested network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hold {
    /// One end of the link.
    pub a: Node,
    /// The other end.
    pub b: Node,
}

impl FaultKind for Hold {
    fn name(&self) -> &'static str {
        "hold"
    }

    fn nodes(&self) -> Vec<Node> {
        vec![self.a, self.b]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, target: &mut dyn Target) {
        target.hold(self.a, self.b);
    }

    fn heal(target: &mut dyn Target) {
        target.repair_all();
    }

    fn effect(&self) -> Effect {
        Effect::LinkFails { from: self.a, to: self.b }
    }

    fn span(&self) -> SpanChange {
        SpanChange::LinkFails(self.a, self.b)
    }

    fn classes() -> &'static [FaultClass] {
        &[HOLD]
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { a, b } = self;
        write!(f, "hold {a} | {b}")
    }
}

/// A link is held and repaired.
pub(crate) const HOLD: FaultClass = FaultClass { name: "hold", draw: hold };

fn hold(drawing: &mut Drawing<'_>) {
    let (a, b) = drawing.link();
    drawing.add_lasting(Hold { a, b }, Repair { a, b });
}
