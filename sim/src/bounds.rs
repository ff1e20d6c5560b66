//! How long things may take, and why: every time that an invariant waits comes from here.

use std::time::Duration;

use grid::Limits;
use grid::buggify::Point;
use iam_bootstrap::limits;
use iam_bootstrap::store::Kind;

use crate::plan::{Cluster, Fault, ITEMS_MAX, IamPlan, Load, Plan};
use crate::world::limits_of;

/// Times in which a cluster must do what it promises, in simulated milliseconds.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// The limits of the managers, which most of this follows from.
    pub limits: Limits,
    /// A timer is looked at once in a tick, and counts whole milliseconds.
    pub ticks_ms: u64,
    /// A message and its answer travel, each through a socket that may have to be woken.
    pub round_trip_ms: u64,
    /// A peer that says nothing is found: the pings that may be missed, and the one under way.
    pub dead_peer_ms: u64,
    /// Two nodes are connected again once their network is whole: the dead connection is found, an
    /// attempt that hangs times out, the longest wait between two passes, and a handshake succeeds.
    pub reconnect_ms: u64,
    /// What died, or is to die, without anybody knowing has been found: a dead peer, and a
    /// connection that a rare event has superseded.
    pub settle_ms: u64,
    /// Whatever was under way is over.
    pub drain_ms: u64,
    /// A lease lasts so long after its last refresh; 0 if the cluster has no locks.
    pub lease_ms: u64,
    /// How far the plan lets the rate of a clock be off, in parts of a million.
    pub drift_ppm: u64,
    /// A node has loaded its copy so long after the last of its pools is there; 0 if it has none.
    pub load_ms: u64,
    /// All copies of users, policies and mappings are the same so long after all is healed (B62); 0
    /// if there are none.
    pub same_ms: u64,
    /// What goes on by itself in a cluster that has recovered pauses within this time: comparisons
    /// of copies.
    pub idle_ms: u64,
    has_holds: bool,
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Bounds {
    /// Those of `plan`.
    pub fn of(plan: &Plan) -> Self {
        let cluster: &Cluster = &plan.cluster;
        let limits = limits_of(&cluster.limits);
        let ticks_ms = cluster.tick_ms + 1;
        let round_trip_ms = 2 * (cluster.latency_max_ms + 2 * cluster.tick_ms) + ticks_ms;
        // Clocks that drift by a hundredth are the worst that a plan may have.
        let ping = ms(limits.ping_interval) + ms(limits.ping_interval) / 50;
        let dead_peer_ms = ping * u64::from(limits.pings_missed_max + 1) + round_trip_ms;
        let handshake = ms(limits.handshake_timeout) + 4 * round_trip_ms;
        let backoff = ms(limits.backoff_max);
        let reconnect_ms = dead_peer_ms.max(handshake) + backoff + handshake;
        let longest = plan.load.iter().map(|(_, load)| longest(load, &limits)).max();
        let lease_ms = cluster.locks.as_ref().map_or(0, |locks| u64::from(locks.lease_ms));
        // What is not let go ends with its lease, and a locker that has just begun waits for as
        // long.
        let drain_ms = reconnect_ms + longest.unwrap_or(0) + 2 * lease_ms + 5_000;
        let drift_ppm = drift_ppm(plan);
        let holds = [Point::DelayFlush, Point::FullSocket];
        let supersedes = cluster.rare.iter().any(|(name, _)| name == Point::Supersede.name());
        let settle_ms = dead_peer_ms.max(if supersedes { SUPERSEDE_MS } else { 0 });
        let is_hold = |name: &str| holds.iter().any(|point| point.name() == name);
        let has_holds = cluster.rare.iter().any(|(name, _)| is_hold(name));
        Self {
            limits,
            ticks_ms,
            round_trip_ms,
            dead_peer_ms,
            reconnect_ms,
            settle_ms,
            drain_ms,
            lease_ms,
            drift_ppm,
            load_ms: cluster.iam.as_ref().map_or(0, load_ms),
            same_ms: cluster.iam.as_ref().map_or(0, |iam| same_ms(iam, reconnect_ms)),
            idle_ms: if cluster.iam.is_some() { 5_000 } else { 0 },
            has_holds,
        }
    }

    /// How late a deadline of `time_ms` may be seen, because clocks drift. Timers are tokio's,
    /// which do not: a node whose clock runs fast may also sleep too long, by what the two part
    /// from each other in the longest sleep there is.
    pub fn lateness_of(&self, time_ms: u64) -> u64 {
        self.drift_of(time_ms + ms(self.limits.ping_interval))
    }

    /// By how much a time that a node measures may be off, in milliseconds.
    pub fn drift_of(&self, time_ms: u64) -> u64 {
        // A clock that is slow by one in a hundred measures 100 ms in 101.01.
        (time_ms * self.drift_ppm).div_ceil(1_000_000 - self.drift_ppm.min(999_999))
    }

    /// How long what is written may wait before it leaves, on a whole network: behind what waits
    /// before it, and for rare events that hold a socket, of which several may come in a row.
    pub fn queue_ms(&self) -> u64 {
        if self.has_holds { 2_000 } else { 200 }
    }

    /// A lock that so many ask for at once, in a cluster that has recovered, is granted to each of
    /// them: the lease of a holder that is gone ends, and each waits for its turn, at worst for the
    /// longest time between two attempts (B55).
    pub fn lock_ms(&self, asking: u64) -> u64 {
        2 * self.lease_ms + self.lease_ms / 25 + asking * LOCK_TURN_MS
    }

    /// An attempt to connect that nobody answers is over.
    pub fn attempt_ms(&self) -> u64 {
        ms(self.limits.handshake_timeout) + self.ticks_ms
    }

    /// The longest wait before another attempt to connect.
    pub fn backoff_ms(&self) -> u64 {
        ms(self.limits.backoff_max) + self.ticks_ms
    }

    /// The longest that the first wait may be, where none came before it or a connection held.
    pub fn first_backoff_ms(&self) -> u64 {
        ms(self.limits.backoff_min) + self.ticks_ms
    }

    /// A call without a deadline of its own is over.
    pub fn deadline_ms(&self) -> u64 {
        ms(self.limits.deadline_default) + self.ticks_ms
    }
}

