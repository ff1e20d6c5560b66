//! A process that is paused.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::{ClockWhilePaused, Drawing, Effect, FaultClass, FaultKind, Resume, SpanChange, Target};

/// A node's process is paused, as by SIGSTOP: it receives nothing, does nothing, and sees no
/// time pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    /// The node.
    pub node: Node,
}

impl FaultKind for Pause {
    fn name(&self) -> &'static str {
        "pause"
    }

    fn nodes(&self) -> Vec<Node> {
        vec![self.node]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, target: &mut dyn Target) {
        target.pause(self.node);
    }

    fn heal(target: &mut dyn Target) {
        target.resume_all();
    }

    fn effect(&self) -> Effect {
        Effect::ProcessPauses { node: self.node }
    }

    fn span(&self) -> SpanChange {
        SpanChange::ProcessPauses(self.node)
    }

    fn classes() -> &'static [FaultClass] {
        &[PAUSE, SUSPEND]
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node } = self;
        write!(f, "{node} is paused")
    }
}

/// A process is paused, and its clocks run.
pub(crate) const PAUSE: FaultClass =
    FaultClass { name: "pause", draw: |drawing| pause(drawing, ClockWhilePaused::Ran) };

/// A process is suspended, and its clocks are frozen.
pub(crate) const SUSPEND: FaultClass =
    FaultClass { name: "suspend", draw: |drawing| pause(drawing, ClockWhilePaused::Frozen) };

fn pause(drawing: &mut Drawing<'_>, clock: ClockWhilePaused) {
    let node = drawing.node();
    drawing.add_lasting(Pause { node }, Resume { node, clock });
}
