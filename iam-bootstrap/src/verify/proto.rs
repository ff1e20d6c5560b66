//! Decides which peer to query for its configuration, when, and what the responses mean ([B60]). It
//! does no I/O: the clock, a seed and the responses are passed in.
//!
//! ```text
//!               request             response: the same
//!   Idle(at) ───────────► InFlight ──────────────────► agrees
//!     ▲                      │
//!     │ retry after a wait   ├── response: another ──► differs ─────┐
//!     │                      └── no response ────────► unreachable ─┤
//!     └─────────────────────────────────────────────────────────────┘
//! ```
//!
//! A peer agrees if the two configurations can work together; differences of their other parts are
//! reported. A server is verified when at least half of its peers agree with it: of n peers, n/2 rounded up.
//! Together with itself that is more than half of all servers, so two groups with different
//! configurations never both start. A server alone is verified at once.
//!
//! [B60]: crate::rules#b60

use std::collections::BTreeMap;
use std::sync::Arc;

use grid::backoff::{Backoff, jittered};
use grid::time::Instant;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::limits::{
    ATTEMPTS_PER_REPORT, REPORT_DELAY, SPREAD_MAX, SPREAD_PER_PEER, VERIFY_CONCURRENCY_MAX,
    VERIFY_DIFFERING_RETRY, VERIFY_LINGER, VERIFY_RETRY_FIRST, VERIFY_RETRY_MAX,
};
use crate::system::difference::difference;
use crate::system::{ConfigDifference, SystemConfig};
use grid::check_schedule::CheckSchedule;

/// Parameters of [`Verify`].
#[derive(Debug, Clone)]
pub struct VerifyConfig {
    /// Configuration of this server.
    pub ours: Arc<SystemConfig>,
    /// Number of peers. Peers are identified by index.
    pub peers: usize,
    /// Time after which it stops; `None` is never.
    pub deadline: Option<Instant>,
    /// Seed of the jitter.
    pub seed: u64,
}

/// Event to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Peers that all run with the same different configuration.
    Differ {
        /// The peers. Each is reported once, and again when its configuration changes.
        peers: Vec<usize>,
        /// Difference of their configuration from this server's.
        difference: ConfigDifference,
    },
    /// Peers that agree, and all have the same difference in parts that may differ.
    Varies {
        /// The peers. Each is reported once.
        peers: Vec<usize>,
        /// Difference of their configuration from this server's.
        difference: ConfigDifference,
    },
    /// Most of the peers that have responded agree with each other and not with this server:
    /// its own configuration is the suspect.
    LocalIsOutlier {
        /// The peers that agree with each other.
        peers: Vec<usize>,
        /// Number of peers that have responded.
        responded: usize,
        /// Difference of their configuration from this server's.
        difference: ConfigDifference,
    },
    /// A peer that differed agrees now.
    NowAgrees {
        /// The peer.
        peer: usize,
    },
    /// Peers that have not responded for a while.
    Unreachable {
        /// Peers and reasons.
        peers: Vec<(usize, Arc<str>)>,
        /// Attempts so far.
        attempts: u32,
    },
}

/// State of the verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum VerifyStatus {
    /// Waiting for more peers to agree.
    Waiting,
    /// Enough peers agree.
    Verified,
    /// The deadline passed before enough peers agreed.
    TimedOut,
}

/// Responses of the peers, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Peers that must agree.
    pub needed: usize,
    /// Peers that agree.
    pub agree: usize,
    /// Peers that run a different configuration.
    pub differ: usize,
    /// Peers that have not responded.
    pub unreachable: usize,
    /// Whether most peers that responded agree with each other and not with this server.
    pub is_outlier: bool,
}

