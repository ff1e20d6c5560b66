//! B71: whoever answered is up; whoever did not is down, for the reason that there was; and each server
//! is told of once.
//!
//! Who answered whom is read off the wire.

use std::collections::{BTreeMap, BTreeSet};

use super::scrapes::{Happened, Scrape, Scrapes, plan_of};
use super::{Facts, Invariant, Verdict};
use crate::event::{
    Event, EventKind, LinkState, MessageSummary, MetricsEvent, ServerReport, SocketId,
};
use crate::plan::Node;
use crate::world::NodeView;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct MetricsAnswers {
    scrapes: Scrapes,
    /// Who is at the other end.
    remotes: BTreeMap<(Node, SocketId), Node>,
    /// The last that one node asked another.
    requests: BTreeMap<(Node, Node), Request>,
    /// Answers on their way: to whom, on which connection, and their place there.
    answers: BTreeSet<(Node, SocketId, u64)>,
    /// Since when a node says that it is connected to another.
    connected: BTreeMap<(Node, Node), u64>,
    /// When it last said that it is not.
    lost: BTreeMap<(Node, Node), u64>,
    /// Who told of whom that the connection ended, after which time, and when: what is written down of
    /// that end may come a moment later.
    ends: Vec<(Node, Node, u64, u64)>,
}

#[derive(Debug)]
struct Request {
    at_ms: u64,
    socket: SocketId,
    mux_id: u64,
    answered_ms: Option<u64>,
}

