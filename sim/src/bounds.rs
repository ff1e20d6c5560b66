//! The time bounds of all invariants, and how they follow from limits.

use std::time::Duration;

use grid::Limits;
use grid::buggify::FaultPoint;
use iam_bootstrap::limits;
use iam_bootstrap::store::ItemKind;

use crate::fault::Effect;
use crate::plan::{Cluster, ITEMS_MAX, IamPlan, Load, Plan};

/// Time bounds of a run, in simulated milliseconds.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The limits of the managers, from which most bounds follow.
    pub limits: Limits,
    /// Resolution of a timer: it is polled once per tick, and counts whole milliseconds.
    pub timer_resolution_ms: u64,
    /// Time for a message and its response, each through a socket whose task may have to be woken.
    pub round_trip_ms: u64,
    /// Time to detect a silent peer: the pings that may be missed, and the one in flight.
    pub dead_peer_ms: u64,
    /// Time for two nodes to reconnect once their network is intact: the dead connection is
    /// detected, a hanging attempt times out, the longest back-off passes, and a handshake
    /// succeeds.
    pub reconnect_ms: u64,
    /// Time to detect a connection that looks open but is dead, or that a fault point has
    /// superseded.
    pub settle_ms: u64,
    /// Time for all outstanding calls to end.
    pub drain_ms: u64,
    /// Duration of a lease after its last refresh; 0 if the cluster has no locks.
    pub lease_ms: u64,
    /// The largest clock drift in the plan, in parts per million.
    pub drift_ppm: u64,
    /// Time for a node to load its IAM replica once the last of its pools is usable; 0 without IAM.
    pub iam_load_ms: u64,
    /// Time for the IAM replicas of all nodes to converge once all faults are healed ([B62]); 0
    /// without IAM.
    ///
    /// [B62]: crate::rules#b62
    pub converge_ms: u64,
    /// Time within which the background work of a recovered cluster, reconciliations of IAM and
    /// queries for lists of lockers, is idle for a moment.
    pub idle_ms: u64,
    has_socket_stalls: bool,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Bounds {
    /// Computes the bounds of `plan`.
    pub fn of(plan: &Plan) -> Self {
        let cluster: &Cluster = &plan.cluster;
        let limits = cluster.limits.limits();
        let timer_resolution_ms = cluster.tick_ms + 1;
        let round_trip_ms =
            2 * (cluster.latency_max_ms + 2 * cluster.tick_ms) + timer_resolution_ms;
        // No clock of a plan drifts by more than one percent.
        let ping = ms(limits.ping_interval) + ms(limits.ping_interval) / 50;
        let dead_peer_ms = ping * u64::from(limits.pings_missed_max + 1) + round_trip_ms;
        let handshake = ms(limits.handshake_timeout) + 4 * round_trip_ms;
        let backoff = ms(limits.backoff_max);
        let reconnect_ms = dead_peer_ms.max(handshake) + backoff + handshake;
        let longest = plan.load.iter().map(|(_, load)| longest_call_ms(load, &limits)).max();
        let lease_ms = cluster.locks.as_ref().map_or(0, |locks| u64::from(locks.lease_ms));
        // An unreleased lock ends with its lease, and a locker that has just started grants nothing
        // for one lease.
        let drain_ms = reconnect_ms + longest.unwrap_or(0) + 2 * lease_ms + 5_000;
        let drift_ppm = drift_ppm(plan);
        let stall_points = [FaultPoint::DelayFlush, FaultPoint::FullSocket];
        let supersedes =
            cluster.fault_points.iter().any(|(name, _)| name == FaultPoint::Supersede.name());
        let settle_ms = dead_peer_ms.max(if supersedes { SUPERSEDE_MS } else { 0 });
        let is_stall_point = |name: &str| stall_points.iter().any(|point| point.name() == name);
        let has_socket_stalls = cluster.fault_points.iter().any(|(name, _)| is_stall_point(name));
        Self {
            limits,
            timer_resolution_ms,
            round_trip_ms,
            dead_peer_ms,
            reconnect_ms,
            settle_ms,
            drain_ms,
            lease_ms,
            drift_ppm,
            iam_load_ms: cluster.iam.as_ref().map_or(0, iam_load_ms),
            converge_ms: cluster.iam.as_ref().map_or(0, |iam| converge_ms(iam, reconnect_ms)),
            idle_ms: if cluster.iam.is_some() || cluster.locks.is_some() { 5_000 } else { 0 },
            has_socket_stalls,
        }
    }

    /// Returns how late a deadline of `time_ms` may be detected because clocks drift. tokio's
    /// timers do not drift, so a node whose clock is fast also oversleeps, by the difference
    /// between the two clocks over the longest sleep.
    pub fn lateness_of(&self, time_ms: u64) -> u64 {
        self.drift_of(time_ms + ms(self.limits.ping_interval))
    }

    /// Returns the largest error of a duration that a node measures, in milliseconds.
    pub fn drift_of(&self, time_ms: u64) -> u64 {
        // A clock that is slow by one percent measures 100 ms in 101.01 ms.
        (time_ms * self.drift_ppm).div_ceil(1_000_000 - self.drift_ppm.min(999_999))
    }

    /// Returns how long queued bytes may wait on an intact network: behind earlier bytes, and for
    /// fault points that stall a socket, of which several may fire in a row.
    pub fn queue_ms(&self) -> u64 {
        if self.has_socket_stalls { 2_000 } else { 200 }
    }

    /// Returns the time within which a recovered cluster grants a lock to each of `requesters` in
    /// turn: the lease of a crashed holder expires, and each requester waits at worst for the
    /// longest time between two attempts ([B55]).
    ///
    /// [B55]: crate::rules#b55
    pub fn lock_ms(&self, requesters: u64) -> u64 {
        2 * self.lease_ms + self.lease_ms / 25 + requesters * LOCK_TURN_MS
    }

    /// Returns the time within which a waiter that could have its lock is granted it ([B58]): it
    /// retries after the longest time between two attempts, and an attempt takes a sixth of a lease
    /// at most, besides its messages and releases.
    ///
    /// [B58]: crate::rules#b58
    pub fn fair_ms(&self) -> u64 {
        ms(dsync::limits::RETRY_MAX)
            + self.lease_ms / 6
            + self.lateness_of(self.lease_ms)
            + 4 * self.round_trip_ms
            + self.queue_ms()
            + 1_000
    }

    /// Returns the time within which an unresponsive connection attempt ends.
    pub fn attempt_ms(&self) -> u64 {
        ms(self.limits.handshake_timeout) + self.timer_resolution_ms
    }

    /// Returns the longest back-off between two attempts to connect.
    pub fn backoff_ms(&self) -> u64 {
        ms(self.limits.backoff_max) + self.timer_resolution_ms
    }

    /// Returns the longest initial back-off: that of the first attempt, or after a connection that
    /// lasted long enough to reset it.
    pub fn first_backoff_ms(&self) -> u64 {
        ms(self.limits.backoff_min) + self.timer_resolution_ms
    }

    /// Returns the time within which a call without a deadline of its own ends.
    pub fn deadline_ms(&self) -> u64 {
        ms(self.limits.deadline_default) + self.timer_resolution_ms
    }
}

