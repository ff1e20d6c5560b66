//! How long each fault lasted, from the faults alone: a fault lasts until something says otherwise.

use serde::Serialize;

use crate::event::{Event, EventKind};
use crate::plan::{Fault, Node, Plan};

use super::diagram::Place;

/// The kind of a spell in which a process is stopped: it has its power, and goes on.
const PAUSE: &str = "pause";

/// A time of trouble.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Spell {
    pub(super) kind: &'static str,
    pub(super) label: String,
    /// The nodes in whose lanes it is drawn: both ends of a link, or one.
    pub(super) nodes: Vec<Node>,
    /// None if it was so from the beginning.
    pub(super) start: Option<Place>,
    /// None if it lasts until the end.
    pub(super) end: Option<Place>,
    /// Whether a node is off, rather than a link troubled.
    pub(super) off: bool,
}

/// All trouble that lasts, in the order of its beginning. Skews, drifts and bounces only happen: they
/// are among the events.
pub(super) fn spells(plan: &Plan, events: &[Event]) -> Vec<Spell> {
    let late = plan.cluster.late.iter().map(|(node, _)| Spell {
        kind: "late",
        label: format!("{node} is not there yet"),
        nodes: vec![*node],
        start: None,
        end: None,
        off: true,
    });
    let mut spells: Vec<Spell> = late.collect();
    for (place, event) in events.iter().enumerate() {
        match &event.kind {
            EventKind::Fault { fault } => note(&mut spells, fault, place),
            EventKind::Healed => {
                end(&mut spells, place, |spell| !spell.off || spell.kind == PAUSE);
            }
            EventKind::Started { .. } => {
                end(&mut spells, place, |spell| spell.off && event.node == Some(spell.nodes[0]));
            }
            _ => {}
        }
    }
    spells
}

fn note(spells: &mut Vec<Spell>, fault: &Fault, place: Place) {
    let (nodes, off) = match *fault {
        Fault::Cut { a, b } | Fault::Hold { a, b } | Fault::Slow { a, b, .. } => {
            (vec![a, b], false)
        }
        Fault::CutOneWay { from, to } => (vec![from, to], false),
        Fault::PowerLoss { node } => {
            end(spells, place, |spell| spell.kind == PAUSE && spell.nodes == [node]);
            (vec![node], true)
        }
        Fault::Pause { node } => (vec![node], true),
        Fault::Resume { node, .. } => {
            return end(spells, place, |spell| spell.kind == PAUSE && spell.nodes == [node]);
        }
        Fault::Repair { a, b } => {
            let link = |spell: &Spell| spell.nodes.contains(&a) && spell.nodes.contains(&b);
            return end(spells, place, |spell| !spell.off && link(spell));
        }
        Fault::Restart { node } => {
            return end(spells, place, |spell| spell.off && spell.nodes == [node]);
        }
        Fault::Skew { .. }
        | Fault::Drift { .. }
        | Fault::Bounce { .. }
        | Fault::PoolDown { .. }
        | Fault::PoolUp { .. } => return,
    };
    let kind = fault.kind();
    // The same again is a new value, and not a second trouble beside the first.
    end(spells, place, |spell| spell.kind == kind && spell.nodes == nodes);
    let label = fault.to_string();
    spells.push(Spell { kind, label, nodes, start: Some(place), end: None, off });
}

fn end(spells: &mut [Spell], place: Place, is_over: impl Fn(&Spell) -> bool) {
    for spell in spells.iter_mut().filter(|spell| spell.end.is_none() && is_over(spell)) {
        spell.end = Some(place);
    }
}
