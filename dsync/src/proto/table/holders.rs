//! Who holds each resource.
//!
//! Grants never exclude each other; but what a locker learns from others after a restart may. A holder
//! that was suspended together with its clock counts on what was given to another meanwhile. Which of
//! them is right no locker can know, so the resource is disputed, and nobody else gets it, until all
//! of them but one kind have let go or expired (B53).

use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::proto::keyed::{Key, KeyedMap};
use crate::proto::names::Names;
use crate::proto::quorum::Kind;

/// The holders of all resources that have any, by the keys of their grants.
#[derive(Debug)]
pub(super) struct Holders(KeyedMap<Arc<str>, Held>);

/// Who holds one resource.
#[derive(Debug)]
enum Held {
    Writer(usize),
    Reader(usize),
    Readers(FxHashSet<usize>),
    /// More than one, and not all of them readers.
    Disputed(Vec<(usize, Kind)>),
}

impl Holders {
    pub(super) fn new(key: Key) -> Self {
        Self(KeyedMap::with_hasher(key))
    }

    /// How many resources are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether all of these may be granted.
    pub(super) fn is_free(&self, names: &Names, kind: Kind) -> bool {
        names.iter().all(|name| match self.0.get(name) {
            None => true,
            Some(Held::Reader(_) | Held::Readers(_)) => kind == Kind::Read,
            Some(Held::Writer(_) | Held::Disputed(_)) => false,
        })
    }

    /// The grant with this key holds these. Returns whether somebody whom it excludes does so too.
    pub(super) fn add(&mut self, names: &Names, key: usize, kind: Kind) -> bool {
        let mut is_disputed = false;
        for name in names.iter() {
            let held = match (self.0.remove(name), kind) {
                (None, Kind::Write) => Held::Writer(key),
                (None, Kind::Read) => Held::Reader(key),
                (Some(Held::Reader(other)), Kind::Read) => {
                    Held::Readers([other, key].into_iter().collect())
                }
                (Some(Held::Readers(mut others)), Kind::Read) => {
                    others.insert(key);
                    Held::Readers(others)
                }
                (Some(held), _) => {
                    is_disputed = true;
                    let mut all = held.into_all();
                    all.push((key, kind));
                    Held::Disputed(all)
                }
            };
            self.0.insert(Arc::clone(name), held);
        }
        is_disputed
    }

    /// The grant with this key holds these no more.
    pub(super) fn remove(&mut self, names: &Names, key: usize) {
        for name in names.iter() {
            let is_held = match self.0.get_mut(name) {
                None => continue,
                Some(Held::Writer(_) | Held::Reader(_)) => false,
                Some(Held::Readers(keys)) => {
                    keys.remove(&key);
                    !keys.is_empty()
                }
                Some(held @ Held::Disputed(_)) => {
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

impl Held {
    fn into_all(self) -> Vec<(usize, Kind)> {
        match self {
            Self::Writer(key) => vec![(key, Kind::Write)],
            Self::Reader(key) => vec![(key, Kind::Read)],
            Self::Readers(keys) => keys.into_iter().map(|key| (key, Kind::Read)).collect(),
            Self::Disputed(all) => all,
        }
    }

    /// One of several goes. What is left may be a dispute no more.
    fn leave_dispute(&mut self, key: usize) {
        let Self::Disputed(all) = self else { return };
        all.retain(|(other, _)| *other != key);
        debug_assert!(!all.is_empty(), "there are two at least in a dispute");
        *self = match all.as_slice() {
            [(key, Kind::Write)] => Self::Writer(*key),
            rest if rest.iter().all(|(_, kind)| *kind == Kind::Read) => {
                Self::Readers(rest.iter().map(|(key, _)| *key).collect())
            }
            _ => return,
        };
    }
}
