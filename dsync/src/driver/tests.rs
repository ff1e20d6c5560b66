//! Drivers of many locks, at lockers that count their requests.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::runtime::Handle;

use super::*;
use crate::limits::{LEASE, Limits, REFRESHES_PER_BATCH};
use crate::live_locks::{LockOrder, LocksConfig};
use crate::locker::Locker;
use crate::proto::hold::{AttemptLimit, Response, WaitMode};
use crate::proto::quorum::{ListId, LockKind};
use crate::proto::resources::Resources;
use crate::proto::table::{ForceTarget, Granted, RefreshOutcome};
use crate::proto::token::{Token, TokenStamp};
use crate::wire::LockerListing;

/// Which implementation a counting locker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    /// Ours, of the previous release.
    WithoutBatches,
    /// MinIO's.
    Plain,
}

/// A locker that grants everything, and counts.
struct CountingLocker {
    name: String,
    kind: Kind,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    singles: AtomicUsize,
    batches: AtomicUsize,
    /// Refreshes in batches.
    batched: AtomicUsize,
    /// Whether requests to release are lost.
    loses_releases: AtomicBool,
}

impl CountingLocker {
    fn respond(&self, response: Response) -> StampedResponse {
        let wall = Token::new(1_000_000_000_000);
        let stamp = TokenStamp { highest: wall, wall };
        StampedResponse {
            response,
            stamp: (self.kind != Kind::Plain).then_some(stamp),
            queue: QueueReport::default(),
            error: None,
        }
    }
}

impl Locker for CountingLocker {
    fn name(&self) -> &str {
        &self.name
    }

    fn call(&self, request: Request, timeout: Duration) -> ResponseFuture<StampedResponse> {
        let response = match request {
            Request::Lock(request) => {
                Response::Lock(Ok(Granted { token: request.proposed_token, lease: LEASE }))
            }
            Request::Refresh(_) => {
                self.counts.singles.fetch_add(1, Ordering::Relaxed);
                Response::Refresh(RefreshOutcome::Held { lease: LEASE })
            }
            Request::Unlock { .. } if self.counts.loses_releases.load(Ordering::Relaxed) => {
                return Box::pin(async move {
                    tokio::time::sleep(timeout).await;
                    Err(LockerError { may_have_run: true, message: "lost".to_owned() })
                });
            }
            _ => Response::Released,
        };
        Box::pin(ready(Ok(self.respond(response))))
    }

    fn accepts_batches(&self) -> bool {
        self.kind == Kind::Ours
    }

    fn refresh_batch(
        &self,
        refreshes: Vec<RefreshRequest>,
        _timeout: Duration,
    ) -> ResponseFuture<Vec<Result<StampedResponse, LockerError>>> {
        assert!(refreshes.len() <= REFRESHES_PER_BATCH);
        self.counts.batches.fetch_add(1, Ordering::Relaxed);
        self.counts.batched.fetch_add(refreshes.len(), Ordering::Relaxed);
        let held = Response::Refresh(RefreshOutcome::Held { lease: LEASE });
        let responses = refreshes.iter().map(|_| Ok(self.respond(held))).collect();
        Box::pin(ready(Ok(responses)))
    }

    fn list(&self, _timeout: Duration) -> ResponseFuture<LockerListing> {
        Box::pin(ready(Ok(LockerListing::default())))
    }

    fn force_unlock(&self, _target: &ForceTarget, _timeout: Duration) -> ResponseFuture<usize> {
        Box::pin(ready(Ok(0)))
    }
}

/// A process without a network, and its three lockers.
struct Process {
    parts: DriverParts,
    counts: Vec<Arc<Counts>>,
}

impl Process {
    fn new(kind: Kind) -> Self {
        let counts: Vec<Arc<Counts>> = (0..3).map(|_| Arc::default()).collect();
        let lockers: Vec<_> = (0..3).map(|index| format!("locker{index}")).collect();
        let config = LocksConfig {
            owner: "holder".into(),
            lockers: lockers.iter().map(|name| name.as_str().into()).collect(),
            list: ListId::default(),
            limits: Limits::default(),
            wait_mode: WaitMode::default(),
        };
        let lockers = lockers.into_iter().zip(&counts).map(|(name, counts)| {
            Arc::new(CountingLocker { name, kind, counts: Arc::clone(counts) }) as Arc<dyn Locker>
        });
        // Its clock is that of the paused runtime.
        let env = Env::system();
        let parts = DriverParts {
            locks: Arc::new(LiveLocks::new(config, env.clone())),
            peers: Arc::new(Peers::new(lockers.collect(), None, Vec::new(), &env)),
            loss_log: Arc::new(LossLog::new(env.clone())),
            is_excluded: Arc::default(),
            env,
        };
        Self { parts, counts }
    }

