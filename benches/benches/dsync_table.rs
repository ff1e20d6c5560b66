//! What a locker's table costs with 100,000 locks in it (B57): each below a microsecond is the aim.
//!
//! The pure table: no lock around it, no message, no task. Requests are made beforehand, and taken in
//! an order that caches cannot guess.
#![expect(clippy::expect_used, reason = "what a benchmark makes for itself is well-formed")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use dsync::Limits;
use dsync::proto::names::Names;
use dsync::proto::quorum::Kind;
use dsync::proto::table::{Ask, Lesson, Refresh, Refreshed, Refusal, Table};
use dsync::proto::token::Token;
use grid::time::Instant;

/// Locks that are held while it is measured.
const HELD: u64 = 100_000;

/// Asked for in turns: more than a locker remembers of those that were released, lest it takes one for
/// late.
const FRESH: u64 = 16_384;

/// What each operation moves the clock by. It must move, or nothing would ever be due.
const TIME_PER_OPERATION: Duration = Duration::from_nanos(500);

/// A prime: steps of it visit all of a power of two, or of `HELD`, in no order that memory has.
const STRIDE: usize = 7_919;

criterion_group!(table, operations);
criterion_main!(table);

fn operations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dsync_table/100k_held");
    group.bench_function("lock_and_unlock", |bencher| {
        let (mut bench, mut fresh) = (Bench::new(), Turns::of(asks("fresh", FRESH)));
        bencher.iter(|| {
            let ask = fresh.next();
            let now = bench.pass();
            let granted = bench.table.lock(black_box(ask), now, Token::new(1));
            assert!(granted.is_ok() && bench.table.unlock(&ask.uid, now), "it is free");
        });
    });
    group.bench_function("refresh", |bencher| {
        let mut bench = Bench::new();
        let mut refreshes = Turns::of(asks("held", HELD).into_iter().map(refresh_of).collect());
        bencher.iter(|| {
            let now = bench.pass();
            let refreshed = bench.table.refresh(black_box(refreshes.next()), now);
            assert!(matches!(refreshed, Refreshed::Held { .. }), "it is held");
        });
    });
    group.bench_function("refused_lock", |bencher| {
        let (mut bench, held) = (Bench::new(), asks("held", HELD).into_iter());
        let rival = |ask: Ask| Ask { uid: format!("rival of {}", ask.uid).into(), ..ask };
        let mut rivals = Turns::of(held.map(rival).collect());
        bencher.iter(|| {
            let now = bench.pass();
            let refused = bench.table.lock(black_box(rivals.next()), now, Token::new(1));
            assert_eq!(refused, Err(Refusal::Conflict), "it is held");
        });
    });
    group.finish();
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

    fn pass(&mut self) -> Instant {
        self.now = self.now + TIME_PER_OPERATION;
        self.now
    }
}

/// One after the other, and again.
struct Turns<T> {
    all: Vec<T>,
    at: usize,
}

impl<T> Turns<T> {
    fn of(all: Vec<T>) -> Self {
        Self { all, at: 0 }
    }

    fn next(&mut self) -> &T {
        self.at = (self.at + STRIDE) % self.all.len();
        &self.all[self.at]
    }
}

/// As an application would name them.
fn asks(what: &str, count: u64) -> Vec<Ask> {
    let ask = |n: u64| Ask {
        uid: format!("{what:0>32}-{n:x}.1").into(),
        names: Names::new([format!("bucket-{}/{what}/object-{n}", n % 100)]).expect("a good name"),
        kind: Kind::Write,
        owner: "http://10.0.0.1:9000".into(),
        source: "put_object".into(),
        quorum: 3,
        proposal: Token::default(),
        place: None,
        knows_leases: true,
    };
    (0..count).map(ask).collect()
}

fn refresh_of(ask: Ask) -> Refresh {
    let uid = Arc::clone(&ask.uid);
    Refresh { uid, lesson: Some(Lesson { ask, token: Token::new(1), is_certain: true }) }
}
