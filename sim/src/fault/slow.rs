//! A link with a high latency.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::{Drawing, Effect, FaultClass, FaultKind, Repair, SpanChange, Target};

/// Sets the latency of the link between two nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    /// One end of the link.
    pub a: Node,
    /// The other end.
    pub b: Node,
    /// Latency in milliseconds.
    pub ms: u32,
}

impl FaultKind for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn nodes(&self) -> Vec<Node> {
        vec![self.a, self.b]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, target: &mut dyn Target) {
        target.set_latency(self.a, self.b, Duration::from_millis(u64::from(self.ms)));
    }

    fn heal(target: &mut dyn Target) {
        target.restore_latencies();
    }

    fn effect(&self) -> Effect {
        Effect::LinkSlows { a: self.a, b: self.b }
    }

    fn span(&self) -> SpanChange {
        SpanChange::LinkFails(self.a, self.b)
    }

    fn classes() -> &'static [FaultClass] {
        &[SLOW]
    }
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { a, b, ms } = self;
        write!(f, "slow {a} | {b}: {ms} ms")
    }
}

/// A link is slow until it is repaired.
pub(crate) const SLOW: FaultClass = FaultClass { name: "slow", draw: slow };

fn slow(drawing: &mut Drawing<'_>) {
    let (a, b) = drawing.link();
    let ms = drawing.pick(&[20, 200, 1_000]);
    drawing.add_lasting(Slow { a, b, ms }, Repair { a, b });
}
