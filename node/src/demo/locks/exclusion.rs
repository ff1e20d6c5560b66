//! Checks mutual exclusion across all servers of the demo.
//!
//! The servers share one process, so this module can check what no single server can: whether two
//! conflicting holders see `is_held()` at one instant, and whether tokens grow. A holder is
//! registered once it has acquired its lock, and deregistered before it releases it.

use std::sync::Arc;

use dsync::{Guard, LockKind, Token};
use grid::sync::{Mutex, MutexGuard};

/// Violations that are kept with their text. Others are only counted.
const VIOLATIONS_KEPT: usize = 5;

/// A lock that its holder considers held.
pub(super) trait HeldLock: Send + Sync {
    /// Whether the holder sees the lock as held now.
    fn is_held(&self) -> bool;
}

impl HeldLock for Guard {
    fn is_held(&self) -> bool {
        Self::is_held(self)
    }
}

/// All current holders. Shared by all servers of the demo.
#[derive(Default)]
pub(in crate::demo) struct ExclusionChecker(Mutex<CheckerState>);

#[derive(Default)]
struct CheckerState {
    holders: Vec<Holder>,
    last_id: u64,
    /// One for each resource.
    tokens: Vec<HighestTokens>,
    violations: Vec<String>,
    violation_count: u64,
}

/// The highest tokens so far of a resource.
#[derive(Debug, Clone, Copy, Default)]
struct HighestTokens {
    write: Token,
    any: Token,
}

struct Holder {
    id: u64,
    claim: LockClaim,
    lock: Arc<dyn HeldLock>,
}

/// A lock that was acquired.
#[derive(Debug, Clone)]
pub(super) struct LockClaim {
    pub(super) node: usize,
    pub(super) resources: Vec<usize>,
    pub(super) kind: LockKind,
    pub(super) token: Token,
}

impl ExclusionChecker {
    /// Registers a holder; `None` if its lock is lost already. Dropping the entry deregisters it.
    pub(super) fn register(
        self: &Arc<Self>,
        claim: LockClaim,
        lock: Arc<dyn HeldLock>,
    ) -> Option<HolderEntry> {
        let mut state = self.state();
        // The other holders are checked first. A lock that was lost is never held again: if this
        // one is still held afterwards, both were held when the other was checked.
        let others = state.holders.iter().filter(|other| other.claim.conflicts_with(&claim));
        let conflicts = others
            .filter(|other| other.lock.is_held())
            .map(|other| format!("{} and {claim} are held at once", other.claim));
        let conflicts: Vec<_> = conflicts.collect();
        if !lock.is_held() {
            return None;
        }
        conflicts.into_iter().for_each(|text| state.record_violation(text));
        state.check_token(&claim);
        state.last_id += 1;
        let id = state.last_id;
        state.holders.push(Holder { id, claim, lock });
        drop(state);
        Some(HolderEntry { exclusion: Arc::clone(self), id })
    }

    /// Some violations, and their total number.
    pub(in crate::demo) fn violations(&self) -> (Vec<String>, u64) {
        let state = self.state();
        (state.violations.clone(), state.violation_count)
    }

    fn state(&self) -> MutexGuard<'_, CheckerState> {
        self.0.lock()
    }
}

impl CheckerState {
    /// A writer's token exceeds all tokens before it, a reader's all writers' tokens before it.
    fn check_token(&mut self, claim: &LockClaim) {
        let resource_count = claim.resources.iter().max().map_or(0, |max| max + 1);
        if self.tokens.len() < resource_count {
            self.tokens.resize(resource_count, HighestTokens::default());
        }
        for resource in claim.resources.iter().copied() {
            let highest = self.tokens[resource];
            let before = match claim.kind {
                LockKind::Write => highest.any,
                LockKind::Read => highest.write,
            };
            if claim.token <= before {
                self.record_violation(format!("{claim} came after token {before}"));
            }
            let highest = &mut self.tokens[resource];
            highest.any = highest.any.max(claim.token);
            if claim.kind == LockKind::Write {
                highest.write = highest.write.max(claim.token);
            }
        }
    }

