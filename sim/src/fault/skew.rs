//! A wall clock that is off.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::{Drawing, Effect, FaultClass, FaultKind, SpanChange, Target};

/// Sets the offset of a node's wall clock; 0 corrects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skew {
    /// The node.
    pub node: Node,
    /// Offset in milliseconds; ahead if positive.
    pub ms: i64,
}

impl FaultKind for Skew {
    fn name(&self) -> &'static str {
        "skew"
    }

    fn nodes(&self) -> Vec<Node> {
        vec![self.node]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, target: &mut dyn Target) {
        target.set_skew(self.node, self.ms);
    }

    fn heal(target: &mut dyn Target) {
        target.correct_wall_clocks();
    }

    fn effect(&self) -> Effect {
        Effect::WallClockChanges { node: self.node, ms: self.ms }
    }

    fn span(&self) -> SpanChange {
        SpanChange::None
    }

    fn classes() -> &'static [FaultClass] {
        &[SKEW, SKEW_BELOW_LEASE]
    }
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, ms } = self;
        write!(f, "wall clock of {node} off by {ms} ms")
    }
}

/// A wall clock is off: by little, or by more than grid accepts.
pub(crate) const SKEW: FaultClass = FaultClass { name: "skew", draw: skew };

/// A wall clock is off by less than a lease.
pub(crate) const SKEW_BELOW_LEASE: FaultClass =
    FaultClass { name: "skew_below_lease", draw: skew_below_lease };

fn skew(drawing: &mut Drawing<'_>) {
    let (node, _) = drawing.link();
    let ms = drawing.pick(&[-400_000, -10_000, 5_000, 310_000]);
    drawing.add_lasting(Skew { node, ms }, Skew { node, ms: 0 });
}

fn skew_below_lease(drawing: &mut Drawing<'_>) {
    let node = drawing.node();
    // Two clocks that are skewed in opposite directions differ by less than a lease.
    let most = i64::try_from(drawing.lease_ms * 2 / 5).unwrap_or(0);
    let ms = drawing.pick(&[-most, -500, 500, most]);
    drawing.add_lasting(Skew { node, ms }, Skew { node, ms: 0 });
}
