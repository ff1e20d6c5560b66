//! What counters have grown by between two samples, whatever happened to them in between.
//!
//! The counters of one device begin at zero together. So if one that never shrinks has shrunk, they
//! all began anew, and have grown by what they are: at least that happened.

use crate::sample::{CpuTimes, DriveCounters, InterfaceCounters};

/// What an interface has done.
pub(super) fn interface_growth(
    now: &InterfaceCounters,
    before: &InterfaceCounters,
) -> InterfaceCounters {
    let grown = || {
        Some(InterfaceCounters {
            receive_bytes: now.receive_bytes.checked_sub(before.receive_bytes)?,
            receive_errors: now.receive_errors.checked_sub(before.receive_errors)?,
            transmit_bytes: now.transmit_bytes.checked_sub(before.transmit_bytes)?,
            transmit_errors: now.transmit_errors.checked_sub(before.transmit_errors)?,
        })
    };
    grown().unwrap_or(*now)
}

/// What a drive has done.
pub(super) fn drive_growth(now: &DriveCounters, before: &DriveCounters) -> DriveCounters {
    let grown = || {
        Some(DriveCounters {
            reads: now.reads.checked_sub(before.reads)?,
            read_bytes: now.read_bytes.checked_sub(before.read_bytes)?,
            read_millis: millis_growth(now.read_millis, before.read_millis)?,
            writes: now.writes.checked_sub(before.writes)?,
            written_bytes: now.written_bytes.checked_sub(before.written_bytes)?,
            write_millis: millis_growth(now.write_millis, before.write_millis)?,
            busy_millis: millis_growth(now.busy_millis, before.busy_millis)?,
        })
    };
    grown().unwrap_or(*now)
}

/// Times are counted with 32 bits: one that shrank, on a device that did not begin anew, has come
/// around.
fn millis_growth(now: u64, before: u64) -> Option<u64> {
    now.checked_sub(before).or_else(|| {
        let (now, before) = (u32::try_from(now).ok()?, u32::try_from(before).ok()?);
        Some(u64::from(now.wrapping_sub(before)))
    })
}

/// How processor time divided, in the order of the fields; `None` if there was none.
///
/// The kernel lets times without work shrink a little now and then, and what it stole: they have not
/// grown then. The others never shrink, unless all began anew.
#[expect(clippy::cast_precision_loss, reason = "a machine that runs for aeons may be off a little")]
pub(super) fn cpu_growth(now: &CpuTimes, before: &CpuTimes) -> Option<[f64; 6]> {
    let shrunk = now.user < before.user || now.nice < before.nice || now.system < before.system;
    let before = if shrunk { CpuTimes::default() } else { *before };
    let grown = [
        now.user - before.user,
        now.nice - before.nice,
        now.system - before.system,
        now.idle.saturating_sub(before.idle),
        now.iowait.saturating_sub(before.iowait),
        now.steal.saturating_sub(before.steal),
    ];
    let grown = grown.map(|ticks| ticks as f64);
    let all: f64 = grown.iter().sum();
    (all > 0.0).then(|| grown.map(|ticks| ticks / all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b70_counters_of_an_interface_that_began_anew_have_grown_by_what_they_are() {
        let before =
            InterfaceCounters { receive_bytes: 1_000, transmit_bytes: 7, ..Default::default() };
        let after =
            InterfaceCounters { receive_bytes: 30, transmit_bytes: 9, ..Default::default() };
        assert_eq!(interface_growth(&after, &before), after, "none of them was 7 in between");
        let later = InterfaceCounters { receive_bytes: 31, transmit_errors: 2, ..after };
        let grown = interface_growth(&later, &after);
        assert_eq!((grown.receive_bytes, grown.transmit_bytes, grown.transmit_errors), (1, 0, 2));
    }

    #[test]
    fn b70_times_of_a_drive_come_around_and_its_counters_do_not() {
        let max = u64::from(u32::MAX);
        let before = DriveCounters { reads: 10, read_millis: max - 4, ..Default::default() };
        let after = DriveCounters { reads: 12, read_millis: 5, ..Default::default() };
        let grown = drive_growth(&after, &before);
        assert_eq!((grown.reads, grown.read_millis), (2, 10));
        let anew = DriveCounters { reads: 9, read_millis: 5, ..Default::default() };
        assert_eq!(drive_growth(&anew, &before), anew);
        let wide = DriveCounters { reads: 10, read_millis: max + 5, ..Default::default() };
        assert_eq!(drive_growth(&after, &wide), after, "that one does not come around at 32 bits");
    }

    #[test]
    fn b70_processor_time_is_divided_and_what_shrinks_by_nature_has_not_grown() {
        let before = CpuTimes { user: 10, idle: 100, iowait: 50, ..Default::default() };
        let after = CpuTimes { user: 13, idle: 107, iowait: 49, ..Default::default() };
        let ratios = cpu_growth(&after, &before).expect("time has passed");
        assert_eq!(ratios, [0.3, 0.0, 0.0, 0.7, 0.0, 0.0]);
        assert_eq!(cpu_growth(&after, &after), None, "none has passed");
        let anew = CpuTimes { user: 1, idle: 3, ..Default::default() };
        assert_eq!(cpu_growth(&anew, &after).expect("some")[..4], [0.25, 0.0, 0.0, 0.75]);
    }
}
