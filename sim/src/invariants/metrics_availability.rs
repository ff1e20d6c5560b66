//! [B71]: a server that responded is up, any other is down for the true reason, and each server is
//! reported once.
//!
//! Responses are seen on the wire.
//!
//! [B71]: crate::rules#b71

use std::collections::{BTreeMap, BTreeSet};

use super::scrapes::{Scrape, ScrapeEvent, Scrapes, metrics_plan};
use super::{CheckContext, CheckResult, Invariant};
use crate::event::{
    ConnectionState, Event, EventKind, MessageSummary, MetricsEvent, ServerReport, SocketId,
};
use crate::plan::Node;
use crate::world::NodeView;

/// Tracks requests, responses and connections.
#[derive(Debug, Default)]
pub(super) struct MetricsAvailability {
    scrapes: Scrapes,
    /// The node at the other end.
    remotes: BTreeMap<(Node, SocketId), Node>,
    /// The last request of one node to another.
    requests: BTreeMap<(Node, Node), Request>,
    /// Responses in flight: their receiver, their connection, and their index there.
    responses: BTreeSet<(Node, SocketId, u64)>,
    /// Since when a node has reported a connection to another.
    connected: BTreeMap<(Node, Node), u64>,
    /// When it last reported the loss of that connection.
    lost: BTreeMap<(Node, Node), u64>,
    /// Reported disconnections: the reporting node, the remote, the earliest possible time, and the
    /// time of the report. The event of the disconnection may follow a moment later.
    ends: Vec<(Node, Node, u64, u64)>,
}

#[derive(Debug)]
struct Request {
    at_ms: u64,
    socket: SocketId,
    mux_id: u64,
    responded_ms: Option<u64>,
}

