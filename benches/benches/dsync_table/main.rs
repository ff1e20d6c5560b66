//! What a locker's table costs with 100,000 locks in it: each operation below a microsecond is the aim.
//!
//! `dsync_table` is the pure table: no lock around it, no message, no task. Requests are made beforehand,
//! and taken in an order that caches cannot guess. `dsync_overload` is a locker whose table somebody else
//! occupies, and how soon it says that it has too much to do (B57).
#![expect(clippy::expect_used, reason = "what a benchmark makes for itself is well-formed")]

mod asks;
mod overload;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant as Stopwatch};

use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use dsync::Limits;
use dsync::limits::{REFRESH_INTERVAL, TOMBSTONES_MAX};
use dsync::proto::table::{Ask, Lesson, Refresh, Refreshed, Refusal, Table};
use dsync::proto::token::Token;
use grid::time::Instant;

use self::asks::{asks, rival_of};

/// Locks that are held while it is measured.
const HELD: usize = 100_000;

/// Locked and then unlocked, so many at once.
const BATCH: usize = 8_192;

/// Those that it is the turn of. A locker takes what it is asked for again for late, as long as it
/// remembers the release.
const FRESH: usize = 2 * BATCH;
const _: () = assert!(FRESH - BATCH > TOMBSTONES_MAX);

/// What an operation moves the clock by. It must move, or nothing would ever be due; and so little that
/// no lease ends meanwhile.
const TIME_PER_OPERATION: Duration = Duration::from_nanos(500);

/// As many as a locker gets if all that is held is refreshed when it should be, so that the table looks
/// as often at what might have ended.
const TIME_PER_REFRESH: Duration =
    Duration::from_nanos(REFRESH_INTERVAL.as_nanos() as u64 / HELD as u64);

/// A prime: steps of it visit all of `FRESH` or `HELD`, in no order that memory has.
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

/// What the stopwatch runs for.
#[derive(Clone, Copy)]
enum Timed {
    Lock,
    Unlock,
}

fn lock_and_unlock(bencher: &mut Bencher<'_>, timed: Timed) {
    let (mut bench, mut fresh) = (Bench::new(), Turns::of(asks("fresh", FRESH)));
    bencher.iter_custom(|iterations| {
        let mut spent = Duration::ZERO;
        let mut left = usize::try_from(iterations).expect("64 bits");
        while left > 0 {
            let count = left.min(BATCH);
            let locking = Stopwatch::now();
            for ask in fresh.some(count) {
                let now = bench.pass(TIME_PER_OPERATION);
                let granted = bench.table.lock(black_box(ask), now, Token::new(1));
                assert!(granted.is_ok(), "it is free");
            }
            let unlocking = Stopwatch::now();
            for ask in fresh.some(count) {
                let now = bench.pass(TIME_PER_OPERATION);
                assert!(bench.table.unlock(black_box(&ask.uid), now), "it is held");
            }
            spent += match timed {
                Timed::Lock => unlocking - locking,
                Timed::Unlock => unlocking.elapsed(),
            };
            fresh.skip(count);
            left -= count;
        }
        spent
    });
}

fn refresh(bencher: &mut Bencher<'_>) {
    let mut bench = Bench::new();
    let mut refreshes = Turns::of(asks("held", HELD).into_iter().map(refresh_of).collect());
    bencher.iter(|| {
        let now = bench.pass(TIME_PER_REFRESH);
        let refreshed = bench.table.refresh(black_box(refreshes.next()), now);
        assert!(matches!(refreshed, Refreshed::Held { .. }), "it is held");
    });
}

fn refused_lock(bencher: &mut Bencher<'_>) {
    let mut bench = Bench::new();
    let mut rivals = Turns::of(asks("held", HELD).into_iter().map(rival_of).collect());
    bencher.iter(|| {
        let now = bench.pass(TIME_PER_OPERATION);
        let refused = bench.table.lock(black_box(rivals.next()), now, Token::new(1));
        assert_eq!(refused, Err(Refusal::Conflict), "it is held");
    });
}

/// As holders send it: with all that a locker has to know if it has forgotten.
fn refresh_of(ask: Ask) -> Refresh {
    let uid = Arc::clone(&ask.uid);
    Refresh { uid, lesson: Some(Lesson { ask, token: Token::new(1), is_certain: true }) }
}

/// A table with locks in it.
struct Bench {
    table: Table,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::from_nanos(1_000_000_000);
        let mut table = Table::new(&Limits::default(), [Arc::from("node")], now, Token::new(1), 1);
        table.report("node", Vec::new(), Token::default(), now);
        for ask in asks("held", HELD) {
            table.lock(&ask, now, Token::new(1)).expect("it is free");
        }
        Self { table, now }
    }

    fn pass(&mut self, time: Duration) -> Instant {
        self.now = self.now + time;
        self.now
    }
}

/// One after the other, and again.
struct Turns<T> {
    all: Vec<T>,
    turn: usize,
}

impl<T> Turns<T> {
    fn of(all: Vec<T>) -> Self {
        Self { all, turn: 0 }
    }

    /// Whose turn it is, and those after it.
    fn some(&self, count: usize) -> impl Iterator<Item = &T> {
        (self.turn..self.turn + count).map(|turn| &self.all[turn * STRIDE % self.all.len()])
    }

    fn skip(&mut self, count: usize) {
        self.turn = (self.turn + count) % self.all.len();
    }

    fn next(&mut self) -> &T {
        self.skip(1);
        &self.all[self.turn * STRIDE % self.all.len()]
    }
}
