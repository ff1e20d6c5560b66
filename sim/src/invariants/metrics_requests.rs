//! [B71]: a collection costs each server one request, which concurrent scrapes and scrapes within a
//! second share.
//!
//! Requests are counted on the wire: those that belong to no call of the load belong to metrics.
//!
//! [B71]: crate::rules#b71

use std::collections::BTreeMap;

use super::scrapes::{ScrapeEvent, Scrapes, metrics_plan};
use super::{CheckContext, CheckResult, Invariant};
use crate::event::{Event, EventKind, SocketId};
use crate::plan::Node;

/// Counts the requests of each collection.
#[derive(Debug, Default)]
pub(super) struct MetricsRequests {
    scrapes: Scrapes,
    /// The node at the other end.
    remotes: BTreeMap<(Node, SocketId), Node>,
    /// Requests from one node to another for the last collection.
    requests: BTreeMap<(Node, Node), u64>,
}

impl Invariant for MetricsRequests {
    fn name(&self) -> &'static str {
        "metrics_requests"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        if let ScrapeEvent::CollectionMayStart(node) = self.scrapes.on_event(event, context) {
            self.requests.retain(|(from, _), _| *from != node);
        }
        let (Some(from), Some(_)) = (event.node, metrics_plan(context)) else { return Ok(()) };
        match &event.kind {
            EventKind::SocketOpened { socket, remote, .. } => {
                self.remotes.insert((from, *socket), *remote);
            }
            EventKind::SocketClosed { socket } => drop(self.remotes.remove(&(from, *socket))),
            EventKind::MessageSent { socket, message, .. }
                if message.op == "Request" && message.call.is_none() =>
            {
                let Some(to) = self.remotes.get(&(from, *socket)) else { return Ok(()) };
                let count = self.requests.entry((from, *to)).or_default();
                *count += 1;
                if *count > 1 {
                    return Err(format!("{from} requested {to} {count} times for one collection"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLEE, CALLER, Harness, assert_violates};
    use super::super::scrapes::harness::{completed, metrics, request, requested, started};
    use super::*;

    fn harness() -> Harness {
        let mut harness = Harness::with_metrics(MetricsRequests::default(), metrics());
        let opened = EventKind::SocketOpened { socket: 7, remote: CALLEE, dialed: true };
        harness.feed([(0, CALLER, started()), (10, CALLER, opened), (1_000, CALLER, requested(0))]);
        harness.feed([(1_001, CALLER, request(7, 1))]);
        harness
    }

    #[test]
    fn b71_concurrent_scrapes_share_a_request() {
        let mut harness = harness();
        harness.feed([(1_400, CALLER, requested(1))]);
        assert_violates(
            harness.at(1_401, CALLER, request(7, 2)),
            "node-0 requested node-1 2 times",
        );
    }

    #[test]
    fn b71_scrapes_within_a_second_share_a_request_and_later_ones_do_not() {
        let mut soon = harness();
        soon.feed([(1_010, CALLER, completed(0, vec![])), (1_900, CALLER, requested(1))]);
        assert_violates(soon.at(1_901, CALLER, request(7, 2)), "requested node-1 2 times");
        let mut later = harness();
        later.feed([(1_010, CALLER, completed(0, vec![])), (2_020, CALLER, requested(1))]);
        later.feed([(2_021, CALLER, request(7, 2))]);
        assert_violates(later.at(2_022, CALLER, request(7, 3)), "requested node-1 2 times");
    }

    #[test]
    fn b71_collection_may_or_may_not_start_at_the_ttl() {
        let border = || {
            let mut harness = harness();
            harness.feed([(1_010, CALLER, completed(0, vec![])), (2_010, CALLER, requested(1))]);
            harness
        };
        let mut new = border();
        new.feed([(2_011, CALLER, request(7, 2)), (2_020, CALLER, completed(1, vec![]))]);
        new.feed([(2_900, CALLER, requested(2))]);
        assert_violates(new.at(2_901, CALLER, request(7, 3)), "requested node-1 2 times");
        let mut old = border();
        old.feed([(2_010, CALLER, completed(1, vec![])), (2_900, CALLER, requested(2))]);
        old.feed([(2_901, CALLER, request(7, 2))]);
        assert_violates(old.at(2_902, CALLER, request(7, 3)), "requested node-1 2 times");
    }

    #[test]
    fn b71_ttl_begins_with_the_collection_and_not_with_its_use() {
        let mut harness = harness();
        harness.feed([(1_010, CALLER, completed(0, vec![])), (1_800, CALLER, requested(1))]);
        harness.feed([(1_800, CALLER, completed(1, vec![])), (2_100, CALLER, requested(2))]);
        harness.feed([(2_101, CALLER, request(7, 2))]);
    }
}
