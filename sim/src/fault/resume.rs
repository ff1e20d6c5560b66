//! The end of a pause.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::{ClockWhilePaused, Effect, FaultClass, FaultKind, SpanChange, Target};

/// A paused process resumes; segments that were held to and from it arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// The node.
    pub node: Node,
    /// Behaviour of its clocks during the pause.
    pub clock: ClockWhilePaused,
}

impl FaultKind for Resume {
    fn name(&self) -> &'static str {
        "resume"
    }

    fn nodes(&self) -> Vec<Node> {
        vec![self.node]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, target: &mut dyn Target) {
        target.resume(self.node, self.clock);
    }

    fn heal(_: &mut dyn Target) {
        // It ends a fault, and leaves nothing to heal.
    }

    fn effect(&self) -> Effect {
        Effect::ProcessResumes { node: self.node, clock: self.clock }
    }

    fn span(&self) -> SpanChange {
        SpanChange::ProcessResumes(self.node)
    }

    fn classes() -> &'static [FaultClass] {
        &[]
    }
}

impl fmt::Display for Resume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, clock } = self;
        match clock {
            ClockWhilePaused::Ran => write!(f, "{node} resumes"),
            ClockWhilePaused::Frozen => write!(f, "{node} resumes, and its clocks were frozen"),
        }
    }
}
