//! The calls and connections of a trace, for the expectations of scenarios.

use std::collections::BTreeMap;

use grid::Limits;
use grid::proto::handshake::Dialer;

use crate::event::{ConnectionState, Event, EventKind, HandlerEnd, Outcome, SocketId, StreamSide};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, Node, Plan};
use crate::world::url;

/// One call of the plan, and its events.
#[derive(Debug)]
pub(super) struct CallHistory<'a> {
    /// Number of the call.
    pub(super) number: usize,
    /// Planned time.
    pub(super) at_ms: u64,
    /// Planned operation.
    pub(super) load: &'a Load,
    /// Time at which it was made; none if the process of its caller did not run.
    pub(super) made_ms: Option<u64>,
    /// Time and outcome of its end for its caller.
    pub(super) ended: Option<(u64, &'a Outcome)>,
    /// Whether a handler started to serve it.
    pub(super) is_served: bool,
    /// Time and manner of the end of its handler.
    pub(super) handler_ended: Option<(u64, HandlerEnd)>,
    /// Number of the last message that each end sent.
    pub(super) sent: BTreeMap<StreamSide, u32>,
    /// Sends that were blocked: time, side and number of the message.
    pub(super) blocked_sends: Vec<(u64, StreamSide, u32)>,
}

impl CallHistory<'_> {
    /// Returns the caller.
    pub(super) fn from(&self) -> Node {
        self.load.ends().0
    }

    /// Returns the callee.
    pub(super) fn to(&self) -> Node {
        self.load.ends().1
    }

    /// Returns whether it is between these two nodes, in either direction.
    pub(super) fn is_between(&self, a: Node, b: Node) -> bool {
        let ends = self.load.ends();
        ends == (a, b) || ends == (b, a)
    }

    /// Returns whether one of its ends is `node`.
    pub(super) fn concerns(&self, node: Node) -> bool {
        self.from() == node || self.to() == node
    }

    /// Returns whether it completed.
    pub(super) fn is_completed(&self) -> bool {
        matches!(self.ended, Some((_, Outcome::Completed)))
    }

    /// Returns how long the caller waited, if the call ended.
    pub(super) fn took_ms(&self) -> Option<u64> {
        self.ended.map(|(ended, _)| ended - self.made_ms.unwrap_or(ended))
    }

    /// Returns whether it was outstanding at this time: made before, and not ended.
    pub(super) fn is_outstanding(&self, at_ms: u64) -> bool {
        self.made_ms.is_some_and(|made| made < at_ms)
            && self.ended.is_none_or(|(ended, _)| ended >= at_ms)
    }

    /// Returns an error text with the requirement and the outcome of the call.
    pub(super) fn violation(&self, requirement: &str) -> String {
        let Self { number, at_ms, made_ms, .. } = self;
        let (from, to) = self.load.ends();
        let outcome_text = match (made_ms, &self.ended) {
            (None, _) => "was never made".to_owned(),
            (Some(_), None) => "never ended".to_owned(),
            (Some(_), Some((ended, outcome))) => format!("ended at {ended} ms: {outcome}"),
        };
        format!("call {number} from {from} to {to} at {at_ms} ms {requirement}, and {outcome_text}")
    }

    /// Checks that it completed.
    pub(super) fn must_complete(&self) -> CheckResult {
        if self.is_completed() { Ok(()) } else { Err(self.violation("must complete")) }
    }

    /// Checks that it completed within `limit_ms`.
    pub(super) fn must_complete_within(&self, limit_ms: u64) -> CheckResult {
        self.must_complete()?;
        match self.took_ms() {
            Some(took) if took <= limit_ms => Ok(()),
            _ => Err(self.violation(&format!("must complete within {limit_ms} ms"))),
        }
    }
}

/// A change of the state of one end of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct StateChange<'a> {
    /// Time of the change.
    pub(super) at_ms: u64,
    /// New state.
    pub(super) state: ConnectionState,
    /// Cause, where that is known.
    pub(super) cause: Option<&'a str>,
}

/// A TCP connection, at its dialing end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dial {
    /// Time at which its socket was open.
    pub(super) at_ms: u64,
    /// Number of the connection.
    pub(super) socket: SocketId,
}

/// A trace, indexed by calls and connections.
#[derive(Debug)]
pub(super) struct History<'a> {
    /// All calls of the plan.
    pub(super) calls: Vec<CallHistory<'a>>,
    /// Changes of state that a node saw of its connection to another.
    changes: BTreeMap<(Node, Node), Vec<StateChange<'a>>>,
    /// TCP connections that a node opened to another.
    dials: BTreeMap<(Node, Node), Vec<Dial>>,
    /// Start times of each node's process.
    starts: BTreeMap<Node, Vec<u64>>,
    /// Time at which all faults were healed.
    pub(super) healed_ms: u64,
    /// Time at which the cluster was quiet; the shutdown follows.
    quiet_ms: u64,
    nodes: u8,
}

