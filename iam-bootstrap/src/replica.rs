//! Versions of all items on one server, and their comparison with another server's.
//!
//! Pure. Two replicas are compared top down: first a [`Digest`] of 256 numbers, each over the items
//! whose paths hash to it; then the versions of the items in the buckets that differ; then the
//! records that are newer at the other. Replicas only pull: none receives an item that it did not
//! request.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::limits::{CLOCK_SKEW_MAX, ITEMS_MAX};
use crate::record::Version;
use crate::store::ItemPath;
use grid::check_schedule::CheckSchedule;

/// Number of buckets of a digest.
pub const BUCKETS: usize = 256;

/// One number for each bucket. Equal numbers mean equal versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest([u128; BUCKETS]);

impl Default for Digest {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Digest {
    /// Returns the numbers as bytes, one after the other.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    /// Parses a digest from its bytes; `None` if there are too few or too many.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks();
        if numbers.len() != BUCKETS || !rest.is_empty() {
            return None;
        }
        let mut digest = Self::default();
        for (number, bytes) in digest.0.iter_mut().zip(numbers) {
            *number = u128::from_be_bytes(*bytes);
        }
        Some(digest)
    }

    /// Returns the buckets that differ.
    pub fn differing(&self, other: &Self) -> Vec<u8> {
        let pairs = (0..=u8::MAX).zip(self.0.iter().zip(&other.0));
        pairs.filter(|(_, (own, other))| own != other).map(|(bucket, _)| bucket).collect()
    }

    fn add(&mut self, path: &ItemPath, version: Version) {
        if let Some(number) = self.0.get_mut(usize::from(bucket(path))) {
            *number = number.wrapping_add(hash(path, version));
        }
    }

    fn subtract(&mut self, path: &ItemPath, version: Version) {
        if let Some(number) = self.0.get_mut(usize::from(bucket(path))) {
            *number = number.wrapping_sub(hash(path, version));
        }
    }
}

fn bucket(path: &ItemPath) -> u8 {
    xxh3_64(path.as_str().as_bytes()).to_be_bytes()[0]
}

fn hash(path: &ItemPath, version: Version) -> u128 {
    xxh3_128(format!("{path} {version}").as_bytes())
}

/// Version and pool of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownItem {
    /// Latest version.
    pub version: Version,
    /// Index of the pool that keeps the item.
    pub pool: usize,
}

/// Result of comparing a record with the known version of its item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Freshness {
    /// Newer: the record is to be applied.
    Newer,
    /// The same version.
    Same,
    /// Older than the known version.
    Older,
    /// Too far in the future: the clock of the server that made it is wrong, and applying it would
    /// pull all later versions into the future as well.
    Future,
    /// New, but there are already [`ITEMS_MAX`] items.
    Full,
}

/// The versions of all items of one replica, tombstones included.
#[derive(Debug, Clone, Default)]
pub struct Replica {
    known: BTreeMap<ItemPath, KnownItem>,
    digest: Digest,
    /// Latest time of all versions so far, in microseconds since the Unix epoch.
    latest: u64,
    checks: CheckSchedule,
}

impl Replica {
    /// Returns the number of items, tombstones included.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Returns whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Returns the version and pool of an item.
    pub fn get(&self, path: &ItemPath) -> Option<KnownItem> {
        self.known.get(path).copied()
    }

    /// Returns the version of a change that is made here now: later than every known version
    /// ([B62]).
    ///
    /// `wall_micros` is the wall clock's time in microseconds since the Unix epoch.
    ///
    /// [B62]: crate::rules#b62
    pub fn next_version(&self, wall_micros: u64, node: u64) -> Version {
        Version { micros: wall_micros.max(self.latest.saturating_add(1)), node }
    }

    /// Compares a record's version with the known one.
    pub fn freshness(&self, path: &ItemPath, version: Version, wall_micros: u64) -> Freshness {
        let lead = u64::try_from(CLOCK_SKEW_MAX.as_micros()).unwrap_or(u64::MAX);
        match self.known.get(path) {
            Some(known) if version == known.version => Freshness::Same,
            Some(known) if version < known.version => Freshness::Older,
            _ if version.micros > wall_micros.max(self.latest).saturating_add(lead) => {
                Freshness::Future
            }
            None if self.known.len() >= ITEMS_MAX => Freshness::Full,
            _ => Freshness::Newer,
        }
    }

