//! What all holders of locks in the demo believe, looked at from above.
//!
//! The servers share one process, so that here can be seen what none of them can see: whether two that
//! exclude each other believe in their locks at one instant, and whether tokens grow. A holder is
//! entered when it has got its lock, and leaves before it releases it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dsync::{Guard, Kind, Token};

/// Violations that are kept with their text. More are only counted.
const VIOLATIONS_KEPT: usize = 5;

/// Somebody who thinks that it holds a lock.
pub(super) trait Belief: Send + Sync {
    /// Whether it thinks so now.
    fn is_held(&self) -> bool;
}

impl Belief for Guard {
    fn is_held(&self) -> bool {
        Self::is_held(self)
    }
}

/// Who holds what. Shared by all servers of the demo.
#[derive(Default)]
pub(in crate::demo) struct Arena(Mutex<State>);

#[derive(Default)]
struct State {
    holders: Vec<Holder>,
    last_id: u64,
    /// One for each resource.
    tokens: Vec<Highest>,
    violations: Vec<String>,
    violation_count: u64,
}

/// The highest tokens that were given for a resource.
#[derive(Debug, Clone, Copy, Default)]
struct Highest {
    to_writers: Token,
    to_anybody: Token,
}

struct Holder {
    id: u64,
    claim: Claim,
    belief: Arc<dyn Belief>,
}

/// What a holder says that it has got.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) node: usize,
    pub(super) resources: Vec<usize>,
    pub(super) kind: Kind,
    pub(super) token: Token,
}

impl Arena {
    /// Enters somebody who has got a lock; `None` if it has lost it already. It leaves when what is
    /// returned is dropped.
    pub(super) fn enter(
        self: &Arc<Self>,
        claim: Claim,
        belief: Arc<dyn Belief>,
    ) -> Option<Entered> {
        let mut state = self.state();
        // The others first. Who believes in a lock did so ever since it got it: if this one still does
        // after that, both did when the other was asked.
        let others = state.holders.iter().filter(|other| other.claim.excludes(&claim));
        let both = others
            .filter(|other| other.belief.is_held())
            .map(|other| format!("{} and {claim} are held at once", other.claim));
        let both: Vec<_> = both.collect();
        if !belief.is_held() {
            return None;
        }
        both.into_iter().for_each(|text| state.violated(text));
        state.check_token(&claim);
        state.last_id += 1;
        let id = state.last_id;
        state.holders.push(Holder { id, claim, belief });
        drop(state);
        Some(Entered { arena: Arc::clone(self), id })
    }

    /// Some violations, and how many there were.
    pub(in crate::demo) fn violations(&self) -> (Vec<String>, u64) {
        let state = self.state();
        (state.violations.clone(), state.violation_count)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A writer's token is greater than all before, a reader's than those of all writers before.
    fn check_token(&mut self, claim: &Claim) {
        let most = claim.resources.iter().max().map_or(0, |most| most + 1);
        if self.tokens.len() < most {
            self.tokens.resize(most, Highest::default());
        }
        for resource in claim.resources.iter().copied() {
            let highest = self.tokens[resource];
            let before = match claim.kind {
                Kind::Write => highest.to_anybody,
                Kind::Read => highest.to_writers,
            };
            if claim.token <= before {
                self.violated(format!("{claim} came after token {before}"));
            }
            let highest = &mut self.tokens[resource];
            highest.to_anybody = highest.to_anybody.max(claim.token);
            if claim.kind == Kind::Write {
                highest.to_writers = highest.to_writers.max(claim.token);
            }
        }
    }

    fn violated(&mut self, text: String) {
        self.violation_count += 1;
        if self.violations.len() < VIOLATIONS_KEPT {
            self.violations.push(text);
        }
    }
}

impl Claim {
    fn excludes(&self, other: &Self) -> bool {
        let is_shared = self.kind == Kind::Read && other.kind == Kind::Read;
        !is_shared && self.resources.iter().any(|resource| other.resources.contains(resource))
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { node, resources, kind, token } = self;
        write!(f, "the {kind:?} lock {resources:?} of node {} with token {token}", node + 1)
    }
}

/// Somebody who was entered.
#[must_use = "it leaves at once"]
pub(super) struct Entered {
    arena: Arc<Arena>,
    id: u64,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.arena.state().holders.retain(|holder| holder.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Believer(AtomicBool);

    impl Belief for Believer {
        fn is_held(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn believer() -> Arc<Believer> {
        Arc::new(Believer(AtomicBool::new(true)))
    }

    fn claim(kind: Kind, resources: &[usize], token: u64) -> Claim {
        Claim { node: 0, resources: resources.to_vec(), kind, token: Token::new(token) }
    }

    /// How many violations there are once these have entered and stayed.
    fn violations(claims: &[Claim]) -> u64 {
        let arena = Arc::new(Arena::default());
        let enter = |claim: &Claim| arena.enter(claim.clone(), believer()).expect("it believes");
        let _entered: Vec<_> = claims.iter().map(enter).collect();
        arena.violations().1
    }

    #[test]
    fn holders_that_exclude_each_other_at_once_are_found() {
        use Kind::{Read, Write};
        assert_eq!(violations(&[claim(Write, &[0], 1), claim(Write, &[1], 1)]), 0);
        assert_eq!(violations(&[claim(Read, &[0], 1), claim(Read, &[0], 1)]), 0);
        assert_eq!(violations(&[claim(Write, &[0], 1), claim(Write, &[1, 0], 2)]), 1);
        assert_eq!(violations(&[claim(Read, &[0], 1), claim(Write, &[0], 2)]), 1);
        assert_eq!(violations(&[claim(Write, &[0], 1), claim(Read, &[0], 2)]), 1);
    }

    #[test]
    fn who_has_left_or_lost_its_lock_excludes_nobody() {
        let arena = Arc::new(Arena::default());
        drop(arena.enter(claim(Kind::Write, &[0], 1), believer()));
        let lost = believer();
        let _entered = arena.enter(claim(Kind::Write, &[0], 2), Arc::clone(&lost) as Arc<_>);
        lost.0.store(false, Ordering::SeqCst);
        assert!(arena.enter(claim(Kind::Write, &[0], 3), believer()).is_some());
        assert!(arena.enter(claim(Kind::Write, &[0], 1), lost).is_none(), "it knows that it lost");
        assert_eq!(arena.violations(), (Vec::new(), 0));
    }

    #[test]
    fn tokens_that_do_not_grow_are_found() {
        use Kind::{Read, Write};
        for (claims, expected) in [
            ([claim(Write, &[0], 5), claim(Write, &[0], 5)], 1),
            ([claim(Write, &[0], 5), claim(Read, &[0], 5)], 1),
            ([claim(Read, &[0], 5), claim(Write, &[0], 5)], 1),
            ([claim(Read, &[0], 5), claim(Read, &[0], 4)], 0),
            ([claim(Write, &[0, 1], 5), claim(Write, &[1], 4)], 1),
            ([claim(Write, &[0], 5), claim(Write, &[1], 4)], 0),
            ([claim(Write, &[0], 5), claim(Write, &[0], 6)], 0),
        ] {
            let arena = Arc::new(Arena::default());
            for claim in &claims {
                drop(arena.enter(claim.clone(), believer()));
            }
            assert_eq!(arena.violations().1, expected, "{claims:?}");
        }
    }
}
