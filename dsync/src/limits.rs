//! Defaults and maxima of the crate, with their units and constraints.
//!
//! [`Limits`] has those that an application may choose. [`Limits::check`] enforces the relations
//! that exclusion depends on.

use std::time::Duration;

use crate::error::BuildError;

/// Duration of a grant after its last refresh ([B52]).
///
/// [B52]: crate::rules#b52
pub const LEASE: Duration = Duration::from_secs(60);

/// Time between two refreshes of a lock by its holder.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(10);

/// Largest rate error of any one clock, in parts per million. Two clocks may be off in opposite
/// directions, so a holder subtracts twice this from its lease. Quartz is a hundred times better; a
/// worse clock is broken.
pub const CLOCK_RATE_ERROR_PPM: u32 = 10_000;

/// Margin for scheduling delays at the holder: it is notified of a loss this long before a locker
/// may grant the lock to another holder.
pub const SCHEDULING_MARGIN: Duration = Duration::from_secs(1);

/// Timeout of one attempt to reach a quorum, and of one RPC.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// First retry delay after a failed attempt ([B55]).
///
/// [B55]: crate::rules#b55
pub const RETRY_FIRST: Duration = Duration::from_millis(250);

/// Increment of each further retry delay.
pub const RETRY_STEP: Duration = Duration::from_millis(100);

/// Longest retry delay of attempts and of releases.
pub const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long a free lock is reserved for the notified waiter. Long enough for a response from the
/// other end of a continent; a dead waiter delays the next one by as much.
pub const RESERVATION: Duration = Duration::from_millis(500);

/// How long requests of MinIO holders, which have no tickets, may pass (barge ahead of) a waiter
/// that was not notified ([B59]).
///
/// [B59]: crate::rules#b59
pub const BARGING_LIMIT: Duration = Duration::from_secs(1);

/// Tickets of one resource that are searched for one that blocks a MinIO holder.
pub const PLAIN_SCAN_MAX: usize = 64;

/// Longest time until a locker responds to a wait request.
pub const WAIT_POLL: Duration = Duration::from_secs(10);

/// How long a locker keeps the ticket of a waiter that makes no contact ([B58]). A holder makes
/// contact three times as often: a lost message costs no position.
///
/// [B58]: crate::rules#b58
pub const TICKET_TTL: Duration = Duration::from_secs(15);

/// Waiters of one resource that a locker notifies at once; it notifies further ones as these retry.
/// As many as arrive within the round trip of the first, so that their order costs no time.
pub const WAITERS_NOTIFIED_MAX: usize = 256;

/// Waiters of one resource that are searched for those to notify: more than may be notified, as
/// some may be waiting for other resources. Those behind are found when these are gone.
pub const WAITERS_SCANNED_MAX: usize = 4 * WAITERS_NOTIFIED_MAX;

/// Time between two contacts of a waiter with a locker that keeps its ticket ([B58]): a third of the
/// time after which the locker drops it.
///
/// [B58]: crate::rules#b58
pub const TICKET_RENEWAL: Duration = Duration::from_secs(5);

/// Resources that one lock may take.
pub const RESOURCES_MAX: usize = 1_000;

/// Longest name of a resource, in bytes.
pub const RESOURCE_NAME_BYTES_MAX: usize = 2_048;

/// Longest owner, source or id of a lock that a locker accepts, in bytes.
pub const TEXT_BYTES_MAX: usize = 1_024;

/// Lockers of one cluster.
pub const LOCKERS_MAX: usize = 256;

/// Grants that one locker keeps at once; more are refused.
pub const GRANTS_MAX: usize = 262_144;

/// Total length of the resource names in one locker's grants, in bytes.
pub const GRANTED_NAME_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Waiters that one locker keeps; further ones get no notifications and have to poll.
pub const WAITERS_MAX: usize = 10_000;

/// Memory of one locker's waiters, in bytes, with their texts and the names of their resources.
/// Beyond it, waiters are refused as beyond [`WAITERS_MAX`] ([B58]).
///
/// [B58]: crate::rules#b58
pub const WAITER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Memory of one waiter without its texts, in bytes, approximately.
pub const WAITER_BYTES: usize = 512;

/// Memory of a waiter's place in the queue of one resource without the name, in bytes,
/// approximately.
pub const WAITER_NAME_BYTES: usize = 256;

/// Callers that may wait for one locker's table at once; further ones are refused at once ([B57]).
///
/// [B57]: crate::rules#b57
pub const TABLE_CALLERS_MAX: usize = 1_000;

/// Refreshes in one batch.
pub const REFRESHES_PER_BATCH: usize = 256;

/// Part of the refresh interval for which a refresh waits for others to be sent with.
pub const REFRESH_BATCH_WINDOWS: u32 = 20;

