//! `gridwire demo`: a cluster in one process, under load, with one of its servers killed in the
//! middle.
//!
//! ```text
//!  0          seconds / 2    + 1.5 s           seconds
//!  ├──── load ─────┼────────────┼──── load ───────┤── drain ─┤ table, summary
//!                kill        restart            stop   all connected? all drained?
//! ```
//!
//! `cluster` has the servers; `load` makes `calls`, `streams` and `locks` from each to all others.
//! `counters` counts the outcomes, `recovery` measures how fast connections come back, `view` shows
//! progress, and `report` the result. This file runs them in order.

mod calls;
mod cluster;
mod counters;
mod load;
mod locks;
mod recovery;
mod report;
mod streams;
mod view;

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::CreationError;

use crate::cli::DemoArgs;
use crate::{output, signals};

use self::cluster::{Cluster, ClusterError, ConnectionEnd};
use self::counters::{Counters, Streams};
use self::load::Load;
use self::locks::LockOutcome;
use self::recovery::Recovery;
use self::report::{Findings, Report};
use self::view::{REFRESH_INTERVAL, Snapshot, View};

/// Time between the kill and the restart.
const DOWNTIME: Duration = Duration::from_millis(1_500);

/// Minimum duration of the load after the kill, so that reconnects happen under load.
const LOAD_AFTER_KILL_MIN: Duration = Duration::from_secs(2);

/// Longest wait for all connections, at the start and at the end.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait until all servers are ready, once connected.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait until nothing is in flight, after the last call has ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Time between two checks of a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Interval at which a worker retries while its connection is down.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Grace period of each server's shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// Why a demo failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("cannot record latencies: {0}")]
    Latencies(#[from] CreationError),
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
    #[error("cannot write to the terminal: {0}")]
    Write(#[from] io::Error),
    #[error("{connected} of {expected} connection ends were up after {within:?}")]
    NeverConnected { connected: usize, expected: usize, within: Duration },
    #[error("not all servers were ready after {within:?}")]
    NeverStarted { within: Duration },
    #[error("demo failed:{}", list(.0))]
    Failed(Vec<String>),
    #[error("stopped by {0} before the end; the table shows the results until then")]
    Interrupted(&'static str),
}

impl DemoError {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted(_) => 130, // what shells report for SIGINT
            _ => 1,
        }
    }
}

fn list(failures: &[String]) -> String {
    failures.iter().map(|reason| format!("\n  - {reason}")).collect()
}

/// Runs the demo and prints its result.
pub(crate) fn run(arguments: &DemoArgs) -> Result<(), DemoError> {
    // This runtime only drives the demo. Every server has its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("demo")
        .enable_all()
        .build()
        .map_err(DemoError::Runtime)?;
    runtime.block_on(async {
        let mut demo = DemoRun::open(arguments).await?;
        let interrupted = tokio::select! {
            biased;
            signal = signals::wait_for_stop_signal() => Some(signal.map_err(DemoError::Signals)?),
            ended = demo.run_load() => ended.map(|()| None)?,
        };
        let findings = demo.close(interrupted.is_some()).await?;
        output::print_line(&Report(&findings))?;
        if let Some(signal) = interrupted {
            return Err(DemoError::Interrupted(signal));
        }
        match findings.failures() {
            failures if failures.is_empty() => Ok(output::print_line(&findings.summary())?),
            failures => Err(DemoError::Failed(failures)),
        }
    })
}

/// A running demo.
struct DemoRun {
    cluster: Cluster,
    counters: Counters,
    load: Load,
    recovery: Option<Recovery>,
    view: View,
    started: Instant,
    total: Duration,
}