/// The longest that a superseding connection may wait, and a handshake.
const SUPERSEDE_MS: u64 = 6_000;

/// The longest wait between two attempts to lock, with what it is scaled by at random, and the
/// attempt.
const LOCK_TURN_MS: u64 = 8_000;

/// The format is looked for, and each pool read: each after the longest wait between two tries.
fn load_ms(iam: &IamPlan) -> u64 {
    let asked = u64::from(ITEMS_MAX) + Kind::ALL.len() as u64 + 3;
    2 * ms(limits::RETRY_MAX) + asked * u64::from(iam.store_ms) + 100
}

/// All nodes are connected; whoever has not loaded yet tries its pools for the last time and reads
/// them; it catches up, and whoever found it not loaded, or was in a comparison that hung, compares
/// again; and what nobody knows to be missing is found by a comparison at the interval.
fn same_ms(iam: &IamPlan, reconnect_ms: u64) -> u64 {
    let records = u64::from(ITEMS_MAX) * u64::from(iam.store_ms);
    let load = load_ms(iam);
    let again = ms(limits::COMPARE_TIMEOUT) + ms(limits::RETRY_MAX).max(u64::from(iam.refresh_ms));
    // Taken from each peer in turn at worst, and each time all.
    reconnect_ms + load + ms(limits::CATCH_UP_TIMEOUT) + again + 2 * records + 1_000
}

fn drift_ppm(plan: &Plan) -> u64 {
    let drifts = plan.faults.iter().filter_map(|(_, fault)| match fault {
        Fault::Drift { ppm, .. } => Some(u64::from(ppm.unsigned_abs())),
        _ => None,
    });
    drifts.max().unwrap_or(0)
}

/// How long a call may take at most, by its own plan.
fn longest(load: &Load, limits: &Limits) -> u64 {
    let default = ms(limits.deadline_default);
    let (timeout, give_up, last) = match load {
        Load::Request(plan) => (plan.timeout_ms, plan.give_up_ms, default),
        Load::Stream(plan) => (plan.timeout_ms, plan.give_up_ms, u64::MAX),
        Load::Lock(plan) => (None, None, plan.longest_ms()),
        Load::Force(_) | Load::Change(_) => (None, None, default),
    };
    let own = [timeout, give_up].into_iter().flatten().map(u64::from).min();
    let longest = own.unwrap_or(last).min(last);
    longest.saturating_add(longest / 50).min(600_000)
}