    /// Records an item's version and pool. A version that is not newer than the known one changes
    /// nothing: versions never go back.
    pub fn record(&mut self, path: &ItemPath, known: KnownItem) {
        match self.known.entry(path.clone()) {
            Entry::Occupied(mut entry) => {
                let before = entry.get().version;
                debug_assert!(known.version > before, "caller compares versions first");
                if known.version <= before {
                    return;
                }
                self.digest.subtract(path, before);
                entry.insert(known);
            }
            Entry::Vacant(entry) => {
                entry.insert(known);
            }
        }
        self.digest.add(path, known.version);
        self.latest = self.latest.max(known.version.micros);
        self.check_after_change();
    }

    /// Removes a collectable item.
    pub fn remove(&mut self, path: &ItemPath) {
        if let Some(known) = self.known.remove(path) {
            self.digest.subtract(path, known.version);
        }
        self.check_after_change();
    }

    /// Checks that the digest and the latest time are those of the items. Visits all items; debug
    /// builds call it themselves.
    ///
    /// # Panics
    ///
    /// If one of these does not hold. The message names the field and both values.
    pub fn check_invariants(&self) {
        let (mut digest, mut latest) = (Digest::default(), 0);
        for (path, known) in &self.known {
            digest.add(path, known.version);
            latest = latest.max(known.version.micros);
        }
        // Later than all of them, if the latest item was removed: versions do not go back.
        assert!(self.latest >= latest, "latest is {}, and an item has {latest}", self.latest);
        for bucket in self.digest.differing(&digest) {
            let [own, of_items] = [&self.digest, &digest].map(|all| all.0[usize::from(bucket)]);
            assert_eq!(own, of_items, "digest of bucket {bucket}, and that of its items");
        }
    }

    fn check_after_change(&self) {
        self.checks.record();
        if self.checks.is_due(self.known.len()) {
            self.check_invariants();
        }
    }

