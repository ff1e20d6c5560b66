//! The clocks of one node, with the skew and drift that the run sets.

use std::sync::Arc;
use std::time::Duration;

use grid::sync::{Mutex, MutexGuard};
use grid::time::{Clock, Instant, Timestamp};
use tokio::runtime::Handle;

use crate::fault::ClockWhilePaused;

/// Wall-clock start of all runs, in seconds since the Unix epoch.
pub const EPOCH_SECONDS: u64 = 1_700_000_000;

/// The clocks of a node, over all of its incarnations. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct NodeClock(Arc<Mutex<ClockState>>);

#[derive(Debug, Default)]
struct ClockState {
    /// The simulated time and tokio's time at the start of the incarnation.
    started: Option<(Duration, tokio::time::Instant)>,
    /// The last reading of the simulated time, for reads outside of the node's runtime:
    /// destructors, when it crashes.
    last: Duration,
    /// Anchor of the rate: the clock read `.1` at the simulated time `.0`, and has run at `ppm`
    /// since.
    anchor: (Duration, Duration),
    ppm: i32,
    skew_ms: i64,
    /// The reading while its process is paused.
    paused_at: Option<Duration>,
    /// How far the clocks are behind because they were frozen.
    behind: Duration,
    /// The part of `behind` that the wall clock has been corrected by.
    wall_corrected: Duration,
}

impl NodeClock {
    fn state(&self) -> MutexGuard<'_, ClockState> {
        self.0.lock()
    }

    /// Starts a new incarnation at the simulated time `now`. Must be called inside its runtime.
    #[expect(clippy::disallowed_methods, reason = "tokio's time is the simulated one")]
    pub(crate) fn start(&self, now: Duration) {
        self.state().started = Some((now, tokio::time::Instant::now()));
    }

    /// Ends the incarnation.
    pub(crate) fn end(&self) {
        self.state().started = None;
    }

    pub(crate) fn set_skew(&self, ms: i64) {
        self.state().skew_ms = ms;
    }

    /// Removes the skew and the lag of the wall clock; the drift stays.
    pub(crate) fn correct_wall_clock(&self) {
        self.set_skew(0);
        self.catch_up_after_freeze();
    }

    /// Advances the wall clock by the time that it was frozen, as NTP would by the start of a new
    /// process.
    pub(crate) fn catch_up_after_freeze(&self) {
        let mut state = self.state();
        state.wall_corrected = state.behind;
    }

    /// Pauses the process at the simulated time `now`: it sees no time pass from here on.
    pub(crate) fn pause(&self, now: Duration) {
        let mut state = self.state();
        let reading = state.reading(now.max(state.last));
        state.paused_at.get_or_insert(reading);
    }

    /// Resumes the process.
    pub(crate) fn resume(&self, now: Duration, during_pause: ClockWhilePaused) {
        let mut state = self.state();
        let now = now.max(state.last);
        if let (Some(reading), ClockWhilePaused::Frozen) = (state.paused_at.take(), during_pause) {
            let missed = state.reading(now).saturating_sub(reading);
            state.behind += missed;
            state.anchor = (now, reading);
        }
    }

    /// Returns its reading at the simulated time `now`, for observers outside of the simulation.
    /// While the process is paused, this is the reading as if the clock ran.
    pub fn reading_at(&self, now: Duration) -> Instant {
        let state = self.state();
        instant(state.reading(now.max(state.last)))
    }

    /// Sets the rate from the simulated time `now` on.
    pub(crate) fn set_drift(&self, ppm: i32, now: Duration) {
        let mut state = self.state();
        let now = now.max(state.last);
        state.anchor = (now, state.reading(now));
        state.ppm = ppm;
    }

    fn elapsed(&self) -> Duration {
        let mut state = self.state();
        if Handle::try_current().is_ok() {
            state.last = state.last.max(state.simulated());
        }
        state.paused_at.unwrap_or_else(|| state.reading(state.last))
    }
}

fn instant(reading: Duration) -> Instant {
    Instant::from_nanos(u64::try_from(reading.as_nanos()).unwrap_or(u64::MAX))
}

impl ClockState {
    #[expect(clippy::disallowed_methods, reason = "tokio's time is the simulated one")]
    fn simulated(&self) -> Duration {
        match self.started {
            Some((at, then)) => at + tokio::time::Instant::now().duration_since(then),
            None => self.last,
        }
    }

    /// Returns the reading at the simulated time `at`.
    fn reading(&self, at: Duration) -> Duration {
        let (since, reading) = self.anchor;
        let passed = at.saturating_sub(since).as_nanos() as i128;
        let passed = passed + passed * i128::from(self.ppm) / 1_000_000;
        reading + Duration::from_nanos(u64::try_from(passed).unwrap_or(0))
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Instant {
        instant(self.elapsed())
    }

    fn wall(&self) -> Timestamp {
        let elapsed = Duration::from_secs(EPOCH_SECONDS) + self.elapsed();
        let state = self.state();
        let skew = i128::from(state.skew_ms) * 1_000_000 + state.wall_corrected.as_nanos() as i128;
        let nanos = elapsed.as_nanos() as i128 + skew;
        let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(0);
        Timestamp::new(seconds, nanos.rem_euclid(1_000_000_000) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drifting_clock_never_goes_backwards() {
        let clock = NodeClock::default();
        clock.state().last = Duration::from_secs(100);
        clock.set_drift(10_000, Duration::from_secs(100));
        clock.state().last = Duration::from_secs(200);
        assert_eq!(clock.now().as_nanos(), 201_000_000_000);
        clock.set_drift(-10_000, Duration::from_secs(200));
        assert_eq!(clock.now().as_nanos(), 201_000_000_000);
        clock.state().last = Duration::from_secs(300);
        assert_eq!(clock.now().as_nanos(), 300_000_000_000);
    }

    #[test]
    fn paused_process_sees_no_time_pass_and_after_the_pause_all_of_it_or_none() {
        let seconds = Duration::from_secs;
        for (during_pause, afterwards) in
            [(ClockWhilePaused::Ran, 90), (ClockWhilePaused::Frozen, 10)]
        {
            let clock = NodeClock::default();
            clock.state().last = seconds(10);
            clock.pause(seconds(10));
            clock.state().last = seconds(60);
            clock.pause(seconds(60));
            assert_eq!(clock.now(), instant(seconds(10)), "paused");
            assert_eq!(clock.reading_at(seconds(70)), instant(seconds(70)), "from outside");
            clock.state().last = seconds(90);
            clock.resume(seconds(90), during_pause);
            assert_eq!(clock.now(), instant(seconds(afterwards)), "{during_pause:?}");
            clock.state().last = seconds(95);
            assert_eq!(clock.now(), instant(seconds(afterwards + 5)), "{during_pause:?}");
            clock.correct_wall_clock();
            assert_eq!(clock.wall(), Timestamp::new(EPOCH_SECONDS as i64 + 95, 0));
        }
    }

    #[test]
    fn skewed_wall_clock_is_off_by_the_skew() {
        let clock = NodeClock::default();
        clock.set_skew(-1_500);
        assert_eq!(clock.wall(), Timestamp::new(EPOCH_SECONDS as i64 - 2, 500_000_000));
    }
}
