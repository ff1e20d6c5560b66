//! A locker whose table is busy: an operator lists 10,000 locks in a loop, which takes milliseconds
//! each time. The queue for the table has no free slot, so every request that arrives meanwhile is
//! refused. The time to the refusal is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::Criterion;
use dsync::limits::{LEASE, LISTED_MAX};
use dsync::proto::hold::{Request, Response};
use dsync::proto::table::Refusal;
use dsync::{Limits, LocalLocker, Locker};
use grid::Env;
use grid::time::{Clock, Instant, Timestamp};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::Builder;

use crate::requests::{conflicting_request, lock_requests};

const TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn refusals(criterion: &mut Criterion) {
    // Each call of a locker has a timeout, which needs a timer.
    let runtime = Builder::new_current_thread().enable_time().build().expect("the runtime builds");
    let _entered = runtime.enter();
    let locker = busy_locker();
    let conflicting = conflicting_request(lock_requests("held", 1).swap_remove(0));
    let is_stopped = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_stopped.load(Ordering::Relaxed) {
                drop(locker.list(TIMEOUT));
            }
        });
        let mut group = criterion.benchmark_group("dsync_overload");
        group.bench_function("refused", |bencher| {
            bencher.iter(|| {
                let response = call(&locker, Request::Lock(conflicting.clone()));
                // Between two listings the slot is free, and the refusal is a conflict.
                assert!(matches!(response, Response::Lock(Err(Refusal::Full | Refusal::Conflict))));
            });
        });
        group.finish();
        is_stopped.store(true, Ordering::Relaxed);
    });
}

/// Builds a locker with as many locks as one listing returns, and one slot for callers of its
/// table.
fn busy_locker() -> LocalLocker {
    let mut limits = Limits::default();
    limits.table_callers_max = 1;
    let clock = ManualClock::default();
    let nodes = [Arc::from("node")];
    let env = Env::new(clock.clone(), &mut SmallRng::seed_from_u64(1));
    let locker = LocalLocker::new("node", nodes, &limits, env);
    // A locker that has just started grants nothing before all earlier leases have expired.
    clock.advance(LEASE);
    for held in lock_requests("held", LISTED_MAX) {
        let response = call(&locker, Request::Lock(held));
        assert!(matches!(response, Response::Lock(Ok(_))), "{response:?}");
    }
    locker
}

/// Calls a locker of this process, which responds at once unless the request waits.
fn call(locker: &LocalLocker, request: Request) -> Response {
    let polled =
        locker.call(request, TIMEOUT).as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let stamped = match polled {
        Poll::Ready(result) => result.ok(),
        Poll::Pending => None,
    };
    stamped.expect("the call neither waits nor fails").response
}

/// A clock that advances only on request. Clones share the time.
#[derive(Debug, Clone, Default)]
struct ManualClock {
    nanos: Arc<AtomicU64>,
}

impl ManualClock {
    fn advance(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).expect("fits in 64 bits");
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::new(0, 0)
    }
}