    fn record_violation(&mut self, text: String) {
        self.violation_count += 1;
        if self.violations.len() < VIOLATIONS_KEPT {
            self.violations.push(text);
        }
    }
}

impl LockClaim {
    fn conflicts_with(&self, other: &Self) -> bool {
        let is_shared = self.kind == LockKind::Read && other.kind == LockKind::Read;
        !is_shared && self.resources.iter().any(|resource| other.resources.contains(resource))
    }
}

impl std::fmt::Display for LockClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { node, resources, kind, token } = self;
        write!(f, "the {kind:?} lock {resources:?} of node {} with token {token}", node + 1)
    }
}

/// A registered holder.
#[must_use = "dropping it deregisters the holder"]
pub(super) struct HolderEntry {
    exclusion: Arc<ExclusionChecker>,
    id: u64,
}

impl Drop for HolderEntry {
    fn drop(&mut self) {
        self.exclusion.state().holders.retain(|holder| holder.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct FakeLock(AtomicBool);

    impl HeldLock for FakeLock {
        fn is_held(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn fake_lock() -> Arc<FakeLock> {
        Arc::new(FakeLock(AtomicBool::new(true)))
    }

    fn claim(kind: LockKind, resources: &[usize], token: u64) -> LockClaim {
        LockClaim { node: 0, resources: resources.to_vec(), kind, token: Token::new(token) }
    }

    /// Number of violations once holders with these locks are registered.
    fn violations(claims: &[LockClaim]) -> u64 {
        let exclusion = Arc::new(ExclusionChecker::default());
        let enter = |claim: &LockClaim| {
            exclusion.register(claim.clone(), fake_lock()).expect("the lock is held")
        };
        let _entered: Vec<_> = claims.iter().map(enter).collect();
        exclusion.violations().1
    }

    #[test]
    fn conflicting_holders_are_reported() {
        use LockKind::{Read, Write};
        assert_eq!(violations(&[claim(Write, &[0], 1), claim(Write, &[1], 1)]), 0);
        assert_eq!(violations(&[claim(Read, &[0], 1), claim(Read, &[0], 1)]), 0);
        assert_eq!(violations(&[claim(Write, &[0], 1), claim(Write, &[1, 0], 2)]), 1);
        assert_eq!(violations(&[claim(Read, &[0], 1), claim(Write, &[0], 2)]), 1);
        assert_eq!(violations(&[claim(Write, &[0], 1), claim(Read, &[0], 2)]), 1);
    }

    #[test]
    fn released_or_lost_locks_do_not_conflict() {
        let exclusion = Arc::new(ExclusionChecker::default());
        drop(exclusion.register(claim(LockKind::Write, &[0], 1), fake_lock()));
        let lost = fake_lock();
        let _entered =
            exclusion.register(claim(LockKind::Write, &[0], 2), Arc::clone(&lost) as Arc<_>);
        lost.0.store(false, Ordering::SeqCst);
        assert!(exclusion.register(claim(LockKind::Write, &[0], 3), fake_lock()).is_some());
        assert!(
            exclusion.register(claim(LockKind::Write, &[0], 1), lost).is_none(),
            "the lock is lost"
        );
        assert_eq!(exclusion.violations(), (Vec::new(), 0));
    }

    #[test]
    fn tokens_that_do_not_grow_are_reported() {
        use LockKind::{Read, Write};
        for (claims, expected) in [
            ([claim(Write, &[0], 5), claim(Write, &[0], 5)], 1),
            ([claim(Write, &[0], 5), claim(Read, &[0], 5)], 1),
            ([claim(Read, &[0], 5), claim(Write, &[0], 5)], 1),
            ([claim(Read, &[0], 5), claim(Read, &[0], 4)], 0),
            ([claim(Write, &[0, 1], 5), claim(Write, &[1], 4)], 1),
            ([claim(Write, &[0], 5), claim(Write, &[1], 4)], 0),
            ([claim(Write, &[0], 5), claim(Write, &[0], 6)], 0),
        ] {
            let exclusion = Arc::new(ExclusionChecker::default());
            for claim in &claims {
                drop(exclusion.register(claim.clone(), fake_lock()));
            }
            assert_eq!(exclusion.violations().1, expected, "{claims:?}");
        }
    }
}