    async fn lock(&self, name: &str) -> Arc<Lock> {
        let order = LockOrder {
            resources: Resources::new([name]).expect("a valid name"),
            kind: LockKind::Write,
            source: "test".into(),
            attempt_limit: AttemptLimit::Unlimited,
        };
        let lock = self.parts.locks.begin(order).expect("there is room");
        let driver = Driver::new(Arc::clone(&lock), self.parts.clone());
        let status = Acquisition::new(driver, Handle::current()).acquire().await;
        assert!(matches!(status, Status::Held { .. }), "{status:?}");
        lock
    }

    /// Returns the single refreshes, the batches, and the refreshes in batches, of each locker.
    fn counts(&self) -> Vec<[usize; 3]> {
        let load = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        let of = |c: &Arc<Counts>| [load(&c.singles), load(&c.batches), load(&c.batched)];
        self.counts.iter().map(of).collect()
    }
}

/// Returns the requests at the first locker during one refresh interval of 10,000 held locks.
async fn requests_per_interval(kind: Kind) -> [usize; 3] {
    const LOCKS: usize = 10_000;
    let process = Process::new(kind);
    let mut locks = Vec::new();
    for number in 0..LOCKS {
        locks.push(process.lock(&format!("object-{number}")).await);
    }
    let interval = Limits::default().refresh_interval;
    // The second refreshes of all locks, which are all in the second interval and its window.
    tokio::time::sleep(interval + interval / 20).await;
    let before = process.counts();
    tokio::time::sleep(interval).await;
    let after = process.counts();
    let now = process.parts.env.now();
    assert!(locks.iter().all(|lock| lock.validity().is_valid(now)), "a lock is lost");
    let counts = std::array::from_fn(|index| after[0][index] - before[0][index]);
    let refreshes = counts[0] + counts[2];
    assert!((LOCKS..LOCKS + LOCKS / 10).contains(&refreshes), "{counts:?}");
    counts
}

#[tokio::test(start_paused = true)]
async fn b52_ten_thousand_locks_are_refreshed_by_forty_requests_to_each_locker() {
    let [singles, batches, _] = requests_per_interval(Kind::Ours).await;
    assert!(singles == 0 && (38..=50).contains(&batches), "{singles} singles, {batches} batches");
}

#[tokio::test(start_paused = true)]
async fn b59_locks_are_refreshed_singly_at_plain_lockers_and_those_without_batches() {
    for kind in [Kind::Plain, Kind::WithoutBatches] {
        let [singles, batches, _] = requests_per_interval(kind).await;
        assert!(singles >= 10_000 && batches == 0, "{kind:?}: {singles} singles");
    }
}

#[tokio::test(start_paused = true)]
async fn b52_a_refresh_that_is_no_longer_wanted_is_not_sent() {
    let process = Process::new(Kind::Ours);
    let batcher = process.parts.peers.batcher(0).expect("there are three");
    let (window, timeout) = (Duration::from_millis(500), Duration::from_secs(5));
    let refresh = |uid: &str| {
        batcher.refresh(RefreshRequest { uid: uid.into(), claim: None }, window, timeout)
    };
    let (kept, released) = (refresh("kept"), refresh("released"));
    drop(released);
    let response = kept.await.expect("a response").response;
    assert_eq!(response, Response::Refresh(RefreshOutcome::Held { lease: LEASE }));
    assert_eq!(process.counts()[0], [0, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn b56_a_release_reports_which_lockers_confirmed_it() {
    let process = Process::new(Kind::Ours);
    let lock = process.lock("a").await;
    let released = lock.released();
    lock.release(process.parts.env.now());
    let report = released.await;
    assert_eq!((report.lockers, report.confirmed, report.is_confirmed()), (3, 3, true));
    let lock = process.lock("b").await;
    process.counts[1].loses_releases.store(true, Ordering::Relaxed);
    let (released, began) = (lock.released(), process.parts.env.now());
    lock.release(began);
    let report = released.await;
    assert_eq!((report.confirmed, report.expired, report.is_confirmed()), (2, 1, false));
    assert!(process.parts.env.now().since(began) >= LEASE, "only the lease ends it");
}
