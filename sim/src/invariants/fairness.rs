//! [B58]: waiters are served in the order of their tickets, and one that can be served is.
//!
//! Three properties, each of waiters that a quorum of the lockers has had in its queue without a
//! break (*queued*):
//!
//! - **No overtaking.** A lock that was requested after another was queued is not granted before
//!   it, if the two exclude each other. Proof: the younger request has no ticket, or a later one.
//!   Each of its quorums shares a locker with the quorum that has the older one in its queue, and
//!   that locker refuses the younger request.
//! - **One ticket for one request.** Of two waiters, the same one comes first in every queue, at
//!   any time.
//! - **No idle waiting.** A waiter that is first in every queue, and whose resources are not held,
//!   is granted its lock within the longest time between two attempts, one attempt, and the time of
//!   its messages ([`Bounds::fair_ms`]).
//!
//! Queues are read at intervals. What could have changed and changed back in between ends the
//! period in which a waiter counts as queued: a locker that started, a waiter that missed a
//! notification, a fault between its node and a locker.
//!
//! [B58]: crate::rules#b58

use std::collections::{BTreeMap, BTreeSet};

use super::suspended::SuspendedHolders;
use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind};
use crate::lock::WaiterView;
use crate::plan::{Load, LocksPlan, Node};
use crate::world::NodeView;

/// Waiters at the front of a queue whose order is compared with that of other queues.
const COMPARED_MAX: usize = 16;

/// Tracks requests, queues and holders.
#[derive(Debug, Default)]
pub(super) struct Fairness {
    suspended: SuspendedHolders,
    waiting: BTreeMap<CallId, Request>,
    held: BTreeMap<CallId, Wanted>,
    /// Pairs of waiters, the first of which was before the second in some queue.
    order: BTreeSet<(CallId, CallId)>,
}

/// The resources of a lock.
#[derive(Debug, Clone)]
struct Wanted {
    resources: Vec<u8>,
    write: bool,
}

/// A lock that was requested and neither granted nor refused.
#[derive(Debug)]
struct Request {
    node: Node,
    requested_ms: u64,
    wanted: Wanted,
    /// Since when a quorum has had it in its queue, in every view.
    queued_ms: Option<u64>,
    /// Since when it could be granted, in every view.
    grantable_ms: Option<u64>,
    /// How many notifications it has missed, at each locker.
    missed: BTreeMap<Node, u32>,
}

impl Wanted {
    fn excludes(&self, other: &Self) -> bool {
        (self.write || other.write)
            && self.resources.iter().any(|resource| other.resources.contains(resource))
    }
}

impl Invariant for Fairness {
    fn name(&self) -> &'static str {
        "fairness"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        self.suspended.on_event(event);
        match (&event.kind, event.node) {
            (EventKind::LockRequested { call, resources, write, .. }, Some(node)) => {
                let wanted = Wanted { resources: resources.clone(), write: *write };
                let request = Request {
                    node,
                    requested_ms: event.at_ms,
                    wanted,
                    queued_ms: None,
                    grantable_ms: None,
                    missed: BTreeMap::new(),
                };
                self.waiting.insert(*call, request);
            }
            (EventKind::LockGranted { call, .. }, _) => return self.on_grant(*call, context),
            (EventKind::LockFailed { call, .. } | EventKind::LockEnded { call, .. }, _) => {
                self.waiting.remove(call);
                self.held.remove(call);
            }
            // A locker that has started has no queue, and any that is paused responds late.
            (EventKind::Started { .. } | EventKind::Fault { .. } | EventKind::Healed, _) => {
                for request in self.waiting.values_mut() {
                    (request.queued_ms, request.grantable_ms) = (None, None);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn on_view(&mut self, views: &[NodeView], context: &CheckContext<'_>) -> CheckResult {
        let Some(locks) = fair_locks(context) else { return Ok(()) };
        if self.waiting.is_empty() {
            return Ok(());
        }
        let lockers: Vec<_> =
            locks.lockers.iter().map(|node| Queue::of(*node, views, context)).collect();
        self.compare_order(&lockers)?;
        self.update_queued(&lockers, context);
        self.check_progress(&lockers, context)
    }
}

/// Returns the locks of the plan, if they promise fairness: all lockers of one list, and no
/// messages that are held up in sockets for longer than a reservation lasts.
fn fair_locks<'a>(context: &CheckContext<'a>) -> Option<&'a LocksPlan> {
    let locks = context.plan.cluster.locks.as_ref()?;
    let is_fair = locks.flags.is_empty() && locks.minio.is_empty() && !locks.lockers.is_empty();
    let is_prompt = context.bounds.queue_ms() + context.bounds.round_trip_ms < RESERVATION_MS;
    (is_fair && is_prompt).then_some(locks)
}

/// How long a locker reserves a lock for a notified waiter, in milliseconds.
const RESERVATION_MS: u64 = dsync::limits::RESERVATION.as_millis() as u64;

/// One locker, as a view shows it.
struct Queue<'a> {
    node: Node,
    is_open: bool,
    /// Its waiters, in order.
    order: Vec<CallId>,
    waiters: BTreeMap<CallId, &'a WaiterView>,
    /// Waiters that no earlier one excludes.
    first: BTreeSet<CallId>,
    /// Its grants; nothing is known of those that are not of a call.
    grants: Vec<(Option<CallId>, Option<Wanted>)>,
}

