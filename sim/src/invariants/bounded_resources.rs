//! No queue, no table and no number of tasks grows beyond its limit, at either end.
//!
//! What a receiver holds of a stream is what was sent and not taken: see `credits`.

use std::collections::{BTreeMap, BTreeSet};

use grid::ConnectionStats;

use super::{CheckResult, Facts, Invariant};
use crate::event::{CallId, Event, EventKind};
use crate::plan::{Load, Node, Plan};
use crate::world::NodeView;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct BoundedResources {
    /// The calls that each node has under way, each in a task of its own.
    calls: BTreeMap<Node, BTreeSet<CallId>>,
    /// Computed once: it is the same for the whole run.
    control_bytes_max: Option<usize>,
}

/// More than any message takes that is no payload: a cancellation, a credit, a ping.
const CONTROL_MESSAGE_BYTES_MAX: usize = 64;

/// Tasks for each remote: its own, and the one that writes the trace.
const TASKS_PER_REMOTE: usize = 2;

/// Tasks that have not said yet what they are for, or are over and were not polled since, as the
/// handlers of a connection that has just ended. At rest there are none: see `no_leaks`.
const TASKS_BETWEEN: usize = 32;

impl Invariant for BoundedResources {
    fn name(&self) -> &'static str {
        "bounded_resources"
    }

    fn on_event(&mut self, event: &Event, _facts: &Facts<'_>) -> CheckResult {
        let Some(node) = event.node else { return Ok(()) };
        match &event.kind {
            EventKind::CallMade { call, .. } | EventKind::LockRequested { call, .. } => {
                self.calls.entry(node).or_default().insert(*call);
            }
            EventKind::CallEnded { call, .. }
            | EventKind::LockFailed { call, .. }
            | EventKind::LockEnded { call, .. } => {
                self.calls.entry(node).or_default().remove(call);
            }
            // Only a peer that never reads can use up what is kept for control messages.
            EventKind::State { remote, cause: Some(cause), .. }
                if cause.contains("control messages") =>
            {
                return Err(format!("{node} gave up {remote}: {cause}"));
            }
            _ => {}
        }
        Ok(())
    }

    fn on_view(&mut self, views: &[NodeView], facts: &Facts<'_>) -> CheckResult {
        let control = *self.control_bytes_max.get_or_insert_with(|| control_bytes(facts.plan));
        for view in views {
            for stats in &view.connections {
                sizes(stats, control, facts)
                    .map_err(|text| format!("{} has {text} for {}", view.node, stats.remote))?;
            }
            if view.unauthenticated > facts.bounds.limits.unauthenticated_max {
                return Err(format!("{} has {} strangers", view.node, view.unauthenticated));
            }
            if view.connections.is_empty() {
                continue; // it ends, and how many handlers it still has cannot be seen
            }
            let handlers: usize = view.connections.iter().map(|c| c.live_handler_tasks).sum();
            let calls = self.calls.get(&view.node).map_or(0, BTreeSet::len);
            let remotes = TASKS_PER_REMOTE * (views.len() - 1);
            let locks = locks(view, views.len());
            let max = remotes + calls + handlers + view.sockets + locks + TASKS_BETWEEN;
            if view.tasks > max {
                return Err(format!("{} has {} tasks, {max} are needed", view.node, view.tasks));
            }
        }
        Ok(())
    }
}

/// Each lock that is not over has a task that asks and releases, and whoever let go of it may wait
/// for that. A locker has one that keeps its time, one that tells, and one for each node that it
/// asks.
fn locks(view: &NodeView, nodes: usize) -> usize {
    2 * view.locks.live + view.locks.locker.as_ref().map_or(0, |_| nodes + 1)
}

fn sizes(stats: &ConnectionStats, control: usize, facts: &Facts<'_>) -> CheckResult {
    let limits = &facts.bounds.limits;
    let queue_max = limits.queue_bytes_max + control.min(limits.control_bytes_max);
    let sizes = [
        (stats.queued_bytes, queue_max, "bytes queued"),
        (stats.live_calls, limits.calls_made_max, "calls made"),
        (stats.live_served, limits.calls_served_max, "calls served"),
        (stats.live_streams, stats.live_calls, "streams made"),
        (stats.live_streams_served, stats.live_served, "streams served"),
        // At most one of each call, and one of each direction of a stream.
        (stats.blocked_messages, stats.live_calls + stats.live_served, "messages that wait"),
        (stats.live_handler_tasks, limits.calls_served_max, "handler tasks"),
    ];
    for (size, max, kind) in sizes {
        if size > max {
            return Err(format!("{size} {what}, where {max} are allowed,"));
        }
    }
    Ok(())
}

