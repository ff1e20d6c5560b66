//! Takes samples, and keeps the latest report.

use std::sync::Arc;
use std::time::Duration;

use grid::env::Env;
use grid::log_limit::LogLimiter;
use grid::sync::Mutex;
use grid::time::Instant;
use tokio::time::MissedTickBehavior;

use crate::aggregate::Aggregator;
use crate::limits::{PROBLEM_LOG_PERIOD, SAMPLE_TIMEOUT};
use crate::report::Report;
use crate::sample::{Problem, Source};

/// Samples one server.
pub(crate) struct Sampler {
    source: Box<dyn Source>,
    env: Env,
    state: Mutex<SamplerState>,
}

struct SamplerState {
    aggregator: Aggregator,
    latest: Arc<Report>,
    /// Limits the log lines about each part of the system.
    log: LogLimiter,
}

impl Sampler {
    pub(crate) fn new(source: Box<dyn Source>, env: Env) -> Self {
        let state = Mutex::new(SamplerState::new(Aggregator::new(env.wall())));
        Self { source, env, state }
    }

    /// Returns the report of the samples so far.
    pub(crate) fn latest(&self) -> Arc<Report> {
        Arc::clone(&self.state.lock().latest)
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
        let (now, wall) = (self.env.now(), self.env.wall());
        match tokio::time::timeout(SAMPLE_TIMEOUT, self.source.sample()).await {
            Ok(sample) => {
                let mut state = self.state.lock();
                state.aggregator.observe(&sample, now, wall);
                state.latest = Arc::new(state.aggregator.report());
                state.log_problems(&sample.problems, now);
            }
            Err(_) => {
                let cause = format!("timed out after {SAMPLE_TIMEOUT:?}");
                let problem = Problem { part: "the system".to_owned(), cause };
                self.state.lock().log_problems(&[problem], now);
            }
        }
    }
}

impl SamplerState {
    fn new(aggregator: Aggregator) -> Self {
        let latest = Arc::new(aggregator.report());
        Self { aggregator, latest, log: LogLimiter::new(PROBLEM_LOG_PERIOD) }
    }

    fn log_problems(&mut self, problems: &[Problem], now: Instant) {
        for Problem { part, cause } in self.take_due(problems, now) {
            tracing::warn!(target: "metrics", part, cause, "sampling failed");
        }
    }

    /// Returns the problems that are to be logged: each part once per period.
    fn take_due<'a>(&mut self, problems: &'a [Problem], now: Instant) -> Vec<&'a Problem> {
        problems.iter().filter(|problem| self.log.record(&problem.part, now).is_log()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

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
        let sampler = Arc::new(Sampler::new(Box::new(machine), Env::system()));
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
        let mut state = SamplerState::new(Aggregator::new(grid::time::Timestamp::default()));
        let problem = |part: &str| Problem { part: part.to_owned(), cause: "no".to_owned() };
        let (a, b) = (problem("/a"), problem("/b"));
        let at = |seconds| Instant::from_nanos(0) + Duration::from_secs(seconds);
        assert_eq!(state.take_due(std::slice::from_ref(&a), at(0)), [&a]);
        assert_eq!(state.take_due(&[a.clone(), b.clone()], at(3_599)), [&b]);
        assert_eq!(state.take_due(&[a.clone(), b], at(3_600)), [&a], "again after an hour");
    }
}
