//! Takes samples, and keeps the latest report.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use grid::time::{Clock, Instant};
use tokio::time::MissedTickBehavior;

use crate::aggregate::Aggregator;
use crate::limits::{PROBLEM_LOG_PERIOD, PROBLEMS_KEPT_MAX, SAMPLE_TIMEOUT};
use crate::report::Report;
use crate::sample::{Problem, Source};

/// Samples one server.
pub(crate) struct Sampler {
    source: Box<dyn Source>,
    clock: Arc<dyn Clock>,
    state: Mutex<SamplerState>,
}

struct SamplerState {
    aggregator: Aggregator,
    latest: Arc<Report>,
    /// Time of the last log line about each part of the system.
    last_logged: BTreeMap<String, Instant>,
}

impl Sampler {
    pub(crate) fn new(source: Box<dyn Source>, clock: Arc<dyn Clock>) -> Self {
        let aggregator = Aggregator::new(clock.wall());
        let latest = Arc::new(aggregator.report());
        let state = Mutex::new(SamplerState { aggregator, latest, last_logged: BTreeMap::new() });
        Self { source, clock, state }
    }

    /// Returns the report of the samples so far.
    pub(crate) fn latest(&self) -> Arc<Report> {
        Arc::clone(&self.lock().latest)
    }

    /// Takes samples forever, the first at once.
    pub(crate) async fn run(&self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        // After a pause one sample suffices: its interval covers the missed ones.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.sample().await;
        }
    }

    /// Takes one sample. On a timeout there is none.
    pub(crate) async fn sample(&self) {
        // Counters are read when sampling begins; probing the drives takes longer.
        let (now, wall) = (self.clock.now(), self.clock.wall());
        match tokio::time::timeout(SAMPLE_TIMEOUT, self.source.sample()).await {
            Ok(sample) => {
                let mut state = self.lock();
                state.aggregator.observe(&sample, now, wall);
                state.latest = Arc::new(state.aggregator.report());
                state.log_problems(&sample.problems, now);
            }
            Err(_) => {
                let cause = format!("timed out after {SAMPLE_TIMEOUT:?}");
                let problem = Problem { part: "the system".to_owned(), cause };
                self.lock().log_problems(&[problem], now);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, SamplerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SamplerState {
    /// Logs what could not be sampled, at most once per period and part.
    fn log_problems(&mut self, problems: &[Problem], now: Instant) {
        self.last_logged.retain(|_, at| now.since(*at) < PROBLEM_LOG_PERIOD);
        for Problem { part, cause } in problems {
            if self.last_logged.contains_key(part) || self.last_logged.len() >= PROBLEMS_KEPT_MAX {
                continue;
            }
            self.last_logged.insert(part.clone(), now);
            tracing::warn!(target: "metrics", part, cause, "sampling failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use grid::env::SystemClock;

    use super::*;
    use crate::sample::{InterfaceCounters, Sample, SampleFuture};

    const MINUTE: Duration = Duration::from_secs(60);

    /// A host whose interface receives 600 bytes per sample, and whose second sample hangs.
    #[derive(Default)]
    struct SyntheticHost {
        taken: Arc<AtomicU64>,
    }

    impl Source for SyntheticHost {
        fn sample(&self) -> SampleFuture {
            let number = self.taken.fetch_add(1, Ordering::SeqCst);
            if number == 1 {
                return Box::pin(std::future::pending());
            }
            let counters = InterfaceCounters { receive_bytes: 600 * number, ..Default::default() };
            let interfaces = Some([("eth0".to_owned(), counters)].into());
            Box::pin(std::future::ready(Sample { interfaces, ..Sample::default() }))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn b70_a_sample_each_minute_and_one_that_hangs_is_missed() {
        let taken = Arc::new(AtomicU64::new(0));
        let machine = SyntheticHost { taken: Arc::clone(&taken) };
        let sampler = Arc::new(Sampler::new(Box::new(machine), Arc::new(SystemClock::new())));
        let running = Arc::clone(&sampler);
        tokio::spawn(async move { running.run(MINUTE).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let first = sampler.latest();
        assert_eq!((taken.load(Ordering::SeqCst), first.sample_interval_seconds), (1, None));
        // The second begins at 60 s, and is cancelled ten seconds later.
        tokio::time::sleep(MINUTE + SAMPLE_TIMEOUT).await;
        assert_eq!(taken.load(Ordering::SeqCst), 2);
        assert_eq!(sampler.latest().sample_time_seconds, first.sample_time_seconds, "unchanged");
        tokio::time::sleep(MINUTE).await;
        assert_eq!(taken.load(Ordering::SeqCst), 3);
        let report = sampler.latest();
        assert_eq!(report.sample_interval_seconds, Some(120.0), "two minutes in one");
        assert_eq!(report.interfaces["eth0"].receive_bytes.current, Some(10.0));
        // The process was stopped for an hour: one interval covers the missed samples.
        tokio::time::advance(60 * MINUTE).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(taken.load(Ordering::SeqCst), 4);
    }

    #[test]
    fn b41_a_part_that_cannot_be_sampled_is_logged_once_per_period() {
        let aggregator = Aggregator::new(grid::time::Timestamp::default());
        let latest = Arc::new(aggregator.report());
        let mut state = SamplerState { aggregator, latest, last_logged: BTreeMap::new() };
        let problem = |part: &str| Problem { part: part.to_owned(), cause: "no".to_owned() };
        let at = |seconds| Instant::from_nanos(0) + Duration::from_secs(seconds);
        let logged_at = |state: &SamplerState, part: &str| state.last_logged.get(part).copied();
        state.log_problems(&[problem("/a")], at(0));
        state.log_problems(&[problem("/a"), problem("/b")], at(3_599));
        assert_eq!(
            (logged_at(&state, "/a"), logged_at(&state, "/b")),
            (Some(at(0)), Some(at(3_599)))
        );
        state.log_problems(&[problem("/a")], at(3_600));
        assert_eq!(logged_at(&state, "/a"), Some(at(3_600)), "again after an hour");
        let many: Vec<_> = (0..2 * PROBLEMS_KEPT_MAX).map(|n| problem(&n.to_string())).collect();
        state.log_problems(&many, at(3_601));
        assert_eq!(state.last_logged.len(), PROBLEMS_KEPT_MAX);
    }
}
