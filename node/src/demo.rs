//! `gridwire demo`: a cluster in one process, under load, with one of its servers killed in the middle.
//!
//! ```text
//!  0          seconds / 2    + 1.5 s           seconds
//!  ├──── load ─────┼────────────┼──── load ───────┤── calm ──┤ table, verdict
//!                kill        restart            stop   all connected? nothing left behind?
//! ```
//!
//! `cluster` has the servers, `load` the calls, `streams` the streams, `locks` the locks, `ledger` what
//! became of each,
//! `recovery` how fast connections came back, `view` the screen meanwhile, and `report` the verdict.
//! This file is the order in which they act.

mod cluster;
mod ledger;
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
use crate::{signals, stdout};

use self::cluster::{Cluster, ClusterError, End};
use self::ledger::{Ledger, Streams};
use self::load::Load;
use self::locks::LockOutcome;
use self::recovery::Recovery;
use self::report::{Findings, Report};
use self::view::{REFRESH_EVERY, Snapshot, View};

/// How long the killed server stays away.
const AWAY: Duration = Duration::from_millis(1_500);

/// What is left of the time after the kill at least, so that there is a load to come back to.
const LEFT_AFTER_KILL: Duration = Duration::from_secs(2);

/// Longest wait for the connections, at the beginning and at the end.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Longest wait until all servers are ready, once they are connected.
const START_WITHIN: Duration = Duration::from_secs(10);

/// Longest wait until nothing is under way any more, after the last call has ended.
const CALM_WITHIN: Duration = Duration::from_secs(5);

/// Time between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How long the servers get for their end.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// Why a demo does not end well.
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
    #[error("{connected} of {expected} ends of connections were up after {within:?}")]
    NeverConnected { connected: usize, expected: usize, within: Duration },
    #[error("not all servers had verified each other, and knew their users, after {within:?}")]
    NeverStarted { within: Duration },
    #[error("not all was well:{}", list(.0))]
    Failed(Vec<String>),
    #[error("stopped by {0} before its end; what is shown is what there was")]
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

fn list(reasons: &[String]) -> String {
    reasons.iter().map(|reason| format!("\n  - {reason}")).collect()
}

/// Runs the demo, shows it, and judges it.
pub(crate) fn run(arguments: &DemoArgs) -> Result<(), DemoError> {
    // The stage hands. Every server has a runtime of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("stage")
        .enable_all()
        .build()
        .map_err(DemoError::Runtime)?;
    runtime.block_on(async {
        let mut show = Show::open(arguments).await?;
        let interrupted = tokio::select! {
            biased;
            signal = signals::stop_requested() => Some(signal.map_err(DemoError::Signals)?),
            played = show.play() => played.map(|()| None)?,
        };
        let findings = show.close(interrupted.is_some()).await?;
        stdout::line(&Report(&findings))?;
        if let Some(signal) = interrupted {
            return Err(DemoError::Interrupted(signal));
        }
        match findings.reasons() {
            reasons if reasons.is_empty() => Ok(stdout::line(&findings.verdict())?),
            reasons => Err(DemoError::Failed(reasons)),
        }
    })
}

/// Everything that is on the stage.
struct Show {
    cluster: Cluster,
    ledger: Ledger,
    load: Load,
    recovery: Option<Recovery>,
    view: View,
    begun: Instant,
    total: Duration,
}

