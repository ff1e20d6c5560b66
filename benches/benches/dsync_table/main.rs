//! Cost of a locker's table that holds 100,000 locks. The goal is less than a microsecond per
//! operation.
//!
//! `dsync_table` measures the pure table: no mutex, no message, no task. Requests are built
//! beforehand and used in an order that defeats caches. `dsync_overload` measures how soon a locker
//! whose table is busy refuses a request as overloaded (B57).
#![expect(clippy::expect_used, reason = "a benchmark's own inputs are valid")]

mod overload;
mod requests;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant as Stopwatch};

use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use dsync::Limits;
use dsync::limits::REFRESH_INTERVAL;
use dsync::proto::table::{
    LeaseClaim, LockRequest, RefreshOutcome, RefreshRequest, Refusal, Table, UnlockOutcome,
};
use dsync::proto::token::Token;
use grid::time::Instant;

use self::requests::{conflicting_request, lock_requests};

/// Locks held during the measurement.
const HELD: usize = 100_000;

/// Locks that are acquired and then released in one batch.
const BATCH: usize = 8_192;

/// Clock advance per operation. Above zero, so that timers come due; small, so that no lease
/// expires during the measurement.
const TIME_PER_OPERATION: Duration = Duration::from_nanos(500);

/// Clock advance per refresh: the rate at which a locker receives refreshes of all held locks, so
/// that the table checks for expired leases as often as in service.
const TIME_PER_REFRESH: Duration =
    Duration::from_nanos(REFRESH_INTERVAL.as_nanos() as u64 / HELD as u64);

/// A prime: with this stride all indices below `BATCH` or `HELD` are visited, and not in memory
/// order.
const STRIDE: usize = 7_919;

criterion_group!(all, operations, overload::refusals);
criterion_main!(all);

fn operations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dsync_table");
    group.bench_function("lock", |bencher| lock_and_unlock(bencher, Timed::Lock));
    group.bench_function("unlock", |bencher| lock_and_unlock(bencher, Timed::Unlock));
    group.bench_function("refresh", refresh);
    group.bench_function("refused_lock", refused_lock);
    group.finish();
}

/// The operation of a benchmark that is timed.
#[derive(Clone, Copy)]
enum Timed {
    Lock,
    Unlock,
}

fn lock_and_unlock(bencher: &mut Bencher<'_>, timed: Timed) {
    let (mut bench, mut batches) = (Bench::new(), 0);
    bencher.iter_custom(|iterations| {
        let mut elapsed = Duration::ZERO;
        let mut remaining = usize::try_from(iterations).expect("64 bits");
        while remaining > 0 {
            let count = remaining.min(BATCH);
            // Each attempt has its own id: a locker refuses a repeated one as late.
            batches += 1;
            let fresh = Rotation::new(lock_requests(&format!("fresh{batches}"), BATCH));
            let lock_start = Stopwatch::now();
            for request in fresh.peek(count) {
                let now = bench.advance(TIME_PER_OPERATION);
                let granted = bench.table.lock(black_box(request), now, Token::new(1));
                assert!(granted.is_ok(), "the lock is free");
            }
            let unlock_start = Stopwatch::now();
            for request in fresh.peek(count) {
                let now = bench.advance(TIME_PER_OPERATION);
                let outcome = bench.table.unlock(black_box(&request.uid), None, now, Token::new(1));
                assert_eq!(outcome, UnlockOutcome::Released, "the lock is held");
            }
            elapsed += match timed {
                Timed::Lock => unlock_start - lock_start,
                Timed::Unlock => unlock_start.elapsed(),
            };
            remaining -= count;
        }
        elapsed
    });
}

fn refresh(bencher: &mut Bencher<'_>) {
    let mut bench = Bench::new();
    let mut refreshes =
        Rotation::new(lock_requests("held", HELD).into_iter().map(refresh_of).collect());
    bencher.iter(|| {
        let now = bench.advance(TIME_PER_REFRESH);
        let refreshed = bench.table.refresh(black_box(refreshes.next()), now, Token::new(1));
        assert!(matches!(refreshed, RefreshOutcome::Held { .. }), "the lock is held");
    });
}

fn refused_lock(bencher: &mut Bencher<'_>) {
    let mut bench = Bench::new();
    let mut conflicting =
        Rotation::new(lock_requests("held", HELD).into_iter().map(conflicting_request).collect());
    bencher.iter(|| {
        let now = bench.advance(TIME_PER_OPERATION);
        let refused = bench.table.lock(black_box(conflicting.next()), now, Token::new(1));
        assert_eq!(refused, Err(Refusal::Conflict), "the lock is held");
    });
}

/// Builds a refresh as holders send it: with the claim that a restarted locker reinstates.
fn refresh_of(request: LockRequest) -> RefreshRequest {
    let uid = Arc::clone(&request.uid);
    RefreshRequest {
        uid,
        claim: Some(LeaseClaim { request, token: Token::new(1), is_valid: true }),
    }
}

/// A table with [`HELD`] locks, and its clock.
struct Bench {
    table: Table,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let mut table = Table::new(&Limits::default(), [Arc::from("node")], now, Token::new(1), 1);
        table.handle_report("node", Vec::new(), Token::default(), now, Token::new(1));
        for request in lock_requests("held", HELD) {
            table.lock(&request, now, Token::new(1)).expect("the lock is free");
        }
        Self { table, now }
    }

    fn advance(&mut self, time: Duration) -> Instant {
        self.now = self.now + time;
        self.now
    }
}

/// Cycles through items in an order that caches do not predict.
struct Rotation<T> {
    items: Vec<T>,
    position: usize,
}

impl<T> Rotation<T> {
    fn new(items: Vec<T>) -> Self {
        Self { items, position: 0 }
    }

    /// Returns the next `count` items without advancing.
    fn peek(&self, count: usize) -> impl Iterator<Item = &T> {
        (self.position..self.position + count)
            .map(|position| &self.items[position * STRIDE % self.items.len()])
    }

    fn skip(&mut self, count: usize) {
        self.position = (self.position + count) % self.items.len();
    }

    fn next(&mut self) -> &T {
        self.skip(1);
        &self.items[self.position * STRIDE % self.items.len()]
    }
}
