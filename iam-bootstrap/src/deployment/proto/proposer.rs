//! Proposer: runs on a server that does not know the id, and leads the servers to decide one.
//!
//! It emits the requests to send and the time to wait; `agree` sends and waits. Randomness is
//! passed in.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use grid::backoff::Backoff;
use rand::RngExt;
use rand::rngs::SmallRng;

use super::{Ballot, PaxosRequest, PaxosResponse, Vote};
use crate::deployment::id::DeploymentId;
use crate::limits::{
    AGREE_ATTEMPT_TIMEOUT, AGREE_RETRY_FIRST, AGREE_RETRY_MAX, AGREE_SPREAD_PER_SERVER,
    BALLOT_LEAD_MAX,
};
use grid::check_schedule::CheckSchedule;

/// Timeouts and waits of the proposer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Timeout of one attempt; see [`AGREE_ATTEMPT_TIMEOUT`].
    pub attempt_timeout: Duration,
    /// First wait after a failed attempt; see [`AGREE_RETRY_FIRST`].
    pub retry_first: Duration,
    /// Longest wait between attempts; see [`AGREE_RETRY_MAX`].
    pub retry_max: Duration,
    /// Spread of the first attempts, per server; see [`AGREE_SPREAD_PER_SERVER`].
    pub spread_per_server: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            attempt_timeout: AGREE_ATTEMPT_TIMEOUT,
            retry_first: AGREE_RETRY_FIRST,
            retry_max: AGREE_RETRY_MAX,
            spread_per_server: AGREE_SPREAD_PER_SERVER,
        }
    }
}

/// Action that the proposer requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Let the local acceptor promise an attempt above this round, on disk: no other attempt then
    /// uses the ballot, not even this server's own after a crash.
    Claim {
        /// The round.
        above: u64,
    },
    /// Send a request to a server.
    Send {
        /// Index of the server; may be this server's own.
        to: usize,
        /// Request to send.
        request: PaxosRequest,
    },
}

/// Absence of a response. The server may still have handled the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoResponse;

/// Attempts to decide, and the waits between attempts.
///
/// ```text
///              time               claimed            a majority has promised
///   Waiting ──────────► Claiming ─────────► Preparing ──────────────► Accepting
///      ▲                   │                    │                         │ a majority
///      └───────────────────┴────────────────────┘                         │ has accepted
///      ▲      no majority left, or no time                                ▼
///      └──────────────────────────────────────────────────────────────  Decided
/// ```
///
/// A response that the id is decided ends it in any state. `Claiming` exists because a ballot that
/// other servers have seen must not be used for another id after a crash: it is on disk first.
#[derive(Debug)]
pub struct Proposer {
    /// This server's index.
    local_index: usize,
    servers: usize,
    timing: Timing,
    rng: SmallRng,
    /// Id to propose if no server has accepted one yet.
    proposed_id: DeploymentId,
    /// Highest round of a refusal.
    highest_refused_round: u64,
    /// Round of this proposer's last attempt. It is never used again.
    last_used_round: u64,
    backoff: Backoff,
    /// Number of the current state: a timer that was set in an earlier one does nothing.
    epoch: u64,
    phase: ProposerPhase,
    outputs: VecDeque<Output>,
    checks: CheckSchedule,
}

#[derive(Debug)]
enum ProposerPhase {
    Waiting { wait: Duration },
    Claiming,
    Preparing { ballot: Ballot, quorum: QuorumCount, highest: Option<Vote> },
    Accepting { vote: Vote, quorum: QuorumCount },
    Decided { id: DeploymentId },
}

/// Servers that have responded in this phase.
#[derive(Debug, Default)]
struct QuorumCount {
    granted: BTreeSet<usize>,
    rejected: BTreeSet<usize>,
}

impl QuorumCount {
    fn has_responded(&self, server: usize) -> bool {
        self.granted.contains(&server) || self.rejected.contains(&server)
    }

