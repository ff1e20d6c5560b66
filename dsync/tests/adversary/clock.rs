//! Clocks of lockers and clients.

use dsync::proto::token::Token;
use grid::time::Instant;
use rand::RngExt;
use rand::rngs::SmallRng;

/// Wall clocks begin here, in microseconds.
const EPOCH_MICROS: u64 = 1_700_000_000_000_000;

/// A clock with an arbitrary start and its own rate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    offset: u64,
    ppm: i64,
    wall_skew_micros: i64,
}

impl Clock {
    pub(super) fn random(rng: &mut SmallRng, drift_ppm: u32) -> Self {
        let drift = i64::from(drift_ppm);
        Self {
            offset: rng.random_range(0..1_000_000_000_000),
            ppm: rng.random_range(-drift..=drift),
            wall_skew_micros: rng.random_range(-1_000_000..=1_000_000),
        }
    }

    pub(super) fn now(&self, at: u64) -> Instant {
        let shown = i128::from(at) + i128::from(at) * i128::from(self.ppm) / 1_000_000;
        Instant::from_nanos(self.offset + u64::try_from(shown).expect("not negative"))
    }

    /// Returns the true time at which this clock shows `instant`, approximately, and not before.
    pub(super) fn true_time(&self, instant: Instant) -> u64 {
        let shown = i128::from(instant.as_nanos().saturating_sub(self.offset));
        u64::try_from(shown * 1_000_000 / (1_000_000 + i128::from(self.ppm))).expect("not negative")
            + 2_000
    }

    pub(super) fn wall(&self, at: u64) -> Token {
        let shown = (EPOCH_MICROS + self.now(at).since(self.now(0)).as_micros() as u64) as i64;
        Token::new((shown + self.wall_skew_micros) as u64)
    }
}
