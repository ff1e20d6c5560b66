//! Decides whom to ask for its configuration, when, and what the answers mean (B60). It does not ask:
//! the clock and a seed are handed in, and answers brought.
//!
//! ```text
//!                 ask                 answer: the same
//!   Idle(at) ───────────────► Asked ───────────────────► agrees
//!     ▲                         │
//!     │ again, after a wait     ├── answer: another ───► differs ──┐
//!     └─────────────────────────┴── none ───► unreachable ─────────┤
//!     └────────────────────────────────────────────────────────────┘
//! ```
//!
//! A server is verified when at least half of its peers agree with it: of n peers, n/2 rounded up.
//! Together with itself that is more than half of all servers, so two groups with different
//! configurations never both start. A server alone is verified at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use grid::time::Instant;
use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

use crate::limits::{
    ASK_AGAIN_FIRST, ASK_AGAIN_MAX, ASK_DIFFERING_AGAIN, ASKED_AT_ONCE, LINGER, REPORT_DELAY,
    SPREAD_MAX, SPREAD_PER_PEER, TRIES_PER_REPORT,
};
use crate::system::difference::difference;
use crate::system::{ConfigDifference, SystemConfig};

/// What a server that asks its peers starts with.
#[derive(Debug, Clone)]
pub struct Config {
    /// What it runs with.
    pub ours: Arc<SystemConfig>,
    /// How many peers it has. They are known by their numbers here.
    pub peers: usize,
    /// When it gives up; `None` is never.
    pub deadline: Option<Instant>,
    /// What its jitter is drawn from.
    pub seed: u64,
}

/// What somebody should be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// These peers all run with another configuration, and this is how it differs.
    Differ {
        /// Each peer is named once, and again when its configuration changes.
        peers: Vec<usize>,
        /// How theirs differs from ours.
        difference: ConfigDifference,
    },
    /// Most of those that have answered agree with each other and not with us: it is this server whose
    /// configuration is to be looked at.
    Odd {
        /// Those that agree with each other.
        peers: Vec<usize>,
        /// How many have answered.
        answered: usize,
        /// How theirs differs from ours.
        difference: ConfigDifference,
    },
    /// A peer that differed agrees now.
    AgreesNow {
        /// The peer.
        peer: usize,
    },
    /// These have not answered for a while, each for this reason.
    Unreachable {
        /// Peers and reasons.
        peers: Vec<(usize, Arc<str>)>,
        /// How often one of them was tried.
        tries: u32,
    },
}

/// How far a server has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It waits for more peers to agree.
    Waiting,
    /// Enough agree.
    Verified,
    /// The deadline passed before enough agreed.
    TimedOut,
}

/// How many peers answered what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many must agree.
    pub needed: usize,
    /// How many do.
    pub agree: usize,
    /// How many run with something else.
    pub differ: usize,
    /// How many have not answered.
    pub unreachable: usize,
    /// Whether most of those that answered agree with each other and not with us.
    pub is_odd: bool,
}

/// One server that asks its peers.
#[derive(Debug)]
pub struct Verify {
    ours: Arc<SystemConfig>,
    deadline: Option<Instant>,
    peers: Vec<Peer>,
    status: Status,
    /// When the questions to those that have not answered end.
    linger_until: Option<Instant>,
    report_at: Option<Instant>,
    /// The configuration of the majority that this server was told to be at odds with.
    told_odd_to: Option<String>,
    reports: Vec<Report>,
    rng: SmallRng,
}

#[derive(Debug, Default)]
struct Peer {
    /// When it is to be asked; `None` while it is asked, or if it agrees.
    ask_at: Option<Instant>,
    is_asked: bool,
    /// Tries in vain since it last answered.
    tries: u32,
    failure: Option<Arc<str>>,
    answer: Answer,
    /// The digest of the configuration that it was last reported with.
    told: Option<String>,
}

#[derive(Debug, Default)]
enum Answer {
    #[default]
    None,
    Agrees,
    Differs {
        digest: String,
        difference: ConfigDifference,
    },
}

impl Verify {
    /// Begins at `now`.
    pub fn new(config: Config, now: Instant) -> Self {
        let mut rng = SmallRng::seed_from_u64(config.seed);
        let count = u32::try_from(config.peers).unwrap_or(u32::MAX);
        let spread = SPREAD_PER_PEER.saturating_mul(count).min(SPREAD_MAX);
        let peer = |_| {
            let ask_at = Some(now + spread.mul_f64(rng.random::<f64>()));
            Peer { ask_at, ..Peer::default() }
        };
        let peers = (0..config.peers).map(peer).collect();
        let mut verify = Self {
            ours: config.ours,
            deadline: config.deadline,
            peers,
            status: Status::Waiting,
            linger_until: None,
            report_at: None,
            told_odd_to: None,
            reports: Vec::new(),
            rng,
        };
        verify.settle(now);
        verify
    }