    /// Checks the counts of a phase that goes on, among so many servers.
    fn check_invariants(&self, servers: usize) {
        let (granted, rejected) = (self.granted.len(), self.rejected.len());
        let majority = servers / 2 + 1;
        let both = self.granted.intersection(&self.rejected).next();
        assert_eq!(both, None, "a server that is both in granted and in rejected");
        let last = self.granted.last().max(self.rejected.last());
        assert!(last < Some(&servers), "a response of server {last:?}, and there are {servers}");
        assert!(granted < majority, "granted has {granted}, and {majority} are a majority");
        let possible = servers.saturating_sub(rejected);
        assert!(possible >= majority, "rejected has {rejected} of {servers}: no majority is left");
    }
}

impl Proposer {
    /// Creates a proposer for server `local_index` of `servers`. It first waits for a random time,
    /// so that servers do not start their attempts at the same time.
    pub fn new(local_index: usize, servers: usize, timing: Timing, mut rng: SmallRng) -> Self {
        debug_assert!(local_index < servers, "index of a server");
        let proposed_id = DeploymentId::from_random(rng.random());
        let others = u32::try_from(servers.saturating_sub(1)).unwrap_or(u32::MAX);
        let spread = timing.spread_per_server.saturating_mul(others);
        let wait = spread.mul_f64(rng.random::<f64>());
        let backoff = Backoff::new(timing.retry_first, timing.retry_max);
        let (phase, outputs) = (ProposerPhase::Waiting { wait }, VecDeque::new());
        let (highest_refused_round, last_used_round, epoch) = (0, 0, 0);
        Self {
            local_index,
            servers,
            timing,
            rng,
            proposed_id,
            highest_refused_round,
            last_used_round,
            backoff,
            epoch,
            phase,
            outputs,
            checks: CheckSchedule::default(),
        }
    }

    /// Returns the next action.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns the wait, counted from the first return of this value, and the epoch to pass to
    /// [`handle_timeout`](Self::handle_timeout) then; `None` once the id is decided.
    pub fn poll_timeout(&self) -> Option<(u64, Duration)> {
        match &self.phase {
            ProposerPhase::Waiting { wait } => Some((self.epoch, *wait)),
            ProposerPhase::Claiming
            | ProposerPhase::Preparing { .. }
            | ProposerPhase::Accepting { .. } => Some((self.epoch, self.timing.attempt_timeout)),
            ProposerPhase::Decided { .. } => None,
        }
    }

