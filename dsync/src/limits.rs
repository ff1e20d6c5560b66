//! Every default and maximum of the crate, with units, and how they relate.
//!
//! [`Limits`] carries those that an application may choose. [`Limits::check`] holds them to what
//! exclusion depends on.

use std::time::Duration;

use crate::error::BuildError;

/// How long a locker keeps a grant after its last refresh (B52).
pub const LEASE: Duration = Duration::from_secs(60);

/// Time between two refreshes of a lock by its holder.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// How far the rate of any one clock may be off, in parts of a million. Two clocks may be off in
/// opposite directions, so a holder subtracts twice this from its lease. Quartz is a hundred times
/// better; what is worse than this is broken.
pub const CLOCK_RATE_ERROR_PPM: u32 = 10_000;

/// What a holder subtracts from its lease for its own scheduling: so long before a locker may give
/// the lock away it is told.
pub const SCHEDULING_MARGIN: Duration = Duration::from_secs(1);

/// Longest time that one attempt to reach a quorum may take, and longest wait for an answer.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// First wait after a failed attempt (B55).
pub const RETRY_FIRST: Duration = Duration::from_millis(250);

/// By how much each further wait is longer.
pub const RETRY_STEP: Duration = Duration::from_millis(100);

/// The longest wait between two attempts, and between two tries to release.
pub const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long a lock that became free is kept for the waiter who was told. Long enough for an answer
/// from the other end of a continent; a waiter that died costs the next one this much.
pub const RESERVATION: Duration = Duration::from_millis(500);

/// A waiter that has waited for so long lets nobody pass whom it would have to wait for: readers
/// that keep coming do not starve a writer (B55).
pub const PATIENCE: Duration = Duration::from_secs(1);

/// How long a locker remembers a waiter that does not ask again.
pub const WAIT_POLL: Duration = Duration::from_secs(10);

/// Waiters that a locker looks at when a lock becomes free. Those behind find out by asking.
pub const WAITERS_CALLED_MAX: usize = 64;

/// Resources that one lock may take.
pub const RESOURCES_MAX: usize = 1_000;

/// Longest name of a resource, in bytes.
pub const RESOURCE_BYTES_MAX: usize = 2_048;

/// Longest owner, source or id of a lock that a locker keeps, in bytes; what is longer is refused.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// Lockers of one cluster.
pub const LOCKERS_MAX: usize = 256;

/// Grants that one locker keeps at once; more are refused.
pub const GRANTS_MAX: usize = 262_144;

/// Bytes of names that the grants of one locker may take.
pub const NAMES_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Waiters that one locker keeps; further ones are not told and have to ask.
pub const WAITERS_MAX: usize = 10_000;

/// Callers that may wait for one locker's table at once; further ones are refused at once (B57).
pub const TABLE_CALLERS_MAX: usize = 1_000;

/// Released grants that a locker remembers, so that a request which was overtaken by its release
/// changes nothing.
pub const TOMBSTONES_MAX: usize = 4_096;

/// Locks that one process may hold, try for, or be releasing.
pub const HOLDS_MAX: usize = 262_144;

/// How far a holder's proposal for a token may be ahead of a locker's own clock, in microseconds.
/// A client whose clock is wrong must not carry all tokens with it.
pub const TOKEN_LEAD_MICROS: u64 = 1_000_000;

/// Tokens that a locker remembers, each the highest of all resources that share its place.
pub const TOKEN_PLACES: usize = 4_096;

/// Time between two questions of a restarted locker to a node that did not answer.
pub const RECOVERY_RETRY: Duration = Duration::from_millis(200);

/// Longest time for a node to answer what it holds.
pub const RECOVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest lease that may be chosen: there must be room for the margin and some refreshes.
const LEASE_MIN: Duration = Duration::from_millis(100);

/// The longest lease that may be chosen.
const LEASE_MAX: Duration = Duration::from_secs(86_400);

/// Locks that one answer to a restarted locker tells of, and about how many bytes it may have: more
/// travel in further ones.
pub const HOLDINGS_PER_ANSWER: usize = 1_000;
/// See [`HOLDINGS_PER_ANSWER`].
pub const HOLDINGS_BYTES_MAX: usize = 1024 * 1024;

/// Grants, and waiters, that a locker lists: the oldest.
pub const LISTED_MAX: usize = 10_000;

