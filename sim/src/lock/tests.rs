//! A run sees what is wrong with locks: with right ones all holds, with each flaw something does
//! not.

use super::fake::{Fake, Flaw};
use crate::event::{LockEnd, Notice, What};
use crate::plan::{Fault, Load, LockEnding, LockPlan, LocksPlan, Meanwhile, Node, Plan};
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
        ending: LockEnding::Unlock,
        give_up_ms: None,
    }
}

/// One that never lets go from 500 ms on, and others that want the same afterwards.
fn plan(faults: &[(u64, Fault)]) -> Plan {
    let mut plan = Plan::quiet(3);
    plan.duration_ms = 14_000;
    // One table for all, and no locker.
    let lockers = Vec::new();
    plan.cluster.locks = Some(LocksPlan { lease_ms: LEASE_MS, refresh_ms: 500, lockers });
    plan.faults = faults.to_vec();
    let keeps = LockPlan { ending: LockEnding::Lose, ..lock(HOLDER.0, true) };
    plan.load.push((500, Load::Lock(keeps)));
    for at in 0..12u64 {
        let on = 1 + u8::try_from(at % 2).expect("0 or 1");
        let one = LockPlan { give_up_ms: (at == 7).then_some(100), ..lock(on, at % 3 != 0) };
        plan.load.push((1_000 + 20 * at, Load::Lock(one)));
    }
    plan
}

fn run(plan: &Plan, flaw: Flaw) -> Run {
    run_with(plan, &Fake::software(LEASE_MS, flaw), None)
}

/// What became of the lock of the first call, which never lets go.
fn of_holder(run: &Run) -> Vec<(u64, &What)> {
    let its = run.events.iter().filter(|event| {
        event.what.call() == Some(0)
            && matches!(event.what, What::LockLost { .. } | What::LockEnded { .. })
    });
    its.map(|event| (event.at_ms, &event.what)).collect()
}

fn stopped(clock: Meanwhile) -> Vec<(u64, Fault)> {
    let node = HOLDER;
    vec![(2_000, Fault::Pause { node }), (9_000, Fault::Wake { node, clock })]
}

#[test]
fn b52_a_holder_that_was_stopped_sees_at_once_that_it_lost_its_lock() {
    let run = run(&plan(&stopped(Meanwhile::Ran)), Flaw::None);
    assert_eq!(run.violation, None);
    let (lost, ended) = (Notice::Looked, LockEnd::Lost);
    assert_eq!(
        of_holder(&run),
        [
            (9_000, &What::LockLost { call: 0, notice: lost }),
            (9_000, &What::LockEnded { call: 0, how: ended })
        ]
    );
    let stored = run.events.iter().filter(|event| {
        event.node == Some(HOLDER)
            && (2_010..9_000).contains(&event.at_ms)
            && matches!(event.what, What::StoreAsked { .. } | What::StoreAnswered { .. })
    });
    assert_eq!(stored.count(), 0, "what is stopped does nothing");
}

#[test]
fn b54_a_holder_that_was_suspended_with_its_clock_is_stopped_by_the_store() {
    let run = run(&plan(&stopped(Meanwhile::Stood)), Flaw::None);
    assert_eq!(run.violation, None, "it cannot know, and is excused");
    let is_refused =
        |what: &What| matches!(what, What::StoreReached { call: 0, accepted: false, .. });
    assert!(run.events.iter().any(|event| event.at_ms >= 9_000 && is_refused(&event.what)));
    let late = |what: &What| matches!(what, What::StoreReached { call: 0, accepted: true, .. });
    assert!(!run.events.iter().any(|event| event.at_ms > 9_000 && late(&event.what)));
}

#[test]
fn b51_what_is_wrong_with_locks_is_found() {
    let crash = vec![(2_000, Fault::PowerLoss { node: HOLDER })];
    let ran = stopped(Meanwhile::Ran);
    let found = [
        (Flaw::EndsEarly, &ran, "exclusion"),
        (Flaw::BelievesForEver, &ran, "exclusion"),
        (Flaw::OneToken, &ran, "tokens"),
        (Flaw::TellsNobody, &vec![], "told"),
        (Flaw::NeverFree, &crash, "liveness"),
        (Flaw::WaitsForEver, &vec![], "lock_outcome"),
    ];
    for (flaw, faults, invariant) in found {
        let mut plan = plan(faults);
        if flaw == Flaw::WaitsForEver {
            plan.load.push((1_500, Load::Lock(LockPlan { timeout_ms: 1_000, ..lock(1, true) })));
        }
        if flaw == Flaw::TellsNobody {
            // A holder with no use for the store does not look.
            plan.load.truncate(1);
            plan.load[0] = (500, Load::Lock(LockPlan { pace_ms: 0, ..lock(0, true) }));
            let Load::Lock(keeps) = &mut plan.load[0].1 else { unreachable!("just made") };
            keeps.ending = LockEnding::Lose;
        }
        assert_eq!(run(&plan, Flaw::None).violation, None, "without {flaw:?}");
        let violation = run(&plan, flaw).violation.map(|violation| violation.invariant);
        assert_eq!(violation.as_deref(), Some(invariant), "{flaw:?}");
    }
}

#[test]
fn a_run_with_locks_is_the_same_twice() {
    let mut faults = stopped(Meanwhile::Ran);
    faults.push((9_500, Fault::PowerLoss { node: Node(1) }));
    faults.push((10_000, Fault::Restart { node: Node(1) }));
    let digest = || run(&plan(&faults), Flaw::None).digest();
    assert_eq!(digest(), digest());
}
