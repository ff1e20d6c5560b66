//! Default clock for leases.

use grid::env::SystemClock;
use grid::time::{Clock, Instant, Timestamp};

/// A monotonic clock that keeps running while the machine sleeps, where the system has one (Linux:
/// `CLOCK_BOOTTIME`), and the system's wall clock.
///
/// The usual monotonic clock stops while a machine is suspended. A holder that resumes would rely
/// on leases that ended long ago; by this clock they have expired.
#[derive(Debug, Default)]
pub struct LeaseClock {
    system: SystemClock,
}

impl LeaseClock {
    /// Returns the clock.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Clock for LeaseClock {
    #[cfg(target_os = "linux")]
    fn now(&self) -> Instant {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    #[cfg(not(target_os = "linux"))]
    fn now(&self) -> Instant {
        self.system.now()
    }

    fn wall(&self) -> Timestamp {
        self.system.wall()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn b52_it_advances_at_the_rate_of_the_usual_clock() {
        let (lease, usual) = (LeaseClock::new(), SystemClock::new());
        let (began, began_usual) = (lease.now(), usual.now());
        while usual.now().since(began_usual) < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        let passed = lease.now().since(began);
        let passed_usual = usual.now().since(began_usual);
        assert!(passed >= Duration::from_millis(20), "{passed:?}");
        // Read first, so never ahead of the other unless the machine is suspended between the two.
        assert!(passed <= passed_usual + Duration::from_millis(1), "{passed:?} {passed_usual:?}");
    }
}
