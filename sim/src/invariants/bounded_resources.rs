//! No queue, table or number of tasks grows beyond its limit, at either end.
//!
//! `credits` bounds the messages of a stream that a receiver buffers.

use std::collections::{BTreeMap, BTreeSet};

use grid::ConnectionStats;

use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind};
use crate::plan::{Load, Node, Plan};
use crate::world::NodeView;

/// Checks sizes against their limits.
#[derive(Debug, Default)]
pub(super) struct BoundedResources {
    /// The open calls of each node, each in a task of its own.
    calls: BTreeMap<Node, BTreeSet<CallId>>,
    /// Computed once, because it is constant in a run.
    control_bytes_max: Option<usize>,
}

/// Upper bound of the size of a control message: a cancellation, a credit, a ping.
const CONTROL_MESSAGE_BYTES_MAX: usize = 64;

/// Tasks for each remote: its connection task, and the one that records the trace.
const TASKS_PER_REMOTE: usize = 2;

/// Tasks that the statistics do not account for: just spawned, or ended and not polled since, such
/// as the handlers of a connection that has just closed. At quiescence there are none: see
/// `no_leaks`.
const TASKS_UNATTRIBUTED: usize = 32;

impl Invariant for BoundedResources {
    fn name(&self) -> &'static str {
        "bounded_resources"
    }

    fn on_event(&mut self, event: &Event, _context: &CheckContext<'_>) -> CheckResult {
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
            // Only a peer that never reads can exhaust the reserve for control messages.
            EventKind::State { remote, cause: Some(cause), .. }
                if cause.contains("control messages") =>
            {
                return Err(format!("{node} closed the connection to {remote}: {cause}"));
            }
            _ => {}
        }
        Ok(())
    }

    fn on_view(&mut self, views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        let control = *self.control_bytes_max.get_or_insert_with(|| control_bytes(context.plan));
        for view in views {
            for stats in &view.connections {
                sizes(stats, control, context)
                    .map_err(|text| format!("{} has {text} for {}", view.node, stats.remote))?;
            }
            if view.unauthenticated > context.bounds.limits.unauthenticated_max {
                return Err(format!(
                    "{} has {} unauthenticated connections",
                    view.node, view.unauthenticated
                ));
            }
            if view.connections.is_empty() {
                continue; // it is shutting down, and its handlers are not visible any more
            }
            let handlers: usize = view.connections.iter().map(|c| c.live_handler_tasks).sum();
            let calls = self.calls.get(&view.node).map_or(0, BTreeSet::len);
            let remotes = TASKS_PER_REMOTE * (views.len() - 1);
            let locks = locks(view, views.len());
            let max = remotes + calls + handlers + view.sockets + locks + TASKS_UNATTRIBUTED;
            // The test double of MinIO has a task for each of its requests.
            let locks = context.plan.cluster.locks.as_ref();
            let is_minio = locks.is_some_and(|locks| locks.minio.contains(&view.node));
            if view.tasks > max && !is_minio {
                return Err(format!(
                    "{} has {} tasks, at most {max} are needed",
                    view.node, view.tasks
                ));
            }
        }
        Ok(())
    }
}

/// Tasks of locks. Each live lock has a task that requests and releases it, and an application task
/// may wait for the release. A locker has one that runs its timers, one that notifies, and one for
/// each node that it queries.
fn locks(view: &NodeView, nodes: usize) -> usize {
    2 * view.locks.live + view.locks.locker.as_ref().map_or(0, |_| nodes + 1)
}

fn sizes(stats: &ConnectionStats, control: usize, context: &CheckContext<'_>) -> CheckResult {
    let limits = &context.bounds.limits;
    let queue_max = limits.queue_bytes_max + control.min(limits.control_bytes_max);
    let sizes = [
        (stats.queued_bytes, queue_max, "bytes queued"),
        (stats.live_outbound_calls, limits.outbound_calls_max, "outbound calls"),
        (stats.live_inbound_calls, limits.inbound_calls_max, "inbound calls"),
        (stats.live_outbound_streams, stats.live_outbound_calls, "outbound streams"),
        (stats.live_inbound_streams, stats.live_inbound_calls, "inbound streams"),
        // At most one for each call, and one for each direction of a stream.
        (
            stats.blocked_messages,
            stats.live_outbound_calls + stats.live_inbound_calls,
            "blocked messages",
        ),
        (stats.live_handler_tasks, limits.inbound_calls_max, "handler tasks"),
    ];
    for (size, max, kind) in sizes {
        if size > max {
            return Err(format!("{size} {kind}, of at most {max},"));
        }
    }
    Ok(())
}

/// Messages of a lock that may wait toward one locker: an attempt, its release and a refresh, each
/// of which may be replaced by another.
const LOCK_MESSAGES: usize = 16;

/// Bytes of control messages that may wait: at most one cancellation of each call ever made, one
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

/// Pings and pongs of a connection and its streams that wait until a dead peer is detected.
const PINGS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::harness::{
        CALLEE, CALLER, Harness, assert_violates, ended, made, request, views,
    };
    use super::*;
    use crate::event::{ConnectionState, Outcome};

    type Change = fn(&mut NodeView);

    #[test]
    fn each_size_is_checked_against_its_limit() {
        let mut harness = Harness::new(BoundedResources::default(), vec![]);
        assert_eq!(harness.on_view(1, &views()), Ok(()));
        let grow: [(Change, &str); 9] = [
            (|view| view.connections[0].queued_bytes = 1 << 30, "bytes queued"),
            (|view| view.connections[0].live_outbound_calls = 1 << 20, "outbound calls"),
            (|view| view.connections[0].live_inbound_calls = 1 << 20, "inbound calls"),
            (|view| view.connections[0].blocked_messages = 1 << 20, "blocked messages"),
            (|view| view.connections[0].live_handler_tasks = 1 << 20, "handler tasks"),
            (|view| view.connections[0].live_outbound_streams = 1, "1 outbound streams"),
            (|view| view.connections[0].live_inbound_streams = 1, "1 inbound streams"),
            (|view| view.tasks = 99, "node-1 has 99 tasks, at most 35 are needed"),
            (
                |view| view.unauthenticated = 1 << 20,
                "node-1 has 1048576 unauthenticated connections",
            ),
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
    fn reserve_for_control_messages_is_never_exhausted() {
        let cause =
            Some("the peer does not read: more than 9 bytes of control messages are queued".into());
        let lost = EventKind::State { remote: CALLEE, state: ConnectionState::Backoff, cause };
        let mut harness = Harness::new(BoundedResources::default(), vec![]);
        assert_violates(harness.at(1, CALLER, lost), "node-0 closed the connection to node-1");
    }

    #[test]
    fn one_task_for_each_call_is_allowed() {
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
    fn waiting_control_messages_are_bounded_by_the_load() {
        let mut harness = Harness::new(BoundedResources::default(), vec![]);
        let mut views = views();
        let queue = harness.bounds().limits.queue_bytes_max;
        views[0].connections[0].queued_bytes = queue + CONTROL_MESSAGE_BYTES_MAX * PINGS_MAX;
        assert_eq!(harness.on_view(1, &views), Ok(()));
        views[0].connections[0].queued_bytes += 1;
        assert_violates(harness.on_view(1, &views), "node-0 has");
    }
}