/// Bytes of names that either list may have.
pub const LISTED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a lock is tried for, unless told.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// What a process runs with. Start from [`Limits::default`] and change what must differ.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// See [`LEASE`]. May differ between servers: a holder counts on the shorter of its own and the
    /// locker's. A locker that is restarted with a shorter one forgets that it promised more: wait
    /// for the longer one to pass before you start it again.
    pub lease: Duration,
    /// See [`REFRESH_INTERVAL`].
    pub refresh_interval: Duration,
    /// See [`SCHEDULING_MARGIN`].
    pub scheduling_margin: Duration,
    /// See [`ATTEMPT_TIMEOUT`].
    pub attempt_timeout: Duration,
    /// See [`RETRY_FIRST`].
    pub retry_first: Duration,
    /// See [`RETRY_STEP`].
    pub retry_step: Duration,
    /// See [`RETRY_MAX`].
    pub retry_max: Duration,
    /// See [`RESERVATION`].
    pub reservation: Duration,
    /// See [`PATIENCE`].
    pub patience: Duration,
    /// See [`GRANTS_MAX`].
    pub grants_max: usize,
    /// See [`WAITERS_MAX`].
    pub waiters_max: usize,
    /// See [`TABLE_CALLERS_MAX`].
    pub table_callers_max: usize,
    /// See [`HOLDS_MAX`].
    pub holds_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            lease: LEASE,
            refresh_interval: REFRESH_INTERVAL,
            scheduling_margin: SCHEDULING_MARGIN,
            attempt_timeout: ATTEMPT_TIMEOUT,
            retry_first: RETRY_FIRST,
            retry_step: RETRY_STEP,
            retry_max: RETRY_MAX,
            reservation: RESERVATION,
            patience: PATIENCE,
            grants_max: GRANTS_MAX,
            waiters_max: WAITERS_MAX,
            table_callers_max: TABLE_CALLERS_MAX,
            holds_max: HOLDS_MAX,
        }
    }
}

impl Limits {
    /// The defaults for another lease: refreshes, margin and time-outs in the same proportion, none
    /// longer than with the default lease.
    pub fn with_lease(lease: Duration) -> Self {
        let part = |of: u32, max: Duration| (lease / of).min(max);
        Self {
            lease,
            refresh_interval: part(6, REFRESH_INTERVAL),
            scheduling_margin: part(20, SCHEDULING_MARGIN),
            attempt_timeout: part(6, ATTEMPT_TIMEOUT),
            ..Self::default()
        }
    }

    /// How long a holder may be certain of a locker's grant, from when it asked for it: the lease,
    /// less what clocks may be off and the margin for scheduling (B52).
    pub fn certainty(&self, lease: Duration) -> Duration {
        let lease = lease.min(self.lease);
        let error = lease.mul_f64(f64::from(2 * CLOCK_RATE_ERROR_PPM) / 1e6);
        lease.saturating_sub(error).saturating_sub(self.scheduling_margin)
    }

    /// Whether the chosen values fit together.
    ///
    /// # Errors
    ///
    /// [`BuildError::Limit`] names the first value that does not, and what it must be.
    pub fn check(&self) -> Result<(), BuildError> {
        let wrong = |name, must| Err(BuildError::Limit { name, must });
        if !(LEASE_MIN..=LEASE_MAX).contains(&self.lease) {
            return wrong("lease", "between 100 ms and a day");
        }
        if self.scheduling_margin > self.lease / 10 {
            return wrong("scheduling_margin", "at most a tenth of lease");
        }
        if self.refresh_interval.is_zero() || self.refresh_interval > self.lease / 4 {
            return wrong("refresh_interval", "more than zero and at most a quarter of lease");
        }
        if self.attempt_timeout.is_zero() || self.attempt_timeout > self.lease / 2 {
            return wrong("attempt_timeout", "more than zero and at most half of lease");
        }
        if self.retry_first.is_zero() || self.retry_max < self.retry_first {
            return wrong("retry_first", "more than zero and at most retry_max");
        }
        if self.retry_max > LEASE_MAX || self.retry_step > self.retry_max {
            return wrong("retry_max", "at least retry_step and at most a day");
        }
        if self.reservation.is_zero() || self.reservation > WAIT_POLL || self.patience > WAIT_POLL {
            return wrong("reservation and patience", "at most 10 s, and reservation not zero");
        }
        if self.grants_max == 0 || self.table_callers_max == 0 || self.holds_max == 0 {
            return wrong("grants_max, table_callers_max and holds_max", "at least 1");
        }
        Ok(())
    }
}

const _: () = assert!(RESOURCES_MAX * RESOURCE_BYTES_MAX < NAMES_BYTES_MAX);
const _: () = assert!(TOKEN_PLACES.is_power_of_two());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together_and_so_do_those_of_any_lease() {
        Limits::default().check().expect("the defaults");
        for millis in [100, 1_000, 4_000, 12_000, 60_000, 600_000] {
            let limits = Limits::with_lease(Duration::from_millis(millis));
            limits.check().unwrap_or_else(|error| panic!("{millis} ms: {error}"));
        }
        assert_eq!(Limits::with_lease(LEASE), Limits::default());
    }

    #[test]
    fn b52_a_certainty_ends_before_the_shortest_lease_that_a_locker_may_measure() {
        let limits = Limits::default();
        // The holder's clock is slow by a hundredth, the locker's fast by one.
        let (slow, fast) = (0.99, 1.01);
        let by_true_time = limits.certainty(LEASE).as_secs_f64() / slow;
        assert!(by_true_time < LEASE.as_secs_f64() / fast);
        assert!(limits.certainty(LEASE) > LEASE * 9 / 10, "and most of the lease can be used");
        assert_eq!(limits.certainty(LEASE / 2), limits.certainty(LEASE / 2).min(LEASE / 2));
    }

    #[test]
    fn a_limit_that_does_not_fit_is_named_with_what_it_must_be() {
        let limits = Limits { refresh_interval: LEASE, ..Limits::default() };
        let error = limits.check().expect_err("one refresh a lease is too few");
        assert_eq!(
            error.to_string(),
            "limit refresh_interval must be more than zero and at most a quarter of lease"
        );
    }
}
