//! A harness that feeds one invariant hand-written events and views, to prove that it detects
//! violations.

use std::time::Duration;

use super::{CheckContext, CheckResult, Invariant, LinkHealth};
use crate::bounds::Bounds;
use crate::event::{
    CallId, CallKind, Event, EventKind, IamEvent, ItemRecord, LockEnd, MessageSummary, Outcome,
    RecordVersion, SocketId,
};
use crate::load::LoadTable;
use crate::lock::HoldView;
use crate::plan::{
    Fault, IamPlan, Load, LockPlan, LocksPlan, MetricsPlan, Node, Plan, PlannedHandlerEnd,
    PlannedLockEnd, RequestPlan, StreamPlan,
};
use crate::world::{NodeView, World};

/// The node that makes the calls.
pub(super) const CALLER: Node = Node(0);
/// The node that serves them.
pub(super) const CALLEE: Node = Node(1);
/// A time by which a pair without faults is connected.
pub(super) const LATE: u64 = 100_000;

/// One invariant and its context.
pub(super) struct Harness {
    plan: Plan,
    table: LoadTable,
    health: LinkHealth,
    bounds: Bounds,
    invariant: Box<dyn Invariant>,
}

impl Harness {
    /// Creates a harness whose calls are those of `load`, numbered from 0.
    pub(super) fn new(invariant: impl Invariant + 'static, load: Vec<Load>) -> Self {
        Self::of(invariant, Plan::quiet(2), load)
    }

    /// Creates a harness for a cluster with locks.
    pub(super) fn with_locks(invariant: impl Invariant + 'static, locks: LocksPlan) -> Self {
        let mut plan = Plan::quiet(2);
        plan.cluster.locks = Some(locks);
        Self::of(invariant, plan, vec![])
    }

    /// Creates a harness for a cluster with locks, whose calls are those of `load`.
    pub(super) fn with_locks_and_load(
        invariant: impl Invariant + 'static,
        locks: LocksPlan,
        load: Vec<Load>,
    ) -> Self {
        let mut plan = Plan::quiet(2);
        plan.cluster.locks = Some(locks);
        Self::of(invariant, plan, load)
    }

    /// Creates a harness for a cluster with users, policies and mappings, which are empty.
    pub(super) fn with_iam(invariant: impl Invariant + 'static) -> Self {
        let mut plan = Plan::quiet(2);
        plan.cluster.iam = Some(IamPlan { pools: 1, seeded: 0, refresh_ms: 10_000, store_ms: 0 });
        Self::of(invariant, plan, vec![])
    }

    /// Creates a harness for a cluster with metrics.
    pub(super) fn with_metrics(invariant: impl Invariant + 'static, metrics: MetricsPlan) -> Self {
        let mut plan = Plan::quiet(2);
        plan.cluster.metrics = Some(metrics);
        Self::of(invariant, plan, vec![])
    }

    fn of(invariant: impl Invariant + 'static, mut plan: Plan, load: Vec<Load>) -> Self {
        plan.load = load.into_iter().map(|load| (0, load)).collect();
        let table = LoadTable::default();
        for (_, load) in &plan.load {
            let _ = table.add(load.clone());
        }
        let (bounds, health) = (Bounds::of(&plan), LinkHealth::new(&plan, 300_000));
        Self { plan, table, health, bounds, invariant: Box::new(invariant) }
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds.clone()
    }