/// Peers with one configuration, to be reported together.
struct Group {
    kind: GroupKind,
    difference: ConfigDifference,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum GroupKind {
    /// They agree.
    Varies,
    Differs,
    /// They differ, as most peers do.
    Majority,
}

/// State machine of one server's verification.
#[derive(Debug)]
pub struct Verify {
    ours: Arc<SystemConfig>,
    deadline: Option<Instant>,
    peers: Vec<PeerState>,
    status: VerifyStatus,
    /// Time at which requests to peers that have not responded end.
    linger_until: Option<Instant>,
    report_at: Option<Instant>,
    /// Digest of the majority configuration for which the outlier was last reported.
    outlier_reported_for: Option<String>,
    reports: Vec<Report>,
    rng: SmallRng,
    checks: CheckSchedule,
}

#[derive(Debug)]
struct PeerState {
    /// Time of the next request; `None` while one is in flight, or if the peer agrees.
    request_at: Option<Instant>,
    in_flight: bool,
    /// Failed attempts since the last response.
    attempts: u32,
    /// Waits after failed attempts.
    backoff: Backoff,
    failure: Option<Arc<str>>,
    agreement: Agreement,
    /// Digest of the configuration with which the peer was last reported.
    reported_digest: Option<String>,
}

#[derive(Debug)]
enum Agreement {
    Unknown,
    Agrees,
    /// It agrees, and differs in parts that may differ.
    Varies {
        digest: String,
        difference: ConfigDifference,
    },
    Differs {
        digest: String,
        /// Digest of the parts that must be the same.
        required_digest: String,
        difference: ConfigDifference,
    },
}

impl Agreement {
    fn agrees(&self) -> bool {
        match self {
            Self::Agrees | Self::Varies { .. } => true,
            Self::Unknown | Self::Differs { .. } => false,
        }
    }
}

impl PeerState {
    fn new(first_request_at: Instant) -> Self {
        Self {
            request_at: Some(first_request_at),
            in_flight: false,
            attempts: 0,
            backoff: Backoff::new(VERIFY_RETRY_FIRST, VERIFY_RETRY_MAX),
            failure: None,
            agreement: Agreement::Unknown,
            reported_digest: None,
        }
    }
}

impl Verify {
    /// Starts at `now`.
    pub fn new(config: VerifyConfig, now: Instant) -> Self {
        let mut rng = SmallRng::seed_from_u64(config.seed);
        let count = u32::try_from(config.peers).unwrap_or(u32::MAX);
        let spread = SPREAD_PER_PEER.saturating_mul(count).min(SPREAD_MAX);
        let peer = |_| PeerState::new(now + spread.mul_f64(rng.random::<f64>()));
        let peers = (0..config.peers).map(peer).collect();
        let mut verify = Self {
            ours: config.ours,
            deadline: config.deadline,
            peers,
            status: VerifyStatus::Waiting,
            linger_until: None,
            report_at: None,
            outlier_reported_for: None,
            reports: Vec::new(),
            rng,
            checks: CheckSchedule::default(),
        };
        verify.update_status(now);
        verify.check_after_change();
        verify
    }

    /// Returns the state of the verification.
    pub fn status(&self) -> VerifyStatus {
        self.status
    }

    /// Returns whether no further peer is to be queried.
    pub fn is_done(&self) -> bool {
        match self.status {
            VerifyStatus::Waiting => false,
            VerifyStatus::TimedOut => true,
            VerifyStatus::Verified => {
                self.linger_until.is_none()
                    || self.report_at.is_none()
                        && self
                            .peers
                            .iter()
                            .all(|peer| !matches!(peer.agreement, Agreement::Unknown))
            }
        }
    }

    /// Counts the responses of the peers.
    pub fn tally(&self) -> Tally {
        let count = |matches: fn(&Agreement) -> bool| {
            self.peers.iter().filter(|peer| matches(&peer.agreement)).count()
        };
        Tally {
            needed: self.peers.len().div_ceil(2),
            agree: count(Agreement::agrees),
            differ: count(|agreement| matches!(agreement, Agreement::Differs { .. })),
            unreachable: count(|agreement| matches!(agreement, Agreement::Unknown)),
            is_outlier: self.majority().is_some(),
        }
    }

