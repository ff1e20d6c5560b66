//! Before it serves, a server makes sure that its peers run with what it runs with (B60).
//!
//! [`serve`] answers what this server runs with; [`verify`] asks the others until enough of them agree.
//! [`proto`] decides, this file asks, waits and logs.

pub mod proto;
pub mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use grid::time::{Clock, Instant};
use grid::{CallOptions, Connection, Manager, RegisterError};
use tokio::task::JoinSet;

use crate::limits::{ASK_TIMEOUT, NAMED_MAX};
use crate::system::SystemConfig;
use proto::{Complaint, Config, Report, Status, Tally, Verify};
use wire::{SERVER_VERIFY, VerifyAnswer, VerifyArgs};

/// Answers to other servers what this one runs with. To be called before the manager is started.
///
/// # Errors
///
/// [`RegisterError::Duplicate`] if it was called for this manager before.
pub fn serve(manager: &Manager, config: &Arc<SystemConfig>) -> Result<(), RegisterError> {
    let (config, digest) = (Arc::clone(config), config.digest());
    SERVER_VERIFY.register(manager, move |_context, args| {
        let answer = VerifyAnswer::of(&config, &digest, &args);
        async move { Ok(answer) }
    })
}

/// How to ask.
pub struct Options {
    /// What the waits are counted by.
    pub clock: Arc<dyn Clock>,
    /// What their jitter is drawn from: another on each server.
    pub seed: u64,
    /// How long to wait for enough peers; `None` is for ever.
    pub limit: Option<Duration>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("limit", &self.limit).finish_non_exhaustive()
    }
}

/// Why a server was not verified.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "of {} peers that must run with the same configuration, {} do; {} run with another, {} did not answer{}: {}",
    tally.needed, tally.agree, tally.differ, tally.unreachable, odd(*tally), complaints.join("; ")
)]
pub struct VerifyError {
    /// How many peers answered what.
    pub tally: Tally,
    /// What is to be said of the first of those that do not agree.
    pub complaints: Vec<String>,
}

fn odd(tally: Tally) -> &'static str {
    if tally.is_odd { "; this server is the odd one" } else { "" }
}

/// Waits until at least half of the peers run with `config`, and returns how many answered what.
/// Differences are logged, here and, for a while after it has returned, in the background.
///
/// Must be called inside a tokio runtime.
///
/// # Errors
///
/// [`VerifyError`] when the limit has passed.
///
/// # Cancel safety
///
/// Dropping the future ends it; it can be called again.
pub async fn verify(
    manager: &Manager,
    config: &Arc<SystemConfig>,
    options: Options,
) -> Result<Tally, VerifyError> {
    verify_among(manager.connections(), config, options, |_| {}).await
}

/// [`verify`] among these peers alone, for a manager that also knows who is no server. `tell` is told
/// what is waited for, whenever that changes.
///
/// # Errors
///
/// [`VerifyError`] when the limit has passed.
///
/// # Cancel safety
///
/// Dropping the future ends it; it can be called again.
pub async fn verify_among(
    peers: Vec<Connection>,
    config: &Arc<SystemConfig>,
    options: Options,
    tell: impl Fn(VerifyError) + Send + Sync + 'static,
) -> Result<Tally, VerifyError> {
    let mut driver = Driver::new(peers, config, options, Box::new(tell));
    let status = driver.until(|verify| verify.status() != Status::Waiting).await;
    let tally = driver.verify.tally();
    match status {
        Status::Verified => {
            let Tally { agree, differ, unreachable, .. } = tally;
            tracing::info!(
                target: "iam", agree, differ, unreachable,
                "enough peers run with the same configuration"
            );
            tokio::spawn(async move { driver.until(Verify::is_over).await });
            Ok(tally)
        }
        Status::Waiting | Status::TimedOut => Err(driver.error()),
    }
}

/// Does what the machine wants.
struct Driver {
    verify: Verify,
    clock: Arc<dyn Clock>,
    peers: Vec<Connection>,
    digest: Arc<str>,
    asking: JoinSet<(usize, Answer)>,
    tell: Box<dyn Fn(VerifyError) + Send + Sync>,
    /// What was told last.
    told: Option<VerifyError>,
}

type Answer = Result<Option<SystemConfig>, Arc<str>>;

