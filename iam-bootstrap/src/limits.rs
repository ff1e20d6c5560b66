//! Every default and maximum of the crate, with units, and how they relate.

use std::time::Duration;

/// Longest time for one attempt to agree on a deployment id: to reach a majority of the servers and to
/// have their answers, each of which waits for a disk.
pub const AGREE_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// First wait after an attempt that failed. It doubles with each further one, and is jittered: servers
/// that start together must not go on outbidding each other.
pub const AGREE_RETRY_FIRST: Duration = Duration::from_millis(100);

/// The longest wait between two attempts.
pub const AGREE_RETRY_MAX: Duration = Duration::from_secs(5);

/// How many attempts to agree are between two lines in the log.
pub const AGREE_ATTEMPTS_PER_LOG: u32 = 4;

/// Over how much time the first attempts of servers that start together are spread, for each server:
/// mostly one of them has decided before the next begins.
pub const AGREE_SPREAD_PER_SERVER: Duration = Duration::from_millis(10);

/// How far a ballot's round may be ahead of what a server has promised. Rounds grow by one with an
/// attempt; a server that has lost its mind must not use them all up.
pub const BALLOT_LEAD_MAX: u64 = 1 << 32;

/// Questions that may wait for this server's answer, each of which waits for the disk; more are refused.
pub const DEPLOYMENT_QUEUE_MAX: usize = 1_024;

/// Time between two tries to load what is kept of the deployment, when the store cannot be used.
pub const DEPLOYMENT_LOAD_RETRY: Duration = Duration::from_secs(1);

/// How many of these tries are between two lines in the log.
pub const DEPLOYMENT_LOAD_TRIES_PER_LOG: u32 = 5;

/// Most bytes that are kept of a deployment; what is longer was not written by this crate. Three ballots
/// with the longest names that servers have, and three ids.
pub const DEPLOYMENT_STATE_BYTES_MAX: usize = 4_096;

const _: () = assert!(DEPLOYMENT_STATE_BYTES_MAX > 3 * (2 * grid::limits::NAME_BYTES_MAX + 100));