impl<'a> Queue<'a> {
    fn of(node: Node, views: &'a [NodeView], context: &CheckContext<'_>) -> Self {
        let view = views.iter().find(|view| view.node == node);
        let locker = view.and_then(|view| view.locks.locker.as_ref());
        let waiters = locker.map_or(&[][..], |locker| &locker.waiters);
        let known = || waiters.iter().filter_map(|waiter| Some((waiter.call?, waiter)));
        let (mut first, mut readers, mut writers) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (call, _) in known() {
            let Some(wanted) = wanted_of(call, context) else { continue };
            let is_excluded = |resource: &u8| {
                writers.contains(resource) || wanted.write && readers.contains(resource)
            };
            if !wanted.resources.iter().any(is_excluded) {
                first.insert(call);
            }
            let passed = if wanted.write { &mut writers } else { &mut readers };
            passed.extend(wanted.resources);
        }
        let grants = locker
            .map_or(&[][..], |locker| &locker.grants)
            .iter()
            .map(|grant| (grant.call, grant.call.and_then(|call| wanted_of(call, context))));
        Self {
            node,
            is_open: locker.is_some_and(|locker| locker.is_open),
            order: known().map(|(call, _)| call).collect(),
            waiters: known().collect(),
            first,
            grants: grants.collect(),
        }
    }

    /// Returns whether this locker could grant a request of this waiter.
    fn could_grant(&self, call: CallId, wanted: &Wanted) -> bool {
        let mut others = self.grants.iter().filter(|(granted, _)| *granted != Some(call));
        let excludes = |(_, other): &(_, Option<Wanted>)| {
            other.as_ref().is_none_or(|other| other.excludes(wanted))
        };
        self.is_open && self.first.contains(&call) && !others.any(excludes)
    }
}

impl Fairness {
    fn on_grant(&mut self, call: CallId, context: &CheckContext<'_>) -> CheckResult {
        let Some(granted) = self.waiting.remove(&call) else { return Ok(()) };
        let passed = self.waiting.iter().find(|(older, request)| {
            request.queued_ms.is_some_and(|queued| queued < granted.requested_ms)
                && request.wanted.excludes(&granted.wanted)
                && !self.order.contains(&(call, **older))
        });
        let verdict = match passed {
            Some((older, request)) if fair_locks(context).is_some() => Err(format!(
                "call {call} was granted its lock before call {older} on {}, which was queued at a \
                 quorum since {:?}, when call {call} was not requested until {}",
                request.node, request.queued_ms, granted.requested_ms
            )),
            _ => Ok(()),
        };
        self.held.insert(call, granted.wanted);
        verdict
    }

