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
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether all of these may be granted.
    pub(super) fn is_free(&self, resources: &Resources, kind: LockKind) -> bool {
        resources.iter().all(|name| match self.0.get(name) {
            None => true,
            Some(ResourceHolders::Reader(_) | ResourceHolders::Readers(_)) => {
                kind == LockKind::Read
            }
            Some(ResourceHolders::Writer(_) | ResourceHolders::Disputed(_)) => false,
        })
    }

    /// Adds a grant. Returns whether it conflicts with another one.
    pub(super) fn add(&mut self, resources: &Resources, key: usize, kind: LockKind) -> bool {
        let mut is_disputed = false;
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
                    is_disputed = true;
                    let mut all = held.into_all();
                    all.push((key, kind));
                    ResourceHolders::Disputed(all)
                }
            };
            self.0.insert(Arc::clone(name), held);
        }
        is_disputed
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