/// The longest delay of a superseding connection, plus a handshake.
const SUPERSEDE_MS: u64 = 6_000;

/// The longest randomised back-off between two attempts to lock, plus the attempt.
const LOCK_TURN_MS: u64 = 8_000;

/// Returns the time to load IAM: the format is read, then each pool, each after the longest
/// back-off between two retries.
fn iam_load_ms(iam: &IamPlan) -> u64 {
    let operations = u64::from(ITEMS_MAX) + ItemKind::ALL.len() as u64 + 3;
    2 * ms(limits::RETRY_MAX) + operations * u64::from(iam.store_ms) + 100
}

/// Returns the time for IAM to converge. All nodes reconnect. A node that has not loaded retries
/// its pools for the last time, reads them and catches up. A peer whose reconciliation was refused
/// because the node had not loaded, or timed out, reconciles again. Differences that no reconnect
/// revealed are found by the periodic reconciliation.
fn converge_ms(iam: &IamPlan, reconnect_ms: u64) -> u64 {
    let records = u64::from(ITEMS_MAX) * u64::from(iam.store_ms);
    let load = iam_load_ms(iam);
    let again =
        ms(limits::RECONCILE_TIMEOUT) + ms(limits::RETRY_MAX).max(u64::from(iam.refresh_ms));
    // At worst, all records are fetched from each peer in turn.
    reconnect_ms + load + ms(limits::CATCH_UP_TIMEOUT) + again + 2 * records + 1_000
}

fn drift_ppm(plan: &Plan) -> u64 {
    let drifts = plan.faults.iter().filter_map(|(_, fault)| match fault.effect() {
        Effect::ClockRateChanges { ppm, .. } => Some(u64::from(ppm.unsigned_abs())),
        _ => None,
    });
    drifts.max().unwrap_or(0)
}

/// Returns the longest time that a call may take, by its own plan.
fn longest_call_ms(load: &Load, limits: &Limits) -> u64 {
    let default = ms(limits.deadline_default);
    let (timeout, cancel_after, ceiling) = match load {
        Load::Request(plan) => (plan.timeout_ms, plan.cancel_after_ms, default),
        Load::Stream(plan) => (plan.timeout_ms, plan.cancel_after_ms, u64::MAX),
        Load::Lock(plan) => (None, None, plan.longest_ms()),
        Load::Force(_) | Load::Change(_) => (None, None, default),
    };
    let own = [timeout, cancel_after].into_iter().flatten().map(u64::from).min();
    let longest = own.unwrap_or(ceiling).min(ceiling);
    longest.saturating_add(longest / 50).min(600_000)
}
