//! What a server takes from its surroundings: time and randomness, injected in one value.
//!
//! One [`Env`] is built at the start of a process and handed to everything in it. A simulator
//! builds one per node, from the run's seed, and replays the run exactly.

mod clock;

use std::fmt;
use std::sync::Arc;

use rand::rngs::{SmallRng, StdRng};
use rand::{Rng, RngExt, SeedableRng};

pub use crate::env::clock::SystemClock;
use crate::sync::Mutex;
use crate::time::{Clock, Instant, Timestamp};

/// A clock and a source of randomness. Cheap to clone; clones share both.
#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    rng: Arc<Mutex<StdRng>>,
}

impl Env {
    /// Creates an environment with this clock. `rng` seeds a generator that is suitable for keys
    /// and nonces: in a server it must be unpredictable itself.
    pub fn new(clock: impl Clock, rng: &mut dyn Rng) -> Self {
        Self { clock: Arc::new(clock), rng: Arc::new(Mutex::new(StdRng::from_rng(rng))) }
    }

    /// Creates the environment of a server: tokio's monotonic clock, the system's wall clock, the
    /// operating system's randomness.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one reader of the real source of randomness"
    )]
    pub fn system() -> Self {
        Self::new(SystemClock::new(), &mut rand::rng())
    }

    /// Replaces the clock. Randomness stays shared with the original.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Returns the clock.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Returns the monotonic clock's reading.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Returns the wall clock's reading.
    pub fn wall(&self) -> Timestamp {
        self.clock.wall()
    }

    /// Returns 16 random bytes, as an id that is unique without coordination.
    pub fn unique_id(&self) -> u128 {
        self.rng.lock().random()
    }

    /// Returns a random seed, for a generator of a state machine.
    pub fn seed(&self) -> u64 {
        self.rng.lock().next_u64()
    }

    /// Returns a new generator for jitter and ids of a task.
    pub fn fork(&self) -> SmallRng {
        SmallRng::from_rng(&mut *self.rng.lock())
    }

    /// Returns a new generator for keys and nonces.
    pub fn fork_secure(&self) -> StdRng {
        StdRng::from_rng(&mut *self.rng.lock())
    }
}

impl Default for Env {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Frozen;

    impl Clock for Frozen {
        fn now(&self) -> Instant {
            Instant::from_nanos(7)
        }

        fn wall(&self) -> Timestamp {
            Timestamp::new(1, 2)
        }
    }

    fn env(seed: u64) -> Env {
        Env::new(Frozen, &mut SmallRng::seed_from_u64(seed))
    }

    #[test]
    fn one_seed_gives_one_sequence_and_clones_share_it() {
        let (one, other) = (env(1), env(1));
        let clone = one.clone();
        let drawn =
            [one.seed(), clone.seed(), one.fork().next_u64(), clone.fork_secure().next_u64()];
        let same =
            [other.seed(), other.seed(), other.fork().next_u64(), other.fork_secure().next_u64()];
        assert_eq!(drawn, same);
        assert_ne!(drawn[0], drawn[1]);
        assert_ne!(env(2).unique_id(), env(1).unique_id());
    }

    #[test]
    fn time_is_the_injected_clocks() {
        assert_eq!((env(1).now(), env(1).wall()), (Frozen.now(), Frozen.wall()));
        struct Later;
        impl Clock for Later {
            fn now(&self) -> Instant {
                Instant::from_nanos(8)
            }
            fn wall(&self) -> Timestamp {
                Timestamp::new(2, 0)
            }
        }
        assert_eq!(env(1).with_clock(Later).now(), Later.now());
    }
}
