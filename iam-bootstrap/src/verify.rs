//! Verifies before serving that the peers run the same configuration ([B60]).
//!
//! [`serve`] reports this server's configuration to peers; [`verify`] queries peers until enough of
//! them agree. [`proto`] decides; this file sends, waits and logs.
//!
//! [B60]: crate::rules#b60

pub mod proto;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use grid::env::Env;
use grid::time::Instant;
use grid::{CallOptions, Connection, Manager, RegisterError};
use tokio::task::{AbortHandle, JoinSet};

use crate::limits::{NAMED_MAX, VERIFY_TIMEOUT};
use crate::system::SystemConfig;
use proto::{PeerIssue, Report, Tally, Verify, VerifyConfig, VerifyStatus};
use wire::{SERVER_VERIFY, VerifyArgs, VerifyResponse};

/// Registers the handler that reports this server's configuration. Must be called before the
/// manager is started.
///
/// # Errors
///
/// [`RegisterError::Duplicate`] if it was called for this manager before.
pub fn serve(manager: &Manager, config: &Arc<SystemConfig>) -> Result<(), RegisterError> {
    let (config, digest) = (Arc::clone(config), config.digest());
    SERVER_VERIFY.register(manager, move |_context, args| {
        let response = VerifyResponse::of(&config, &digest, &args);
        async move { Ok(response) }
    })
}

/// Options of [`verify`].
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Clock of the waits, and source of their jitter.
    pub env: Env,
    /// Longest wait for enough peers; `None` waits forever.
    pub limit: Option<Duration>,
}

/// The limit passed before enough peers agreed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "of {} peers that must run with the same configuration, {} do; {} run with another, {} did not respond{}: {}",
    tally.needed, tally.agree, tally.differ, tally.unreachable, outlier_note(*tally), issues.join("; ")
)]
pub struct VerifyError {
    /// Responses of the peers, counted.
    pub tally: Tally,
    /// Reasons of the first peers that do not agree.
    pub issues: Vec<String>,
}

fn outlier_note(tally: Tally) -> &'static str {
    if tally.is_outlier { "; this server is the outlier" } else { "" }
}

/// Progress of a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Why it waits; `None` once enough peers agree.
    pub waiting: Option<VerifyError>,
    /// Differences of peers that agree, in parts that may differ.
    pub variations: Vec<String>,
}

/// A verification that has succeeded.
#[derive(Debug)]
pub struct Verified {
    /// Counts of the responses so far.
    pub tally: Tally,
    /// The task that goes on querying the other peers for a while. It needs no peer to end, but may
    /// be aborted by a server that stops.
    pub background: AbortHandle,
}

/// Waits until at least half of the peers run with `config`, and returns the counts of their
/// responses. Differences are logged, also in the background for a while after it has returned.
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
    options: VerifyOptions,
) -> Result<Tally, VerifyError> {
    let verified = verify_among(manager.connections(), config, options, |_| {}).await?;
    Ok(verified.tally)
}

/// Like [`verify`], among these peers only, for a manager that also knows clients.
/// `notify_progress` is called with the reason for waiting, and with differences that do not matter,
/// whenever they change.
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
    options: VerifyOptions,
    notify_progress: impl Fn(VerifyProgress) + Send + Sync + 'static,
) -> Result<Verified, VerifyError> {
    let mut driver = Driver::new(peers, config, options, Box::new(notify_progress));
    let status = driver.run_until(|verify| verify.status() != VerifyStatus::Waiting).await;
    let tally = driver.verify.tally();
    match status {
        VerifyStatus::Verified => {
            let Tally { agree, differ, unreachable, .. } = tally;
            tracing::info!(
                target: "iam", agree, differ, unreachable,
                "enough peers run with compatible settings"
            );
            let background = tokio::spawn(async move { driver.run_until(Verify::is_done).await });
            Ok(Verified { tally, background: background.abort_handle() })
        }
        VerifyStatus::Waiting | VerifyStatus::TimedOut => Err(driver.error()),
    }
}

/// Performs the I/O of the state machine.
struct Driver {
    verify: Verify,
    env: Env,
    peers: Vec<Connection>,
    digest: Arc<str>,
    requests: JoinSet<(usize, ConfigResult)>,
    notify_progress: Box<dyn Fn(VerifyProgress) + Send + Sync>,
    /// Last value passed to `notify_progress`.
    last_progress: Option<VerifyProgress>,
}

type ConfigResult = Result<Option<SystemConfig>, Arc<str>>;