    /// Returns whether no attempt is in progress.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, ProposerPhase::Waiting { .. })
    }

    /// Returns the decided id.
    pub fn decided(&self) -> Option<DeploymentId> {
        match self.phase {
            ProposerPhase::Decided { id } => Some(id),
            ProposerPhase::Waiting { .. }
            | ProposerPhase::Claiming
            | ProposerPhase::Preparing { .. }
            | ProposerPhase::Accepting { .. } => None,
        }
    }

    /// Handles an expired timer.
    pub fn handle_timeout(&mut self, epoch: u64) {
        if epoch != self.epoch {
            return;
        }
        match self.phase {
            ProposerPhase::Waiting { .. } => {
                self.enter(ProposerPhase::Claiming);
                self.outputs.push_back(Output::Claim { above: self.highest_refused_round });
            }
            ProposerPhase::Claiming
            | ProposerPhase::Preparing { .. }
            | ProposerPhase::Accepting { .. } => self.back_off(),
            ProposerPhase::Decided { .. } => {}
        }
        self.check_after_change();
    }

    /// Handles the local acceptor's response to a claim.
    pub fn handle_claim(&mut self, response: Result<PaxosResponse, NoResponse>) {
        match response {
            Ok(PaxosResponse::Decided { id }) => self.decide(id),
            Ok(PaxosResponse::Promised { ballot, accepted })
                if matches!(self.phase, ProposerPhase::Claiming)
                    && ballot.round > self.last_used_round =>
            {
                self.last_used_round = ballot.round;
                self.send_to_all(
                    &PaxosRequest::Prepare { ballot: ballot.clone() },
                    Some(self.local_index),
                );
                let quorum = QuorumCount {
                    granted: BTreeSet::from([self.local_index]),
                    rejected: BTreeSet::new(),
                };
                self.enter(ProposerPhase::Preparing { ballot, quorum, highest: accepted });
                self.check_quorum();
            }
            Ok(_) | Err(NoResponse) if matches!(self.phase, ProposerPhase::Claiming) => {
                self.back_off();
            }
            Ok(_) | Err(NoResponse) => {} // response to an earlier attempt
        }
        self.check_after_change();
    }

    /// Handles a server's response, or the absence of one.
    pub fn handle_response(
        &mut self,
        from: usize,
        request: &PaxosRequest,
        response: &Result<PaxosResponse, NoResponse>,
    ) {
        if let Ok(PaxosResponse::Decided { id }) = response {
            self.decide(*id);
            return self.check_after_change();
        }
        let (ballot, accepted) = match request {
            PaxosRequest::Prepare { ballot } => (ballot, false),
            PaxosRequest::Accept(vote) => (&vote.ballot, true),
            PaxosRequest::Learn { .. } => return,
        };
        if let Ok(PaxosResponse::Refused { promised }) = response {
            // Bounded, since acceptors refuse rounds that are further ahead.
            let highest = ballot.round.saturating_add(BALLOT_LEAD_MAX - 1);
            self.highest_refused_round =
                self.highest_refused_round.max(promised.round.min(highest));
        }
        let quorum = match &mut self.phase {
            ProposerPhase::Preparing { ballot: current, quorum, highest }
                if !accepted && current == ballot =>
            {
                if let Ok(PaxosResponse::Promised { accepted: Some(vote), .. }) = response
                    && highest.as_ref().is_none_or(|highest| highest.ballot < vote.ballot)
                {
                    *highest = Some(vote.clone());
                }
                quorum
            }
            ProposerPhase::Accepting { vote, quorum } if accepted && vote.ballot == *ballot => {
                quorum
            }
            // A response to an earlier attempt or phase.
            ProposerPhase::Preparing { .. }
            | ProposerPhase::Accepting { .. }
            | ProposerPhase::Waiting { .. }
            | ProposerPhase::Claiming
            | ProposerPhase::Decided { .. } => return,
        };
        if quorum.has_responded(from) {
            return;
        }
        match response {
            Ok(PaxosResponse::Promised { .. }) if !accepted => quorum.granted.insert(from),
            Ok(PaxosResponse::Accepted) if accepted => quorum.granted.insert(from),
            Ok(_) | Err(NoResponse) => quorum.rejected.insert(from),
        };
        self.check_quorum();
        self.check_after_change();
    }

    /// Advances if a majority has granted, and ends the attempt if no majority can any more.
    fn check_quorum(&mut self) {
        let majority = self.servers / 2 + 1;
        let (ProposerPhase::Preparing { quorum, .. } | ProposerPhase::Accepting { quorum, .. }) =
            &self.phase
        else {
            return;
        };
        if quorum.granted.len() < majority {
            debug_assert!(quorum.rejected.len() <= self.servers, "rejected.len(), and servers");
            if self.servers - quorum.rejected.len() < majority {
                self.back_off();
            }
            return;
        }
        match &self.phase {
            ProposerPhase::Preparing { ballot, highest, .. } => {
                // An id that may have been decided already is proposed again.
                let id = highest.as_ref().map_or(self.proposed_id, |vote| vote.id);
                let vote = Vote { ballot: ballot.clone(), id };
                self.send_to_all(&PaxosRequest::Accept(vote.clone()), None);
                self.enter(ProposerPhase::Accepting { vote, quorum: QuorumCount::default() });
            }
            ProposerPhase::Accepting { vote, .. } => self.decide(vote.id),
            ProposerPhase::Waiting { .. }
            | ProposerPhase::Claiming
            | ProposerPhase::Decided { .. } => {}
        }
    }

    /// Sends a request to all servers, except one.
    fn send_to_all(&mut self, request: &PaxosRequest, except: Option<usize>) {
        for to in (0..self.servers).filter(|to| Some(*to) != except) {
            self.outputs.push_back(Output::Send { to, request: request.clone() });
        }
    }

    fn decide(&mut self, id: DeploymentId) {
        if self.decided().is_none() {
            self.enter(ProposerPhase::Decided { id });
            self.outputs.clear();
        }
    }

    /// Waits before the next attempt.
    fn back_off(&mut self) {
        let wait = self.backoff.next_wait(&mut self.rng);
        self.outputs.clear();
        self.enter(ProposerPhase::Waiting { wait });
    }

    fn enter(&mut self, phase: ProposerPhase) {
        self.epoch += 1;
        self.phase = phase;
    }

    /// Checks that the responses that are counted are those of one attempt and do not decide it,
    /// and that the outputs are of the current phase.
    ///
    /// # Panics
    ///
    /// If one of these does not hold. The message names the field and both values.
    pub fn check_invariants(&self) {
        let sends = self.outputs.iter().filter(|output| matches!(output, Output::Send { .. }));
        let (sends, outputs) = (sends.count(), self.outputs.len());
        let (ballot, quorum) = match &self.phase {
            ProposerPhase::Waiting { .. } | ProposerPhase::Decided { .. } => {
                assert_eq!(outputs, 0, "outputs.len() of a proposer that waits or is done");
                return;
            }
            ProposerPhase::Claiming => {
                assert!(sends == 0 && outputs <= 1, "outputs has {sends} sends, of {outputs}");
                return;
            }
            ProposerPhase::Preparing { ballot, quorum, .. } => {
                let own = self.local_index;
                assert!(quorum.granted.contains(&own), "granted lacks {own}, which claimed");
                (ballot, quorum)
            }
            ProposerPhase::Accepting { vote, quorum } => (&vote.ballot, quorum),
        };
        assert_eq!(ballot.round, self.last_used_round, "round, and last_used_round");
        assert_eq!(sends, outputs, "sends, and outputs.len(), of an attempt");
        quorum.check_invariants(self.servers);
    }

    fn check_after_change(&self) {
        self.checks.record();
        if self.checks.is_due(self.servers) {
            self.check_invariants();
        }
    }
}