    /// Returns the peers that differ or have not responded, with the reason.
    pub fn issues(&self) -> Vec<(usize, PeerIssue)> {
        let of = |(index, peer): (usize, &PeerState)| match &peer.agreement {
            Agreement::Agrees | Agreement::Varies { .. } => None,
            Agreement::Differs { difference, .. } => {
                Some((index, PeerIssue::Differs(difference.clone())))
            }
            Agreement::Unknown => {
                let cause = peer.failure.clone().unwrap_or_else(|| "no response yet".into());
                Some((index, PeerIssue::Unreachable(cause)))
            }
        };
        self.peers.iter().enumerate().filter_map(of).collect()
    }

    /// Returns the peers that agree, and differ in parts that may differ.
    pub fn variations(&self) -> Vec<(usize, ConfigDifference)> {
        let of = |(index, peer): (usize, &PeerState)| match &peer.agreement {
            Agreement::Varies { difference, .. } => Some((index, difference.clone())),
            Agreement::Agrees | Agreement::Differs { .. } | Agreement::Unknown => None,
        };
        self.peers.iter().enumerate().filter_map(of).collect()
    }

    /// Returns a peer to query now. Pass the result to [`Verify::handle_response`].
    #[must_use]
    pub fn poll_request(&mut self, now: Instant) -> Option<usize> {
        let in_flight = self.peers.iter().filter(|peer| peer.in_flight).count();
        if self.is_done() || in_flight >= VERIFY_CONCURRENCY_MAX {
            return None;
        }
        let due = |peer: &PeerState| peer.request_at.filter(|at| *at <= now);
        let candidates = self.peers.iter().enumerate();
        let next = candidates.filter_map(|(index, peer)| Some((due(peer)?, index))).min();
        let (_, index) = next?;
        let peer = self.peers.get_mut(index)?;
        (peer.request_at, peer.in_flight) = (None, true);
        self.check_after_change();
        Some(index)
    }

    /// Returns the next event to log.
    #[must_use]
    pub fn poll_report(&mut self) -> Option<Report> {
        (!self.reports.is_empty()).then(|| self.reports.remove(0))
    }

