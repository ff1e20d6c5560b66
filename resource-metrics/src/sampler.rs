//! Takes samples, keeps what they amount to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid::time::{Clock, Instant};
use tokio::time::MissedTickBehavior;

use crate::limits::{PROBLEM_LOG_PERIOD, PROBLEMS_KEPT_MAX, SAMPLE_TIMEOUT};
use crate::report::Report;
use crate::sample::{Problem, Source};
use crate::window::Window;

/// Samples one server.
pub(crate) struct Sampler {
    source: Box<dyn Source>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    window: Window,
    latest: Arc<Report>,
    /// When the log was told last about a part of the system.
    told: BTreeMap<String, Instant>,
}

impl Sampler {
    pub(crate) fn new(source: Box<dyn Source>, clock: Arc<dyn Clock>) -> Self {
        let window = Window::new(clock.wall());
        let latest = Arc::new(window.report());
        let state = Mutex::new(State { window, latest, told: BTreeMap::new() });
        Self { source, clock, state }
    }

    /// What the samples so far amount to.
    pub(crate) fn latest(&self) -> Arc<Report> {
        Arc::clone(&self.lock().latest)
    }

    /// Takes samples for ever, the first at once.
    pub(crate) async fn run(&self, every: Duration) {
        let mut ticks = tokio::time::interval(every);
        // After a pause one sample is enough: what was missed is in its interval.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sample().await;
        }
    }

    /// Takes one sample, or misses it.
    pub(crate) async fn sample(&self) {
        // Counters are read when sampling begins; asking drives how full they are takes longer.
        let (now, wall) = (self.clock.now(), self.clock.wall());
        match tokio::time::timeout(SAMPLE_TIMEOUT, self.source.sample()).await {
            Ok(sample) => {
                let mut state = self.lock();
                state.window.observe(&sample, now, wall);
                state.latest = Arc::new(state.window.report());
                state.tell(&sample.problems, now);
            }
            Err(_) => {
                let cause = format!("not within {SAMPLE_TIMEOUT:?}");
                let problem = Problem { part: "the system".to_owned(), cause };
                self.lock().tell(&[problem], now);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Logs what could not be sampled: of each part once in a while.
    fn tell(&mut self, problems: &[Problem], now: Instant) {
        self.told.retain(|_, at| now.since(*at) < PROBLEM_LOG_PERIOD);
        for Problem { part, cause } in problems {
            if self.told.contains_key(part) || self.told.len() >= PROBLEMS_KEPT_MAX {
                continue;
            }
            self.told.insert(part.clone(), now);
            tracing::warn!(target: "metrics", "cannot sample {part}: {cause}");
        }
    }
}