    /// Compares the order of waiters with that in all earlier views.
    fn compare_order(&mut self, lockers: &[Queue<'_>]) -> CheckResult {
        for Queue { node, order, .. } in lockers {
            let known = order.iter().filter(|call| self.waiting.contains_key(call));
            let front: Vec<_> = known.take(COMPARED_MAX).copied().collect();
            for (place, first) in front.iter().enumerate() {
                for second in &front[place + 1..] {
                    if self.order.contains(&(*second, *first)) {
                        return Err(format!(
                            "call {first} comes before call {second} in the queue of {node}, and \
                             came after it before"
                        ));
                    }
                    self.order.insert((*first, *second));
                }
            }
        }
        Ok(())
    }

    fn update_queued(&mut self, lockers: &[Queue<'_>], context: &CheckContext<'_>) {
        let quorum = lockers.len() / 2 + 1;
        for (call, request) in &mut self.waiting {
            let mut present = 0;
            let mut has_missed = false;
            for Queue { node, waiters, .. } in lockers {
                let waiter = waiters.get(call);
                let missed = waiter.map_or(0, |waiter| waiter.missed);
                // What it missed between two views ends the period as well.
                has_missed |= request.missed.insert(*node, missed).is_some_and(|was| was != missed);
                present += usize::from(waiter.is_some_and(|waiter| waiter.is_present));
            }
            let is_prompt = !self.suspended.is_paused(request.node)
                && lockers.iter().all(|queue| is_healthy(request.node, queue.node, context));
            request.queued_ms = (present >= quorum && is_prompt && !has_missed)
                .then(|| request.queued_ms.unwrap_or(context.now_ms));
        }
    }

    /// Checks that no waiter that could be granted its lock waits for long.
    fn check_progress(&mut self, lockers: &[Queue<'_>], context: &CheckContext<'_>) -> CheckResult {
        let limit_ms = context.bounds.fair_ms();
        for (call, request) in &mut self.waiting {
            let wanted = &request.wanted;
            let is_grantable = request.queued_ms.is_some()
                && lockers.iter().all(|queue| queue.could_grant(*call, wanted))
                && !self.held.values().any(|held| held.excludes(wanted));
            let since = request.grantable_ms.unwrap_or(context.now_ms);
            request.grantable_ms = is_grantable.then_some(since);
            if is_grantable && context.now_ms > since + limit_ms {
                return Err(format!(
                    "call {call} on {} could have its lock since {since} ms: it is first in every \
                     queue, and no lock excludes it",
                    request.node
                ));
            }
        }
        Ok(())
    }
}

fn wanted_of(call: CallId, context: &CheckContext<'_>) -> Option<Wanted> {
    match context.load(call)? {
        Load::Lock(plan) => Some(Wanted { resources: plan.resources, write: plan.write }),
        _ => None,
    }
}

fn is_healthy(node: Node, locker: Node, context: &CheckContext<'_>) -> bool {
    node == locker
        || context
            .health
            .healthy_since(node, locker, context.bounds)
            .is_some_and(|since| since <= context.now_ms)
}

#[cfg(test)]
mod tests {
    use super::super::harness::{
        CALLEE, CALLER, Harness, LATE, assert_violates, granted, lock, made, views,
    };
    use super::*;
    use crate::lock::{GrantView, LockerView};

    /// Calls 0 to 2: two writers and a reader of one resource.
    fn harness() -> Harness {
        let load = vec![lock(|_| {}), lock(|_| {}), lock(|plan| plan.write = false)];
        let locks = LocksPlan::new(12_000, 2_000, vec![CALLER, CALLEE]);
        let mut harness = Harness::with_locks_and_load(Fairness::default(), locks, load.clone());
        harness.feed([(LATE, CALLER, made(0, &load[0]))]);
        harness
    }

    fn request(harness: &mut Harness, at_ms: u64, call: CallId) {
        let plan = if call == 2 { lock(|plan| plan.write = false) } else { lock(|_| {}) };
        harness.feed([(at_ms, CALLEE, made(call, &plan))]);
    }

    /// Returns views of two open lockers with these waiters, and whether they are present.
    fn queues(queues: [&[(CallId, bool)]; 2]) -> Vec<NodeView> {
        let mut views = views();
        for (view, queue) in views.iter_mut().zip(queues) {
            let waiter = |(call, is_present): &(CallId, bool)| WaiterView {
                call: Some(*call),
                is_present: *is_present,
                missed: 0,
            };
            let waiters = queue.iter().map(waiter).collect();
            view.locks.locker =
                Some(LockerView { is_open: true, waiters, ..LockerView::default() });
        }
        views
    }

    #[test]
    fn b58_later_request_does_not_overtake_a_queued_waiter() {
        let overtaken = |waiters: [&[(CallId, bool)]; 2], call: CallId| {
            let mut harness = harness();
            assert_eq!(harness.on_view(LATE + 1, &queues(waiters)), Ok(()));
            request(&mut harness, LATE + 2, call);
            harness.at(LATE + 3, CALLEE, granted(call, call != 2, 1))
        };
        let present: &[(CallId, bool)] = &[(0, true)];
        assert_violates(overtaken([present, present], 1), "before call 0 on node-0");
        assert_violates(overtaken([present, present], 2), "before call 0 on node-0");
        assert_eq!(overtaken([present, &[]], 1), Ok(()), "it is not queued at a quorum");
        assert_eq!(overtaken([present, &[(0, false)]], 1), Ok(()), "it has missed a notification");
        let mut earlier = harness();
        request(&mut earlier, LATE, 1);
        earlier.on_view(LATE + 1, &queues([present, present])).expect("it waits");
        assert_eq!(earlier.at(LATE + 3, CALLEE, granted(1, true, 1)), Ok(()), "as old");
    }

    #[test]
    fn b58_locker_that_starts_has_no_queue() {
        let mut harness = harness();
        let present: &[(CallId, bool)] = &[(0, true)];
        harness.on_view(LATE + 1, &queues([present, present])).expect("it waits");
        request(&mut harness, LATE + 2, 1);
        harness.feed([(LATE + 3, CALLEE, EventKind::Started { incarnation: 2 })]);
        assert_eq!(harness.at(LATE + 4, CALLEE, granted(1, true, 1)), Ok(()));
    }

    #[test]
    fn b58_a_request_keeps_its_ticket() {
        let mut harness = harness();
        request(&mut harness, LATE, 1);
        let (first, second): (&[_], &[_]) = (&[(0, true), (1, true)], &[(1, true), (0, true)]);
        assert_eq!(harness.on_view(LATE + 1, &queues([first, first])), Ok(()));
        assert_eq!(harness.on_view(LATE + 2, &queues([first, &[]])), Ok(()));
        assert_violates(
            harness.on_view(LATE + 3, &queues([first, second])),
            "call 1 comes before call 0 in the queue of node-1",
        );
    }

    #[test]
    fn b58_waiter_that_could_be_granted_is() {
        let limit_ms = harness().bounds().fair_ms();
        let after = |views: &[NodeView]| {
            let mut harness = harness();
            assert_eq!(harness.on_view(LATE + 1, views), Ok(()));
            assert_eq!(harness.on_view(LATE + 1 + limit_ms, views), Ok(()));
            harness.on_view(LATE + 2 + limit_ms, views)
        };
        let present: &[(CallId, bool)] = &[(0, true)];
        assert_violates(after(&queues([present, present])), "call 0 on node-0 could have");
        let behind: &[(CallId, bool)] = &[(1, true), (0, true)];
        assert_eq!(after(&queues([present, behind])), Ok(()), "it is not first");
        let mut held = queues([present, present]);
        let grant = GrantView { id: "lock-1".to_owned(), call: Some(1) };
        if let Some(locker) = &mut held[1].locks.locker {
            locker.grants.push(grant);
        }
        assert_eq!(after(&held), Ok(()), "another has it");
    }
}
