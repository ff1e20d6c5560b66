//! Cost of metrics: one sample, and one scrape of 32 servers. `-- --test` runs each once.
//!
//! All servers are in this process, so a scrape's time includes 31 responses.
#![allow(clippy::expect_used, clippy::print_stdout, clippy::disallowed_methods)]

use std::alloc::System;
use std::future::Future;
use std::hint::black_box;
use std::time::{Duration, Instant};

use grid::env::Env;
use grid::{Auth, Manager};
use resource_metrics::aggregate::Aggregator;
use resource_metrics::sample::{
    CpuTimes, DriveCounters, DriveSample, InterfaceCounters, Load, Memory, Space,
};
use resource_metrics::{
    Drives, Format, Limits, ResourceMetrics, Sample, Source, SystemSource, expose,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SERVERS: usize = 32;
const DRIVES: usize = 16;
const INTERFACES: usize = 4;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let rounds = if std::env::args().any(|argument| argument == "--test") { 1 } else { 200 };
    let system = SystemSource::new(Drives::Mounted);
    measure("sample of this machine, drives probed", rounds, || system.sample()).await;
    let system = SystemSource::new(Drives::Directories(Vec::new()));
    measure("sample of this machine, no drives", rounds, || system.sample()).await;

    let (env, sample) = (Env::system(), busy_sample());
    let mut aggregator = Aggregator::new(env.wall());
    measure("aggregation and report of 16 drives, 4 interfaces", rounds, || {
        aggregator.observe(&sample, env.now(), env.wall());
        std::future::ready(aggregator.report())
    })
    .await;
    measure_scrapes(rounds).await;
}

/// Prints the median of all rounds; allocations are those of all threads.
async fn measure<T, F: Future<Output = T>>(name: &str, rounds: usize, mut work: impl FnMut() -> F) {
    let mut times = Vec::with_capacity(rounds);
    black_box(work().await);
    let region = Region::new(ALLOCATOR);
    for _ in 0..rounds {
        let start = Instant::now();
        black_box(work().await);
        times.push(start.elapsed());
    }
    let change = region.change();
    times.sort_unstable();
    let median = times[rounds / 2].as_secs_f64() * 1e6;
    println!(
        "{name}: {median:.0} µs, {} allocations of {} KiB",
        change.allocations / rounds,
        change.bytes_allocated / rounds / 1_024
    );
}

async fn measure_scrapes(rounds: usize) {
    let mut listeners = Vec::new();
    for _ in 0..SERVERS {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.expect("a port"));
    }
    let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().expect("bound"));
    let urls: Vec<_> = listeners.iter().map(url).collect();
    let mut servers = Vec::new();
    for (listener, url) in listeners.into_iter().zip(&urls) {
        let auth = Auth::shared_secret(b"the servers' shared secret").expect("long enough");
        let manager = Manager::builder(url).servers(&urls).auth(auth).build().expect("valid names");
        let mut limits = Limits::default();
        limits.collect_ttl = Duration::ZERO;
        let metrics = ResourceMetrics::builder(&manager).source(busy_sample).limits(limits);
        let metrics = metrics.build().expect("valid limits");
        manager.start().expect("a runtime");
        tokio::spawn(manager.clone().serve(listener));
        metrics.sample_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        metrics.sample_now().await;
        servers.push((manager, metrics));
    }
    let (manager, metrics) = &servers[0];
    for connection in manager.connections() {
        connection.wait_connected().await.expect("all are up");
    }
    let collection = metrics.collect().await.expect("no shutdown");
    let text = expose(&collection, Format::Text);
    let up =
        text.lines().filter(|line| line.starts_with("resource_server_up") && line.ends_with(" 1"));
    assert_eq!(up.count(), SERVERS, "all respond");
    println!(
        "a scrape of {SERVERS} servers: {} lines, {} KiB",
        text.lines().count(),
        text.len() / 1_024
    );
    println!("one server's report: {} bytes of msgpack", report_bytes(metrics));
    measure("collection from 32 servers", rounds, || metrics.collect()).await;
    measure("exposition of 32 servers", rounds, || {
        std::future::ready(expose(&collection, Format::Text))
    })
    .await;
    measure("scrape of 32 servers", rounds, || async {
        expose(&metrics.collect().await.expect("no shutdown"), Format::Text)
    })
    .await;
}

fn report_bytes(metrics: &ResourceMetrics) -> usize {
    rmp_serde::to_vec_named(&*metrics.latest()).expect("encodable").len()
}

/// Returns a sample of a busy storage server.
fn busy_sample() -> Sample {
    let interface = InterfaceCounters { receive_bytes: 1 << 40, ..InterfaceCounters::default() };
    let drive = DriveSample {
        device: Some("sda".to_owned()),
        io: Some(DriveCounters { reads: 7, read_millis: 9, ..DriveCounters::default() }),
        space: Some(Space { total_bytes: 1 << 43, used_bytes: 1 << 42, ..Space::default() }),
    };
    Sample {
        cpu: Some(CpuTimes { user: 1_000, idle: 1_000, ..CpuTimes::default() }),
        cores: Some(64),
        load: Some(Load { one: 1.25, five: 2.5, fifteen: 3.0 }),
        memory: Some(Memory { total: 1 << 38, free: 1 << 30, ..Memory::default() }),
        interfaces: Some((0..INTERFACES).map(|n| (format!("eth{n}"), interface)).collect()),
        drives: Some((0..DRIVES).map(|n| (format!("/data{n}"), drive.clone())).collect()),
        problems: Vec::new(),
    }
}