    /// Returns when to call [`Verify::handle_timeout`] and [`Verify::poll_request`] next, if no
    /// response arrives before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_done() {
            return None;
        }
        let in_flight = self.peers.iter().filter(|peer| peer.in_flight).count();
        let requests = self.peers.iter().filter_map(|peer| peer.request_at);
        let request = requests.min().filter(|_| in_flight < VERIFY_CONCURRENCY_MAX);
        let deadline = self.deadline.filter(|_| self.status == VerifyStatus::Waiting);
        [request, deadline, self.linger_until, self.report_at].into_iter().flatten().min()
    }

    /// Handles the passage of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.report_at.is_some_and(|at| at <= now) {
            self.report_differences();
        }
        self.update_status(now);
        self.check_after_change();
    }

    /// Handles the response of a peer: its configuration (`None`: the same as ours), or the reason
    /// why there is none.
    pub fn handle_response(
        &mut self,
        peer: usize,
        response: Result<Option<SystemConfig>, Arc<str>>,
        now: Instant,
    ) {
        let Some(peer_state) = self.peers.get_mut(peer) else { return };
        if !peer_state.in_flight {
            return;
        }
        peer_state.in_flight = false;
        match response {
            Ok(config) => {
                (peer_state.attempts, peer_state.failure) = (0, None);
                peer_state.backoff.reset();
                self.handle_config(peer, config, now);
            }
            Err(cause) => self.handle_failure(peer, cause, now),
        }
        self.update_status(now);
        self.check_after_change();
    }

    fn handle_config(&mut self, peer: usize, config: Option<SystemConfig>, now: Instant) {
        let found = config.map(|theirs| {
            (difference(&self.ours, &theirs), theirs.digest(), theirs.required_digest())
        });
        let retry_at = now + jittered(VERIFY_DIFFERING_RETRY, &mut self.rng);
        let Some(peer_state) = self.peers.get_mut(peer) else { return };
        let found = found.filter(|(found, ..)| !found.is_empty());
        let was_reported = peer_state.reported_digest.is_some();
        let is_unreported =
            peer_state.reported_digest.as_ref() != found.as_ref().map(|(_, digest, _)| digest);
        peer_state.agreement = match found {
            None => Agreement::Agrees,
            Some((difference, digest, _)) if difference.is_compatible() => {
                Agreement::Varies { digest, difference }
            }
            Some((difference, digest, required_digest)) => {
                peer_state.request_at = Some(retry_at);
                Agreement::Differs { digest, required_digest, difference }
            }
        };
        if peer_state.agreement.agrees() {
            peer_state.reported_digest = None;
            if was_reported {
                self.reports.push(Report::NowAgrees { peer });
            }
        }
        let is_different = !matches!(peer_state.agreement, Agreement::Agrees);
        if is_different && is_unreported && self.report_at.is_none() {
            self.report_at = Some(now + REPORT_DELAY);
        }
    }

    fn handle_failure(&mut self, peer: usize, cause: Arc<str>, now: Instant) {
        let Some(peer_state) = self.peers.get_mut(peer) else { return };
        peer_state.attempts = peer_state.attempts.saturating_add(1);
        peer_state.failure = Some(cause);
        peer_state.request_at = Some(now + peer_state.backoff.next_wait(&mut self.rng));
        // One line for all, when the peer with the most attempts reaches a multiple.
        let attempts = peer_state.attempts;
        let is_first = self.peers.iter().all(|other| other.attempts <= attempts);
        let others = self.peers.iter().enumerate();
        let tied = others.filter(|(index, other)| *index != peer && other.attempts == attempts);
        if attempts.is_multiple_of(ATTEMPTS_PER_REPORT)
            && is_first
            && tied.count() == 0
            && self.status == VerifyStatus::Waiting
        {
            let failing = self.peers.iter().enumerate();
            let failing = failing.filter_map(|(index, peer)| Some((index, peer.failure.clone()?)));
            self.reports.push(Report::Unreachable { peers: failing.collect(), attempts });
        }
    }

    /// Updates the status after a change.
    fn update_status(&mut self, now: Instant) {
        let tally = self.tally();
        match self.status {
            VerifyStatus::Waiting if tally.agree >= tally.needed => {
                self.status = VerifyStatus::Verified;
                self.linger_until = Some(now + VERIFY_LINGER);
            }
            VerifyStatus::Waiting if self.deadline.is_some_and(|at| at <= now) => {
                self.report_differences();
                self.status = VerifyStatus::TimedOut;
            }
            VerifyStatus::Verified if self.linger_until.is_some_and(|at| at <= now) => {
                self.report_differences();
                self.linger_until = None;
            }
            VerifyStatus::Waiting | VerifyStatus::Verified | VerifyStatus::TimedOut => {}
        }
    }

    /// Returns the configuration that more than half of the peers that responded have in common,
    /// and at least two, if it is not ours.
    fn majority(&self) -> Option<&str> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut responded = 0;
        for peer in &self.peers {
            match &peer.agreement {
                Agreement::Unknown => {}
                Agreement::Agrees | Agreement::Varies { .. } => responded += 1,
                Agreement::Differs { required_digest, .. } => {
                    responded += 1;
                    *counts.entry(required_digest).or_default() += 1;
                }
            }
        }
        let (digest, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        (count >= 2 && 2 * count > responded).then_some(digest)
    }

    /// Reports each peer whose difference has not been reported, grouped by configuration.
    fn report_differences(&mut self) {
        self.report_at = None;
        let majority = self.majority().map(str::to_owned);
        let becomes_outlier = majority.is_some() && majority != self.outlier_reported_for;
        let mut groups: BTreeMap<String, (Vec<usize>, Group)> = BTreeMap::new();
        for (index, peer) in self.peers.iter_mut().enumerate() {
            let (digest, difference, kind) = match &peer.agreement {
                Agreement::Unknown | Agreement::Agrees => continue,
                Agreement::Varies { digest, difference } => (digest, difference, GroupKind::Varies),
                Agreement::Differs { digest, required_digest, difference }
                    if becomes_outlier && majority.as_ref() == Some(required_digest) =>
                {
                    (digest, difference, GroupKind::Majority)
                }
                Agreement::Differs { digest, difference, .. } => {
                    (digest, difference, GroupKind::Differs)
                }
            };
            let is_reported = peer.reported_digest.as_ref() == Some(digest);
            if is_reported && kind != GroupKind::Majority {
                continue;
            }
            peer.reported_digest = Some(digest.clone());
            let group = groups.entry(digest.clone());
            let new = || (Vec::new(), Group { kind, difference: difference.clone() });
            group.or_insert_with(new).0.push(index);
        }
        let Tally { agree, differ, .. } = self.tally();
        for (peers, Group { kind, difference }) in groups.into_values() {
            self.reports.push(match kind {
                GroupKind::Varies => Report::Varies { peers, difference },
                GroupKind::Differs => Report::Differ { peers, difference },
                GroupKind::Majority => {
                    Report::LocalIsOutlier { peers, responded: agree + differ, difference }
                }
            });
        }
        self.outlier_reported_for = majority;
    }
}

