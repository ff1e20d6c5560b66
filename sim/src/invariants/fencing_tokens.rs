//! [B54]: a writer's token exceeds every token granted for the resource before, a reader's every
//! writer's. The store accepts every holder that sees `is_held()`, and no stale token.
//!
//! A holder that was suspended with its clocks frozen may come late without knowing: it may be
//! rejected.
//!
//! [B54]: crate::rules#b54

use std::collections::BTreeMap;

use super::suspended::SuspendedHolders;
use super::{CheckContext, CheckResult, Invariant};
use crate::event::{CallId, Event, EventKind};

/// Tracks the tokens of every resource.
#[derive(Debug, Default)]
pub(super) struct FencingTokens {
    suspended: SuspendedHolders,
    granted: BTreeMap<u8, HighestTokens>,
    /// The highest token of a writer at each register.
    fences: BTreeMap<u8, u64>,
}

/// The highest tokens of a resource, and their calls.
#[derive(Debug, Default)]
struct HighestTokens {
    any: Option<(u64, CallId)>,
    writer: Option<(u64, CallId)>,
}

impl Invariant for FencingTokens {
    fn name(&self) -> &'static str {
        "fencing_tokens"
    }

    fn on_event(&mut self, event: &Event, context: &CheckContext<'_>) -> CheckResult {
        self.suspended.on_event(event);
        match &event.kind {
            // A lock that expired before its holder received it has no place in the order.
            EventKind::LockGranted { valid_ms: 0, .. } => Ok(()),
            // MinIO's locks have no token, and ours have none if too few of our lockers know it.
            EventKind::LockGranted { token: 0, .. } if has_minio(context) => Ok(()),
            EventKind::LockGranted { call, resources, write, token, .. } => {
                if self.suspended.is_exempt(*call) {
                    return Ok(());
                }
                resources.iter().try_for_each(|one| self.grant(*one, *call, *write, *token))
            }
            EventKind::StoreReached { call, resource, token, writer, accepted, held, .. } => {
                let is_exempt = !held || self.suspended.is_exempt(*call);
                let fence = self.fences.entry(*resource).or_default();
                let is_stale = token < fence;
                if *accepted && *writer {
                    *fence = (*fence).max(*token);
                }
                match (accepted, is_stale) {
                    (true, true) => Err(format!(
                        "the store accepted call {call} with a stale token for r{resource}: {token}"
                    )),
                    (false, _) if !is_exempt => {
                        Err(format!("the store rejected call {call}, which holds r{resource}"))
                    }
                    (false, false) => Err(format!(
                        "the store rejected call {call}, whose token is not stale for r{resource}"
                    )),
                    (true, false) | (false, true) => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

fn has_minio(context: &CheckContext<'_>) -> bool {
    context.plan.cluster.locks.as_ref().is_some_and(|locks| !locks.minio.is_empty())
}

impl FencingTokens {
    fn grant(&mut self, resource: u8, call: CallId, write: bool, token: u64) -> CheckResult {
        let granted = self.granted.entry(resource).or_default();
        let before = if write { granted.any } else { granted.writer };
        if let Some((highest, earlier)) = before.filter(|(highest, _)| *highest >= token) {
            return Err(format!(
                "the token of call {call} does not exceed that of call {earlier} for r{resource}: \
                 {token} after {highest}"
            ));
        }
        granted.any = granted.any.max(Some((token, call)));
        if write {
            granted.writer = Some((token, call));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::harness::{CALLER, Harness, assert_violates, granted, lock, made};
    use super::*;
    use crate::fault::{Pause, Resume};
    use crate::plan::{ClockWhilePaused, Fault};

    fn harness() -> Harness {
        Harness::new(FencingTokens::default(), vec![])
    }

    fn reached(call: CallId, token: u64, accepted: bool, held: bool) -> EventKind {
        let (resource, writer, value) = (0, true, None);
        EventKind::StoreReached { call, resource, token, writer, value, accepted, held }
    }

    #[test]
    fn b54_tokens_grow_in_the_order_of_grants() {
        let (write, read) = (true, false);
        let after = |grants: &[(bool, u64)]| {
            let mut harness = harness();
            for (call, (write, token)) in (0..).zip(grants) {
                harness.feed([(1, CALLER, granted(call, *write, *token))]);
            }
            harness
        };
        after(&[(write, 5), (read, 7), (read, 6), (read, 7), (write, 8), (read, 9)]);
        assert_violates(after(&[(write, 5)]).at(2, CALLER, granted(9, write, 5)), "5 after 5");
        assert_violates(after(&[(write, 5)]).at(2, CALLER, granted(9, read, 4)), "that of call 0");
        let readers = [(read, 7), (read, 6)];
        assert_violates(
            after(&readers).at(2, CALLER, granted(9, write, 7)),
            "that of call 0 for r0",
        );
        let unknown =
            EventKind::LockGranted { call: 3, resources: vec![0], write, token: 1, valid_ms: 0 };
        after(&[(write, 5)]).feed([(2, CALLER, unknown)]);
        let other =
            EventKind::LockGranted { call: 3, resources: vec![1], write, token: 1, valid_ms: 9 };
        after(&[(write, 5)]).feed([(2, CALLER, other)]);
    }

    #[test]
    fn b54_store_accepts_holders_and_no_stale_token() {
        let mut harness = harness();
        harness
            .feed([(1, CALLER, reached(0, 5, true, true)), (2, CALLER, reached(1, 7, true, true))]);
        harness.feed([(3, CALLER, reached(0, 5, false, false))]);
        assert_violates(harness.at(4, CALLER, reached(0, 5, true, false)), "with a stale token");
        assert_violates(
            harness.at(4, CALLER, reached(0, 5, false, true)),
            "rejected call 0, which holds",
        );
        assert_violates(
            harness.at(4, CALLER, reached(1, 7, false, false)),
            "whose token is not stale",
        );
    }

    #[test]
    fn b54_holder_suspended_with_its_clocks_may_be_rejected() {
        let (node, load) = (CALLER, lock(|_| {}));
        let mut harness = Harness::new(FencingTokens::default(), vec![load.clone()]);
        harness.feed([(1, CALLER, made(0, &load)), (2, CALLER, reached(1, 7, true, true))]);
        assert_violates(harness.at(3, CALLER, reached(0, 5, false, true)), "which holds");
        harness.inject(4, Fault::Pause(Pause { node }));
        harness.inject(5, Fault::Resume(Resume { node, clock: ClockWhilePaused::Frozen }));
        harness.feed([(6, CALLER, reached(0, 5, false, true)), (7, CALLER, granted(0, true, 5))]);
    }
}