    /// Returns all items in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&ItemPath, &KnownItem)> {
        self.known.iter()
    }

    /// Returns the digest of all versions.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Returns at most `max` versions of items in these buckets, and the path to continue after.
    pub fn versions_in(
        &self,
        buckets: &[u8],
        after: Option<&ItemPath>,
        max: usize,
    ) -> (Vec<(ItemPath, Version)>, Option<ItemPath>) {
        let mut selected = [false; BUCKETS];
        for bucket in buckets {
            selected[usize::from(*bucket)] = true;
        }
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.known.range::<ItemPath, _>((from, Bound::Unbounded));
        let mut versions = Vec::new();
        for (path, known) in range.filter(|(path, _)| selected[usize::from(bucket(path))]) {
            if versions.len() == max {
                let next = versions.last().map(|(path, _): &(ItemPath, Version)| path.clone());
                return (versions, next);
            }
            versions.push((path.clone(), known.version));
        }
        (versions, None)
    }

    /// Returns the paths of those of another replica's items that are newer there.
    pub fn newer_in(&self, theirs: &[(ItemPath, Version)], wall_micros: u64) -> Vec<ItemPath> {
        let newer = theirs.iter().filter(|(path, version)| {
            self.freshness(path, *version, wall_micros) == Freshness::Newer
        });
        newer.map(|(path, _)| path.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::store::ItemKind;

    fn path(number: u8) -> ItemPath {
        ItemPath::new(ItemKind::User, format!("user-{number}")).expect("valid name")
    }

    fn version(micros: u64) -> Version {
        Version { micros, node: 1 }
    }

    fn replica_of(items: &[(u8, u64)]) -> Replica {
        let mut replica = Replica::default();
        for (number, micros) in items {
            record_if_newer(&mut replica, &path(*number), version(*micros));
        }
        replica
    }

    fn record_if_newer(replica: &mut Replica, path: &ItemPath, version: Version) {
        if replica.freshness(path, version, 1_000) == Freshness::Newer {
            replica.record(path, KnownItem { version, pool: 0 });
        }
    }

    /// Pulls from another replica what is newer there, as a server does over the network.
    fn reconcile_from(own: &mut Replica, other: &Replica, part: usize) {
        let buckets = own.digest().differing(other.digest());
        let mut after = None;
        loop {
            let (versions, next) = other.versions_in(&buckets, after.as_ref(), part);
            for path in own.newer_in(&versions, 1_000) {
                let known = other.get(&path).expect("listed item exists");
                own.record(&path, known);
            }
            after = next;
            if after.is_none() {
                return;
            }
        }
    }

    proptest! {
        #[test]
        fn b62_replicas_that_pull_from_each_other_converge(
            one in proptest::collection::vec((0..40_u8, 1..50_u64), 0..60),
            two in proptest::collection::vec((0..40_u8, 1..50_u64), 0..60),
            part in 1..10_usize,
        ) {
            let (mut one, mut two) = (replica_of(&one), replica_of(&two));
            reconcile_from(&mut one, &two, part);
            reconcile_from(&mut two, &one, part);
            prop_assert_eq!(&one.known, &two.known);
            prop_assert_eq!(one.digest().differing(two.digest()), Vec::<u8>::new());
        }

        #[test]
        fn b62_order_and_repetition_of_records_do_not_matter(
            mut items in proptest::collection::vec((0..10_u8, 1..50_u64), 0..60),
        ) {
            let forwards = replica_of(&items);
            items.extend(items.clone());
            items.reverse();
            let backwards = replica_of(&items);
            prop_assert_eq!(&forwards.known, &backwards.known);
            prop_assert_eq!(forwards.digest(), backwards.digest());
            for (number, micros) in &items {
                let known = forwards.get(&path(*number)).expect("recorded item exists");
                prop_assert!(known.version >= version(*micros), "latest version wins");
            }
        }

        #[test]
        fn b62_local_change_is_later_than_every_known_version(
            items in proptest::collection::vec((0..10_u8, 1..900_u64), 0..20),
            wall in 0..1_000_u64,
        ) {
            let replica = replica_of(&items);
            let next = replica.next_version(wall, 0);
            prop_assert!(replica.known.values().all(|known| known.version < next));
            prop_assert!(next.micros >= wall);
        }

        #[test]
        fn b62_digest_is_that_of_the_items_after_any_changes(
            changes in proptest::collection::vec((0..10_u8, 1..50_u64, any::<bool>()), 0..60),
        ) {
            let mut replica = Replica::default();
            for (number, micros, is_removal) in changes {
                match is_removal {
                    true => replica.remove(&path(number)),
                    false => record_if_newer(&mut replica, &path(number), version(micros)),
                }
            }
            replica.check_invariants();
        }

        #[test]
        fn digest_round_trips_through_bytes(items in proptest::collection::vec((0..40_u8, 1..50_u64), 0..60)) {
            let replica = replica_of(&items);
            let bytes = replica.digest().to_bytes();
            let back = Digest::from_bytes(&bytes);
            prop_assert_eq!(back.as_ref(), Some(replica.digest()));
            prop_assert_eq!(Digest::from_bytes(&bytes[1..]), None);
        }
    }

    #[test]
    fn b62_version_from_a_wrong_clock_is_rejected() {
        let mut replica = replica_of(&[(1, 10)]);
        let lead = u64::try_from(CLOCK_SKEW_MAX.as_micros()).expect("fits into u64");
        let far = version(1_001 + lead);
        assert_eq!(replica.freshness(&path(1), far, 1_000), Freshness::Future);
        assert_eq!(replica.freshness(&path(1), version(1_000 + lead), 1_000), Freshness::Newer);
        // A server's own clock may be set back: its known versions are then in the future, and
        // newer ones are still accepted.
        replica.record(&path(2), KnownItem { version: version(2_000 + lead), pool: 0 });
        assert_eq!(replica.freshness(&path(1), far, 1_000), Freshness::Newer);
    }

    #[test]
    fn versions_are_paged_without_gaps() {
        let items: Vec<(u8, u64)> = (0..100).map(|number| (number, 5)).collect();
        let replica = replica_of(&items);
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let mut seen = BTreeSet::new();
        let mut after = None;
        let mut parts = 0;
        loop {
            let (versions, next) = replica.versions_in(&all, after.as_ref(), 30);
            parts += 1;
            seen.extend(versions.into_iter().map(|(path, _)| path));
            after = next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!((seen.len(), parts), (100, 4));
    }
}
