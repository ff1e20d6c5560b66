//! Errors: one small enum per operation. Every other module may use them, so they use none.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use grid::RegisterError;
use grid::name::NameError;

/// Why a set of resource names is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResourcesError {
    /// The set is empty.
    #[error("a lock needs at least one resource")]
    NoResources,
    /// A name is empty.
    #[error("a resource's name must not be empty")]
    EmptyName,
    /// A name is too long.
    #[error("a resource's name may have {max} bytes, not {bytes}")]
    TooLong {
        /// Length of the name.
        bytes: usize,
        /// [`RESOURCE_NAME_BYTES_MAX`](crate::limits::RESOURCE_NAME_BYTES_MAX).
        max: usize,
    },
    /// The set has too many names.
    #[error("a lock may take {max} resources, not {count}")]
    TooMany {
        /// Number of names, at least.
        count: usize,
        /// [`RESOURCES_MAX`](crate::limits::RESOURCES_MAX).
        max: usize,
    },
}

/// Why a [`Dsync`](crate::Dsync) could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A limit is out of range, or does not fit the others.
    #[error("limit {name} must be {must}")]
    Limit {
        /// Name of the limit.
        name: &'static str,
        /// Its constraint.
        must: &'static str,
    },
    /// A locker's address is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A locker is not among the manager's servers.
    #[error("locker {name} must be one of the servers that the manager knows")]
    Unknown {
        /// The name that was given.
        name: String,
    },
    /// A locker is listed twice.
    #[error("locker {name} is listed more than once")]
    Duplicate {
        /// The name that occurs twice.
        name: String,
    },
    /// The list has no lockers, or too many.
    #[error("there must be 1 to {max} lockers, not {count}")]
    Lockers {
        /// Number of lockers given.
        count: usize,
        /// [`LOCKERS_MAX`](crate::limits::LOCKERS_MAX).
        max: usize,
    },
    /// The manager already has such handlers: another `Dsync` was built on it.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// Why a lock was not acquired, or not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// It was not acquired in time. Nothing is held.
    #[error("not locked within {waited:?}: {}", describe_attempts(*stats))]
    TimedOut {
        /// Time spent trying.
        waited: Duration,
        /// Counters of the attempts.
        stats: AttemptStats,
    },
    /// The only attempt of a [try](crate::LockOptions::try_once) failed. Nothing is held.
    #[error("not locked: {}", describe_attempts(*stats))]
    NotAcquired {
        /// Counters of the attempt.
        stats: AttemptStats,
    },
    /// Too many lockers are of the MinIO type, which grants read locks of one resource only. Lock
    /// the resources one by one, or for writing.
    #[error(
        "not locked: {plain} of {lockers} lockers grant no read lock of several resources ({reason}); \
         lock them one by one, or for writing"
    )]
    PlainLockers {
        /// Lockers of the MinIO type.
        plain: u32,
        /// All lockers.
        lockers: u32,
        /// The refusal of one of them, in its words.
        reason: Arc<str>,
    },
    /// It was lost while it was held: others may hold it now. Writes since its token was last
    /// accepted may have been refused.
    #[error("{0}")]
    Lost(LossReason),
    /// The resource names are invalid.
    #[error(transparent)]
    Resources(#[from] ResourcesError),
    /// The source text is too long.
    #[error("a lock's source may have {max} bytes, not {bytes}")]
    SourceTooLong {
        /// Length of the text.
        bytes: usize,
        /// [`TEXT_BYTES_MAX`](crate::limits::TEXT_BYTES_MAX).
        max: usize,
    },
    /// This process holds, acquires or is releasing as many locks as its limit.
    #[error("{max} locks are held or tried for by this process, which is the limit")]
    TooMany {
        /// [`Limits::holds_max`](crate::Limits::holds_max).
        max: usize,
    },
    /// This server neither grants nor takes locks yet, or no longer. No locker was asked.
    #[error("locks are not available: {reason}")]
    NotReady {
        /// Why.
        reason: NotReadyReason,
    },
    /// This process is shutting down, and acquires no more locks.
    #[error("this server is shutting down")]
    ShuttingDown,
    /// There is no tokio runtime to refresh the lock on.
    #[error("a lock must be taken inside a tokio runtime")]
    NoRuntime,
}

/// Why a server neither grants nor takes locks ([B65](crate::rules#b65)).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReadyReason {
    /// [`Dsync::open`](crate::Dsync::open) was not called.
    #[error("this server has not verified the cluster yet")]
    NotVerified,
    /// [`Dsync::close`](crate::Dsync::close) was called.
    #[error("closed: {reason}")]
    Closed {
        /// The reason that was given.
        reason: Arc<str>,
    },
    /// Servers run with another list of servers. The quorums of two lists need not overlap.
    #[error("{} run with another list of servers: start all servers with the same", Names(nodes))]
    ServersDiffer {
        /// These servers.
        nodes: Vec<Arc<str>>,
    },
    /// Too few servers are known to run with the same list of lockers, and the same lease.
    #[error(
        "{equal} of {servers} servers are known to run with the list of lockers of this one, \
         {needed} must{}{}",
        Listed("; with another list or lease: ", differing),
        Listed("; not confirmed: ", unconfirmed)
    )]
    NoMajority {
        /// Servers with the same list, this one included.
        equal: usize,
        /// Servers that must have the same list.
        needed: usize,
        /// All servers.
        servers: usize,
        /// Servers with another list of lockers, or another lease.
        differing: Vec<Arc<str>>,
        /// Servers whose list is not known, or no longer.
        unconfirmed: Vec<Arc<str>>,
    },
    /// Enough servers run with the same list, but have not done so for long enough, and not all
    /// servers are known to: locks that were granted by another list may still be held.
    #[error(
        "servers have started lately, and locks of an earlier list of lockers may be held: they end \
         within {within:?}, or once all servers run with the same list{}",
        Listed("; missing: ", missing)
    )]
    Settling {
        /// Longest time until enough servers have been up for long enough.
        within: Duration,
        /// Servers that run with another list, or are not known to run with the same.
        missing: Vec<Arc<str>>,
    },
}