impl<'a> History<'a> {
    /// Creates the history of a run.
    pub(super) fn of(plan: &'a Plan, events: &'a [Event]) -> Self {
        let calls = plan.load.iter().enumerate().map(|(number, (at_ms, load))| CallHistory {
            number,
            at_ms: *at_ms,
            load,
            made_ms: None,
            ended: None,
            is_served: false,
            handler_ended: None,
            sent: BTreeMap::new(),
            blocked_sends: Vec::new(),
        });
        let mut history = Self {
            calls: calls.collect(),
            changes: BTreeMap::new(),
            dials: BTreeMap::new(),
            starts: BTreeMap::new(),
            healed_ms: u64::MAX,
            quiet_ms: u64::MAX,
            nodes: plan.cluster.nodes,
        };
        for event in events {
            history.apply(event);
        }
        history
    }

    fn apply(&mut self, event: &'a Event) {
        let at_ms = event.at_ms;
        match (&event.kind, event.node) {
            (EventKind::Healed, _) => self.healed_ms = at_ms,
            (EventKind::Quiet, _) => self.quiet_ms = at_ms,
            (EventKind::Started { .. }, Some(node)) => {
                self.starts.entry(node).or_default().push(at_ms);
            }
            (EventKind::State { remote, state, cause }, Some(node)) => {
                let change = StateChange { at_ms, state: *state, cause: cause.as_deref() };
                self.changes.entry((node, *remote)).or_default().push(change);
            }
            (EventKind::SocketOpened { socket, remote, dialed: true }, Some(node)) => {
                let dial = Dial { at_ms, socket: *socket };
                self.dials.entry((node, *remote)).or_default().push(dial);
            }
            (kind, _) => self.apply_to_call(kind, at_ms),
        }
    }

    fn apply_to_call(&mut self, kind: &'a EventKind, at_ms: u64) {
        let number = kind.call().map(|call| call as usize);
        let Some(call) = number.and_then(|number| self.calls.get_mut(number)) else { return };
        match kind {
            EventKind::CallMade { .. } => call.made_ms = Some(at_ms),
            EventKind::CallEnded { outcome, .. } => call.ended = Some((at_ms, outcome)),
            EventKind::HandlerStarted { .. } => call.is_served = true,
            EventKind::HandlerEnded { how, .. } => call.handler_ended = Some((at_ms, *how)),
            EventKind::Sent { end, number, .. } => drop(call.sent.insert(*end, *number)),
            EventKind::SendBlocked { end, number, .. } => {
                call.blocked_sends.push((at_ms, *end, *number));
            }
            _ => {}
        }
    }

