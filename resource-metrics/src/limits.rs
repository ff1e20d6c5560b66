//! Every default and maximum of the crate, with units, and how they relate.
//!
//! [`Limits`] carries those that an application may choose.

use std::time::Duration;

use crate::error::BuildError;

/// Time between two samples (B70).
pub const SAMPLE_INTERVAL: Duration = Duration::from_secs(60);

/// The shortest interval that may be chosen. The kernel counts processor time in hundredths of a
/// second: what is shorter than this is noise.
pub const SAMPLE_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The longest.
pub const SAMPLE_INTERVAL_MAX: Duration = Duration::from_secs(86_400);

/// Longest time that one sample may take. One that takes longer is missed.
pub const SAMPLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that a drive is waited for to say how full it is. One that takes longer is sampled
/// without, and not asked again before it has answered.
pub const SPACE_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest time until all servers are reported on, as up or as down (B71). Half of what a scraper
/// waits for usually.
pub const COLLECT_DEADLINE: Duration = Duration::from_secs(5);

/// The longest that may be chosen.
pub const COLLECT_DEADLINE_MAX: Duration = Duration::from_secs(300);

/// How long what was collected is good enough for others who want the same.
pub const COLLECT_SHARED_FOR: Duration = Duration::from_secs(1);

/// Drives that one server samples and reports; the first by name.
pub const DRIVES_MAX: usize = 256;

/// Network interfaces that one server samples and reports; the first by name. Hosts of containers
/// have one for each.
pub const INTERFACES_MAX: usize = 256;

/// Interfaces whose average and maximum are kept, those that have gone included: who comes back goes
/// on where it was. Those that went first are forgotten first.
pub const INTERFACES_KEPT_MAX: usize = 1_024;

/// Longest name of a drive or an interface, in bytes. What is longer is not sampled, and refused
/// when received.
pub const LABEL_BYTES_MAX: usize = 1_024;

/// How much is kept of a text that says why a server did not answer, in bytes.
pub const CAUSE_BYTES_MAX: usize = 512;

/// Time between two lines of the log about the same part of the system that cannot be sampled.
pub const PROBLEM_LOG_PERIOD: Duration = Duration::from_secs(3_600);

/// Parts of the system that the log remembers to have spoken about.
pub const PROBLEMS_KEPT_MAX: usize = 1_024;

const _: () = assert!(INTERFACES_KEPT_MAX >= INTERFACES_MAX);
const _: () = assert!(SPACE_TIMEOUT.as_millis() < SAMPLE_TIMEOUT.as_millis());
const _: () = assert!(PROBLEMS_KEPT_MAX > DRIVES_MAX);

/// What a server runs with. Start from [`Limits::default`] and change what must differ.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// See [`SAMPLE_INTERVAL`].
    pub sample_interval: Duration,
    /// See [`COLLECT_DEADLINE`].
    pub collect_deadline: Duration,
    /// See [`COLLECT_SHARED_FOR`].
    pub collect_shared_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sample_interval: SAMPLE_INTERVAL,
            collect_deadline: COLLECT_DEADLINE,
            collect_shared_for: COLLECT_SHARED_FOR,
        }
    }
}

impl Limits {
    /// Whether the chosen values can be used.
    ///
    /// # Errors
    ///
    /// [`BuildError::Limit`] names the first value that cannot, and what it must be.
    pub fn check(&self) -> Result<(), BuildError> {
        let wrong = |name, must| Err(BuildError::Limit { name, must });
        if !(SAMPLE_INTERVAL_MIN..=SAMPLE_INTERVAL_MAX).contains(&self.sample_interval) {
            return wrong("sample_interval", "between a second and a day");
        }
        if self.collect_deadline.is_zero() || self.collect_deadline > COLLECT_DEADLINE_MAX {
            return wrong("collect_deadline", "more than zero and at most 300 s");
        }
        if self.collect_shared_for > SAMPLE_INTERVAL_MAX {
            return wrong("collect_shared_for", "at most a day");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_used_and_the_first_wrong_limit_is_named() {
        Limits::default().check().expect("the defaults");
        let limits = Limits { sample_interval: Duration::ZERO, ..Limits::default() };
        let error = limits.check().expect_err("no time at all");
        assert_eq!(error.to_string(), "limit sample_interval must be between a second and a day");
        let limits = Limits { collect_deadline: Duration::ZERO, ..Limits::default() };
        limits.check().expect_err("nobody could answer");
        let limits = Limits { collect_shared_for: Duration::MAX, ..Limits::default() };
        limits.check().expect_err("nobody would be asked again");
    }
}