impl Invariant for MetricsAvailability {
    fn name(&self) -> &'static str {
        "metrics_availability"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        let (Some(node), Some(_)) = (event.node, metrics_plan(context)) else { return Ok(()) };
        if let ScrapeEvent::Completed(on, _, scrape, servers) =
            self.scrapes.on_event(event, context)
        {
            return self.on_completed(on, scrape, servers, context);
        }
        let at_ms = event.at_ms;
        match &event.kind {
            EventKind::Metrics(MetricsEvent::Started { .. }) => self.clear(node),
            EventKind::SocketOpened { socket, remote, .. } => {
                self.remotes.insert((node, *socket), *remote);
            }
            EventKind::SocketClosed { socket } => drop(self.remotes.remove(&(node, *socket))),
            EventKind::State { remote, state: ConnectionState::Connected, .. } => {
                self.connected.insert((node, *remote), at_ms);
            }
            EventKind::State { remote, .. } => {
                self.connected.remove(&(node, *remote));
                self.lost.insert((node, *remote), at_ms);
            }
            EventKind::MessageSent { socket, index, message } => {
                if let Some(remote) = self.remotes.get(&(node, *socket)).copied() {
                    self.on_sent((node, remote), (*socket, *index), message, at_ms);
                }
            }
            EventKind::MessageReceived { socket, index } => {
                if self.responses.remove(&(node, *socket, *index))
                    && let Some(remote) = self.remotes.get(&(node, *socket))
                    && let Some(request) = self.requests.get_mut(&(node, *remote))
                    && request.socket == *socket
                {
                    request.responded_ms = Some(at_ms);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn on_view(&mut self, _views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        let settled = |at_ms: u64| context.now_ms > at_ms + context.bounds.timer_resolution_ms;
        let (due, later) = std::mem::take(&mut self.ends)
            .into_iter()
            .partition(|(_, _, _, at_ms)| settled(*at_ms));
        self.ends = later;
        let due: Vec<_> = due;
        match due
            .iter()
            .find(|(on, of, started_ms, _)| self.lost.get(&(*on, *of)) < Some(started_ms))
        {
            None => Ok(()),
            Some((on, of, ..)) => {
                Err(format!("{on} reports that the connection to {of} ended, and it did not"))
            }
        }
    }
}

impl MetricsAvailability {
    /// Removes the state of a process that has ended.
    fn clear(&mut self, node: Node) {
        self.requests.retain(|(from, _), _| *from != node);
        self.connected.retain(|(from, _), _| *from != node);
        self.responses.retain(|(to, ..)| *to != node);
        self.ends.retain(|(on, ..)| *on != node);
    }

    fn on_sent(
        &mut self,
        (from, to): (Node, Node),
        (socket, index): (SocketId, u64),
        message: &MessageSummary,
        at_ms: u64,
    ) {
        let mux_id = message.mux_id;
        match &message.op[..] {
            "Request" if message.call.is_none() => {
                let request = Request { at_ms, socket, mux_id, responded_ms: None };
                self.requests.insert((from, to), request);
            }
            "Response" => {
                let its = |request: &&Request| (request.socket, request.mux_id) == (socket, mux_id);
                if self.requests.get(&(to, from)).filter(its).is_some() {
                    self.responses.insert((to, socket, index));
                }
            }
            _ => {}
        }
    }

    fn on_completed(
        &mut self,
        on: Node,
        scrape: Scrape,
        servers: &[(Node, ServerReport)],
        context: &CheckContext<'_>,
    ) -> CheckResult {
        if !servers.iter().map(|(of, _)| *of).eq((0..context.plan.cluster.nodes).map(Node)) {
            return Err(format!("{on} does not report each server once"));
        }
        for (of, report) in servers.iter().filter(|(of, _)| *of != on) {
            let request = self.requests.get(&(on, *of));
            let request = request.filter(|request| request.at_ms >= scrape.started_ms);
            let responded_ms = request.and_then(|request| request.responded_ms);
            match report {
                ServerReport::Up { .. } if responded_ms.is_none() => {
                    return Err(format!("{on} reports {of} as up, which has not responded"));
                }
                ServerReport::Up { .. } => {}
                ServerReport::Down { reason } => {
                    let deadline_ms = deadline_ms(scrape, context);
                    if responded_ms.is_some_and(|at_ms| at_ms < deadline_ms) {
                        return Err(format!("{on} reports {of} as down, which has responded"));
                    }
                    let was_requested = request.is_some();
                    self.check_reason((on, *of), reason, was_requested, scrape, context)?;
                }
            }
        }
        Ok(())
    }

    fn check_reason(
        &mut self,
        (on, of): (Node, Node),
        reason: &str,
        was_requested: bool,
        scrape: Scrape,
        context: &CheckContext<'_>,
    ) -> CheckResult {
        let (started_ms, tolerance_ms) = (scrape.started_ms, context.bounds.timer_resolution_ms);
        let is_true_reason = match reason {
            "not_connected" => {
                let since = self.connected.get(&(on, of));
                !was_requested && since.is_none_or(|since_ms| since_ms + tolerance_ms >= started_ms)
            }
            "timeout" => context.now_ms >= deadline_ms(scrape, context),
            "disconnected" => {
                let started_ms = started_ms.saturating_sub(tolerance_ms);
                self.ends.push((on, of, started_ms, context.now_ms));
                true
            }
            _ => false,
        };
        match is_true_reason {
            true => Ok(()),
            false => Err(format!("{on} reports a wrong reason for {of}: {reason}")),
        }
    }
}

/// Returns the time before which every response is in time.
fn deadline_ms(scrape: Scrape, context: &CheckContext<'_>) -> u64 {
    let deadline_ms = metrics_plan(context).map_or(0, |plan| u64::from(plan.deadline_ms));
    let tolerance_ms = context.bounds.drift_of(deadline_ms) + context.bounds.timer_resolution_ms;
    (scrape.started_ms + deadline_ms).saturating_sub(tolerance_ms)
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLEE, CALLER, Harness, assert_violates, read};
    use super::super::scrapes::harness::{
        completed, message, metrics, request, requested, started,
    };
    use super::*;
    use crate::event::ReportedValues;

    fn state(state: ConnectionState) -> EventKind {
        EventKind::State { remote: CALLEE, state, cause: None }
    }

    /// Connected, with a scrape in progress.
    fn harness() -> Harness {
        let mut harness = Harness::with_metrics(MetricsAvailability::default(), metrics());
        let opened = |remote| EventKind::SocketOpened { socket: 7, remote, dialed: true };
        harness.feed([(0, CALLER, started()), (0, CALLEE, started())]);
        harness.feed([(10, CALLER, opened(CALLEE)), (10, CALLEE, opened(CALLER))]);
        harness
            .feed([(20, CALLER, state(ConnectionState::Connected)), (1_000, CALLER, requested(0))]);
        harness
    }

    fn up() -> ServerReport {
        ServerReport::Up { report: ReportedValues::default() }
    }

    fn down(reason: &str) -> ServerReport {
        ServerReport::Down { reason: reason.to_owned() }
    }

    fn reports(harness: &mut Harness, at_ms: u64, report: ServerReport) -> CheckResult {
        harness.at(at_ms, CALLER, completed(0, vec![(CALLER, up()), (CALLEE, report)]))
    }

    fn sends_request(harness: &mut Harness) {
        harness.feed([(1_001, CALLER, request(7, 5))]);
    }

    #[test]
    fn b71_only_servers_that_responded_are_up() {
        let mut harness = harness();
        sends_request(&mut harness);
        assert_violates(
            reports(&mut harness, 1_010, up()),
            "node-0 reports node-1 as up, which has not",
        );
        harness.feed([(1_011, CALLER, requested(0)), (1_012, CALLER, request(7, 6))]);
        harness.feed([(1_013, CALLEE, message(7, 3, "Response", 6)), (1_015, CALLER, read(7, 3))]);
        reports(&mut harness, 1_016, up()).expect("it responded");
        harness.feed([(1_017, CALLER, requested(0))]);
        assert_violates(
            reports(&mut harness, 1_020, down("timeout")),
            "as down, which has responded",
        );
    }

    #[test]
    fn b71_reported_reason_is_the_true_one() {
        let no_reason = "node-0 reports a wrong reason for node-1";
        assert_violates(reports(&mut harness(), 1_001, down("not_connected")), no_reason);
        assert_violates(reports(&mut harness(), 1_001, down("an unknown reason")), no_reason);
        let mut lost = harness();
        lost.feed([(1_000, CALLER, state(ConnectionState::Backoff))]);
        reports(&mut lost, 1_001, down("not_connected")).expect("it is not connected");
        let mut slow = harness();
        sends_request(&mut slow);
        assert_violates(reports(&mut slow, 1_300, down("timeout")), no_reason);
        slow.feed([(1_301, CALLER, requested(0))]);
        reports(&mut slow, 1_500, down("timeout")).expect("the deadline has passed");
    }

    #[test]
    fn b71_reported_disconnection_did_happen() {
        let mut harness = harness();
        sends_request(&mut harness);
        reports(&mut harness, 1_010, down("disconnected"))
            .expect("its event may follow in a moment");
        assert_violates(
            harness.on_view(1_100, &[]),
            "the connection to node-1 ended, and it did not",
        );
        harness.feed([
            (2_200, CALLER, requested(0)),
            (2_201, CALLER, state(ConnectionState::Backoff)),
        ]);
        reports(&mut harness, 2_201, down("disconnected")).expect("it did");
        assert_eq!(harness.on_view(3_000, &[]), Ok(()));
    }

    #[test]
    fn b71_every_server_is_reported() {
        let mut harness = harness();
        let alone = completed(0, vec![(CALLER, up())]);
        assert_violates(
            harness.at(1_001, CALLER, alone),
            "node-0 does not report each server once",
        );
    }
}