    /// How far it has come.
    pub fn status(&self) -> Status {
        self.status
    }

    /// Whether nobody is to be asked any more.
    pub fn is_over(&self) -> bool {
        match self.status {
            Status::Waiting => false,
            Status::TimedOut => true,
            Status::Verified => {
                self.linger_until.is_none()
                    || self.report_at.is_none()
                        && self.peers.iter().all(|peer| !matches!(peer.answer, Answer::None))
            }
        }
    }

    /// How many peers answered what.
    pub fn tally(&self) -> Tally {
        let count = |wanted: fn(&Answer) -> bool| {
            self.peers.iter().filter(|peer| wanted(&peer.answer)).count()
        };
        Tally {
            needed: self.peers.len().div_ceil(2),
            agree: count(|answer| matches!(answer, Answer::Agrees)),
            differ: count(|answer| matches!(answer, Answer::Differs { .. })),
            unreachable: count(|answer| matches!(answer, Answer::None)),
            is_odd: self.majority().is_some(),
        }
    }

    /// Peers that differ, and how; and those that did not answer, and why.
    pub fn complaints(&self) -> Vec<(usize, Complaint)> {
        let of = |(index, peer): (usize, &Peer)| match &peer.answer {
            Answer::Agrees => None,
            Answer::Differs { difference, .. } => {
                Some((index, Complaint::Differs(difference.clone())))
            }
            Answer::None => {
                let why = peer.failure.clone().unwrap_or_else(|| "it has not answered yet".into());
                Some((index, Complaint::Unreachable(why)))
            }
        };
        self.peers.iter().enumerate().filter_map(of).collect()
    }

    /// A peer to ask now, if there is one. Whatever comes of it is to be brought to
    /// [`Verify::handle_answer`].
    pub fn poll_ask(&mut self, now: Instant) -> Option<usize> {
        let asked = self.peers.iter().filter(|peer| peer.is_asked).count();
        if self.is_over() || asked >= ASKED_AT_ONCE {
            return None;
        }
        let due = |peer: &Peer| peer.ask_at.filter(|at| *at <= now);
        let candidates = self.peers.iter().enumerate();
        let next = candidates.filter_map(|(index, peer)| Some((due(peer)?, index))).min();
        let (_, index) = next?;
        let peer = self.peers.get_mut(index)?;
        (peer.ask_at, peer.is_asked) = (None, true);
        Some(index)
    }

    /// What somebody should be told, if there is something.
    pub fn poll_report(&mut self) -> Option<Report> {
        (!self.reports.is_empty()).then(|| self.reports.remove(0))
    }

