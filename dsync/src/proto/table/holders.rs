//! Holders of each resource.
//!
//! Grants of one locker never exclude each other, but those that it reinstates after a restart may:
//! a holder that was suspended together with its clock relies on a lease that has meanwhile been
//! granted to another. The locker cannot know which of them is right. So the resource is disputed,
//! and granted to no other, until the rest do not exclude each other ([B53]).
//!
//! [B53]: crate::rules#b53

use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::proto::keyed::{Key, KeyedMap};
use crate::proto::quorum::LockKind;
use crate::proto::resources::Resources;

/// Holders of all resources that have any, by the keys of their grants.
#[derive(Debug)]
pub(super) struct Holders(KeyedMap<Arc<str>, ResourceHolders>);

/// Whether a new holder conflicts with another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Added {
    Compatible,
    Disputed,
}

/// Holders of one resource.
#[derive(Debug)]
enum ResourceHolders {
    Writer(usize),
    Reader(usize),
    Readers(FxHashSet<usize>),
    /// Several holders, not all of them readers.
    Disputed(Vec<(usize, LockKind)>),
}

impl Holders {
    pub(super) fn new(key: Key) -> Self {
        Self(KeyedMap::with_hasher(key))
    }

    /// Returns the number of resources that are held.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the number of holders, over all resources.
    pub(super) fn total(&self) -> usize {
        self.0.values().map(ResourceHolders::len).sum()
    }

    /// Returns whether this grant holds a resource.
    pub(super) fn has(&self, name: &str, key: usize, kind: LockKind) -> bool {
        match self.0.get(name) {
            None => false,
            Some(ResourceHolders::Writer(holder)) => (*holder, LockKind::Write) == (key, kind),
            Some(ResourceHolders::Reader(holder)) => (*holder, LockKind::Read) == (key, kind),
            Some(ResourceHolders::Readers(all)) => kind == LockKind::Read && all.contains(&key),
            Some(ResourceHolders::Disputed(all)) => all.contains(&(key, kind)),
        }
    }

    /// Checks that no resource is without a holder, and that disputes have two sides.
    pub(super) fn check_invariants(&self) {
        for (name, held) in &self.0 {
            assert!(held.len() > 0, "Holders of {name}: {held:?}");
            if let ResourceHolders::Disputed(all) = held {
                let has_writer = all.iter().any(|(_, kind)| *kind == LockKind::Write);
                assert!(has_writer && all.len() > 1, "Holders of {name}: disputed by {all:?}");
            }
        }
    }

    /// Returns whether all of these may be granted.
    pub(super) fn is_free(&self, resources: &Resources, kind: LockKind) -> bool {
        resources.iter().all(|name| self.is_name_free(name, kind))
    }

    /// Returns whether this one may be granted.
    pub(super) fn is_name_free(&self, name: &str, kind: LockKind) -> bool {
        match self.0.get(name) {
            None => true,
            Some(ResourceHolders::Reader(_) | ResourceHolders::Readers(_)) => {
                kind == LockKind::Read
            }
            Some(ResourceHolders::Writer(_) | ResourceHolders::Disputed(_)) => false,
        }
    }

    /// Adds a grant.
    pub(super) fn add(&mut self, resources: &Resources, key: usize, kind: LockKind) -> Added {
        let mut added = Added::Compatible;
        for name in resources.iter() {
            let held = match (self.0.remove(name), kind) {
                (None, LockKind::Write) => ResourceHolders::Writer(key),
                (None, LockKind::Read) => ResourceHolders::Reader(key),
                (Some(ResourceHolders::Reader(other)), LockKind::Read) => {
                    ResourceHolders::Readers([other, key].into_iter().collect())
                }
                (Some(ResourceHolders::Readers(mut others)), LockKind::Read) => {
                    others.insert(key);
                    ResourceHolders::Readers(others)
                }
                (Some(held), _) => {
                    added = Added::Disputed;
                    let mut all = held.into_all();
                    all.push((key, kind));
                    ResourceHolders::Disputed(all)
                }
            };
            self.0.insert(Arc::clone(name), held);
        }
        added
    }

    /// Removes a grant.
    pub(super) fn remove(&mut self, resources: &Resources, key: usize) {
        for name in resources.iter() {
            let is_held = match self.0.get_mut(name) {
                None => continue,
                Some(ResourceHolders::Writer(_) | ResourceHolders::Reader(_)) => false,
                Some(ResourceHolders::Readers(keys)) => {
                    keys.remove(&key);
                    !keys.is_empty()
                }
                Some(held @ ResourceHolders::Disputed(_)) => {
                    held.leave_dispute(key);
                    true
                }
            };
            if !is_held {
                self.0.remove(name);
            }
        }
    }
}

impl ResourceHolders {
    fn len(&self) -> usize {
        match self {
            Self::Writer(_) | Self::Reader(_) => 1,
            Self::Readers(keys) => keys.len(),
            Self::Disputed(all) => all.len(),
        }
    }

    fn into_all(self) -> Vec<(usize, LockKind)> {
        match self {
            Self::Writer(key) => vec![(key, LockKind::Write)],
            Self::Reader(key) => vec![(key, LockKind::Read)],
            Self::Readers(keys) => keys.into_iter().map(|key| (key, LockKind::Read)).collect(),
            Self::Disputed(all) => all,
        }
    }

    /// Removes one of several holders, which may end the dispute.
    fn leave_dispute(&mut self, key: usize) {
        let Self::Disputed(all) = self else { return };
        all.retain(|(other, _)| *other != key);
        debug_assert!(!all.is_empty(), "a dispute has two holders at least");
        *self = match all.as_slice() {
            [(key, LockKind::Write)] => Self::Writer(*key),
            rest if rest.iter().all(|(_, kind)| *kind == LockKind::Read) => {
                Self::Readers(rest.iter().map(|(key, _)| *key).collect())
            }
            _ => return,
        };
    }
}
