//! Computes how long each fault lasted, from the fault events alone.

use serde::Serialize;

use crate::event::{Event, EventKind};
use crate::fault::SpanChange;
use crate::plan::{Fault, Node, Plan};

use super::EventIndex;

/// The kind of a span in which a process is paused: it is not off, and resumes.
const PAUSE: &str = "pause";

/// A period in which a fault lasts.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct FaultSpan {
    pub(super) kind: &'static str,
    pub(super) label: String,
    /// The nodes in whose lanes it is drawn: both ends of a link, or one node.
    pub(super) nodes: Vec<Node>,
    /// None if it lasts from the beginning.
    pub(super) start: Option<EventIndex>,
    /// None if it lasts until the end of the trace.
    pub(super) end: Option<EventIndex>,
    /// Whether a node is off, as opposed to a faulty link.
    pub(super) off: bool,
}

/// Returns all faults with a duration, in the order of their start. Skews, drifts and bounces are
/// instantaneous, and drawn as events only.
pub(super) fn fault_spans(plan: &Plan, events: &[Event]) -> Vec<FaultSpan> {
    let late = plan.cluster.late.iter().map(|(node, _)| FaultSpan {
        kind: "late",
        label: format!("{node} has not started yet"),
        nodes: vec![*node],
        start: None,
        end: None,
        off: true,
    });
    let mut fault_spans: Vec<FaultSpan> = late.collect();
    for (index, event) in events.iter().enumerate() {
        match &event.kind {
            EventKind::Fault { fault } => on_fault(&mut fault_spans, fault, index),
            EventKind::Healed => {
                end(&mut fault_spans, index, |span| !span.off || span.kind == PAUSE);
            }
            EventKind::Started { .. } => {
                end(&mut fault_spans, index, |span| span.off && event.node == Some(span.nodes[0]));
            }
            _ => {}
        }
    }
    fault_spans
}

fn on_fault(fault_spans: &mut Vec<FaultSpan>, fault: &Fault, index: EventIndex) {
    let is_pause = |span: &FaultSpan, node| span.kind == PAUSE && span.nodes == [node];
    let (nodes, off) = match fault.span() {
        SpanChange::None => return,
        SpanChange::LinkFails(a, b) => (vec![a, b], false),
        SpanChange::LinkRecovers(a, b) => {
            let link = |span: &FaultSpan| span.nodes.contains(&a) && span.nodes.contains(&b);
            return end(fault_spans, index, |span| !span.off && link(span));
        }
        SpanChange::NodeStops(node) => {
            end(fault_spans, index, |span| is_pause(span, node));
            (vec![node], true)
        }
        SpanChange::NodeStarts(node) => {
            return end(fault_spans, index, |span| span.off && span.nodes == [node]);
        }
        SpanChange::ProcessPauses(node) => (vec![node], true),
        SpanChange::ProcessResumes(node) => {
            return end(fault_spans, index, |span| is_pause(span, node));
        }
    };
    let kind = fault.kind();
    // The same fault again replaces the first; the two do not overlap.
    end(fault_spans, index, |span| span.kind == kind && span.nodes == nodes);
    let label = fault.to_string();
    fault_spans.push(FaultSpan { kind, label, nodes, start: Some(index), end: None, off });
}

fn end(fault_spans: &mut [FaultSpan], index: EventIndex, has_ended: impl Fn(&FaultSpan) -> bool) {
    for span in fault_spans.iter_mut().filter(|span| span.end.is_none() && has_ended(span)) {
        span.end = Some(index);
    }
}
