//! Groups scrapes that share one collection, as [B71] requires: those that arrive during a
//! collection, or within the TTL after it. Each invariant of metrics keeps its own copy of this
//! state.
//!
//! [B71]: crate::rules#b71

use std::collections::BTreeMap;

use super::CheckContext;
use crate::event::{Event, EventKind, MetricsEvent, ScrapeId, ServerReport};
use crate::plan::{MetricsPlan, Node};

/// The collections of every node.
#[derive(Debug, Default)]
pub(super) struct Scrapes(BTreeMap<Node, Collections>);

/// The collections of one process.
#[derive(Debug, Default)]
struct Collections {
    open: BTreeMap<ScrapeId, Scrape>,
    /// The scrape that arrived when the last collection was about to exceed its TTL. If it does not
    /// complete at once, a collection started with it.
    ambiguous: Option<ScrapeId>,
    /// When the last completed collection started, and when it completed.
    done: Option<(u64, u64)>,
}

/// A scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scrape {
    /// When it arrived.
    pub(super) requested_ms: u64,
    /// When the collection that it is completed with started.
    pub(super) started_ms: u64,
}

/// An event of the scrapes.
#[derive(Debug)]
pub(super) enum ScrapeEvent<'a> {
    /// A collection may start on this node; whether it must is not visible from outside.
    CollectionMayStart(Node),
    /// A scrape is completed.
    Completed(Node, ScrapeId, Scrape, &'a [(Node, ServerReport)]),
    /// Any other event.
    Other,
}

/// Returns the metrics of the plan, if it has any.
pub(super) fn metrics_plan<'a>(context: &CheckContext<'a>) -> Option<&'a MetricsPlan> {
    context.plan.cluster.metrics.as_ref()
}

impl Scrapes {
    /// Handles an event.
    pub(super) fn on_event<'a>(
        &mut self,
        event: &'a Event,
        context: &CheckContext<'_>,
    ) -> ScrapeEvent<'a> {
        let (Some(node), EventKind::Metrics(metrics)) = (event.node, &event.kind) else {
            return ScrapeEvent::Other;
        };
        let own = self.0.entry(node).or_default();
        match metrics {
            // Scrapes of the previous process have ended with it.
            MetricsEvent::Started { .. } => *own = Collections::default(),
            MetricsEvent::Requested { scrape } => {
                return own.on_request(*scrape, node, event.at_ms, context);
            }
            MetricsEvent::Completed { scrape, servers } => {
                if let Some(collected) = own.on_response(*scrape, event.at_ms) {
                    return ScrapeEvent::Completed(node, *scrape, collected, servers);
                }
            }
            MetricsEvent::Aborted { scrape } => drop(own.open.remove(scrape)),
            MetricsEvent::Sampled { .. } => {}
        }
        ScrapeEvent::Other
    }

    /// Returns a scrape that is outstanding since this time or longer.
    pub(super) fn outstanding_since(&self, requested_ms: u64) -> Option<(Node, ScrapeId, Scrape)> {
        let open =
            self.0.iter().flat_map(|(node, own)| own.open.iter().map(move |own| (node, own)));
        open.map(|(node, (scrape, collected))| (*node, *scrape, *collected))
            .find(|(_, _, collected)| collected.requested_ms <= requested_ms)
    }

    /// Removes the scrapes of a process that has ended.
    pub(super) fn forget(&mut self, node: Node) {
        self.0.remove(&node);
    }
}

impl Collections {
    fn on_request<'a>(
        &mut self,
        scrape: ScrapeId,
        node: Node,
        now_ms: u64,
        context: &CheckContext<'_>,
    ) -> ScrapeEvent<'a> {
        let ttl_ms = metrics_plan(context).map_or(0, |plan| u64::from(plan.ttl_ms));
        let tolerance_ms = context.bounds.drift_of(ttl_ms) + context.bounds.timer_resolution_ms;
        // A cached collection is returned at once: scrapes that are still open wait for a new one.
        self.resolve_ambiguous();
        let in_flight = self.open.values().map(|collected| collected.started_ms).max();
        let fresh = self.done.filter(|(_, done_ms)| now_ms < done_ms + ttl_ms + tolerance_ms);
        let is_sure = fresh.is_some_and(|(_, done_ms)| now_ms + tolerance_ms < done_ms + ttl_ms);
        let shared = in_flight.or(fresh.map(|(started_ms, _)| started_ms));
        let started_ms = shared.unwrap_or(now_ms);
        self.open.insert(scrape, Scrape { requested_ms: now_ms, started_ms });
        if in_flight.is_some() || is_sure {
            return ScrapeEvent::Other;
        }
        self.ambiguous = fresh.map(|_| scrape);
        ScrapeEvent::CollectionMayStart(node)
    }

    /// Resolves the ambiguous scrape: it started a collection.
    fn resolve_ambiguous(&mut self) {
        if let Some(collected) = self.ambiguous.take().and_then(|scrape| self.open.get_mut(&scrape))
        {
            collected.started_ms = collected.requested_ms;
        }
    }

    fn on_response(&mut self, scrape: ScrapeId, now_ms: u64) -> Option<Scrape> {
        if self.open.get(&scrape).is_some_and(|collected| collected.requested_ms < now_ms) {
            self.resolve_ambiguous();
        }
        let collected = self.open.remove(&scrape)?;
        self.ambiguous = self.ambiguous.filter(|ambiguous| *ambiguous != scrape);
        if self.done.is_none_or(|(started_ms, _)| started_ms < collected.started_ms) {
            self.done = Some((collected.started_ms, now_ms));
        }
        Some(collected)
    }
}

/// Events of the metrics, for the tests.
#[cfg(test)]
pub(super) mod harness {
    use super::*;
    use crate::event::{MessageSummary, SocketId};

    pub(in super::super) fn metrics() -> MetricsPlan {
        let (slow, scrapes) = (vec![], vec![]);
        MetricsPlan { interval_ms: 5_000, deadline_ms: 500, ttl_ms: 1_000, slow, scrapes }
    }

    pub(in super::super) fn started() -> EventKind {
        EventKind::Metrics(MetricsEvent::Started { start_ms: 1 })
    }

    pub(in super::super) fn requested(scrape: ScrapeId) -> EventKind {
        EventKind::Metrics(MetricsEvent::Requested { scrape })
    }

    pub(in super::super) fn completed(
        scrape: ScrapeId,
        servers: Vec<(Node, ServerReport)>,
    ) -> EventKind {
        EventKind::Metrics(MetricsEvent::Completed { scrape, servers })
    }

    pub(in super::super) fn request(socket: SocketId, mux_id: u64) -> EventKind {
        message(socket, 0, "Request", mux_id)
    }

    pub(in super::super) fn message(
        socket: SocketId,
        index: u64,
        op: &str,
        mux_id: u64,
    ) -> EventKind {
        let (op, sequence, flags, bytes) = (op.to_owned(), 0, 0, 1);
        let message = MessageSummary { op, mux_id, sequence, flags, bytes, call: None };
        EventKind::MessageSent { socket, index, message }
    }
}