impl Verify {
    /// Checks that each peer is in one of its states, the requests in flight are bounded, and the
    /// counts are those of the peers.
    ///
    /// # Panics
    ///
    /// If one of these does not hold. The message names the field and both values.
    pub fn check_invariants(&self) {
        for (index, peer) in self.peers.iter().enumerate() {
            peer.check_invariants(index);
        }
        let in_flight = self.peers.iter().filter(|peer| peer.in_flight).count();
        let max = VERIFY_CONCURRENCY_MAX;
        assert!(in_flight <= max, "in_flight is {in_flight}, and the maximum is {max}");
        let Tally { needed, agree, differ, unreachable, .. } = self.tally();
        let counted = agree + differ + unreachable;
        assert_eq!(counted, self.peers.len(), "peers in the tally, and peers.len()");
        let (status, linger_until) = (self.status, self.linger_until);
        let is_verified = status == VerifyStatus::Verified;
        assert!(is_verified || linger_until.is_none(), "linger_until of {status:?}");
        assert!(!is_verified || agree >= needed, "{status:?} with {agree} of {needed} peers");
        let is_enough = status == VerifyStatus::Waiting && agree >= needed;
        assert!(!is_enough, "{status:?} with {agree} of {needed} peers");
    }

    fn check_after_change(&self) {
        self.checks.record();
        if self.checks.is_due(self.peers.len()) {
            self.check_invariants();
        }
    }
}

impl PeerState {
    /// Checks that exactly one thing ends the current state: a response, a time, or nothing.
    fn check_invariants(&self, index: usize) {
        let agrees = self.agreement.agrees();
        let (in_flight, request_at) = (self.in_flight, self.request_at);
        let ends = [in_flight, request_at.is_some(), agrees].into_iter().filter(|end| *end);
        assert_eq!(
            ends.count(),
            1,
            "peers[{index}]: one of in_flight {in_flight}, request_at {request_at:?}, {agrees}"
        );
        let (attempts, failure) = (self.attempts, &self.failure);
        assert_eq!(
            attempts == 0,
            failure.is_none(),
            "peers[{index}]: attempts {attempts}, failure {failure:?}"
        );
        let reported = &self.reported_digest;
        let is_equal = matches!(self.agreement, Agreement::Agrees);
        assert!(!is_equal || reported.is_none(), "peers[{index}] agrees, reported as {reported:?}");
    }
}

/// Reason why a peer does not count as agreeing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerIssue {
    /// It runs a different configuration.
    Differs(ConfigDifference),
    /// It did not respond.
    Unreachable(Arc<str>),
}

#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