/// Refreshes that are sent singly to a locker which knows no batches, before another batch is tried:
/// it may have been upgraded.
pub const REFRESHES_WITHOUT_BATCH: u32 = 1_000;

/// Resource name bytes in one batch of refreshes. A single refresh may have more.
pub const REFRESH_BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Memory of the ended attempts that a locker remembers, in bytes, so that a request which was
/// overtaken by its release has no effect. They are forgotten after two leases, or when newer ones
/// need the memory; the same again for cancelled tickets.
pub const TOMBSTONE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Memory of one of them without its id, in bytes, approximately.
pub const TOMBSTONE_BYTES: usize = 96;

/// Locks that one process may hold, acquire or be releasing at once.
pub const HOLDS_MAX: usize = 262_144;

/// How far a holder's proposed token may be ahead of a locker's own clock, in microseconds. A
/// holder with a wrong clock must not advance all tokens.
pub const TOKEN_LEAD_MICROS: u64 = 1_000_000;

/// How far the token of a lock may be behind the wall clocks of the lockers that granted it. Further
/// behind, it may be lower than a token that only lockers know which did not respond ([B54]).
///
/// [B54]: crate::rules#b54
pub const TOKEN_LAG_MAX: Duration = Duration::from_millis(100);

/// Longest round trip that a holder adds to a locker's clock reading: a token that is proposed then
/// reaches the locker no later than its clock. Less than the lead that lockers accept.
pub const TOKEN_ROUND_TRIP_MAX: Duration = Duration::from_micros(TOKEN_LEAD_MICROS / 2);

/// Token slots of a locker, each with the highest token of all resources that share it.
pub const TOKEN_SLOTS: usize = 4_096;

/// Time between two queries of a restarted locker to a node that did not respond.
pub const RECOVERY_RETRY: Duration = Duration::from_millis(200);

/// Timeout of one query for the leases of a node.
pub const RECOVERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Queries of each other server's list of lockers in one lease ([B65]).
///
/// [B65]: crate::rules#b65
pub const CONFIRMATIONS_PER_LEASE: u32 = 8;

/// Shortest configurable lease: there must be room for the margin and some refreshes.
const LEASE_MIN: Duration = Duration::from_millis(100);

/// Longest configurable lease.
const LEASE_MAX: Duration = Duration::from_secs(86_400);

/// Leases in one page of a node's report to a restarted locker.
pub const HELD_LEASES_PER_RESPONSE: usize = 1_000;
/// Resource name bytes in one page of a node's report to a restarted locker, approximately.
pub const HELD_LEASES_BYTES_MAX: usize = 1024 * 1024;

/// Grants, and waiters, in a locker's listing: the oldest.
pub const LISTED_MAX: usize = 10_000;

/// Resource name bytes in either part of a listing.
pub const LISTED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Default timeout of an acquisition.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// Minimum time between two log lines about lost locks.
pub const LOSS_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Minimum time between two warnings that one server has another list of lockers.
pub const QUORUM_LOG_INTERVAL: Duration = Duration::from_secs(3_600);

/// Time between two log lines of a restarted locker that does not grant yet.
pub const RECOVERY_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Limits of one process. Start from [`Limits::default`] and change fields as needed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// See [`LEASE`]. The same on all servers: one with another lease than most gets no locks
    /// ([B64](crate::rules#b64)). Before it is shortened, stop all servers for one old lease.
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
            grants_max: GRANTS_MAX,
            waiters_max: WAITERS_MAX,
            table_callers_max: TABLE_CALLERS_MAX,
            holds_max: HOLDS_MAX,
        }
    }
}

impl Limits {
    /// Returns the defaults for another lease: refresh interval, margin and timeouts in the same
    /// proportion to it, none longer than with the default lease.
    pub fn with_lease(lease: Duration) -> Self {
        let fraction = |divisor: u32, max: Duration| (lease / divisor).min(max);
        Self {
            lease,
            refresh_interval: fraction(6, REFRESH_INTERVAL),
            scheduling_margin: fraction(20, SCHEDULING_MARGIN),
            attempt_timeout: fraction(6, ATTEMPT_TIMEOUT),
            ..Self::default()
        }
    }

    /// Returns how long a vote is valid, counted from when its request was sent: the lease, less the
    /// possible clock error and the scheduling margin ([B52]).
    ///
    /// [B52]: crate::rules#b52
    pub fn validity_period(&self, lease: Duration) -> Duration {
        let lease = lease.min(self.lease);
        let error = lease.mul_f64(f64::from(2 * CLOCK_RATE_ERROR_PPM) / 1e6);
        lease.saturating_sub(error).saturating_sub(self.scheduling_margin)
    }