/// Longest list of names in an error.
const NAMES_SHOWN_MAX: usize = 5;

/// The first few names.
struct Names<'a>(&'a [Arc<str>]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<&str> = self.0.iter().take(NAMES_SHOWN_MAX).map(AsRef::as_ref).collect();
        f.write_str(&shown.join(", "))?;
        match self.0.len().saturating_sub(NAMES_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A prefix and names; nothing without names.
struct Listed<'a>(&'static str, &'a [Arc<str>]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            [] => Ok(()),
            names => write!(f, "{}{}", self.0, Names(names)),
        }
    }
}

/// Why a lock is no longer held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LossReason {
    /// Too few lockers confirmed it in time.
    #[error("the lock was lost: too few lockers confirmed it before its lease could end")]
    Expired,
    /// Too few lockers still have the grant.
    #[error("the lock was lost: it was forced open")]
    Revoked,
    /// Its holder released it.
    #[error("the lock is released")]
    Released,
}

/// Counters of one lock's attempts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttemptStats {
    /// Attempts.
    pub attempts: u32,
    /// Notifications from lockers that a retry is worthwhile.
    pub notifications: u32,
    /// Second rounds of requests, which write a token higher than any that the lockers knew.
    pub second_rounds: u32,
    /// All lockers. In the last attempt each of them is in one of the following counts.
    pub lockers: u32,
    /// Lockers that granted it.
    pub granted: u32,
    /// Lockers that refused it because others hold it.
    pub in_conflict: u32,
    /// Lockers that refused it because older waiters are queued for it.
    pub queued_ahead: u32,
    /// Lockers that do not grant now: restarted, not admitted, or overloaded.
    pub not_ready: u32,
    /// Lockers with another list of lockers.
    pub list_differs: u32,
    /// Lockers to which no request could be sent, or that did not respond in time.
    pub unreachable: u32,
    /// Lockers that were not asked, or whose response was not waited for.
    pub not_waited_for: u32,
}

/// Describes the outcome at each locker. A locker that was not asked is not called unreachable.
fn describe_attempts(stats: AttemptStats) -> String {
    let AttemptStats { attempts, lockers, .. } = stats;
    let counts = [
        (stats.in_conflict, "said that others hold it"),
        (stats.queued_ahead, "said that older waiters are queued ahead"),
        (stats.not_ready, "do not grant now (restarted, not admitted or overloaded)"),
        (stats.list_differs, "have another list of lockers"),
        (stats.unreachable, "could not be reached or did not respond"),
        (stats.granted, "granted it"),
        (stats.not_waited_for, "were not asked or not waited for"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<_> = counts.map(|(count, what)| format!("{count} {what}")).collect();
    let plural = |count, plural| if count == 1 { "" } else { plural };
    format!(
        "{attempts} attempt{}; in the last one, of {lockers} locker{}, {}",
        plural(attempts, "s"),
        plural(lockers, "s"),
        parts.join(", ")
    )
}

/// Report of a release, as [`Guard::unlock`](crate::Guard::unlock) returns it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnlockReport {
    /// All lockers.
    pub lockers: usize,
    /// Lockers that have no grant of the lock left: they confirmed the release, or granted nothing.
    pub confirmed: usize,
    /// Lockers that did not confirm it within a lease: the grant has expired there.
    pub expired: usize,
}

impl UnlockReport {
    /// Returns whether no locker has a grant of the lock left.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed == self.lockers
    }
}

/// Why a request to a locker failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LockerError {
    /// Whether the locker may have executed the request.
    pub may_have_run: bool,
    /// Description of the failure.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b55_a_refused_lock_says_what_each_locker_said() {
        let stats = AttemptStats {
            attempts: 2,
            lockers: 8,
            in_conflict: 3,
            queued_ahead: 1,
            not_ready: 1,
            unreachable: 1,
            not_waited_for: 2,
            ..AttemptStats::default()
        };
        assert_eq!(
            LockError::NotAcquired { stats }.to_string(),
            "not locked: 2 attempts; in the last one, of 8 lockers, 3 said that others hold it, 1 \
             said that older waiters are queued ahead, 1 do not grant now (restarted, not admitted \
             or overloaded), 1 could not be reached or did not respond, 2 were not asked or not \
             waited for"
        );
        let stats =
            AttemptStats { attempts: 1, lockers: 1, not_waited_for: 1, ..AttemptStats::default() };
        let text = LockError::NotAcquired { stats }.to_string();
        assert!(!text.contains("reached"), "it was not asked: {text}");
    }
}
