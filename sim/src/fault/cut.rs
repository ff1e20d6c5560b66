//! A link that is cut: segments are lost in both directions.

use std::fmt;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::{Drawing, Effect, FaultClass, FaultKind, Repair, SpanChange, Target};

/// Cuts the link between two nodes. Segments in flight are lost, and a TCP connection that lost
/// one is wedged for ever: the simulated network does not retransmit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cut {
    /// One end of the link.
    pub a: Node,
    /// The other end.
    pub b: Node,
}

impl FaultKind for Cut {
    fn name(&self) -> &'static str {
        "cut"
    }

    fn nodes(&self) -> Vec<Node> {
        vec![self.a, self.b]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, target: &mut dyn Target) {
        target.cut(self.a, self.b);
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
        &[CUT, SWIZZLE, CUT_OFF, STORM]
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { a, b } = self;
        write!(f, "cut {a} | {b}")
    }
}

/// A link is cut and repaired.
pub(crate) const CUT: FaultClass = FaultClass { name: "cut", draw: cut };

/// Links of a node are cut one after the other, and repaired in another order (swizzle-clogging).
pub(crate) const SWIZZLE: FaultClass = FaultClass { name: "swizzle", draw: swizzle };

/// A node is cut off from all others.
pub(crate) const CUT_OFF: FaultClass = FaultClass { name: "cut_off", draw: cut_off };

/// A node is isolated for a short time, again and again.
pub(crate) const STORM: FaultClass = FaultClass { name: "storm", draw: storm };

fn cut(drawing: &mut Drawing<'_>) {
    let (a, b) = drawing.link();
    drawing.add_lasting(Cut { a, b }, Repair { a, b });
}

fn swizzle(drawing: &mut Drawing<'_>) {
    let (a, _) = drawing.link();
    for b in drawing.others(a) {
        let cut_at = drawing.from + drawing.rng.random_range(0..2_000);
        let repaired_at = drawing.to.max(cut_at) + drawing.rng.random_range(0..4_000);
        drawing.add(cut_at, Cut { a, b });
        drawing.add(repaired_at, Repair { a, b });
    }
}

fn cut_off(drawing: &mut Drawing<'_>) {
    let a = drawing.node();
    for b in drawing.others(a) {
        drawing.add_lasting(Cut { a, b }, Repair { a, b });
    }
}

fn storm(drawing: &mut Drawing<'_>) {
    let a = drawing.node();
    let mut at = drawing.rng.random_range(2_000..drawing.phase_ms / 2);
    for _ in 0..drawing.rng.random_range(3..12) {
        for b in drawing.others(a) {
            drawing.add(at, Cut { a, b });
            drawing.add(at + 300, Repair { a, b });
        }
        at += drawing.pick(&[600, 1_200, 3_000]);
    }
}
