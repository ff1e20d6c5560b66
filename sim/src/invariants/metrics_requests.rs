//! B71: a scrape costs each server one request, and scrapes at the same time or within a second share it.
//!
//! Requests are counted on the wire: those that bear no number of the load's are those of the metrics.

use std::collections::BTreeMap;

use super::scrapes::{Happened, Scrapes, plan_of};
use super::{Facts, Invariant, Verdict};
use crate::event::{Event, EventKind, SocketId};
use crate::plan::Node;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct MetricsRequests {
    scrapes: Scrapes,
    /// Who is at the other end.
    remotes: BTreeMap<(Node, SocketId), Node>,
    /// Who asked whom how often for the last collection.
    asked: BTreeMap<(Node, Node), u64>,
}

impl Invariant for MetricsRequests {
    fn name(&self) -> &'static str {
        "metrics_requests"
    }

    fn see(&mut self, event: &Event, facts: &Facts<'_>) -> Verdict {
        if let Happened::Begins(node) = self.scrapes.see(event, facts) {
            self.asked.retain(|(from, _), _| *from != node);
        }
        let (Some(from), Some(_)) = (event.node, plan_of(facts)) else { return Ok(()) };
        match &event.kind {
            EventKind::SocketOpened { socket, remote, .. } => {
                self.remotes.insert((from, *socket), *remote);
            }
            EventKind::SocketClosed { socket } => drop(self.remotes.remove(&(from, *socket))),
            EventKind::MessageSent { socket, message, .. }
                if message.op == "Request" && message.call.is_none() =>
            {
                let Some(to) = self.remotes.get(&(from, *socket)) else { return Ok(()) };
                let asked = self.asked.entry((from, *to)).or_default();
                *asked += 1;
                if *asked > 1 {
                    return Err(format!("{from} asked {to} {asked} times for one collection"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, CALLER, SERVER, bites};
    use super::super::scrapes::bench::{answered, asked, began, metrics, request};
    use super::*;

    fn bench() -> Bench {
        let mut bench = Bench::with_metrics(MetricsRequests::default(), metrics());
        let opened = EventKind::SocketOpened { socket: 7, remote: SERVER, dialed: true };
        bench.well([(0, CALLER, began()), (10, CALLER, opened), (1_000, CALLER, asked(0))]);
        bench.well([(1_001, CALLER, request(7, 1))]);
        bench
    }

    #[test]
    fn b71_scrapes_at_the_same_time_share_a_request() {
        let mut bench = bench();
        bench.well([(1_400, CALLER, asked(1))]);
        bites(bench.at(1_401, CALLER, request(7, 2)), "node-0 asked node-1 2 times");
    }

    #[test]
    fn b71_scrapes_within_a_second_share_a_request_and_later_ones_do_not() {
        let mut soon = bench();
        soon.well([(1_010, CALLER, answered(0, vec![])), (1_900, CALLER, asked(1))]);
        bites(soon.at(1_901, CALLER, request(7, 2)), "asked node-1 2 times");
        let mut later = bench();
        later.well([(1_010, CALLER, answered(0, vec![])), (2_020, CALLER, asked(1))]);
        later.well([(2_021, CALLER, request(7, 2))]);
        bites(later.at(2_022, CALLER, request(7, 3)), "asked node-1 2 times");
    }

    #[test]
    fn b71_at_the_border_a_collection_begins_or_does_not() {
        let border = || {
            let mut bench = bench();
            bench.well([(1_010, CALLER, answered(0, vec![])), (2_010, CALLER, asked(1))]);
            bench
        };
        let mut new = border();
        new.well([(2_011, CALLER, request(7, 2)), (2_020, CALLER, answered(1, vec![]))]);
        new.well([(2_900, CALLER, asked(2))]);
        bites(new.at(2_901, CALLER, request(7, 3)), "asked node-1 2 times");
        let mut old = border();
        old.well([(2_010, CALLER, answered(1, vec![])), (2_900, CALLER, asked(2))]);
        old.well([(2_901, CALLER, request(7, 2))]);
        bites(old.at(2_902, CALLER, request(7, 3)), "asked node-1 2 times");
    }

    #[test]
    fn b71_what_is_shared_lasts_from_when_it_was_made_and_not_from_when_it_was_wanted() {
        let mut bench = bench();
        bench.well([(1_010, CALLER, answered(0, vec![])), (1_800, CALLER, asked(1))]);
        bench.well([(1_800, CALLER, answered(1, vec![])), (2_100, CALLER, asked(2))]);
        bench.well([(2_101, CALLER, request(7, 2))]);
    }
}
