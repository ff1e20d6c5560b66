//! Defaults and maxima of the crate, with units and relations.
//!
//! [`Limits`] has those that an application may choose.

use std::time::Duration;

use crate::error::BuildError;

/// Time between two samples ([B70]).
///
/// [B70]: crate::rules#b70
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(60);

/// Shortest configurable interval. The kernel counts CPU time in hundredths of a second: a
/// shorter interval measures noise.
pub const SAMPLE_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Longest configurable interval.
pub const SAMPLE_INTERVAL_MAX: Duration = Duration::from_secs(86_400);

/// Timeout of one sample, which then counts as missed.
pub const SAMPLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of a drive's file system statistics. After it, the sample omits them, and the
/// drive is not probed again before it has responded.
pub const SPACE_TIMEOUT: Duration = Duration::from_secs(2);

/// Deadline by which all servers are reported as up or as down ([B71]). Half of a scraper's usual
/// timeout.
///
/// [B71]: crate::rules#b71
pub const COLLECT_DEADLINE: Duration = Duration::from_secs(5);

/// Longest configurable deadline.
pub const COLLECT_DEADLINE_MAX: Duration = Duration::from_secs(300);

/// How long a collection is shared with later callers.
pub const COLLECT_TTL: Duration = Duration::from_secs(1);

/// Drives that one server samples and reports: the first by name.
pub const DRIVES_MAX: usize = 256;

/// Network interfaces that one server samples and reports: the first by name. Container hosts
/// have one per container.
pub const INTERFACES_MAX: usize = 256;

/// Interfaces whose average and maximum are kept, including those that are gone: one that comes
/// back continues its series. Those gone longest are evicted first.
pub const INTERFACES_KEPT_MAX: usize = 1_024;

/// Longest name of a drive or an interface, in bytes. Longer ones are not sampled, and are refused
/// when received.
pub const LABEL_BYTES_MAX: usize = 1_024;

/// Longest cause of a server's failure, in bytes. Longer ones are truncated.
pub const CAUSE_BYTES_MAX: usize = 512;

/// Time between two log lines about the same part of the system that cannot be sampled.
pub const PROBLEM_LOG_PERIOD: Duration = Duration::from_secs(3_600);

const _: () = assert!(INTERFACES_KEPT_MAX >= INTERFACES_MAX);
const _: () = assert!(SPACE_TIMEOUT.as_millis() < SAMPLE_TIMEOUT.as_millis());
// Each drive can have its own problem.
const _: () = assert!(grid::limits::LOG_SUBJECTS_MAX > DRIVES_MAX);

/// Limits of one server. Start from [`Limits::default`] and change fields as needed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// See [`SAMPLE_INTERVAL`].
    pub sample_interval: Duration,
    /// See [`COLLECT_DEADLINE`].
    pub collect_deadline: Duration,
    /// See [`COLLECT_TTL`].
    pub collect_ttl: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sample_interval: SAMPLE_INTERVAL,
            collect_deadline: COLLECT_DEADLINE,
            collect_ttl: COLLECT_TTL,
        }
    }
}

impl Limits {
    /// Checks that the values are in range.
    ///
    /// # Errors
    ///
    /// [`BuildError::Limit`] names the first value that is not, and its constraint.
    pub fn check(&self) -> Result<(), BuildError> {
        let invalid = |name, must| Err(BuildError::Limit { name, must });
        if !(SAMPLE_INTERVAL_MIN..=SAMPLE_INTERVAL_MAX).contains(&self.sample_interval) {
            return invalid("sample_interval", "between a second and a day");
        }
        if self.collect_deadline.is_zero() || self.collect_deadline > COLLECT_DEADLINE_MAX {
            return invalid("collect_deadline", "more than zero and at most 300 s");
        }
        if self.collect_ttl > SAMPLE_INTERVAL_MAX {
            return invalid("collect_ttl", "at most a day");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_the_first_invalid_limit_is_named() {
        Limits::default().check().expect("the defaults");
        let limits = Limits { sample_interval: Duration::ZERO, ..Limits::default() };
        let error = limits.check().expect_err("no time at all");
        assert_eq!(error.to_string(), "limit sample_interval must be between a second and a day");
        let limits = Limits { collect_deadline: Duration::ZERO, ..Limits::default() };
        limits.check().expect_err("no server could respond");
        let limits = Limits { collect_ttl: Duration::MAX, ..Limits::default() };
        limits.check().expect_err("no server would be called again");
    }
}