impl Invariant for MetricsAnswers {
    fn name(&self) -> &'static str {
        "metrics_answers"
    }

    fn see(&mut self, event: &Event, facts: &Facts<'_>) -> Verdict {
        let (Some(node), Some(_)) = (event.node, plan_of(facts)) else { return Ok(()) };
        if let Happened::Answered(on, _, scraped, servers) = self.scrapes.see(event, facts) {
            return self.answered(on, scraped, servers, facts);
        }
        let at_ms = event.at_ms;
        match &event.kind {
            EventKind::Metrics(MetricsEvent::Started { .. }) => self.forget(node),
            EventKind::SocketOpened { socket, remote, .. } => {
                self.remotes.insert((node, *socket), *remote);
            }
            EventKind::SocketClosed { socket } => drop(self.remotes.remove(&(node, *socket))),
            EventKind::State { remote, state: LinkState::Connected, .. } => {
                self.connected.insert((node, *remote), at_ms);
            }
            EventKind::State { remote, .. } => {
                self.connected.remove(&(node, *remote));
                self.lost.insert((node, *remote), at_ms);
            }
            EventKind::MessageSent { socket, index, message } => {
                if let Some(remote) = self.remotes.get(&(node, *socket)).copied() {
                    self.sent((node, remote), (*socket, *index), message, at_ms);
                }
            }
            EventKind::MessageReceived { socket, index } => {
                if self.answers.remove(&(node, *socket, *index))
                    && let Some(remote) = self.remotes.get(&(node, *socket))
                    && let Some(request) = self.requests.get_mut(&(node, *remote))
                    && request.socket == *socket
                {
                    request.answered_ms = Some(at_ms);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn look(&mut self, _views: &[NodeView], facts: &Facts<'_>) -> Verdict {
        let settled = |at_ms: u64| facts.now_ms > at_ms + facts.bounds.ticks_ms;
        let (due, later) = std::mem::take(&mut self.ends)
            .into_iter()
            .partition(|(_, _, _, at_ms)| settled(*at_ms));
        self.ends = later;
        let due: Vec<_> = due;
        match due.iter().find(|(on, of, began_ms, _)| self.lost.get(&(*on, *of)) < Some(began_ms)) {
            None => Ok(()),
            Some((on, of, ..)) => {
                Err(format!("{on} tells that the connection to {of} ended, and it did not"))
            }
        }
    }
}

impl MetricsAnswers {
    /// What a process knew ends with it.
    fn forget(&mut self, node: Node) {
        self.requests.retain(|(from, _), _| *from != node);
        self.connected.retain(|(from, _), _| *from != node);
        self.answers.retain(|(to, ..)| *to != node);
        self.ends.retain(|(on, ..)| *on != node);
    }

    fn sent(
        &mut self,
        (from, to): (Node, Node),
        (socket, index): (SocketId, u64),
        message: &MessageSummary,
        at_ms: u64,
    ) {
        let mux_id = message.mux_id;
        match &message.op[..] {
            "Request" if message.call.is_none() => {
                let request = Request { at_ms, socket, mux_id, answered_ms: None };
                self.requests.insert((from, to), request);
            }
            "Response" => {
                let its = |request: &&Request| (request.socket, request.mux_id) == (socket, mux_id);
                if self.requests.get(&(to, from)).filter(its).is_some() {
                    self.answers.insert((to, socket, index));
                }
            }
            _ => {}
        }
    }

    fn answered(
        &mut self,
        on: Node,
        scraped: Scrape,
        servers: &[(Node, ServerReport)],
        facts: &Facts<'_>,
    ) -> Verdict {
        if !servers.iter().map(|(of, _)| *of).eq((0..facts.plan.cluster.nodes).map(Node)) {
            return Err(format!("{on} does not tell of each server once"));
        }
        for (of, told) in servers.iter().filter(|(of, _)| *of != on) {
            let request = self.requests.get(&(on, *of));
            let request = request.filter(|request| request.at_ms >= scraped.began_ms);
            let answered_ms = request.and_then(|request| request.answered_ms);
            match told {
                ServerReport::Up { .. } if answered_ms.is_none() => {
                    return Err(format!("{on} tells that {of} is up, which has not answered"));
                }
                ServerReport::Up { .. } => {}
                ServerReport::Down { reason } => {
                    let deadline_ms = deadline_ms(scraped, facts);
                    if answered_ms.is_some_and(|at_ms| at_ms < deadline_ms) {
                        return Err(format!("{on} tells that {of} is down, which has answered"));
                    }
                    let was_asked = request.is_some();
                    self.must_be_the_reason((on, *of), reason, was_asked, scraped, facts)?;
                }
            }
        }
        Ok(())
    }

    fn must_be_the_reason(
        &mut self,
        (on, of): (Node, Node),
        reason: &str,
        was_asked: bool,
        scraped: Scrape,
        facts: &Facts<'_>,
    ) -> Verdict {
        let (began_ms, grain_ms) = (scraped.began_ms, facts.bounds.ticks_ms);
        let is_so = match reason {
            "not_connected" => {
                let since = self.connected.get(&(on, of));
                !was_asked && since.is_none_or(|since_ms| since_ms + grain_ms >= began_ms)
            }
            "timeout" => facts.now_ms >= deadline_ms(scraped, facts),
            "disconnected" => {
                let began_ms = began_ms.saturating_sub(grain_ms);
                self.ends.push((on, of, began_ms, facts.now_ms));
                true
            }
            _ => false,
        };
        match is_so {
            true => Ok(()),
            false => Err(format!("{on} tells of {of} a reason that there was not: {reason}")),
        }
    }
}

/// Whatever comes before is in time.
fn deadline_ms(scraped: Scrape, facts: &Facts<'_>) -> u64 {
    let deadline_ms = plan_of(facts).map_or(0, |plan| u64::from(plan.deadline_ms));
    let grain_ms = facts.bounds.drift_of(deadline_ms) + facts.bounds.ticks_ms;
    (scraped.began_ms + deadline_ms).saturating_sub(grain_ms)
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, CALLER, SERVER, bites, read};
    use super::super::scrapes::bench::{answered, asked, began, message, metrics, request};
    use super::*;
    use crate::event::ReportedValues;

    fn state(state: LinkState) -> EventKind {
        EventKind::State { remote: SERVER, state, cause: None }
    }

    /// Connected, and asked.
    fn bench() -> Bench {
        let mut bench = Bench::with_metrics(MetricsAnswers::default(), metrics());
        let opened = |remote| EventKind::SocketOpened { socket: 7, remote, dialed: true };
        bench.well([(0, CALLER, began()), (0, SERVER, began())]);
        bench.well([(10, CALLER, opened(SERVER)), (10, SERVER, opened(CALLER))]);
        bench.well([(20, CALLER, state(LinkState::Connected)), (1_000, CALLER, asked(0))]);
        bench
    }

    fn up() -> ServerReport {
        ServerReport::Up { report: ReportedValues::default() }
    }

    fn down(reason: &str) -> ServerReport {
        ServerReport::Down { reason: reason.to_owned() }
    }

    fn tells(bench: &mut Bench, at_ms: u64, told: ServerReport) -> Verdict {
        bench.at(at_ms, CALLER, answered(0, vec![(CALLER, up()), (SERVER, told)]))
    }

    fn asks(bench: &mut Bench) {
        bench.well([(1_001, CALLER, request(7, 5))]);
    }

    #[test]
    fn b71_whoever_answered_is_up_and_nobody_else() {
        let mut bench = bench();
        asks(&mut bench);
        bites(tells(&mut bench, 1_010, up()), "node-0 tells that node-1 is up, which has not");
        bench.well([(1_011, CALLER, asked(0)), (1_012, CALLER, request(7, 6))]);
        bench.well([(1_013, SERVER, message(7, 3, "Response", 6)), (1_015, CALLER, read(7, 3))]);
        tells(&mut bench, 1_016, up()).expect("it answered");
        bench.well([(1_017, CALLER, asked(0))]);
        bites(tells(&mut bench, 1_020, down("timeout")), "is down, which has answered");
    }

    #[test]
    fn b71_the_reason_is_the_one_that_there_was() {
        let no_reason = "node-0 tells of node-1 a reason that there was not";
        bites(tells(&mut bench(), 1_001, down("not_connected")), no_reason);
        bites(tells(&mut bench(), 1_001, down("bad weather")), no_reason);
        let mut lost = bench();
        lost.well([(1_000, CALLER, state(LinkState::Backoff))]);
        tells(&mut lost, 1_001, down("not_connected")).expect("it is not connected");
        let mut slow = bench();
        asks(&mut slow);
        bites(tells(&mut slow, 1_300, down("timeout")), no_reason);
        slow.well([(1_301, CALLER, asked(0))]);
        tells(&mut slow, 1_500, down("timeout")).expect("the deadline is over");
    }

    #[test]
    fn b71_a_connection_that_ended_did() {
        let mut bench = bench();
        asks(&mut bench);
        tells(&mut bench, 1_010, down("disconnected")).expect("it may be written down in a moment");
        bites(bench.look(1_100, &[]), "the connection to node-1 ended, and it did not");
        bench.well([(2_200, CALLER, asked(0)), (2_201, CALLER, state(LinkState::Backoff))]);
        tells(&mut bench, 2_201, down("disconnected")).expect("it did");
        assert_eq!(bench.look(3_000, &[]), Ok(()));
    }

    #[test]
    fn b71_nobody_is_left_out() {
        let mut bench = bench();
        let alone = answered(0, vec![(CALLER, up())]);
        bites(bench.at(1_001, CALLER, alone), "node-0 does not tell of each server once");
    }
}
