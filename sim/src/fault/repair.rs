//! The end of all faults of a link.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::{Effect, FaultClass, FaultKind, SpanChange, Target};

/// Repairs the link between two nodes; held segments arrive, and latency is as usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repair {
    /// One end of the link.
    pub a: Node,
    /// The other end.
    pub b: Node,
}

impl FaultKind for Repair {
    fn name(&self) -> &'static str {
        "repair"
    }

    fn nodes(&self) -> Vec<Node> {
        vec![self.a, self.b]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, target: &mut dyn Target) {
        target.repair(self.a, self.b);
    }

    fn heal(_: &mut dyn Target) {
        // It ends faults, and leaves nothing to heal.
    }

    fn effect(&self) -> Effect {
        Effect::LinkRecovers { a: self.a, b: self.b }
    }

    fn span(&self) -> SpanChange {
        SpanChange::LinkRecovers(self.a, self.b)
    }

    fn classes() -> &'static [FaultClass] {
        &[]
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { a, b } = self;
        write!(f, "repair {a} | {b}")
    }
}
