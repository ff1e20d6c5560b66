//! Deadlines and sharing, in the test's own time.
#![allow(clippy::disallowed_methods, reason = "the clock of the test is paused")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use grid::net::clock::SystemClock;
use grid::time::Clock;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::flight::Flight;
use super::*;

const WITHIN: Duration = Duration::from_secs(5);
const SHARED_FOR: Duration = Duration::from_secs(1);

/// A server that answers after so long, whatever time it is given.
struct Slow {
    name: String,
    after: Duration,
}

impl Peer for Slow {
    fn name(&self) -> &str {
        &self.name
    }

    fn ask(&self, _: Duration) -> Asking<'_> {
        Box::pin(async move {
            tokio::time::sleep(self.after).await;
            Ok(Report::default())
        })
    }
}

fn slow(name: &str, after: Duration) -> Slow {
    Slow { name: name.to_owned(), after }
}

#[tokio::test(start_paused = true)]
async fn b71_all_are_asked_at_once_and_nobody_is_waited_for_past_the_deadline() {
    let millisecond = Duration::from_millis(1);
    let peers =
        [slow("a", WITHIN - millisecond), slow("b", WITHIN + millisecond), slow("c", WITHIN * 100)];
    let began = Instant::now();
    let answers = gather(&peers, WITHIN).await;
    assert_eq!(began.elapsed(), WITHIN);
    assert_eq!(answers["a"], Answer::Up(Box::default()));
    for late in ["b", "c"] {
        let cause = format!("{late} did not answer within 5s");
        assert_eq!(answers[late], Answer::Down(Down { reason: Reason::Timeout, cause }));
    }
}

#[tokio::test(start_paused = true)]
async fn b71_nobody_is_waited_for_who_has_answered() {
    let began = Instant::now();
    gather(&[slow("a", SHARED_FOR), slow("b", Duration::ZERO)], WITHIN).await;
    assert_eq!(began.elapsed(), SHARED_FOR);
    assert_eq!(gather::<Slow>(&[], WITHIN).await, BTreeMap::new());
}

/// Counts how often something was made, which takes until it is released.
struct Made {
    flight: Flight<usize>,
    clock: Arc<dyn Clock>,
    count: Arc<AtomicUsize>,
    release: Arc<Notify>,
}

impl Made {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            flight: Flight::new(SHARED_FOR),
            clock: Arc::new(SystemClock::new()),
            count: Arc::default(),
            release: Arc::default(),
        })
    }

    async fn get(self: Arc<Self>) -> Option<usize> {
        let (count, release) = (Arc::clone(&self.count), Arc::clone(&self.release));
        let make = || async move {
            let number = count.fetch_add(1, Ordering::SeqCst);
            release.notified().await;
            number
        };
        self.flight.get(&self.clock, make).await.map(|made| *made)
    }

    fn begin(self: &Arc<Self>) -> tokio::task::JoinHandle<Option<usize>> {
        tokio::spawn(Arc::clone(self).get())
    }
}

/// What came of a scrape. Nobody waits for ever: the test's time passes by itself when nothing else
/// happens.
async fn ended(scrape: tokio::task::JoinHandle<Option<usize>>) -> Option<usize> {
    let ended = tokio::time::timeout(Duration::from_secs(3_600), scrape).await;
    ended.expect("it ends").expect("no panic")
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn b71_scrapes_within_a_second_share_one_collection() {
    let made = Made::new();
    let scrapes = [made.begin(), made.begin(), made.begin()];
    settle().await;
    made.release.notify_one();
    for scrape in scrapes {
        assert_eq!(ended(scrape).await, Some(0));
    }
    tokio::time::advance(SHARED_FOR - Duration::from_millis(1)).await;
    assert_eq!(ended(made.begin()).await, Some(0), "it is still good");
    tokio::time::advance(Duration::from_millis(1)).await;
    made.release.notify_one();
    assert_eq!(ended(made.begin()).await, Some(1), "and now another is made");
    assert_eq!(made.count.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn b71_a_scraper_who_leaves_takes_nothing_from_the_others() {
    let made = Made::new();
    let first = made.begin();
    settle().await;
    let second = made.begin();
    settle().await;
    first.abort();
    assert!(first.await.expect_err("it was aborted").is_cancelled());
    made.release.notify_one();
    assert_eq!(ended(second).await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_collection_that_came_to_nothing_is_told_and_made_anew() {
    let flight: Flight<usize> = Flight::new(SHARED_FOR);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    // A task that panics, as one whose runtime shuts down, has no result.
    let failed = flight.get(&clock, || async { panic!("on purpose") }).await;
    assert_eq!(failed, None);
    assert_eq!(flight.get(&clock, || async { 7 }).await.as_deref(), Some(&7));
}

#[test]
fn b71_each_kind_of_failure_has_its_reason_and_causes_are_cut() {
    let remote: grid::Name = "http://a:1".parse().expect("a name");
    let call = |error: CallError| Down::from(TypedCallError::Call(error)).reason;
    assert_eq!(call(CallError::NotConnected { remote: remote.clone() }), Reason::NotConnected);
    assert_eq!(call(CallError::Disconnected { remote: remote.clone() }), Reason::Disconnected);
    assert_eq!(call(CallError::DeadlineExceeded { remote: remote.clone() }), Reason::Timeout);
    let message: Arc<str> = "é".repeat(CAUSE_BYTES_MAX).into();
    let unknown = CallError::UnknownHandler { remote: remote.clone(), message: message.clone() };
    assert_eq!(call(unknown), Reason::Incompatible);
    assert_eq!(call(CallError::Shutdown), Reason::ShuttingDown);
    let failed = Down::from(TypedCallError::Call(CallError::Remote { remote, message }));
    assert_eq!(failed.reason, Reason::Failed);
    assert!(failed.cause.len() <= CAUSE_BYTES_MAX && failed.cause.ends_with('é'));
}