impl DemoRun {
    /// Starts all servers, and waits until they are connected and ready.
    async fn open(arguments: &DemoArgs) -> Result<Self, DemoError> {
        let total = Duration::from_secs(arguments.seconds);
        let nodes = usize::from(arguments.nodes);
        let cluster = Cluster::start(nodes).await?;
        let demo = Self {
            counters: Counters::new(nodes)?,
            load: Load::new(nodes),
            recovery: None,
            view: View::new(total, cluster.names()),
            cluster,
            started: Instant::now(),
            total,
        };
        if !demo.cluster.wait_ready(CONNECT_TIMEOUT).await {
            let (connected, expected) = (demo.cluster.connected(), demo.cluster.expected());
            return Err(DemoError::NeverConnected { connected, expected, within: CONNECT_TIMEOUT });
        }
        for (node, name) in demo.cluster.names().iter().enumerate() {
            demo.view.print_event(&format!("node {} is {name}", node + 1))?;
        }
        let took = demo.started.elapsed().as_millis();
        let Some(deployment) = demo.cluster.wait_started(STARTUP_TIMEOUT).await else {
            return Err(DemoError::NeverStarted { within: STARTUP_TIMEOUT });
        };
        let ready = demo.started.elapsed().as_millis();
        demo.view.print_event(&format!("{nodes} servers, all connected in {took} ms"))?;
        demo.view.print_event(&format!("deployment {deployment}: IAM ready in {ready} ms"))?;
        Ok(demo)
    }

    /// Runs the load, the kill and the restart. May be dropped at any point; `close` still works.
    async fn run_load(&mut self) -> Result<(), DemoError> {
        self.started = Instant::now();
        for node in 0..self.cluster.len() {
            self.load.start_from(node, &self.cluster, &self.counters);
        }
        let victim = self.cluster.len() - 1;
        self.watch_until((self.total / 2).min(self.total - LOAD_AFTER_KILL_MIN)).await?;
        self.kill(victim)?;
        self.watch_until(self.started.elapsed() + DOWNTIME).await?;
        self.restart(victim).await?;
        self.watch_until(self.total).await
    }

    /// Refreshes the view until this time after the start.
    async fn watch_until(&mut self, until: Duration) -> Result<(), DemoError> {
        loop {
            self.view.refresh(&self.snapshot())?;
            let left = until.saturating_sub(self.started.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(REFRESH_INTERVAL)).await;
        }
    }

    fn kill(&mut self, victim: usize) -> Result<(), DemoError> {
        for pair in self.counters.pairs() {
            if pair.from == victim || pair.to == victim {
                pair.mark_killed();
            }
        }
        self.counters.locks.nodes[victim].mark_killed();
        self.recovery = Some(Recovery::watch(victim, &self.cluster, &self.counters));
        for ConnectionEnd { from, to, stats } in self.cluster.kill(victim) {
            if let Some(pair) = self.counters.pair(from, to) {
                pair.add_connections(stats.connections);
            }
        }
        self.print_event(&format!("node {} is killed", victim + 1))
    }

    async fn restart(&mut self, victim: usize) -> Result<(), DemoError> {
        self.cluster.restart(victim).await?;
        if let Some(recovery) = &mut self.recovery {
            recovery.restarted(&self.cluster, &self.counters);
        }
        self.load.start_from(victim, &self.cluster, &self.counters);
        self.print_event(&format!("node {} is restarted", victim + 1))
    }

    fn print_event(&self, event: &str) -> Result<(), DemoError> {
        let seconds = self.started.elapsed().as_secs_f64();
        Ok(self.view.print_event(&format!("{seconds:5.1} s: {event}"))?)
    }

    /// Stops the load, collects the findings, and shuts the servers down. After an interruption it
    /// does not wait for connections to come back.
    async fn close(mut self, is_interrupted: bool) -> Result<Findings, DemoError> {
        let stopped = self.load.stop().await;
        if !is_interrupted {
            self.cluster.wait_connected(CONNECT_TIMEOUT).await;
            self.cluster.wait_quiescent(DRAIN_TIMEOUT).await;
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.record();
        }
        self.view.close()?;
        let (connected, expected) = (self.cluster.connected(), self.cluster.expected());
        let (ends, locks_left) = (self.cluster.ends(), self.cluster.locks_left());
        self.cluster.shutdown().await;
        let bugs = grid::bug::count();
        Ok(Findings {
            counters: self.counters,
            stopped,
            ends,
            locks_left,
            connected,
            expected,
            bugs,
        })
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            elapsed: self.started.elapsed(),
            connected: self.cluster.connected(),
            expected: self.cluster.expected(),
            are_running: self.cluster.are_running(),
            down: self.cluster.pairs_down(),
            outcomes: self.counters.outcomes(),
            echoed: self.counters.sum_of_streams(Streams::echoed),
            locked: self.counters.locks.count(LockOutcome::Granted),
        }
    }
}
