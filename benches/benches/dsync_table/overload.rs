//! A locker whose table is occupied: an operator lists 10,000 locks, again and again, and takes
//! milliseconds each time. There is no room to wait for it, so that whoever comes meanwhile has come too
//! many. What is measured is how long they take to learn it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use criterion::Criterion;
use dsync::limits::{LEASE, LISTED_MAX};
use dsync::proto::hold::{Answer, Message};
use dsync::proto::table::Refusal;
use dsync::{Limits, LocalLocker, Locker};
use grid::time::{Clock, Instant, Timestamp};
use tokio::runtime::Builder;

use crate::asks::{asks, rival_of};

const LIMIT: Duration = Duration::from_secs(5);

pub(crate) fn refusals(criterion: &mut Criterion) {
    // Whoever asks a locker has a time limit, which needs a timer.
    let runtime = Builder::new_current_thread().enable_time().build().expect("no thread needed");
    let _entered = runtime.enter();
    let locker = busy_locker();
    let rival = rival_of(asks("held", 1).swap_remove(0));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                drop(locker.list(LIMIT));
            }
        });
        let mut group = criterion.benchmark_group("dsync_overload");
        group.bench_function("refused", |bencher| {
            bencher.iter(|| {
                let answer = ask(&locker, Message::Lock(rival.clone()));
                // Between two lists there is room for it, and it learns that the lock is held.
                assert!(matches!(answer, Answer::Lock(Err(Refusal::Full | Refusal::Conflict))));
            });
        });
        group.finish();
        is_over.store(true, Ordering::Relaxed);
    });
}

/// A locker with as many locks as are listed, in which one caller at a time finds room.
fn busy_locker() -> LocalLocker {
    let mut limits = Limits::default();
    limits.table_callers_max = 1;
    let clock = Arc::new(SetClock::default());
    let nodes = [Arc::from("node")];
    let locker = LocalLocker::new("node", nodes, &limits, Arc::clone(&clock) as _, 1);
    // It has just started, and does not grant before it knows that nobody counts on it.
    clock.pass(LEASE);
    for held in asks("held", LISTED_MAX) {
        let answer = ask(&locker, Message::Lock(held));
        assert!(matches!(answer, Answer::Lock(Ok(_))), "{answer:?}");
    }
    locker
}

/// A locker in this process answers at once, unless it is asked to wait.
fn ask(locker: &LocalLocker, message: Message) -> Answer {
    let answering =
        locker.ask(message, LIMIT).as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let stamped = match answering {
        Poll::Ready(answered) => answered.ok(),
        Poll::Pending => None,
    };
    stamped.expect("it neither waits nor fails").answer
}

/// A clock that is set forward by hand.
#[derive(Debug, Default)]
struct SetClock {
    nanos: AtomicU64,
}

impl SetClock {
    fn pass(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).expect("some minutes");
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn wall(&self) -> Timestamp {
        Timestamp::new(0, 0)
    }
}