    /// When [`Verify::handle_timeout`] and [`Verify::poll_ask`] are to be called next, if nothing
    /// happens before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let asked = self.peers.iter().filter(|peer| peer.is_asked).count();
        let asks = self.peers.iter().filter_map(|peer| peer.ask_at);
        let ask = asks.min().filter(|_| asked < ASKED_AT_ONCE);
        let deadline = self.deadline.filter(|_| self.status == Status::Waiting);
        [ask, deadline, self.linger_until, self.report_at].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.report_at.is_some_and(|at| at <= now) {
            self.report_differences();
        }
        self.settle(now);
    }

    /// A peer that was asked has answered with its configuration (`None`: the same as ours), or has
    /// not, for this reason.
    pub fn handle_answer(
        &mut self,
        peer: usize,
        answer: Result<Option<SystemConfig>, Arc<str>>,
        now: Instant,
    ) {
        let Some(known) = self.peers.get_mut(peer) else { return };
        if !known.is_asked {
            return;
        }
        known.is_asked = false;
        match answer {
            Ok(config) => {
                (known.tries, known.failure) = (0, None);
                self.handle_config(peer, config, now);
            }
            Err(why) => self.handle_failure(peer, why, now),
        }
        self.settle(now);
    }

    fn handle_config(&mut self, peer: usize, config: Option<SystemConfig>, now: Instant) {
        let found = config.map(|theirs| (difference(&self.ours, &theirs), theirs.digest()));
        let again = now + jittered(ASK_DIFFERING_AGAIN, &mut self.rng);
        let Some(known) = self.peers.get_mut(peer) else { return };
        let Some((difference, digest)) = found.filter(|(found, _)| !found.is_empty()) else {
            known.answer = Answer::Agrees;
            if known.told.take().is_some() {
                self.reports.push(Report::AgreesNow { peer });
            }
            return;
        };
        let is_news = known.told.as_ref() != Some(&digest);
        known.answer = Answer::Differs { digest, difference };
        known.ask_at = Some(again);
        if is_news && self.report_at.is_none() {
            self.report_at = Some(now + REPORT_DELAY);
        }
    }

    fn handle_failure(&mut self, peer: usize, why: Arc<str>, now: Instant) {
        let Some(known) = self.peers.get_mut(peer) else { return };
        known.tries = known.tries.saturating_add(1);
        known.failure = Some(why);
        let doubled = ASK_AGAIN_FIRST.saturating_mul(1 << known.tries.min(10).saturating_sub(1));
        known.ask_at = Some(now + jittered(doubled.min(ASK_AGAIN_MAX), &mut self.rng));
        // All of them in one line, when the one that was tried most often has been tried so often.
        let tries = known.tries;
        let is_first = self.peers.iter().all(|other| other.tries <= tries);
        let is_told_of = self.peers.iter().enumerate();
        let same = is_told_of.filter(|(index, other)| *index != peer && other.tries == tries);
        if tries.is_multiple_of(TRIES_PER_REPORT)
            && is_first
            && same.count() == 0
            && self.status == Status::Waiting
        {
            let failing = self.peers.iter().enumerate();
            let failing = failing.filter_map(|(index, peer)| Some((index, peer.failure.clone()?)));
            self.reports.push(Report::Unreachable { peers: failing.collect(), tries });
        }
    }

    /// Whether it has come to an end.
    fn settle(&mut self, now: Instant) {
        let tally = self.tally();
        match self.status {
            Status::Waiting if tally.agree >= tally.needed => {
                self.status = Status::Verified;
                self.linger_until = Some(now + LINGER);
            }
            Status::Waiting if self.deadline.is_some_and(|at| at <= now) => {
                self.report_differences();
                self.status = Status::TimedOut;
            }
            Status::Verified if self.linger_until.is_some_and(|at| at <= now) => {
                self.report_differences();
                self.linger_until = None;
            }
            Status::Waiting | Status::Verified | Status::TimedOut => {}
        }
    }

    /// The configuration that more than half of those that answered have in common, and two at least,
    /// if it is not ours.
    fn majority(&self) -> Option<&str> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut answered = 0;
        for peer in &self.peers {
            match &peer.answer {
                Answer::None => {}
                Answer::Agrees => answered += 1,
                Answer::Differs { digest, .. } => {
                    answered += 1;
                    *counts.entry(digest).or_default() += 1;
                }
            }
        }
        let (digest, count) = counts.into_iter().max_by_key(|(_, count)| *count)?;
        (count >= 2 && 2 * count > answered).then_some(digest)
    }

    /// Names each peer whose difference has not been told, those of one configuration together.
    fn report_differences(&mut self) {
        self.report_at = None;
        let majority = self.majority().map(str::to_owned);
        let becomes_odd = majority.is_some() && majority != self.told_odd_to;
        let mut groups: BTreeMap<String, (Vec<usize>, ConfigDifference)> = BTreeMap::new();
        for (index, peer) in self.peers.iter_mut().enumerate() {
            let Answer::Differs { digest, difference } = &peer.answer else { continue };
            let is_of_majority = becomes_odd && majority.as_ref() == Some(digest);
            if peer.told.as_ref() == Some(digest) && !is_of_majority {
                continue;
            }
            peer.told = Some(digest.clone());
            let group = groups.entry(digest.clone());
            group.or_insert_with(|| (Vec::new(), difference.clone())).0.push(index);
        }
        let tally = self.tally();
        for (digest, (peers, difference)) in groups {
            let is_odd = becomes_odd && majority.as_ref() == Some(&digest);
            self.reports.push(match is_odd {
                true => Report::Odd { peers, answered: tally.agree + tally.differ, difference },
                false => Report::Differ { peers, difference },
            });
        }
        self.told_odd_to = majority;
    }
}

/// What is to be said of a peer that does not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Complaint {
    /// It runs with something else.
    Differs(ConfigDifference),
    /// It did not answer.
    Unreachable(Arc<str>),
}

/// A wait from the upper half of the span: nobody is hammered, and nobody in step.
fn jittered(wait: Duration, rng: &mut dyn Rng) -> Duration {
    wait.mul_f64(0.5 + 0.5 * rng.random::<f64>())
}

#[cfg(test)]
mod tests;