#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::SeedableRng;

    use super::*;

    const SERVERS: usize = 5;

    fn proposer() -> Proposer {
        Proposer::new(0, SERVERS, Timing::default(), SmallRng::seed_from_u64(7))
    }

    fn ballot(round: u64) -> Ballot {
        Ballot { round, node: Arc::from("http://n0:1") }
    }

    fn vote(round: u64, bits: u128) -> Vote {
        let id = DeploymentId::from_bits(bits).expect("not nil");
        Vote { ballot: Ballot { round, node: Arc::from("http://n9:1") }, id }
    }

    fn promised(round: u64, accepted: Option<Vote>) -> Result<PaxosResponse, NoResponse> {
        Ok(PaxosResponse::Promised { ballot: ballot(round), accepted })
    }

    fn time_out(proposer: &mut Proposer) {
        let (epoch, _) = proposer.poll_timeout().expect("timer is set");
        proposer.handle_timeout(epoch);
    }

    fn outputs(proposer: &mut Proposer) -> Vec<Output> {
        std::iter::from_fn(|| proposer.poll_output()).collect()
    }

    /// Begins an attempt in this round.
    fn begin(proposer: &mut Proposer, round: u64) -> PaxosRequest {
        time_out(proposer);
        assert!(matches!(outputs(proposer)[..], [Output::Claim { .. }]));
        proposer.handle_claim(promised(round, None));
        let request = PaxosRequest::Prepare { ballot: ballot(round) };
        let others = (1..SERVERS).map(|to| Output::Send { to, request: request.clone() });
        assert_eq!(outputs(proposer), others.collect::<Vec<_>>());
        request
    }

    /// Returns the vote that the proposer asks all servers to accept.
    fn proposed(proposer: &mut Proposer) -> Vote {
        let outputs = outputs(proposer);
        assert_eq!(outputs.len(), SERVERS, "request to every server, itself included");
        match outputs.into_iter().next() {
            Some(Output::Send { request: PaxosRequest::Accept(vote), .. }) => vote,
            other => panic!("expected an accept request: {other:?}"),
        }
    }

    #[test]
    fn b63_vote_of_the_highest_ballot_is_proposed_again() {
        for votes in [[vote(2, 2), vote(1, 1)], [vote(1, 1), vote(2, 2)]] {
            let mut proposer = proposer();
            let prepare = begin(&mut proposer, 3);
            for (from, accepted) in (1..).zip(votes) {
                proposer.handle_response(from, &prepare, &promised(3, Some(accepted)));
            }
            let proposed = proposed(&mut proposer);
            assert_eq!((proposed.id, proposed.ballot), (vote(2, 2).id, ballot(3)));
        }
    }

    #[test]
    fn b63_responses_to_an_earlier_attempt_do_not_count() {
        let mut proposer = proposer();
        let earlier = begin(&mut proposer, 1);
        proposer.handle_response(1, &earlier, &promised(1, None));
        time_out(&mut proposer);
        let prepare = begin(&mut proposer, 2);
        for from in 1..SERVERS {
            proposer.handle_response(from, &earlier, &promised(1, None));
        }
        assert_eq!(outputs(&mut proposer), []);
        for from in 1..SERVERS {
            proposer.handle_response(from, &prepare, &promised(2, None));
        }
        let first = proposed(&mut proposer);
        time_out(&mut proposer);
        let prepare = begin(&mut proposer, 3);
        for from in 1..3 {
            proposer.handle_response(from, &prepare, &promised(3, None));
        }
        let second = proposed(&mut proposer);
        for from in 0..SERVERS {
            proposer.handle_response(
                from,
                &PaxosRequest::Accept(first.clone()),
                &Ok(PaxosResponse::Accepted),
            );
        }
        assert_eq!(proposer.decided(), None);
        for from in 0..3 {
            assert_eq!(proposer.decided(), None, "{from} of five have accepted");
            proposer.handle_response(
                from,
                &PaxosRequest::Accept(second.clone()),
                &Ok(PaxosResponse::Accepted),
            );
        }
        assert_eq!(proposer.decided(), Some(second.id));
    }

    #[test]
    fn b63_ballot_that_other_servers_have_seen_is_not_reused() {
        let mut proposer = proposer();
        begin(&mut proposer, 4);
        time_out(&mut proposer);
        time_out(&mut proposer);
        assert_eq!(outputs(&mut proposer).len(), 1, "claims another ballot");
        proposer.handle_claim(promised(4, None));
        assert_eq!(outputs(&mut proposer), []);
        assert!(proposer.is_waiting());
    }

    #[test]
    fn attempt_without_possible_majority_ends_and_the_next_one_is_higher() {
        let mut proposer = proposer();
        let prepare = begin(&mut proposer, 1);
        let refused = Ok(PaxosResponse::Refused { promised: vote(8, 1).ballot });
        proposer.handle_response(1, &prepare, &refused);
        proposer.handle_response(2, &prepare, &Err(NoResponse));
        assert!(!proposer.is_waiting(), "three of five could still promise");
        proposer.handle_response(3, &prepare, &Err(NoResponse));
        assert!(proposer.is_waiting());
        time_out(&mut proposer);
        assert_eq!(outputs(&mut proposer), [Output::Claim { above: 8 }]);
    }

    #[test]
    fn waits_between_attempts_grow_to_a_limit_and_are_jittered() {
        let mut proposer = proposer();
        let mut retry_ceiling = AGREE_RETRY_FIRST;
        for _ in 0..12 {
            time_out(&mut proposer);
            proposer.handle_claim(Err(NoResponse));
            let (_, wait) = proposer.poll_timeout().expect("retry timer is set");
            assert!(
                (retry_ceiling / 2..=retry_ceiling).contains(&wait),
                "{wait:?} of {retry_ceiling:?}"
            );
            retry_ceiling = (2 * retry_ceiling).min(AGREE_RETRY_MAX);
        }
    }

    #[test]
    fn decided_response_ends_the_proposer_in_any_state() {
        let id = vote(1, 9).id;
        let mut waiting = proposer();
        let prepare = PaxosRequest::Prepare { ballot: ballot(1) };
        waiting.handle_response(3, &prepare, &Ok(PaxosResponse::Decided { id }));
        let mut preparing = proposer();
        begin(&mut preparing, 1);
        preparing.handle_response(3, &prepare, &Ok(PaxosResponse::Decided { id }));
        for proposer in [waiting, preparing] {
            assert_eq!((proposer.decided(), proposer.poll_timeout()), (Some(id), None));
        }
    }
}