    /// Returns all ordered pairs of nodes.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (Node, Node)> + use<> {
        let nodes = self.nodes;
        let ends = move |a| (0..nodes).map(move |b| (Node(a), Node(b)));
        (0..nodes).flat_map(ends).filter(|(a, b)| a != b)
    }

    /// Returns the changes of state that `node` saw of its connection to `remote`, before the
    /// shutdown.
    pub(super) fn changes(
        &self,
        node: Node,
        remote: Node,
    ) -> impl Iterator<Item = &StateChange<'a>> {
        let changes = self.changes.get(&(node, remote)).map(Vec::as_slice).unwrap_or_default();
        changes.iter().filter(|change| change.at_ms < self.quiet_ms)
    }

    /// Returns the start times of a node's process.
    pub(super) fn starts(&self, node: Node) -> &[u64] {
        self.starts.get(&node).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the TCP connections that `node` opened to `remote`.
    pub(super) fn dials(&self, node: Node, remote: Node) -> &[Dial] {
        self.dials.get(&(node, remote)).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the first time from `after_ms` on at which `node` was connected to `remote`.
    pub(super) fn connected_after(&self, node: Node, remote: Node, after_ms: u64) -> Option<u64> {
        let is_connected = |change: &&StateChange<'_>| change.state == ConnectionState::Connected;
        let before = self.changes(node, remote).take_while(|change| change.at_ms <= after_ms);
        if before.last().is_some_and(|change| is_connected(&change)) {
            return Some(after_ms);
        }
        let after = self.changes(node, remote).find(|c| c.at_ms > after_ms && is_connected(c));
        after.map(|change| change.at_ms)
    }

    /// Returns the first change from `after_ms` on with which `node` saw that its connection to
    /// `remote` had ended. A superseded connection changes to connected again, without a state in
    /// between.
    pub(super) fn lost_after(
        &self,
        node: Node,
        remote: Node,
        after_ms: u64,
    ) -> Option<&StateChange<'a>> {
        let is_connected = |change: &StateChange<'_>| change.state == ConnectionState::Connected;
        let mut was_connected = false;
        self.changes(node, remote).find(|change| {
            let is_lost = was_connected || !is_connected(change);
            was_connected = is_connected(change);
            is_lost && change.at_ms >= after_ms
        })
    }

    /// Checks that both ends are connected to each other within `limit_ms` after `after_ms`.
    pub(super) fn must_connect(
        &self,
        a: Node,
        b: Node,
        after_ms: u64,
        limit_ms: u64,
    ) -> CheckResult {
        for (node, remote) in [(a, b), (b, a)] {
            match self.connected_after(node, remote, after_ms) {
                Some(at) if at <= after_ms + limit_ms => {}
                found => {
                    return Err(format!(
                        "{node} must be connected to {remote} within {limit_ms} ms after {after_ms} ms, \
                         but was at {found:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Checks that both ends are connected to each other and stay so, up to but not at `until`.
    pub(super) fn must_stay_connected(
        &self,
        a: Node,
        b: Node,
        after: u64,
        until: u64,
    ) -> CheckResult {
        self.must_connect(a, b, after, 0)?;
        for (node, remote) in [(a, b), (b, a)] {
            let lost = self.changes(node, remote).find(|c| c.at_ms > after && c.at_ms < until);
            if let Some(change) = lost {
                return Err(format!("{node} must stay connected to {remote}: {change:?}"));
            }
        }
        Ok(())
    }

    /// Checks that pairs without an affected node stay connected from `since_ms` until all faults
    /// are healed, and that their calls complete.
    pub(super) fn others_must_be_unaffected(
        &self,
        since_ms: u64,
        is_affected: impl Fn(Node, Node) -> bool,
    ) -> CheckResult {
        for (a, b) in self.pairs().filter(|(a, b)| a < b && !is_affected(*a, *b)) {
            self.must_stay_connected(a, b, since_ms, self.healed_ms)?;
        }
        let others = self.calls.iter().filter(|call| !is_affected(call.from(), call.to()));
        for call in others.filter(|call| call.at_ms >= since_ms) {
            call.must_complete()?;
        }
        Ok(())
    }

    /// Returns how often `node` tried to connect to `remote` in this time. A failed attempt is
    /// followed by a wait, and a successful one by the connected state.
    pub(super) fn attempts(&self, node: Node, remote: Node, from_ms: u64, to_ms: u64) -> usize {
        let is_outcome = |change: &&StateChange<'_>| {
            matches!(change.state, ConnectionState::Backoff | ConnectionState::Connected)
        };
        let within = self.changes(node, remote).filter(|c| from_ms <= c.at_ms && c.at_ms < to_ms);
        let dials = self.dials(node, remote).iter();
        let dials = dials.filter(|dial| from_ms <= dial.at_ms && dial.at_ms < to_ms).count();
        within.filter(is_outcome).count().max(dials)
    }

    /// Checks that the dialer waits between two attempts in this time, with growing back-off.
    pub(super) fn must_back_off(
        &self,
        (a, b): (Node, Node),
        (from_ms, to_ms): (u64, u64),
        limits: &Limits,
    ) -> CheckResult {
        let (dialer, other) = dialer_first(a, b);
        let attempts = self.attempts(dialer, other, from_ms, to_ms);
        let max = attempts_max(limits, to_ms.saturating_sub(from_ms));
        if attempts > max {
            return Err(format!(
                "{dialer} tried {attempts} times to connect to {other} from {from_ms} to {to_ms} ms, \
                 {max} are allowed"
            ));
        }
        Ok(())
    }
}

/// Returns a pair of nodes with its dialer first.
pub(super) fn dialer_first(a: Node, b: Node) -> (Node, Node) {
    let name = |node| url(node).parse::<grid::Name>().ok();
    match name(a).zip(name(b)) {
        Some((here, there)) if Dialer::between(&here, &there) == Dialer::Remote => (b, a),
        _ => (a, b),
    }
}

/// Returns the largest number of attempts to connect that back-off allows in a time after its
/// reset: each delay is at least half of an interval that doubles. One attempt may have started
/// before.
pub(super) fn attempts_max(limits: &Limits, time_ms: u64) -> usize {
    let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(0);
    let (mut ceiling, mut passed, mut attempts) = (ms(limits.backoff_min), 0, 2);
    while passed + ceiling / 2 <= time_ms {
        passed += ceiling / 2;
        ceiling = (ceiling * 2).min(ms(limits.backoff_max));
        attempts += 1;
    }
    attempts
}

/// Returns the time of the first fault of the plan that `is_match` selects.
pub(super) fn fault_at(plan: &Plan, is_match: impl Fn(&Fault) -> bool) -> Result<u64, String> {
    let found = plan.faults.iter().find(|(_, fault)| is_match(fault));
    found.map(|(at_ms, _)| *at_ms).ok_or_else(|| "the plan lacks a fault".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_bounds_the_number_of_attempts() {
        let limits = Limits::default();
        assert_eq!(attempts_max(&limits, 0), 2);
        assert_eq!(attempts_max(&limits, 300), 4, "after waits of 100 and 200 ms");
        // 100, 200, 400, 800, 1,600, and 2,500 from then on.
        assert_eq!(attempts_max(&limits, 30_000), 2 + 5 + (30_000 - 3_100) / 2_500);
    }
}
