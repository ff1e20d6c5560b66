//! Invariants of a locker: its indices agree with its grants.

use std::cmp::Reverse;

use rustc_hash::FxHashSet;

use super::Table;

impl Table {
    /// Checks the invariants as often as the number of grants and waiters permits. To be called
    /// at the end of each public method that changes the table.
    pub(super) fn check_after_change(&mut self) {
        let items = self.grants.len() + self.expiries.len() + self.holders.len();
        if self.live_checks.is_due_after_operation(items) {
            self.check_grants();
            self.check_indices();
        }
        let items = self.tokens.len() + self.tombstones.len() + self.cancelled_tickets.len();
        if self.history_checks.is_due_after_operation(items) {
            self.check_history();
        }
    }

    /// Checks that all parts of the table agree with each other.
    ///
    /// # Panics
    ///
    /// If they do not: the message names the field, and has both values.
    pub fn check_invariants(&self) {
        self.check_grants();
        self.check_indices();
        self.check_history();
        self.waiters.check_invariants();
    }

    /// Checks each grant, and what is counted over all of them.
    fn check_grants(&self) {
        let (mut bytes, mut names, mut revoked) = (0, 0, 0);
        for (key, grant) in &self.grants {
            let uid = &grant.request.uid;
            assert_eq!(self.by_uid.get(uid), Some(&key), "Table.by_uid of {uid}");
            let is_ended = grant.request.supports_leases && self.tombstones.contains(uid);
            assert!(!is_ended, "Table.tombstones has {uid}, which is granted");
            let (serial, next) = (grant.serial, self.next_serial);
            assert!(serial < next, "Grant.serial {serial} of {uid}, next_serial {next}");
            let (refreshed, end) = (grant.refreshed_at, grant.expires_at);
            assert_eq!(end, refreshed + self.lease, "Grant.expires_at of {uid}");
            for name in grant.request.resources.iter() {
                let is_holder = self.holders.has(name, key, grant.request.kind);
                assert!(is_holder, "Table.holders of {name} lacks {uid}, which is granted");
                names += 1;
            }
            bytes += grant.request.resources.bytes();
            revoked += u64::from(grant.is_revoked);
        }
        assert_eq!(self.resource_bytes, bytes, "Table.resource_bytes, bytes of the grants");
        assert_eq!(self.holders.total(), names, "Table.holders, resources of the grants");
        let forced = self.counts.forced;
        assert!(forced >= revoked, "GrantCounts.forced {forced}, revoked grants {revoked}");
    }

    /// Checks that each grant has one id and one timer.
    fn check_indices(&self) {
        assert_eq!(self.by_uid.len(), self.grants.len(), "Table.by_uid, grants");
        self.holders.check_invariants();
        let mut timed = FxHashSet::default();
        for Reverse((at, key, serial)) in &self.expiries {
            let grant = self.grants.get(*key).filter(|grant| grant.serial == *serial);
            let Some(grant) = grant else { continue };
            let (end, uid) = (grant.expires_at, &grant.request.uid);
            assert!(*at <= end, "Table.expiries {at:?} of {uid}, Grant.expires_at {end:?}");
            assert!(timed.insert(*key), "Table.expiries has {uid} twice");
        }
        assert_eq!(timed.len(), self.grants.len(), "Table.expiries of live grants, grants");
    }

    /// Checks tokens and tombstones.
    fn check_history(&self) {
        self.tokens.check_invariants();
        self.tombstones.check_invariants();
        self.cancelled_tickets.check_invariants();
    }
}
