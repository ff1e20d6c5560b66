//! The wall clock of one locker is ahead by some seconds, and one node cannot reach it.
//!
//! Tokens start from clocks, and must grow from holder to holder all the same ([B54]). A node that
//! reaches the locker with the fast clock gets tokens that are ahead, through a second round of
//! requests if other lockers know only lower ones. The node that cannot reach it is given higher
//! tokens too, because they are written back to a quorum before the lock is granted.
//!
//! [B54]: crate::rules#b54

use rand::RngExt;

use super::lock_history::{lock, locks, new_locks_plan, turn_limit_ms};
use super::{Scenario, sort};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::fault::{Cut, Skew};
use crate::invariants::CheckResult;
use crate::plan::{Fault, Load, LockPlan, Node, Plan};
use crate::world::EPOCH_SECONDS;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_wrong_clocks",
    about: "a locker's clock is ahead: tokens grow also for a node that cannot reach it",
    plan,
    expect,
};

const LEASE_MS: u32 = 12_000;
/// The locker whose clock is ahead.
const FAST_CLOCK: Node = Node(0);
/// The node that cannot reach that locker.
const CUT_OFF: Node = Node(1);
/// The node that can reach both.
const CONNECTED: Node = Node(2);
/// Less than a lease: the condition for tokens to grow.
const SKEW_MS: i64 = 6_000;
/// By then, all nodes have been up for one and a half leases: two of them do not reach each other.
const BEGIN_MS: u64 = 20_000;
/// By then, every node has seen a token of the fast clock, directly or through another.
const KNOWN_MS: u64 = 26_000;

fn plan(seed: u64) -> Plan {
    let (mut plan, mut rng) = new_locks_plan("locks_wrong_clocks", seed, 3, 41_000, LEASE_MS);
    plan.faults.push((0, Fault::Cut(Cut { a: FAST_CLOCK, b: CUT_OFF })));
    plan.faults.push((0, Fault::Skew(Skew { node: FAST_CLOCK, ms: SKEW_MS })));
    let mut at = BEGIN_MS;
    let mut turns = [CONNECTED, CUT_OFF].into_iter().cycle();
    while let Some(on) = turns.next().filter(|_| at < 36_000) {
        // Ends before its first refresh: refreshes carry tokens as well.
        let request = LockPlan { hold_ms: 100, pace_ms: 20, ..lock(on) };
        plan.load.push((at, Load::Lock(request)));
        at += rng.random_range(500..900);
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let bounds = Bounds::of(plan);
    let mut are_ahead = 0;
    for lock in locks(plan, events) {
        lock.must_be_granted_within(turn_limit_ms(&bounds))?;
        lock.must_be_kept()?;
        let granted = lock.must_be_granted()?;
        if lock.plan.on == CUT_OFF && granted > KNOWN_MS {
            let here = (EPOCH_SECONDS * 1_000 + granted) * 1_000;
            let ahead_ms = lock.token.unwrap_or(0).saturating_sub(here) / 1_000;
            if ahead_ms < SKEW_MS.unsigned_abs() / 2 {
                return Err(lock.violation(&format!("has a token that is {ahead_ms} ms ahead")));
            }
            are_ahead += 1;
        }
    }
    if are_ahead < 3 {
        return Err(format!("{are_ahead} locks of {CUT_OFF} are too few"));
    }
    Ok(())
}