    fn check(
        &mut self,
        now_ms: u64,
        check: impl FnOnce(&mut dyn Invariant, &CheckContext<'_>) -> CheckResult,
    ) -> CheckResult {
        let Self { plan, table, health, bounds, invariant } = self;
        check(invariant.as_mut(), &CheckContext { plan, table, bounds, health, now_ms })
    }

    /// Feeds an event of a node.
    pub(super) fn at(&mut self, at_ms: u64, node: Node, kind: EventKind) -> CheckResult {
        self.on_event(Event { at_ms, node: Some(node), kind })
    }

    /// Feeds the beginning or the end of a fault.
    pub(super) fn inject(&mut self, at_ms: u64, fault: Fault) {
        self.on_event(Event { at_ms, node: None, kind: EventKind::Fault { fault } })
            .expect("a fault is no violation");
    }

    #[expect(clippy::needless_pass_by_value, reason = "the callers construct it in place")]
    fn on_event(&mut self, event: Event) -> CheckResult {
        self.health.on_event(&event);
        self.check(event.at_ms, |invariant, context| invariant.on_event(&event, context))
    }

    /// Feeds these events, none of which may be a violation.
    pub(super) fn feed(&mut self, events: impl IntoIterator<Item = (u64, Node, EventKind)>) {
        for (at_ms, node, kind) in events {
            let event = format!("{kind}");
            self.at(at_ms, node, kind).unwrap_or_else(|text| panic!("{event}: {text}"));
        }
    }

    pub(super) fn on_view(&mut self, now_ms: u64, views: &[NodeView]) -> CheckResult {
        self.check(now_ms, |invariant, context| invariant.on_view(views, context))
    }

    pub(super) fn on_tick(&mut self, now_ms: u64, hold_views: &[HoldView]) -> CheckResult {
        self.check(now_ms, |invariant, context| invariant.on_tick(hold_views, context))
    }

    pub(super) fn at_quiescence(&mut self, views: &[NodeView]) -> CheckResult {
        self.check(LATE, |invariant, context| invariant.at_quiescence(views, context))
    }

    pub(super) fn at_end(&mut self, views: &[NodeView]) -> CheckResult {
        self.check(LATE, |invariant, context| invariant.at_end(views, context))
    }
}

/// A record of an item.
pub(super) fn record(item: u8, micros: u64, value: Option<u32>) -> ItemRecord {
    ItemRecord { item, version: RecordVersion { micros, server: 0 }, value }
}

/// The event that a record was stored.
pub(super) fn persisted(item: u8, micros: u64, value: Option<u32>) -> EventKind {
    EventKind::Iam(IamEvent::Persisted { pool: 0, record: record(item, micros, value) })
}

/// The event that readers see these items.
pub(super) fn visible(items: &[(u8, u32)]) -> EventKind {
    EventKind::Iam(IamEvent::SnapshotChanged { items: Some(items.to_vec()) })
}

/// The views of two connected nodes.
pub(super) fn views() -> Vec<NodeView> {
    let mut world = World::new(&Plan::quiet(2));
    world.wait_until(Duration::from_secs(10), World::is_connected).expect("an intact network");
    world.run_for(Duration::from_secs(1));
    world.views()
}

/// Asserts that `result` is a violation whose text contains `names`.
pub(super) fn assert_violates(verdict: CheckResult, names: &str) {
    let text = verdict.expect_err(names);
    assert!(text.contains(names), "{text:?} does not name {names:?}");
}

pub(super) fn request(change: impl FnOnce(&mut RequestPlan)) -> Load {
    let mut plan = RequestPlan {
        from: CALLER,
        to: CALLEE,
        bytes: 16,
        response_bytes: 16,
        work_ms: 0,
        ending: PlannedHandlerEnd::Success,
        timeout_ms: Some(1_000),
        cancel_after_ms: None,
    };
    change(&mut plan);
    Load::Request(plan)
}

/// A stream with two messages up and three down, and credit for as many.
pub(super) fn stream(change: impl FnOnce(&mut StreamPlan)) -> Load {
    let mut plan = StreamPlan {
        from: CALLER,
        to: CALLEE,
        capacities: 2,
        up: 2,
        down: 3,
        bytes: 16,
        up_pace_ms: 0,
        down_pace_ms: 0,
        receive_pace_ms: Some(0),
        ending: PlannedHandlerEnd::Success,
        timeout_ms: None,
        cancel_after_ms: None,
    };
    change(&mut plan);
    Load::Stream(plan)
}

/// A write lock of the first resource, held for a second.
pub(super) fn lock(change: impl FnOnce(&mut LockPlan)) -> Load {
    let mut plan = LockPlan {
        on: CALLER,
        resources: vec![0],
        write: true,
        timeout_ms: 1_000,
        hold_ms: 1_000,
        pace_ms: 0,
        store_ms: 0,
        ending: PlannedLockEnd::Unlock,
        cancel_after_ms: None,
    };
    change(&mut plan);
    Load::Lock(plan)
}

/// A holder of the first resource that sees `is_held()`.
pub(super) fn hold(call: CallId, node: Node, write: bool) -> HoldView {
    let (resources, token, id) = (vec![0], u64::from(call), format!("lock-{call}"));
    HoldView { call, node, resources, write, token, id, is_held: true }
}

// ---- events ----

pub(super) fn granted(call: CallId, write: bool, token: u64) -> EventKind {
    EventKind::LockGranted { call, resources: vec![0], write, token, valid_ms: 1_000 }
}

pub(super) fn ended_lock(call: CallId) -> EventKind {
    EventKind::LockEnded { call, how: LockEnd::Unlocked }
}

pub(super) fn made(call: CallId, load: &Load) -> EventKind {
    let (kind, timeout_ms) = match load {
        Load::Request(plan) => (CallKind::Request, plan.timeout_ms),
        Load::Stream(plan) => (CallKind::Stream, plan.timeout_ms),
        Load::Lock(LockPlan { resources, write, timeout_ms, .. }) => {
            let (resources, write, timeout_ms) = (resources.clone(), *write, *timeout_ms);
            return EventKind::LockRequested { call, resources, write, timeout_ms };
        }
        Load::Force(_) | Load::Change(_) => unreachable!("no call is made of it"),
    };
    EventKind::CallMade { call, to: load.ends().1, kind, timeout_ms }
}

pub(super) fn ended(call: CallId, outcome: Outcome) -> EventKind {
    EventKind::CallEnded { call, outcome }
}

pub(super) fn served(call: CallId) -> EventKind {
    EventKind::HandlerStarted { call, from: CALLER }
}

/// A sent message with a mux id, a sequence and flags.
pub(super) fn sent(socket: SocketId, index: u64, op: &str, header: (u64, u32, u8)) -> EventKind {
    let (mux_id, sequence, flags) = header;
    let message =
        MessageSummary { op: op.to_owned(), mux_id, sequence, flags, bytes: 16, call: Some(0) };
    EventKind::MessageSent { socket, index, message }
}

pub(super) fn read(socket: SocketId, index: u64) -> EventKind {
    EventKind::MessageReceived { socket, index }
}
