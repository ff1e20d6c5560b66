//! Deadlines and shared collections, under a paused clock.
#![allow(clippy::disallowed_methods, reason = "the clock of the test is paused")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use grid::env::Env;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::single_flight::SingleFlight;
use super::*;

const DEADLINE: Duration = Duration::from_secs(5);
const TTL: Duration = Duration::from_secs(1);

/// A server that responds after a fixed time, whatever its timeout.
struct Slow {
    name: String,
    after: Duration,
}

impl Peer for Slow {
    fn name(&self) -> &str {
        &self.name
    }

    fn fetch_report(&self, _: Duration) -> ReportFuture<'_> {
        Box::pin(async move {
            tokio::time::sleep(self.after).await;
            Ok(Report::default())
        })
    }
}

fn slow_server(name: &str, after: Duration) -> Slow {
    Slow { name: name.to_owned(), after }
}

#[tokio::test(start_paused = true)]
async fn b71_all_servers_are_called_concurrently_and_none_delays_past_the_deadline() {
    let millisecond = Duration::from_millis(1);
    let peers = [
        slow_server("a", DEADLINE - millisecond),
        slow_server("b", DEADLINE + millisecond),
        slow_server("c", DEADLINE * 100),
    ];
    let began = Instant::now();
    let statuses = gather(&peers, DEADLINE).await;
    assert_eq!(began.elapsed(), DEADLINE);
    assert_eq!(statuses["a"], ServerStatus::Up(Box::default()));
    for late in ["b", "c"] {
        let cause = format!("{late} did not respond within 5s");
        assert_eq!(statuses[late], ServerStatus::Down(Down { reason: DownReason::Timeout, cause }));
    }
}

#[tokio::test(start_paused = true)]
async fn b71_a_collection_ends_when_all_have_responded() {
    let began = Instant::now();
    gather(&[slow_server("a", TTL), slow_server("b", Duration::ZERO)], DEADLINE).await;
    assert_eq!(began.elapsed(), TTL);
    assert_eq!(gather::<Slow>(&[], DEADLINE).await, BTreeMap::new());
}

/// Counts the computations of the value. Each waits until it is released.
struct Scrapes {
    single_flight: SingleFlight<usize>,
    env: Env,
    count: Arc<AtomicUsize>,
    release: Arc<Notify>,
}

impl Scrapes {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            single_flight: SingleFlight::new(TTL),
            env: Env::system(),
            count: Arc::default(),
            release: Arc::default(),
        })
    }

    async fn get(self: Arc<Self>) -> Option<usize> {
        let (count, release) = (Arc::clone(&self.count), Arc::clone(&self.release));
        let compute = || async move {
            let number = count.fetch_add(1, Ordering::SeqCst);
            release.notified().await;
            number
        };
        self.single_flight.get(&self.env, compute).await.map(|value| *value)
    }

    fn spawn(self: &Arc<Self>) -> tokio::task::JoinHandle<Option<usize>> {
        tokio::spawn(Arc::clone(self).get())
    }
}

/// Returns the result of a scrape. Paused time advances by itself, so one that hangs times out.
async fn outcome(scrape: tokio::task::JoinHandle<Option<usize>>) -> Option<usize> {
    let ended = tokio::time::timeout(Duration::from_secs(3_600), scrape).await;
    ended.expect("in time").expect("no panic")
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn b71_scrapes_within_a_second_share_one_collection() {
    let scrapes = Scrapes::new();
    let handles = [scrapes.spawn(), scrapes.spawn(), scrapes.spawn()];
    settle().await;
    scrapes.release.notify_one();
    for scrape in handles {
        assert_eq!(outcome(scrape).await, Some(0));
    }
    tokio::time::advance(TTL - Duration::from_millis(1)).await;
    assert_eq!(outcome(scrapes.spawn()).await, Some(0), "still fresh");
    tokio::time::advance(Duration::from_millis(1)).await;
    scrapes.release.notify_one();
    assert_eq!(outcome(scrapes.spawn()).await, Some(1), "computed again");
    assert_eq!(scrapes.count.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn b71_a_cancelled_scrape_does_not_affect_the_others() {
    let scrapes = Scrapes::new();
    let first = scrapes.spawn();
    settle().await;
    let second = scrapes.spawn();
    settle().await;
    first.abort();
    assert!(first.await.expect_err("it was aborted").is_cancelled());
    scrapes.release.notify_one();
    assert_eq!(outcome(second).await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn failed_collection_is_reported_and_retried() {
    let single_flight: SingleFlight<usize> = SingleFlight::new(TTL);
    let env = Env::system();
    // A task that panics has no result, like one whose runtime shuts down.
    let failed = single_flight.get(&env, || async { panic!("on purpose") }).await;
    assert_eq!(failed, None);
    assert_eq!(single_flight.get(&env, || async { 7 }).await.as_deref(), Some(&7));
}

#[test]
fn b71_each_kind_of_failure_has_its_reason_and_causes_are_truncated() {
    let remote: grid::Name = "http://a:1".parse().expect("a name");
    let call = |error: CallError| Down::from(TypedCallError::Call(error)).reason;
    assert_eq!(call(CallError::NotConnected { remote: remote.clone() }), DownReason::NotConnected);
    assert_eq!(call(CallError::Disconnected { remote: remote.clone() }), DownReason::Disconnected);
    assert_eq!(call(CallError::DeadlineExceeded { remote: remote.clone() }), DownReason::Timeout);
    let message: Arc<str> = "é".repeat(CAUSE_BYTES_MAX).into();
    let unknown = CallError::UnknownHandler { remote: remote.clone(), message: message.clone() };
    assert_eq!(call(unknown), DownReason::Incompatible);
    assert_eq!(call(CallError::Shutdown), DownReason::ShuttingDown);
    let failed = Down::from(TypedCallError::Call(CallError::Remote { remote, message }));
    assert_eq!(failed.reason, DownReason::Failed);
    assert!(failed.cause.len() <= CAUSE_BYTES_MAX && failed.cause.ends_with('é'));
}