impl Show {
    /// Starts all servers, and waits until they are connected.
    async fn open(arguments: &DemoArgs) -> Result<Self, DemoError> {
        let total = Duration::from_secs(arguments.seconds);
        let nodes = usize::from(arguments.nodes);
        let show = Self {
            cluster: Cluster::start(nodes).await?,
            ledger: Ledger::new(nodes)?,
            load: Load::new(nodes),
            recovery: None,
            view: View::new(total),
            begun: Instant::now(),
            total,
        };
        if !show.cluster.wait_ready(CONNECT_WITHIN).await {
            let (connected, expected) = (show.cluster.connected(), show.cluster.expected());
            return Err(DemoError::NeverConnected { connected, expected, within: CONNECT_WITHIN });
        }
        let took = show.begun.elapsed().as_millis();
        let Some(deployment) = show.cluster.wait_started(START_WITHIN).await else {
            return Err(DemoError::NeverStarted { within: START_WITHIN });
        };
        let ready = show.begun.elapsed().as_millis();
        show.view.say(&format!("{nodes} servers, all connected in {took} ms"))?;
        show.view.say(&format!(
            "{nodes} servers: verified, deployment {deployment}, IAM ready in {ready} ms"
        ))?;
        Ok(show)
    }

    /// Plays from the first call to the last. May be dropped at any point, and then closed.
    async fn play(&mut self) -> Result<(), DemoError> {
        self.begun = Instant::now();
        for node in 0..self.cluster.len() {
            self.load.start_from(node, &self.cluster, &self.ledger);
        }
        let victim = self.cluster.len() - 1;
        self.watch_until((self.total / 2).min(self.total - LEFT_AFTER_KILL)).await?;
        self.kill(victim)?;
        self.watch_until(self.begun.elapsed() + AWAY).await?;
        self.restart(victim).await?;
        self.watch_until(self.total).await
    }

    /// Shows what happens until so long after the beginning.
    async fn watch_until(&mut self, until: Duration) -> Result<(), DemoError> {
        loop {
            self.view.show(&self.snapshot())?;
            let left = until.saturating_sub(self.begun.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(REFRESH_EVERY)).await;
        }
    }

    fn kill(&mut self, victim: usize) -> Result<(), DemoError> {
        for pair in self.ledger.pairs() {
            if pair.from == victim || pair.to == victim {
                pair.hit();
            }
        }
        self.ledger.locks.nodes[victim].hit();
        self.recovery = Some(Recovery::watch(victim, &self.cluster, &self.ledger));
        for End { from, to, stats } in self.cluster.kill(victim) {
            if let Some(pair) = self.ledger.pair(from, to) {
                pair.add_connections(stats.connections);
            }
        }
        self.say(&format!("node {} is killed", victim + 1))
    }

    async fn restart(&mut self, victim: usize) -> Result<(), DemoError> {
        self.cluster.restart(victim).await?;
        if let Some(recovery) = &mut self.recovery {
            recovery.restarted(&self.cluster, &self.ledger);
        }
        self.load.start_from(victim, &self.cluster, &self.ledger);
        self.say(&format!("node {} is started again", victim + 1))
    }

    fn say(&self, event: &str) -> Result<(), DemoError> {
        let seconds = self.begun.elapsed().as_secs_f64();
        Ok(self.view.say(&format!("{seconds:5.1} s: {event}"))?)
    }

    /// Ends the load, looks at what is left, and ends the servers. A demo that was stopped early
    /// has no claim on a connected cluster, and does not wait for one.
    async fn close(mut self, is_early: bool) -> Result<Findings, DemoError> {
        let stopped = self.load.stop().await;
        if !is_early {
            self.cluster.wait_connected(CONNECT_WITHIN).await;
            self.cluster.wait_calm(CALM_WITHIN).await;
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.write_down();
        }
        self.view.close()?;
        let (connected, expected) = (self.cluster.connected(), self.cluster.expected());
        let (ends, locks_left) = (self.cluster.ends(), self.cluster.locks_left());
        self.cluster.shutdown().await;
        let bugs = grid::bug::count();
        Ok(Findings { ledger: self.ledger, stopped, ends, locks_left, connected, expected, bugs })
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            elapsed: self.begun.elapsed(),
            connected: self.cluster.connected(),
            expected: self.cluster.expected(),
            outcomes: self.ledger.outcomes(),
            echoed: self.ledger.sum_of_streams(Streams::echoed),
            locked: self.ledger.locks.count(LockOutcome::Granted),
        }
    }
}
