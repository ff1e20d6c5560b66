//! Retry timing: growing, jittered waits between attempts to connect ([B04]).
//!
//! [B04]: crate::rules#b04

use std::time::Duration;

use rand::{Rng, RngExt};

use crate::limits::Limits;
use crate::time::Instant;

/// The back-off state of one remote.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    reset_after: Duration,
    /// Upper bound of the next wait.
    ceiling: Duration,
}

impl Backoff {
    /// Creates a back-off that starts at the minimum wait.
    pub fn new(limits: &Limits) -> Self {
        Self {
            min: limits.backoff_min,
            max: limits.backoff_max,
            reset_after: limits.backoff_reset_after,
            ceiling: limits.backoff_min,
        }
    }

    /// Returns the wait before the next attempt, drawn from the upper half of a span that doubles
    /// with each call. The half that is never drawn protects a remote from rapid retries; the half
    /// that is drawn keeps many servers from reconnecting in step.
    pub fn next_wait(&mut self, rng: &mut dyn Rng) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = (ceiling * 2).min(self.max);
        ceiling.mul_f64(0.5 + 0.5 * rng.random::<f64>())
    }

    /// Records the end of a connection that was up from `connected_at`. Only one that lasted
    /// `backoff_reset_after` resets the waits: a remote that accepts and then fails at once is
    /// backed off from as well.
    pub fn connection_ended(&mut self, connected_at: Instant, now: Instant) {
        if now.since(connected_at) >= self.reset_after {
            self.ceiling = self.min;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    fn waits(backoff: &mut Backoff, seed: u64, count: usize) -> Vec<Duration> {
        let mut rng = SmallRng::seed_from_u64(seed);
        (0..count).map(|_| backoff.next_wait(&mut rng)).collect()
    }

    #[test]
    fn b04_waits_double_from_100_to_200_ms_up_to_5_s_each_from_the_upper_half() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(&Limits::default());
            let ceilings = [200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000];
            for (wait, ceiling) in waits(&mut backoff, seed, ceilings.len()).iter().zip(ceilings) {
                let ceiling = Duration::from_millis(ceiling);
                assert!(*wait >= ceiling / 2 && *wait <= ceiling, "{wait:?} of {ceiling:?}");
            }
        }
    }

    #[test]
    fn b04_only_a_connection_that_lasted_resets_the_waits() {
        let second = |s: u64| Instant::from_nanos(s * 1_000_000_000);
        let mut backoff = Backoff::new(&Limits::default());
        waits(&mut backoff, 1, 10);

        backoff.connection_ended(second(0), second(9));
        assert!(waits(&mut backoff, 2, 1)[0] >= Duration::from_millis(2_500));

        backoff.connection_ended(second(0), second(10));
        assert!(waits(&mut backoff, 3, 1)[0] <= Duration::from_millis(200));
    }
}