impl Driver {
    fn new(
        peers: Vec<Connection>,
        config: &Arc<SystemConfig>,
        options: Options,
        tell: Box<dyn Fn(VerifyError) + Send + Sync>,
    ) -> Self {
        let Options { clock, seed, limit } = options;
        let now = clock.now();
        let deadline = limit.map(|limit| now + limit);
        let machine = Config { ours: Arc::clone(config), peers: peers.len(), deadline, seed };
        Self {
            verify: Verify::new(machine, now),
            clock,
            peers,
            digest: config.digest().into(),
            asking: JoinSet::new(),
            tell,
            told: None,
        }
    }

    fn error(&self) -> VerifyError {
        VerifyError { tally: self.verify.tally(), complaints: self.complaints() }
    }

    /// Once enough agree, nothing is waited for.
    fn tell(&mut self) {
        if self.verify.status() != Status::Waiting {
            return;
        }
        let waiting = self.error();
        if self.told.as_ref() != Some(&waiting) {
            (self.tell)(waiting.clone());
            self.told = Some(waiting);
        }
    }

    async fn until(&mut self, is_done: impl Fn(&Verify) -> bool) -> Status {
        loop {
            let now = self.clock.now();
            self.verify.handle_timeout(now);
            while let Some(peer) = self.verify.poll_ask(now) {
                self.ask(peer);
            }
            while let Some(report) = self.verify.poll_report() {
                self.log(&report);
            }
            if is_done(&self.verify) {
                return self.verify.status();
            }
            let due = self.verify.poll_timeout();
            tokio::select! {
                biased;
                Some(answered) = self.asking.join_next() => {
                    // One that was stopped is asked by nobody: the runtime ends.
                    if let Ok((peer, answer)) = answered {
                        self.verify.handle_answer(peer, answer, self.clock.now());
                        self.tell();
                    }
                }
                () = wait(due, now) => {}
            }
        }
    }

    fn ask(&mut self, peer: usize) {
        let Some(connection) = self.peers.get(peer).cloned() else { return };
        let digest = Arc::clone(&self.digest);
        self.asking.spawn(async move {
            let args = VerifyArgs { digest: digest.to_string() };
            let options = CallOptions::default().timeout(ASK_TIMEOUT);
            let answer = SERVER_VERIFY.call_with(&connection, &args, options).await;
            let config = answer.map_err(|error| error.to_string().into());
            (peer, config.and_then(|answer| answer.into_config(&digest).map_err(Into::into)))
        });
    }

    fn name(&self, peer: usize) -> &str {
        self.peers.get(peer).map_or("", |connection| connection.remote().as_str())
    }

    /// The first few by name, and how many more.
    fn names(&self, peers: &[usize]) -> String {
        let names: Vec<_> = peers.iter().take(NAMED_MAX).map(|peer| self.name(*peer)).collect();
        and_more(&names, peers.len())
    }

    fn log(&self, report: &Report) {
        match report {
            Report::Differ { peers, difference } => tracing::warn!(
                target: "iam", peers = self.names(peers), %difference,
                "peers run with another configuration"
            ),
            Report::Odd { peers, answered, difference } => tracing::error!(
                target: "iam", peers = self.names(peers), answered, %difference,
                "this server is the odd one: most peers agree with each other, and not with it"
            ),
            Report::AgreesNow { peer } => tracing::info!(
                target: "iam", peer = self.name(*peer), "runs with the same configuration now"
            ),
            Report::Unreachable { peers, tries } => {
                let named = peers.iter().take(NAMED_MAX);
                let named: Vec<_> =
                    named.map(|(peer, why)| format!("{}: {why}", self.name(*peer))).collect();
                let named: Vec<_> = named.iter().map(String::as_str).collect();
                tracing::warn!(
                    target: "iam", tries, peers = and_more(&named, peers.len()),
                    "peers have not told their configuration; waiting for at least half of all"
                );
            }
        }
    }

    fn complaints(&self) -> Vec<String> {
        let complaints = self.verify.complaints().into_iter().take(NAMED_MAX);
        let text = |(peer, complaint)| match complaint {
            Complaint::Differs(difference) => format!("{} differs: {difference}", self.name(peer)),
            // What a peer answers must not make lines of its own.
            Complaint::Unreachable(why) => format!("{}: {}", self.name(peer), why.escape_debug()),
        };
        complaints.map(text).collect()
    }
}

fn and_more(named: &[&str], count: usize) -> String {
    match count.saturating_sub(named.len()) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// Timers count whole milliseconds; what is due already must not keep the task busy.
async fn wait(due: Option<Instant>, now: Instant) {
    match due {
        Some(at) => tokio::time::sleep(at.since(now).max(Duration::from_millis(1))).await,
        None => std::future::pending().await,
    }
}