impl Driver {
    fn new(
        peers: Vec<Connection>,
        config: &Arc<SystemConfig>,
        options: VerifyOptions,
        notify_progress: Box<dyn Fn(VerifyProgress) + Send + Sync>,
    ) -> Self {
        let VerifyOptions { env, limit } = options;
        let now = env.now();
        let deadline = limit.map(|limit| now + limit);
        let (ours, seed) = (Arc::clone(config), env.seed());
        let verify_config = VerifyConfig { ours, peers: peers.len(), deadline, seed };
        Self {
            verify: Verify::new(verify_config, now),
            env,
            peers,
            digest: config.digest().into(),
            requests: JoinSet::new(),
            notify_progress,
            last_progress: None,
        }
    }

    fn error(&self) -> VerifyError {
        VerifyError { tally: self.verify.tally(), issues: self.issues() }
    }

    /// Once enough peers agree, there is no reason to wait.
    fn notify_progress(&mut self) {
        let is_waiting = self.verify.status() == VerifyStatus::Waiting;
        let progress = VerifyProgress {
            waiting: is_waiting.then(|| self.error()),
            variations: self.variations(),
        };
        if self.last_progress.as_ref() != Some(&progress) {
            (self.notify_progress)(progress.clone());
            self.last_progress = Some(progress);
        }
    }

    fn variations(&self) -> Vec<String> {
        let variations = self.verify.variations().into_iter().take(NAMED_MAX);
        variations.map(|(peer, found)| format!("{}: {found}", self.name(peer))).collect()
    }

    async fn run_until(&mut self, is_done: impl Fn(&Verify) -> bool) -> VerifyStatus {
        loop {
            let now = self.env.now();
            self.verify.handle_timeout(now);
            while let Some(peer) = self.verify.poll_request(now) {
                self.send_request(peer);
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
                Some(completed) = self.requests.join_next() => {
                    // An aborted request is not repeated: the runtime is shutting down.
                    if let Ok((peer, response)) = completed {
                        self.verify.handle_response(peer, response, self.env.now());
                        self.notify_progress();
                    }
                }
                () = wait(due, now) => {}
            }
        }
    }

    fn send_request(&mut self, peer: usize) {
        let Some(connection) = self.peers.get(peer).cloned() else { return };
        let digest = Arc::clone(&self.digest);
        self.requests.spawn(async move {
            let args = VerifyArgs { digest: digest.to_string() };
            let options = CallOptions::default().timeout(VERIFY_TIMEOUT);
            let response = SERVER_VERIFY.call_with(&connection, &args, options).await;
            let config = response.map_err(|error| error.to_string().into());
            (peer, config.and_then(|response| response.into_config(&digest).map_err(Into::into)))
        });
    }

    fn name(&self, peer: usize) -> &str {
        self.peers.get(peer).map_or("", |connection| connection.remote().as_str())
    }

    /// Returns the first few names, and the number of further ones.
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
            Report::Varies { peers, difference } => tracing::info!(
                target: "iam", peers = self.names(peers), %difference,
                "peers differ in build or environment"
            ),
            Report::LocalIsOutlier { peers, responded, difference } => tracing::error!(
                target: "iam", peers = self.names(peers), responded, %difference,
                "this server is the outlier: most peers agree with each other, and not with it"
            ),
            Report::NowAgrees { peer } => tracing::info!(
                target: "iam", peer = self.name(*peer), "peer runs with the same configuration now"
            ),
            Report::Unreachable { peers, attempts } => {
                let named = peers.iter().take(NAMED_MAX);
                let named: Vec<_> =
                    named.map(|(peer, cause)| format!("{}: {cause}", self.name(*peer))).collect();
                let named: Vec<_> = named.iter().map(String::as_str).collect();
                tracing::warn!(
                    target: "iam", attempts, peers = and_more(&named, peers.len()),
                    "peers unreachable, waiting for the configuration of at least half of all peers"
                );
            }
        }
    }

    fn issues(&self) -> Vec<String> {
        let issues = self.verify.issues().into_iter().take(NAMED_MAX);
        let text = |(peer, issue)| match issue {
            PeerIssue::Differs(difference) => format!("{} differs: {difference}", self.name(peer)),
            // Text of a peer must not forge log lines.
            PeerIssue::Unreachable(cause) => {
                format!("{}: {}", self.name(peer), cause.escape_debug())
            }
        };
        issues.map(text).collect()
    }
}

fn and_more(named: &[&str], count: usize) -> String {
    match count.saturating_sub(named.len()) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// Timers have millisecond resolution; an overdue time must not spin.
async fn wait(due: Option<Instant>, now: Instant) {
    match due {
        Some(at) => tokio::time::sleep(at.since(now).max(Duration::from_millis(1))).await,
        None => std::future::pending().await,
    }
}
