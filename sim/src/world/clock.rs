//! The clocks of one node: as wrong as the run wants them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid::time::{Clock, Instant, Timestamp};
use tokio::runtime::Handle;

use crate::plan::Meanwhile;

/// When all runs begin, in seconds since 1970.
pub const EPOCH_SECONDS: u64 = 1_700_000_000;

/// A node's clocks, over all of its incarnations. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct NodeClock(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The simulated time when the incarnation began, and tokio's at that moment.
    began: Option<(Duration, tokio::time::Instant)>,
    /// The last reading of the simulated time, for whoever asks outside of the node's runtime:
    /// destructors, when it crashes.
    last: Duration,
    /// The rate: this clock showed `.1` at the simulated time `.0`, and has run at `ppm` since.
    anchor: (Duration, Duration),
    ppm: i32,
    skew_ms: i64,
    /// What it shows while its process is stopped.
    stopped: Option<Duration>,
    /// How far it is behind because it stood.
    behind: Duration,
    /// How much of that the wall clock was told.
    corrected: Duration,
}

impl NodeClock {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new incarnation begins at the simulated time `now`. To be called inside its runtime.
    #[expect(clippy::disallowed_methods, reason = "tokio's time is the simulated one")]
    pub(crate) fn begin(&self, now: Duration) {
        self.state().began = Some((now, tokio::time::Instant::now()));
    }

    /// The incarnation is over.
    pub(crate) fn end(&self) {
        self.state().began = None;
    }

    pub(crate) fn set_skew(&self, ms: i64) {
        self.state().skew_ms = ms;
    }

    /// The wall clock is right again, as far as the rate is.
    pub(crate) fn set_right(&self) {
        self.set_skew(0);
        self.correct();
    }

    /// The wall clock is told how long it stood, as a machine asks when it starts something.
    pub(crate) fn correct(&self) {
        let mut state = self.state();
        state.corrected = state.behind;
    }

    /// Its process stops at the simulated time `now`, and sees no time pass from here on.
    pub(crate) fn stop(&self, now: Duration) {
        let mut state = self.state();
        let shown = state.shown(now.max(state.last));
        state.stopped.get_or_insert(shown);
    }

    /// Its process goes on.
    pub(crate) fn go_on(&self, now: Duration, meanwhile: Meanwhile) {
        let mut state = self.state();
        let now = now.max(state.last);
        if let (Some(shown), Meanwhile::Stood) = (state.stopped.take(), meanwhile) {
            let missed = state.shown(now).saturating_sub(shown);
            state.behind += missed;
            state.anchor = (now, shown);
        }
    }

    /// What it shows at the simulated time `now`, for whoever asks from outside of the simulation;
    /// while its process is stopped, what it will show if it runs on.
    pub fn shows(&self, now: Duration) -> Instant {
        let state = self.state();
        instant(state.shown(now.max(state.last)))
    }

    /// Runs at another rate from the simulated time `now` on.
    pub(crate) fn set_drift(&self, ppm: i32, now: Duration) {
        let mut state = self.state();
        let now = now.max(state.last);
        state.anchor = (now, state.shown(now));
        state.ppm = ppm;
    }

    fn elapsed(&self) -> Duration {
        let mut state = self.state();
        if Handle::try_current().is_ok() {
            state.last = state.last.max(state.simulated());
        }
        state.stopped.unwrap_or_else(|| state.shown(state.last))
    }
}

fn instant(shown: Duration) -> Instant {
    Instant::from_nanos(u64::try_from(shown.as_nanos()).unwrap_or(u64::MAX))
}

impl State {
    #[expect(clippy::disallowed_methods, reason = "tokio's time is the simulated one")]
    fn simulated(&self) -> Duration {
        match self.began {
            Some((at, then)) => at + tokio::time::Instant::now().duration_since(then),
            None => self.last,
        }
    }

    /// What the clock shows at the simulated time `at`.
    fn shown(&self, at: Duration) -> Duration {
        let (since, shown) = self.anchor;
        let passed = at.saturating_sub(since).as_nanos() as i128;
        let passed = passed + passed * i128::from(self.ppm) / 1_000_000;
        shown + Duration::from_nanos(u64::try_from(passed).unwrap_or(0))
    }
}

impl Clock for NodeClock {
    fn now(&self) -> Instant {
        instant(self.elapsed())
    }

    fn wall(&self) -> Timestamp {
        let elapsed = Duration::from_secs(EPOCH_SECONDS) + self.elapsed();
        let state = self.state();
        let skew = i128::from(state.skew_ms) * 1_000_000 + state.corrected.as_nanos() as i128;
        let nanos = elapsed.as_nanos() as i128 + skew;
        let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or(0);
        Timestamp::new(seconds, nanos.rem_euclid(1_000_000_000) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_drifts_never_turns_back() {
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
    fn a_process_that_is_stopped_sees_no_time_pass_and_afterwards_all_of_it_or_none() {
        let seconds = Duration::from_secs;
        for (meanwhile, afterwards) in [(Meanwhile::Ran, 90), (Meanwhile::Stood, 10)] {
            let clock = NodeClock::default();
            clock.state().last = seconds(10);
            clock.stop(seconds(10));
            clock.state().last = seconds(60);
            clock.stop(seconds(60));
            assert_eq!(clock.now(), instant(seconds(10)), "stopped");
            assert_eq!(clock.shows(seconds(70)), instant(seconds(70)), "from outside");
            clock.state().last = seconds(90);
            clock.go_on(seconds(90), meanwhile);
            assert_eq!(clock.now(), instant(seconds(afterwards)), "{meanwhile:?}");
            clock.state().last = seconds(95);
            assert_eq!(clock.now(), instant(seconds(afterwards + 5)), "{meanwhile:?}");
            clock.set_right();
            assert_eq!(clock.wall(), Timestamp::new(EPOCH_SECONDS as i64 + 95, 0));
        }
    }

    #[test]
    fn a_skewed_wall_clock_is_off_by_as_much() {
        let clock = NodeClock::default();
        clock.set_skew(-1_500);
        assert_eq!(clock.wall(), Timestamp::new(EPOCH_SECONDS as i64 - 2, 500_000_000));
    }
}
