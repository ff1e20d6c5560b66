//! A link that is cut in one direction.

use std::fmt;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::node::Node;

use super::{Drawing, Effect, FaultClass, FaultKind, Repair, SpanChange, Target};

/// Cuts one direction of a link; the other direction stays open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutOneWay {
    /// The node whose segments are lost.
    pub from: Node,
    /// The node that they do not reach.
    pub to: Node,
}

impl FaultKind for CutOneWay {
    fn name(&self) -> &'static str {
        "cut_one_way"
    }

    fn nodes(&self) -> Vec<Node> {
        vec![self.from, self.to]
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    fn apply(&self, target: &mut dyn Target) {
        target.cut_one_way(self.from, self.to);
    }

    fn heal(target: &mut dyn Target) {
        target.repair_all();
    }

    fn effect(&self) -> Effect {
        Effect::LinkFails { from: self.from, to: self.to }
    }

    fn span(&self) -> SpanChange {
        SpanChange::LinkFails(self.from, self.to)
    }

    fn classes() -> &'static [FaultClass] {
        &[CUT_ONE_WAY, ONE_WAY_NODE]
    }
}

impl fmt::Display for CutOneWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "cut {from} -> {to}")
    }
}

/// One direction of a link is cut, and the link is repaired.
pub(crate) const CUT_ONE_WAY: FaultClass = FaultClass { name: "cut_one_way", draw: cut_one_way };

/// A node can only send, or only receive.
pub(crate) const ONE_WAY_NODE: FaultClass = FaultClass { name: "one_way_node", draw: one_way_node };

fn cut_one_way(drawing: &mut Drawing<'_>) {
    let (a, b) = drawing.link();
    drawing.add_lasting(CutOneWay { from: a, to: b }, Repair { a, b });
}

fn one_way_node(drawing: &mut Drawing<'_>) {
    let node = drawing.node();
    let only_receives = drawing.rng.random_bool(0.5);
    for other in drawing.others(node) {
        let (a, b) = if only_receives { (node, other) } else { (other, node) };
        drawing.add_lasting(CutOneWay { from: a, to: b }, Repair { a, b });
    }
}
