//! Probes of a recovered cluster: its calls must succeed, not only its connections.

use std::collections::BTreeSet;

use super::{Runner, Violation};
use crate::event::{CallId, EventKind, LockEnd, Outcome};
use crate::plan::{
    Load, LockPlan, Node, PlannedHandlerEnd, PlannedLockEnd, RequestPlan, StreamPlan,
};

/// How long a small call may take in a cluster that has recovered.
const PROBE_MS: u64 = 5_000;

impl Runner<'_> {
    /// Makes every node call every other, with a request and a stream, and request each lock.
    pub(super) fn probe(&mut self) -> Result<(), Violation> {
        let nodes = || (0..self.plan.cluster.nodes).map(Node);
        let pairs = nodes().flat_map(|a| nodes().map(move |b| (a, b))).filter(|(a, b)| a != b);
        let calls = pairs.flat_map(|(from, to)| {
            [Load::Request(probe_request(from, to)), Load::Stream(probe_stream(from, to))]
        });
        self.must_succeed(calls.collect(), PROBE_MS)?;
        let (locks, limit_ms) = (self.probe_locks(), self.bounds.lock_ms(self.nodes()));
        self.must_succeed(locks, limit_ms)
    }

    fn nodes(&self) -> u64 {
        u64::from(self.plan.cluster.nodes)
    }

    /// Returns a lock request of each node for each resource, all at once.
    fn probe_locks(&self) -> Vec<Load> {
        if self.plan.cluster.locks.is_none() {
            return Vec::new();
        }
        let timeout_ms = u32::try_from(self.bounds.lock_ms(self.nodes())).unwrap_or(u32::MAX);
        let resources: BTreeSet<u8> =
            self.plan.load.iter().flat_map(|(_, load)| resources_of(load)).collect();
        let nodes = (0..self.plan.cluster.nodes).map(Node);
        let pairs = nodes.flat_map(|on| resources.iter().map(move |resource| (on, *resource)));
        pairs.map(|(on, resource)| Load::Lock(probe_lock(on, resource, timeout_ms))).collect()
    }

    fn must_succeed(&mut self, calls: Vec<Load>, limit_ms: u64) -> Result<(), Violation> {
        let mut outstanding = BTreeSet::new();
        outstanding.extend(calls.into_iter().filter_map(|load| self.world.submit(load)));
        let (mut checked, until) = (self.events.len(), self.world.now_ms() + limit_ms);
        while !outstanding.is_empty() && self.world.now_ms() < until {
            self.step()?;
            for event in &self.events[checked..] {
                if let Some((call, success)) = end_of(&event.kind)
                    && outstanding.remove(&call)
                    && !success
                {
                    let text = format!("a probe after healing failed: {}", event.kind);
                    return Err(liveness(text));
                }
            }
            checked = self.events.len();
        }
        match outstanding.first() {
            None => Ok(()),
            Some(call) => {
                let text = format!("call {call}, a probe after healing, did not complete");
                Err(liveness(text))
            }
        }
    }
}

fn liveness(text: String) -> Violation {
    Violation { invariant: "liveness".to_owned(), text }
}

/// Returns the call that this event ends, and whether it succeeded.
fn end_of(kind: &EventKind) -> Option<(CallId, bool)> {
    match kind {
        EventKind::CallEnded { call, outcome } => Some((*call, *outcome == Outcome::Completed)),
        EventKind::LockEnded { call, how } => Some((*call, *how == LockEnd::Unlocked)),
        EventKind::LockFailed { call, .. } => Some((*call, false)),
        _ => None,
    }
}

/// Returns the resources that an operation locks.
fn resources_of(load: &Load) -> Vec<u8> {
    match load {
        Load::Lock(plan) => plan.resources.clone(),
        Load::Request(_) | Load::Stream(_) | Load::Force(_) | Load::Change(_) => Vec::new(),
    }
}

fn probe_lock(on: Node, resource: u8, timeout_ms: u32) -> LockPlan {
    LockPlan {
        on,
        resources: vec![resource],
        write: true,
        timeout_ms,
        hold_ms: 0,
        pace_ms: 0,
        store_ms: 0,
        ending: PlannedLockEnd::Unlock,
        cancel_after_ms: None,
    }
}

fn probe_request(from: Node, to: Node) -> RequestPlan {
    RequestPlan {
        from,
        to,
        bytes: 32,
        response_bytes: 32,
        work_ms: 0,
        ending: PlannedHandlerEnd::Success,
        timeout_ms: Some(PROBE_MS as u32),
        cancel_after_ms: None,
    }
}

fn probe_stream(from: Node, to: Node) -> StreamPlan {
    StreamPlan {
        from,
        to,
        capacities: 1,
        up: 2,
        down: 2,
        bytes: 32,
        up_pace_ms: 0,
        down_pace_ms: 0,
        receive_pace_ms: Some(0),
        ending: PlannedHandlerEnd::Success,
        timeout_ms: Some(PROBE_MS as u32),
        cancel_after_ms: None,
    }
}
