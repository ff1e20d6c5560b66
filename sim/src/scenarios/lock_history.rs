//! What a trace says of each lock, for the expectations of scenarios; and how such plans begin.

use rand::rngs::SmallRng;

use super::begin;
use crate::bounds::Bounds;
use crate::event::{Event, EventKind, LockEnd, LockFailure, LossNotice};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, LockEnding, LockPlan, LocksPlan, Node, Plan};

/// One lock of the plan, and what became of it.
#[derive(Debug)]
pub(super) struct Lock<'a> {
    /// Its call.
    pub(super) number: usize,
    /// What the plan wants.
    pub(super) plan: &'a LockPlan,
    /// When it was asked for; never, if the process did not run.
    pub(super) asked_ms: Option<u64>,
    /// When it was granted.
    pub(super) granted_ms: Option<u64>,
    /// The token that came with it.
    pub(super) token: Option<u64>,
    /// Why not.
    pub(super) failed: Option<(u64, &'a LockFailure)>,
    /// When and how its holder noticed that it is lost.
    pub(super) lost: Option<(u64, LossNotice)>,
    /// When and how it was over.
    pub(super) ended: Option<(u64, LockEnd)>,
    /// When its holder reached the store, and whether that did what it wanted.
    pub(super) at_store: Vec<(u64, bool)>,
}

impl Lock<'_> {
    /// An error that names it and says what became of it.
    pub(super) fn complaint(&self, wanted: &str) -> String {
        let Self { number, plan, asked_ms, granted_ms, failed, lost, ended, .. } = self;
        format!(
            "lock {number} of {} {wanted}: asked {asked_ms:?}, granted {granted_ms:?}, failed \
             {failed:?}, lost {lost:?}, ended {ended:?}",
            plan.on
        )
    }

    /// When it was granted; it must have been.
    pub(super) fn must_be_granted(&self) -> Result<u64, String> {
        self.granted_ms.ok_or_else(|| self.complaint("must be granted"))
    }

    /// It must have been granted within this time.
    pub(super) fn must_be_granted_within(&self, limit_ms: u64) -> CheckResult {
        let granted = self.must_be_granted()?;
        if granted > self.asked_ms.unwrap_or(granted) + limit_ms {
            return Err(self.complaint(&format!("must be granted within {limit_ms} ms")));
        }
        Ok(())
    }

    /// When and how its holder noticed that it is lost; it must have been. In the tick in which a holder
    /// is told it may look first.
    pub(super) fn must_be_lost(&self) -> Result<(u64, LossNotice), String> {
        self.lost.ok_or_else(|| self.complaint("must be lost, and its holder must notice"))
    }

    /// Its holder must not have lost it.
    pub(super) fn must_be_kept(&self) -> CheckResult {
        self.must_be_granted()?;
        match self.ended {
            Some((_, LockEnd::Unlocked | LockEnd::Dropped)) => Ok(()),
            _ => Err(self.complaint("must be kept until its holder releases it")),
        }
    }
}

/// All locks of the plan, in the order of their numbers.
pub(super) fn locks<'a>(plan: &'a Plan, events: &'a [Event]) -> Vec<Lock<'a>> {
    let mut locks = Vec::new();
    for (number, (_, load)) in plan.load.iter().enumerate() {
        if let Load::Lock(plan) = load {
            let its = events.iter().filter(|event| event.kind.call() == u32::try_from(number).ok());
            locks.push(lock_of(number, plan, its));
        }
    }
    locks
}

fn lock_of<'a>(
    number: usize,
    plan: &'a LockPlan,
    its: impl Iterator<Item = &'a Event>,
) -> Lock<'a> {
    let (mut asked_ms, mut granted_ms, mut token, mut failed) = (None, None, None, None);
    let (mut lost, mut ended, mut at_store) = (None, None, Vec::new());
    for Event { at_ms, kind, .. } in its {
        match kind {
            EventKind::LockRequested { .. } => asked_ms = Some(*at_ms),
            EventKind::LockGranted { token: given, .. } => {
                (granted_ms, token) = (Some(*at_ms), Some(*given));
            }
            EventKind::LockFailed { failure, .. } => failed = Some((*at_ms, failure)),
            EventKind::LockLost { notice, .. } => lost = Some((*at_ms, *notice)),
            EventKind::LockEnded { how, .. } => ended = Some((*at_ms, *how)),
            EventKind::StoreReached { accepted, .. } => at_store.push((*at_ms, *accepted)),
            _ => {}
        }
    }
    Lock { number, plan, asked_ms, granted_ms, token, failed, lost, ended, at_store }
}

/// A plan in which all nodes are lockers.
pub(super) fn begin_locks(
    name: &str,
    seed: u64,
    nodes: u8,
    duration_ms: u64,
    lease_ms: u32,
) -> (Plan, SmallRng) {
    let (mut plan, rng) = begin(name, seed, nodes, duration_ms);
    plan.cluster.tick_ms = 5;
    // What is sent to a process that is stopped waits in its sockets.
    plan.cluster.socket_segments = 1_024;
    plan.cluster.limits.backoff_max_ms = Some(2_000);
    let lockers = (0..nodes).map(Node).collect();
    plan.cluster.locks = Some(LocksPlan { lease_ms, refresh_ms: lease_ms / 6, lockers });
    (plan, rng)
}

/// A write lock of the first resource that is held for a second, and used.
pub(super) fn lock(on: Node) -> LockPlan {
    LockPlan {
        on,
        resources: vec![0],
        write: true,
        timeout_ms: 20_000,
        hold_ms: 1_000,
        pace_ms: 100,
        store_ms: 2,
        ending: LockEnding::Unlock,
        cancel_after_ms: None,
    }
}

/// One that its holder never lets go.
pub(super) fn kept(on: Node) -> LockPlan {
    LockPlan { ending: LockEnding::HoldUntilLost, ..lock(on) }
}

/// Cuts a node off from all others, for a while.
pub(super) fn cut_off(plan: &mut Plan, a: Node, (from, to): (u64, u64)) {
    for b in (0..plan.cluster.nodes).map(Node).filter(|b| *b != a) {
        plan.faults.push((from, Fault::Cut { a, b }));
        plan.faults.push((to, Fault::Repair { a, b }));
    }
}

/// How long a lock that nobody holds may take: two rounds of questions, each a round trip, and a wait
/// between two attempts if one of them met something.
pub(super) fn free_ms(bounds: &Bounds) -> u64 {
    3 * bounds.round_trip_ms + 1_000
}

/// A lease is over for everybody, by the slowest clock there may be.
pub(super) fn lease_over_ms(bounds: &Bounds) -> u64 {
    bounds.lease_ms + bounds.drift_of(bounds.lease_ms) + bounds.round_trip_ms
}

/// When whoever waits has it at the latest, once it is free: it is called, or asks again.
pub(super) fn turn_ms(bounds: &Bounds) -> u64 {
    free_ms(bounds) + 5_000
}
