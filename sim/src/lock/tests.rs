//! A run detects flaws of locks: all invariants hold with correct locks, and each flaw violates
//! one.

use super::fake::{Fake, Flaw};
use crate::event::{EventKind, LockEnd, LossNotice};
use crate::fault::{Pause, PowerLoss, Restart, Resume};
use crate::plan::{ClockWhilePaused, Fault, Load, LockPlan, LocksPlan, Node, Plan, PlannedLockEnd};
use crate::run::{Run, run_with};

const LEASE_MS: u32 = 4_000;
const HOLDER: Node = Node(0);

fn lock(on: u8, write: bool) -> LockPlan {
    LockPlan {
        on: Node(on),
        resources: vec![0],
        write,
        timeout_ms: 20_000,
        hold_ms: 300,
        pace_ms: 50,
        store_ms: 3,
        ending: PlannedLockEnd::Unlock,
        cancel_after_ms: None,
    }
}

/// One lock that is held until lost from 500 ms on, and later requests for the same resource.
fn plan(faults: &[(u64, Fault)]) -> Plan {
    let mut plan = Plan::quiet(3);
    plan.duration_ms = 14_000;
    // The fake has one table for all nodes, and no locker.
    let lockers = Vec::new();
    plan.cluster.locks = Some(LocksPlan::new(LEASE_MS, 500, lockers));
    plan.faults = faults.to_vec();
    let held = LockPlan { ending: PlannedLockEnd::HoldUntilLost, ..lock(HOLDER.0, true) };
    plan.load.push((500, Load::Lock(held)));
    for at in 0..12u64 {
        let on = 1 + u8::try_from(at % 2).expect("0 or 1");
        let one = LockPlan { cancel_after_ms: (at == 7).then_some(100), ..lock(on, at % 3 != 0) };
        plan.load.push((1_000 + 20 * at, Load::Lock(one)));
    }
    plan
}

fn run(plan: &Plan, flaw: Flaw) -> Run {
    run_with(plan, &Fake::software(LEASE_MS, flaw), None)
}

/// Returns the events at the end of the first call's lock, which is held until lost.
fn holder_events(run: &Run) -> Vec<(u64, &EventKind)> {
    let events = run.events.iter().filter(|event| {
        event.kind.call() == Some(0)
            && matches!(event.kind, EventKind::LockLost { .. } | EventKind::LockEnded { .. })
    });
    events.map(|event| (event.at_ms, &event.kind)).collect()
}

fn paused(clock: ClockWhilePaused) -> Vec<(u64, Fault)> {
    let node = HOLDER;
    vec![(2_000, Fault::Pause(Pause { node })), (9_000, Fault::Resume(Resume { node, clock }))]
}

#[test]
fn b52_paused_holder_notices_the_loss_of_its_lock_at_once() {
    let run = run(&plan(&paused(ClockWhilePaused::Ran)), Flaw::None);
    assert_eq!(run.violation, None);
    let (notice, how) = (LossNotice::Checked, LockEnd::Lost);
    assert_eq!(
        holder_events(&run),
        [
            (9_000, &EventKind::LockLost { call: 0, notice }),
            (9_000, &EventKind::LockEnded { call: 0, how })
        ]
    );
    let stored = run.events.iter().filter(|event| {
        event.node == Some(HOLDER)
            && (2_010..9_000).contains(&event.at_ms)
            && matches!(
                event.kind,
                EventKind::StoreRequested { .. } | EventKind::StoreCompleted { .. }
            )
    });
    assert_eq!(stored.count(), 0, "a paused holder does nothing");
}

#[test]
fn b54_store_refuses_a_holder_that_was_suspended_with_its_clock() {
    let run = run(&plan(&paused(ClockWhilePaused::Frozen)), Flaw::None);
    assert_eq!(run.violation, None, "it cannot notice, and is excused");
    let is_refused =
        |kind: &EventKind| matches!(kind, EventKind::StoreReached { call: 0, accepted: false, .. });
    assert!(run.events.iter().any(|event| event.at_ms >= 9_000 && is_refused(&event.kind)));
    let late =
        |kind: &EventKind| matches!(kind, EventKind::StoreReached { call: 0, accepted: true, .. });
    assert!(!run.events.iter().any(|event| event.at_ms > 9_000 && late(&event.kind)));
}

#[test]
fn b51_each_flaw_of_locks_violates_an_invariant() {
    let crash = vec![(2_000, Fault::PowerLoss(PowerLoss { node: HOLDER }))];
    let ran = paused(ClockWhilePaused::Ran);
    let cases = [
        (Flaw::ExpiresEarly, &ran, "mutual_exclusion"),
        (Flaw::NeverExpires, &ran, "mutual_exclusion"),
        (Flaw::SameToken, &ran, "fencing_tokens"),
        (Flaw::LossIsNotReported, &vec![], "loss_is_reported"),
        (Flaw::NeverReleased, &crash, "liveness"),
        (Flaw::NoTimeout, &vec![], "lock_outcome"),
    ];
    for (flaw, faults, invariant) in cases {
        let mut plan = plan(faults);
        if flaw == Flaw::NoTimeout {
            plan.load.push((1_500, Load::Lock(LockPlan { timeout_ms: 1_000, ..lock(1, true) })));
        }
        if flaw == Flaw::LossIsNotReported {
            // A holder that does not use the store does not check.
            plan.load.truncate(1);
            plan.load[0] = (500, Load::Lock(LockPlan { pace_ms: 0, ..lock(0, true) }));
            let Load::Lock(held) = &mut plan.load[0].1 else { unreachable!("just made") };
            held.ending = PlannedLockEnd::HoldUntilLost;
        }
        assert_eq!(run(&plan, Flaw::None).violation, None, "without {flaw:?}");
        let violation = run(&plan, flaw).violation.map(|violation| violation.invariant);
        assert_eq!(violation.as_deref(), Some(invariant), "{flaw:?}");
    }
}

#[test]
fn run_with_locks_is_deterministic() {
    let mut faults = paused(ClockWhilePaused::Ran);
    faults.push((9_500, Fault::PowerLoss(PowerLoss { node: Node(1) })));
    faults.push((10_000, Fault::Restart(Restart { node: Node(1) })));
    let digest = || run(&plan(&faults), Flaw::None).digest();
    assert_eq!(digest(), digest());
}