/// What a lock may have waiting toward one locker: an attempt, its release and a refresh, each of
/// which may be given up for another.
const LOCK_MESSAGES: usize = 16;

/// What may wait besides payloads: at most one cancellation of each call that there is at all, one
/// refusal, and the acknowledgement and the credits of each stream.
fn control_bytes(plan: &Plan) -> usize {
    let messages = |load: &Load| match load {
        Load::Request(_) => 2,
        Load::Lock(_) | Load::Force(_) | Load::Change(_) => LOCK_MESSAGES,
        Load::Stream(stream) => 3 + stream.up as usize + stream.down as usize,
    };
    let messages: usize = plan.load.iter().map(|(_, load)| messages(load)).sum();
    CONTROL_MESSAGE_BYTES_MAX * (messages + PINGS_MAX)
}

/// Pings and pongs of a connection, and of its streams, that wait until a dead peer is found.
const PINGS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::harness::{
        CALLER, Harness, SERVER, assert_violates, ended, made, request, views,
    };
    use super::*;
    use crate::event::{LinkState, Outcome};

    type Change = fn(&mut NodeView);

    #[test]
    fn each_size_is_held_to_its_limit() {
        let mut harness = Harness::new(BoundedResources::default(), vec![]);
        assert_eq!(harness.on_view(1, &views()), Ok(()));
        let grow: [(Change, &str); 9] = [
            (|view| view.connections[0].queued_bytes = 1 << 30, "bytes queued"),
            (|view| view.connections[0].live_calls = 1 << 20, "calls made"),
            (|view| view.connections[0].live_served = 1 << 20, "calls served"),
            (|view| view.connections[0].blocked_messages = 1 << 20, "messages that wait"),
            (|view| view.connections[0].live_handler_tasks = 1 << 20, "handler tasks"),
            (|view| view.connections[0].live_streams = 1, "1 streams made"),
            (|view| view.connections[0].live_streams_served = 1, "1 streams served"),
            (|view| view.tasks = 99, "node-1 has 99 tasks, 35 are needed"),
            (|view| view.unauthenticated = 1 << 20, "node-1 has 1048576 strangers"),
        ];
        for (grow, names) in grow {
            let mut views = views();
            grow(&mut views[1]);
            let verdict = harness.on_view(1, &views);
            assert_violates(verdict.clone(), names);
            assert_violates(verdict, "node-1 has");
        }
    }

    #[test]
    fn what_is_kept_for_control_messages_is_not_used_up() {
        let cause =
            Some("the peer does not read: more than 9 bytes of control messages wait".into());
        let lost = EventKind::State { remote: SERVER, state: LinkState::Backoff, cause };
        let mut harness = Harness::new(BoundedResources::default(), vec![]);
        assert_violates(harness.at(1, CALLER, lost), "node-0 gave up node-1");
    }

    #[test]
    fn a_task_for_each_call_is_allowed() {
        let load = request(|_| {});
        let mut harness = Harness::new(BoundedResources::default(), vec![load.clone()]);
        let mut views = views();
        views[0].tasks = 36;
        harness.feed([(1, CALLER, made(0, &load))]);
        assert_eq!(harness.on_view(1, &views), Ok(()));
        harness.feed([(2, CALLER, ended(0, Outcome::Completed))]);
        assert_violates(harness.on_view(2, &views), "node-0 has 36 tasks");
    }

    #[test]
    fn what_waits_besides_payloads_is_bounded_by_the_load() {
        let mut harness = Harness::new(BoundedResources::default(), vec![]);
        let mut views = views();
        let queue = harness.bounds().limits.queue_bytes_max;
        views[0].connections[0].queued_bytes = queue + CONTROL_MESSAGE_BYTES_MAX * PINGS_MAX;
        assert_eq!(harness.on_view(1, &views), Ok(()));
        views[0].connections[0].queued_bytes += 1;
        assert_violates(harness.on_view(1, &views), "node-0 has");
    }
}
