//! Waits between the attempts of an operation that fails: growing to a maximum, and jittered.
//!
//! Each wait is drawn from the upper half of a span. The half that is never drawn protects a server
//! from rapid retries; the half that is drawn keeps many servers from retrying in step.

use std::time::Duration;

use rand::{Rng, RngExt};

/// The waits of one operation.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    /// Upper bound of the next wait.
    ceiling: Duration,
}

impl Backoff {
    /// Creates a back-off whose first wait is at most `min`, and every wait at most `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, ceiling: min.min(max) }
    }

    /// Returns the wait before the next attempt. Its span doubles with each call.
    pub fn next_wait(&mut self, rng: &mut dyn Rng) -> Duration {
        let ceiling = self.ceiling;
        self.ceiling = ceiling.saturating_mul(2).min(self.max);
        jittered(ceiling, rng)
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.ceiling = self.min.min(self.max);
    }
}

/// Returns a duration from the upper half of the span up to `ceiling`.
pub fn jittered(ceiling: Duration, rng: &mut dyn Rng) -> Duration {
    ceiling.mul_f64(0.5 + 0.5 * rng.random::<f64>())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::SmallRng;

    use super::*;

    const MIN: Duration = Duration::from_millis(200);
    const MAX: Duration = Duration::from_secs(5);

    #[test]
    fn b04_waits_double_up_to_the_maximum_each_from_the_upper_half() {
        for seed in 0..200 {
            let mut rng = SmallRng::seed_from_u64(seed);
            let mut backoff = Backoff::new(MIN, MAX);
            for ceiling in [200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000] {
                let (wait, ceiling) = (backoff.next_wait(&mut rng), Duration::from_millis(ceiling));
                assert!(wait >= ceiling / 2 && wait <= ceiling, "{wait:?} of {ceiling:?}");
            }
        }
    }

    #[test]
    fn b04_reset_starts_over() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::new(MIN, MAX);
        for _ in 0..10 {
            backoff.next_wait(&mut rng);
        }
        backoff.reset();
        assert!(backoff.next_wait(&mut rng) <= MIN);
    }

    #[test]
    fn a_minimum_above_the_maximum_is_cut_to_it() {
        let mut rng = SmallRng::seed_from_u64(1);
        let mut backoff = Backoff::new(MAX, MIN);
        assert!(backoff.next_wait(&mut rng) <= MIN && backoff.next_wait(&mut rng) <= MIN);
    }
}
