//! Servers have different lists of lockers: one of three has itself alone, or two of five have
//! another list than the others. Or one of three has another root user, and does not belong to the
//! cluster.
//!
//! Quorums of two lists need not share a locker. Only the list that most nodes have is used
//! ([B65]): the other nodes are granted no lock until they restart with that list. The nodes that
//! agree are granted locks as soon as no lease of another configuration can be left.
//!
//! [B65]: crate::rules#b65

use rand::RngExt;

use super::lock_history::{lock, locks, new_locks_plan, turn_limit_ms};
use super::{Scenario, sort};
use crate::bounds::Bounds;
use crate::event::Event;
use crate::invariants::CheckResult;
use crate::plan::{FlagsPlan, Load, LockPlan, Node, Plan};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "locks_lists_differ",
    about: "some nodes have another list of lockers: only the list of most nodes is used",
    plan,
    expect,
};

const LEASE_MS: u32 = 6_000;
const DURATION_MS: u64 = 40_000;
/// The time by which most nodes have agreed: processes of another configuration may have ended just
/// before these began, and their leases are over.
const AGREED_MS: u64 = 2 * LEASE_MS as u64 + 4_000;

fn plan(seed: u64) -> Plan {
    // One alone, two of five, or another root user.
    let (nodes, root_user) = [(3, 0), (5, 0), (3, 1)][(seed % 3) as usize];
    let (mut plan, mut rng) =
        new_locks_plan("locks_lists_differ", seed, nodes, DURATION_MS, LEASE_MS);
    let list = |range: std::ops::Range<u8>| range.map(Node).collect::<Vec<_>>();
    let outliers = if nodes == 3 { list(0..1) } else { list(3..5) };
    if let Some(locks) = &mut plan.cluster.locks {
        locks.lockers = list(0..3);
        let lockers = match (nodes, root_user) {
            (3, 0) => list(0..1),
            (3, _) => list(0..3),
            _ => list(2..5),
        };
        let flags = |node: &Node| FlagsPlan {
            node: *node,
            from_ms: 0,
            lockers: lockers.clone(),
            build: 0,
            root_user,
        };
        locks.flags = outliers.iter().map(flags).collect();
    }
    for on in (0..nodes).map(Node) {
        let mut at = rng.random_range(1_000..3_000);
        while at < DURATION_MS - 10_000 {
            let request = LockPlan { hold_ms: rng.random_range(100..500), ..lock(on) };
            let timeout_ms = if at > AGREED_MS { 10_000 } else { 4_000 };
            plan.load.push((at, Load::Lock(LockPlan { timeout_ms, ..request })));
            at += rng.random_range(3_000..5_000);
        }
    }
    sort(&mut plan);
    plan
}

fn expect(plan: &Plan, events: &[Event]) -> CheckResult {
    let bounds = Bounds::of(plan);
    let Some(flags) = plan.cluster.locks.as_ref().map(|locks| &locks.flags) else {
        return Err("the plan lacks locks".to_owned());
    };
    let (mut granted, mut refused) = (0, 0);
    for lock in locks(plan, events) {
        if flags.iter().any(|flags| flags.node == lock.plan.on) {
            if lock.granted_ms.is_some() {
                return Err(lock.violation("must not be granted under the other list"));
            }
            refused += 1;
        } else if lock.requested_ms.is_some_and(|requested| requested > AGREED_MS) {
            lock.must_be_granted_within(turn_limit_ms(&bounds))?;
            granted += 1;
        }
    }
    if granted < 5 || refused < 5 {
        return Err(format!("{granted} granted and {refused} refused locks are too few"));
    }
    Ok(())
}
