//! Clocks that run at a wrong rate.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::{Drawing, Effect, FaultClass, FaultKind, SpanChange, Target};

/// Sets the rate of a node's clocks; 0 corrects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drift {
    /// The node.
    pub node: Node,
    /// Deviation in parts per million; fast if positive.
    pub ppm: i32,
}

impl FaultKind for Drift {
    fn name(&self) -> &'static str {
        "drift"
    }

    fn nodes(&self) -> Vec<Node> {
        vec![self.node]
    }

    fn check(&self) -> Result<(), String> {
        if self.ppm.unsigned_abs() > DRIFT_PPM_MAX {
            return Err(format!("a clock may drift by at most {DRIFT_PPM_MAX} ppm"));
        }
        Ok(())
    }

    fn apply(&self, target: &mut dyn Target) {
        target.set_drift(self.node, self.ppm);
    }

    fn heal(target: &mut dyn Target) {
        target.correct_drifts();
    }

    fn effect(&self) -> Effect {
        Effect::ClockRateChanges { node: self.node, ppm: self.ppm }
    }

    fn span(&self) -> SpanChange {
        SpanChange::None
    }

    fn classes() -> &'static [FaultClass] {
        &[DRIFT]
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, ppm } = self;
        write!(f, "clocks of {node} off by {ppm} ppm")
    }
}

/// The largest drift of a clock: bounds are computed for clocks that drift by no more.
pub const DRIFT_PPM_MAX: u32 = 10_000;

/// The clocks of a node drift for a time.
pub(crate) const DRIFT: FaultClass = FaultClass { name: "drift", draw: drift };

fn drift(drawing: &mut Drawing<'_>) {
    let (node, _) = drawing.link();
    let ppm = drawing.pick(&[-10_000, -500, 500, 10_000]);
    drawing.add_lasting(Drift { node, ppm }, Drift { node, ppm: 0 });
}
