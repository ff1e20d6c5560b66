//! Deltas of counters between two samples, including resets.
//!
//! The counters of one device start at zero together. So if a monotonic one has decreased, all were
//! reset, and their deltas are their current values: a lower bound.

use crate::sample::{CpuTimes, DriveCounters, InterfaceCounters};

/// Returns the deltas of an interface.
pub(super) fn interface_delta(
    now: &InterfaceCounters,
    before: &InterfaceCounters,
) -> InterfaceCounters {
    let delta = || {
        Some(InterfaceCounters {
            receive_bytes: now.receive_bytes.checked_sub(before.receive_bytes)?,
            receive_errors: now.receive_errors.checked_sub(before.receive_errors)?,
            transmit_bytes: now.transmit_bytes.checked_sub(before.transmit_bytes)?,
            transmit_errors: now.transmit_errors.checked_sub(before.transmit_errors)?,
        })
    };
    delta().unwrap_or(*now)
}

/// Returns the deltas of a drive.
pub(super) fn drive_delta(now: &DriveCounters, before: &DriveCounters) -> DriveCounters {
    let delta = || {
        Some(DriveCounters {
            reads: now.reads.checked_sub(before.reads)?,
            read_bytes: now.read_bytes.checked_sub(before.read_bytes)?,
            read_millis: millis_delta(now.read_millis, before.read_millis)?,
            writes: now.writes.checked_sub(before.writes)?,
            written_bytes: now.written_bytes.checked_sub(before.written_bytes)?,
            write_millis: millis_delta(now.write_millis, before.write_millis)?,
            busy_millis: millis_delta(now.busy_millis, before.busy_millis)?,
        })
    };
    delta().unwrap_or(*now)
}

/// Returns the delta of a time, which the kernel counts in 32 bits: a decrease without a reset of
/// the device is a wrap-around.
fn millis_delta(now: u64, before: u64) -> Option<u64> {
    now.checked_sub(before).or_else(|| {
        let (now, before) = (u32::try_from(now).ok()?, u32::try_from(before).ok()?);
        Some(u64::from(now.wrapping_sub(before)))
    })
}

/// Returns the ratios of CPU time, in the order of the fields; `None` if no time has passed.
///
/// The kernel may let idle, iowait and steal time decrease a little: their delta is zero then. The
/// others never decrease without a reset.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 ticks")]
pub(super) fn cpu_ratios(now: &CpuTimes, before: &CpuTimes) -> Option<[f64; 6]> {
    let was_reset = now.user < before.user || now.nice < before.nice || now.system < before.system;
    let before = if was_reset { CpuTimes::default() } else { *before };
    debug_assert!(now.user >= before.user, "user {} after {}", now.user, before.user);
    debug_assert!(now.nice >= before.nice, "nice {} after {}", now.nice, before.nice);
    debug_assert!(now.system >= before.system, "system {} after {}", now.system, before.system);
    let delta = [
        now.user - before.user,
        now.nice - before.nice,
        now.system - before.system,
        now.idle.saturating_sub(before.idle),
        now.iowait.saturating_sub(before.iowait),
        now.steal.saturating_sub(before.steal),
    ];
    let delta = delta.map(|ticks| ticks as f64);
    let all: f64 = delta.iter().sum();
    (all > 0.0).then(|| delta.map(|ticks| ticks / all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b70_deltas_after_a_reset_of_an_interface_are_its_current_counters() {
        let before =
            InterfaceCounters { receive_bytes: 1_000, transmit_bytes: 7, ..Default::default() };
        let after =
            InterfaceCounters { receive_bytes: 30, transmit_bytes: 9, ..Default::default() };
        assert_eq!(interface_delta(&after, &before), after, "all counters were reset");
        let later = InterfaceCounters { receive_bytes: 31, transmit_errors: 2, ..after };
        let delta = interface_delta(&later, &after);
        assert_eq!((delta.receive_bytes, delta.transmit_bytes, delta.transmit_errors), (1, 0, 2));
    }

    #[test]
    fn b70_times_of_a_drive_wrap_around_and_its_counters_do_not() {
        let max = u64::from(u32::MAX);
        let before = DriveCounters { reads: 10, read_millis: max - 4, ..Default::default() };
        let after = DriveCounters { reads: 12, read_millis: 5, ..Default::default() };
        let delta = drive_delta(&after, &before);
        assert_eq!((delta.reads, delta.read_millis), (2, 10));
        let reset = DriveCounters { reads: 9, read_millis: 5, ..Default::default() };
        assert_eq!(drive_delta(&reset, &before), reset);
        let wide = DriveCounters { reads: 10, read_millis: max + 5, ..Default::default() };
        assert_eq!(
            drive_delta(&after, &wide),
            after,
            "a counter that exceeds 32 bits is reset, not wrapped around"
        );
    }

    #[test]
    fn b70_cpu_time_is_split_into_ratios_and_small_decreases_are_zero() {
        let before = CpuTimes { user: 10, idle: 100, iowait: 50, ..Default::default() };
        let after = CpuTimes { user: 13, idle: 107, iowait: 49, ..Default::default() };
        let ratios = cpu_ratios(&after, &before).expect("time has passed");
        assert_eq!(ratios, [0.3, 0.0, 0.0, 0.7, 0.0, 0.0]);
        assert_eq!(cpu_ratios(&after, &after), None, "no time has passed");
        let reset = CpuTimes { user: 1, idle: 3, ..Default::default() };
        assert_eq!(cpu_ratios(&reset, &after).expect("some")[..4], [0.25, 0.0, 0.0, 0.75]);
    }
}