    /// Returns how long another server counts as one with the same list of lockers, from when it was
    /// queried: half a lease ([B65]).
    ///
    /// [B65]: crate::rules#b65
    pub fn confirmation_period(&self) -> Duration {
        self.lease / 2
    }

    /// Returns how long a process must have been up before it counts toward the agreement on a list
    /// of lockers, unless all servers agree: one and a half leases, and the possible clock error. Its
    /// earlier process may have been counted, with another list, for half a lease after it ended, and
    /// leases that were granted until then last for another lease ([B65]).
    ///
    /// [B65]: crate::rules#b65
    pub fn settling_period(&self) -> Duration {
        let error = self.lease.mul_f64(f64::from(4 * CLOCK_RATE_ERROR_PPM) / 1e6);
        self.lease + self.lease / 2 + error
    }

    /// Returns the time between two queries of another server's list of lockers.
    pub fn confirmation_interval(&self) -> Duration {
        self.lease / CONFIRMATIONS_PER_LEASE
    }

    /// Returns how long a refresh waits for others to be sent with.
    pub fn refresh_batch_window(&self) -> Duration {
        self.refresh_interval / REFRESH_BATCH_WINDOWS
    }

    /// Checks that the values fit together.
    ///
    /// # Errors
    ///
    /// [`BuildError::Limit`] names the first value that does not, and its constraint.
    pub fn check(&self) -> Result<(), BuildError> {
        let invalid = |name, must| Err(BuildError::Limit { name, must });
        if !(LEASE_MIN..=LEASE_MAX).contains(&self.lease) {
            return invalid("lease", "between 100 ms and a day");
        }
        if self.scheduling_margin > self.lease / 10 {
            return invalid("scheduling_margin", "at most a tenth of lease");
        }
        if self.refresh_interval.is_zero() || self.refresh_interval > self.lease / 4 {
            return invalid("refresh_interval", "more than zero and at most a quarter of lease");
        }
        if self.attempt_timeout.is_zero() || self.attempt_timeout > self.lease / 2 {
            return invalid("attempt_timeout", "more than zero and at most half of lease");
        }
        if self.retry_first.is_zero() || self.retry_max < self.retry_first {
            return invalid("retry_first", "more than zero and at most retry_max");
        }
        if self.retry_max > LEASE_MAX || self.retry_step > self.retry_max {
            return invalid("retry_max", "at least retry_step and at most a day");
        }
        if self.reservation.is_zero() || self.reservation > TICKET_TTL {
            return invalid("reservation", "more than zero and at most 15 s");
        }
        if self.grants_max == 0 || self.table_callers_max == 0 || self.holds_max == 0 {
            return invalid("grants_max, table_callers_max and holds_max", "at least 1");
        }
        Ok(())
    }
}

const _: () = assert!(RESOURCES_MAX * RESOURCE_NAME_BYTES_MAX < GRANTED_NAME_BYTES_MAX);
const _: () = assert!(TOKEN_SLOTS.is_power_of_two());
const _: () = assert!(TICKET_TTL.as_secs() > WAIT_POLL.as_secs());
// At least one waiter with the most and longest names fits.
const _: () =
    assert!(RESOURCES_MAX * (RESOURCE_NAME_BYTES_MAX + WAITER_NAME_BYTES) < WAITER_BYTES_MAX / 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_together_for_any_lease() {
        Limits::default().check().expect("the defaults");
        for millis in [100, 1_000, 4_000, 12_000, 60_000, 600_000] {
            let limits = Limits::with_lease(Duration::from_millis(millis));
            limits.check().unwrap_or_else(|error| panic!("{millis} ms: {error}"));
        }
        assert_eq!(Limits::with_lease(LEASE), Limits::default());
    }

    #[test]
    fn b52_a_vote_expires_before_the_shortest_lease_that_a_locker_may_measure() {
        let limits = Limits::default();
        // The holder's clock is 1 % slow, the locker's 1 % fast.
        let (slow, fast) = (0.99, 1.01);
        let real_seconds = limits.validity_period(LEASE).as_secs_f64() / slow;
        assert!(real_seconds < LEASE.as_secs_f64() / fast);
        assert!(limits.validity_period(LEASE) > LEASE * 9 / 10, "most of the lease is usable");
        assert_eq!(
            limits.validity_period(LEASE / 2),
            limits.validity_period(LEASE / 2).min(LEASE / 2)
        );
    }

    #[test]
    fn a_limit_that_does_not_fit_is_named_with_its_constraint() {
        let limits = Limits { refresh_interval: LEASE, ..Limits::default() };
        let error = limits.check().expect_err("one refresh a lease is too few");
        assert_eq!(
            error.to_string(),
            "limit refresh_interval must be more than zero and at most a quarter of lease"
        );
    }
}
