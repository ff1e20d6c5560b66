//! A server that does not know the id, and gets the servers to decide one.
//!
//! It says whom to ask what, and for how long it waits; `agree` asks and waits. Randomness is handed in.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use rand::RngExt;
use rand::rngs::SmallRng;

use super::{Answer, Ballot, Request, Vote};
use crate::deployment::id::DeploymentId;
use crate::limits::{
    AGREE_ATTEMPT_TIMEOUT, AGREE_RETRY_FIRST, AGREE_RETRY_MAX, AGREE_SPREAD_PER_SERVER,
    BALLOT_LEAD_MAX,
};

/// How long the proposer waits for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// See [`AGREE_ATTEMPT_TIMEOUT`].
    pub attempt_timeout: Duration,
    /// See [`AGREE_RETRY_FIRST`].
    pub retry_first: Duration,
    /// See [`AGREE_RETRY_MAX`].
    pub retry_max: Duration,
    /// See [`AGREE_SPREAD_PER_SERVER`].
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

/// What the proposer wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Have this server itself promise an attempt above this round, on disk: the ballot is used by nobody
    /// else then, not even by this server after a crash.
    Claim {
        /// The round.
        above: u64,
    },
    /// Ask a server.
    Send {
        /// Its index among the servers. This one's own among them.
        to: usize,
        /// What it is asked.
        request: Request,
    },
}

/// A server did not answer what it was asked. It may have done it all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAnswer;

/// An attempt to decide, and the waits between attempts.
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
/// Whoever answers that the id is decided ends it in any state. `Claiming` exists because a ballot that
/// others have heard of must not be used for another id after a crash: it is on disk first.
#[derive(Debug)]
pub struct Proposer {
    /// This server's index.
    me: usize,
    servers: usize,
    timing: Timing,
    rng: SmallRng,
    /// What is proposed, where nothing was accepted yet.
    candidate: DeploymentId,
    /// The highest round that somebody refused this server for.
    seen: u64,
    /// The last round that this proposer asked others about. It is never used again.
    used: u64,
    /// The longest that the next wait may be.
    ceiling: Duration,
    /// Counts the states, so that a timer which was set in an earlier one does nothing.
    epoch: u64,
    phase: Phase,
    out: VecDeque<Output>,
}

#[derive(Debug)]
enum Phase {
    Waiting { wait: Duration },
    Claiming,
    Preparing { ballot: Ballot, poll: Poll, highest: Option<Vote> },
    Accepting { vote: Vote, poll: Poll },
    Decided { id: DeploymentId },
}

/// Who has answered.
#[derive(Debug, Default)]
struct Poll {
    yes: BTreeSet<usize>,
    no: BTreeSet<usize>,
}

impl Poll {
    fn has_answered(&self, server: usize) -> bool {
        self.yes.contains(&server) || self.no.contains(&server)
    }
}

impl Proposer {
    /// A proposer for server `me` of so many. It waits at first, for a moment that differs from server to
    /// server.
    pub fn new(me: usize, servers: usize, timing: Timing, mut rng: SmallRng) -> Self {
        debug_assert!(me < servers, "one of the servers");
        let candidate = DeploymentId::from_random(rng.random());
        let others = u32::try_from(servers.saturating_sub(1)).unwrap_or(u32::MAX);
        let spread = timing.spread_per_server.saturating_mul(others);
        let wait = spread.mul_f64(rng.random::<f64>());
        let ceiling = timing.retry_first;
        let (phase, out) = (Phase::Waiting { wait }, VecDeque::new());
        let (seen, used, epoch) = (0, 0, 0);
        Self { me, servers, timing, rng, candidate, seen, used, ceiling, epoch, phase, out }
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// How long to wait from when this was first returned, and which call of
    /// [`handle_timeout`](Self::handle_timeout) to make then; `None` once it is decided.
    pub fn poll_timeout(&self) -> Option<(u64, Duration)> {
        match &self.phase {
            Phase::Waiting { wait } => Some((self.epoch, *wait)),
            Phase::Claiming | Phase::Preparing { .. } | Phase::Accepting { .. } => {
                Some((self.epoch, self.timing.attempt_timeout))
            }
            Phase::Decided { .. } => None,
        }
    }

    /// Whether no attempt is under way.
    pub fn is_waiting(&self) -> bool {
        matches!(self.phase, Phase::Waiting { .. })
    }

    /// What was decided.
    pub fn decided(&self) -> Option<DeploymentId> {
        match self.phase {
            Phase::Decided { id } => Some(id),
            Phase::Waiting { .. }
            | Phase::Claiming
            | Phase::Preparing { .. }
            | Phase::Accepting { .. } => None,
        }
    }

    /// A wait is over.
    pub fn handle_timeout(&mut self, epoch: u64) {
        if epoch != self.epoch {
            return;
        }
        match self.phase {
            Phase::Waiting { .. } => {
                self.enter(Phase::Claiming);
                self.out.push_back(Output::Claim { above: self.seen });
            }
            Phase::Claiming | Phase::Preparing { .. } | Phase::Accepting { .. } => self.back_off(),
            Phase::Decided { .. } => {}
        }
    }

    /// This server itself has promised an attempt, or not.
    pub fn handle_claim(&mut self, answer: Result<Answer, NoAnswer>) {
        match answer {
            Ok(Answer::Decided { id }) => self.decide(id),
            Ok(Answer::Promised { ballot, accepted })
                if matches!(self.phase, Phase::Claiming) && ballot.round > self.used =>
            {
                self.used = ballot.round;
                self.ask(&Request::Prepare { ballot: ballot.clone() }, Some(self.me));
                let poll = Poll { yes: BTreeSet::from([self.me]), no: BTreeSet::new() };
                self.enter(Phase::Preparing { ballot, poll, highest: accepted });
                self.count();
            }
            Ok(_) | Err(NoAnswer) if matches!(self.phase, Phase::Claiming) => self.back_off(),
            Ok(_) | Err(NoAnswer) => {} // of an earlier attempt
        }
    }

    /// A server has answered what it was asked, or has not.
    pub fn handle_answer(
        &mut self,
        from: usize,
        asked: &Request,
        answer: &Result<Answer, NoAnswer>,
    ) {
        if let Ok(Answer::Decided { id }) = answer {
            return self.decide(*id);
        }
        let (ballot, accepted) = match asked {
            Request::Prepare { ballot } => (ballot, false),
            Request::Accept(vote) => (&vote.ballot, true),
            Request::Learn { .. } => return,
        };
        if let Ok(Answer::Refused { promised }) = answer {
            // No further ahead than others would follow.
            let highest = ballot.round.saturating_add(BALLOT_LEAD_MAX - 1);
            self.seen = self.seen.max(promised.round.min(highest));
        }
        let poll = match &mut self.phase {
            Phase::Preparing { ballot: current, poll, highest }
                if !accepted && current == ballot =>
            {
                if let Ok(Answer::Promised { accepted: Some(vote), .. }) = answer
                    && highest.as_ref().is_none_or(|highest| highest.ballot < vote.ballot)
                {
                    *highest = Some(vote.clone());
                }
                poll
            }
            Phase::Accepting { vote, poll } if accepted && vote.ballot == *ballot => poll,
            // Of an earlier attempt, or too late for this one.
            Phase::Preparing { .. }
            | Phase::Accepting { .. }
            | Phase::Waiting { .. }
            | Phase::Claiming
            | Phase::Decided { .. } => return,
        };
        if poll.has_answered(from) {
            return;
        }
        match answer {
            Ok(Answer::Promised { .. }) if !accepted => poll.yes.insert(from),
            Ok(Answer::Accepted) if accepted => poll.yes.insert(from),
            Ok(_) | Err(NoAnswer) => poll.no.insert(from),
        };
        self.count();
    }

    /// Goes on if a majority has said yes, and gives up if none can any more.
    fn count(&mut self) {
        let majority = self.servers / 2 + 1;
        let (Phase::Preparing { poll, .. } | Phase::Accepting { poll, .. }) = &self.phase else {
            return;
        };
        if poll.yes.len() < majority {
            if self.servers - poll.no.len() < majority {
                self.back_off();
            }
            return;
        }
        match &self.phase {
            Phase::Preparing { ballot, highest, .. } => {
                // What may have been decided already is what is proposed.
                let id = highest.as_ref().map_or(self.candidate, |vote| vote.id);
                let vote = Vote { ballot: ballot.clone(), id };
                self.ask(&Request::Accept(vote.clone()), None);
                self.enter(Phase::Accepting { vote, poll: Poll::default() });
            }
            Phase::Accepting { vote, .. } => self.decide(vote.id),
            Phase::Waiting { .. } | Phase::Claiming | Phase::Decided { .. } => {}
        }
    }

    /// Asks all servers but one.
    fn ask(&mut self, request: &Request, except: Option<usize>) {
        for to in (0..self.servers).filter(|to| Some(*to) != except) {
            self.out.push_back(Output::Send { to, request: request.clone() });
        }
    }

    fn decide(&mut self, id: DeploymentId) {
        if self.decided().is_none() {
            self.enter(Phase::Decided { id });
            self.out.clear();
        }
    }

    /// Waits before the next attempt: in the upper half of a span that doubles with each.
    fn back_off(&mut self) {
        let wait = self.ceiling.mul_f64(0.5 + 0.5 * self.rng.random::<f64>());
        self.ceiling = (self.ceiling * 2).min(self.timing.retry_max);
        self.out.clear();
        self.enter(Phase::Waiting { wait });
    }

    fn enter(&mut self, phase: Phase) {
        self.epoch += 1;
        self.phase = phase;
    }
}

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

    fn promised(round: u64, accepted: Option<Vote>) -> Result<Answer, NoAnswer> {
        Ok(Answer::Promised { ballot: ballot(round), accepted })
    }

    fn time_out(proposer: &mut Proposer) {
        let (epoch, _) = proposer.poll_timeout().expect("it waits for something");
        proposer.handle_timeout(epoch);
    }

    fn outputs(proposer: &mut Proposer) -> Vec<Output> {
        std::iter::from_fn(|| proposer.poll_output()).collect()
    }

    /// Begins an attempt in this round.
    fn begin(proposer: &mut Proposer, round: u64) -> Request {
        time_out(proposer);
        assert!(matches!(outputs(proposer)[..], [Output::Claim { .. }]));
        proposer.handle_claim(promised(round, None));
        let request = Request::Prepare { ballot: ballot(round) };
        let others = (1..SERVERS).map(|to| Output::Send { to, request: request.clone() });
        assert_eq!(outputs(proposer), others.collect::<Vec<_>>());
        request
    }

    /// What it asks all servers to accept.
    fn proposed(proposer: &mut Proposer) -> Vote {
        let outputs = outputs(proposer);
        assert_eq!(outputs.len(), SERVERS, "all of them, itself too");
        match outputs.into_iter().next() {
            Some(Output::Send { request: Request::Accept(vote), .. }) => vote,
            other => panic!("it proposes nothing: {other:?}"),
        }
    }

    #[test]
    fn b63_what_was_accepted_in_the_highest_ballot_is_proposed_again() {
        for votes in [[vote(2, 2), vote(1, 1)], [vote(1, 1), vote(2, 2)]] {
            let mut proposer = proposer();
            let prepare = begin(&mut proposer, 3);
            for (from, accepted) in (1..).zip(votes) {
                proposer.handle_answer(from, &prepare, &promised(3, Some(accepted)));
            }
            let proposed = proposed(&mut proposer);
            assert_eq!((proposed.id, proposed.ballot), (vote(2, 2).id, ballot(3)));
        }
    }

    #[test]
    fn b63_answers_to_an_earlier_attempt_do_not_count() {
        let mut proposer = proposer();
        let earlier = begin(&mut proposer, 1);
        proposer.handle_answer(1, &earlier, &promised(1, None));
        time_out(&mut proposer);
        let prepare = begin(&mut proposer, 2);
        for from in 1..SERVERS {
            proposer.handle_answer(from, &earlier, &promised(1, None));
        }
        assert_eq!(outputs(&mut proposer), []);
        for from in 1..SERVERS {
            proposer.handle_answer(from, &prepare, &promised(2, None));
        }
        let first = proposed(&mut proposer);
        time_out(&mut proposer);
        let prepare = begin(&mut proposer, 3);
        for from in 1..3 {
            proposer.handle_answer(from, &prepare, &promised(3, None));
        }
        let second = proposed(&mut proposer);
        for from in 0..SERVERS {
            proposer.handle_answer(from, &Request::Accept(first.clone()), &Ok(Answer::Accepted));
        }
        assert_eq!(proposer.decided(), None);
        for from in 0..3 {
            assert_eq!(proposer.decided(), None, "{from} of five have accepted");
            proposer.handle_answer(from, &Request::Accept(second.clone()), &Ok(Answer::Accepted));
        }
        assert_eq!(proposer.decided(), Some(second.id));
    }

    #[test]
    fn b63_a_ballot_that_others_have_heard_of_is_not_used_again() {
        let mut proposer = proposer();
        begin(&mut proposer, 4);
        time_out(&mut proposer);
        time_out(&mut proposer);
        assert_eq!(outputs(&mut proposer).len(), 1, "it claims another");
        proposer.handle_claim(promised(4, None));
        assert_eq!(outputs(&mut proposer), []);
        assert!(proposer.is_waiting());
    }

    #[test]
    fn an_attempt_ends_as_soon_as_no_majority_is_left_and_the_next_one_is_higher() {
        let mut proposer = proposer();
        let prepare = begin(&mut proposer, 1);
        let refused = Ok(Answer::Refused { promised: vote(8, 1).ballot });
        proposer.handle_answer(1, &prepare, &refused);
        proposer.handle_answer(2, &prepare, &Err(NoAnswer));
        assert!(!proposer.is_waiting(), "three of five could still promise");
        proposer.handle_answer(3, &prepare, &Err(NoAnswer));
        assert!(proposer.is_waiting());
        time_out(&mut proposer);
        assert_eq!(outputs(&mut proposer), [Output::Claim { above: 8 }]);
    }

    #[test]
    fn waits_between_attempts_grow_up_to_a_limit_and_are_jittered() {
        let mut proposer = proposer();
        let mut ceiling = AGREE_RETRY_FIRST;
        for _ in 0..12 {
            time_out(&mut proposer);
            proposer.handle_claim(Err(NoAnswer));
            let (_, wait) = proposer.poll_timeout().expect("it tries again");
            assert!((ceiling / 2..=ceiling).contains(&wait), "{wait:?} of {ceiling:?}");
            ceiling = (2 * ceiling).min(AGREE_RETRY_MAX);
        }
    }

    #[test]
    fn whoever_says_that_it_is_decided_ends_it_in_any_state() {
        let id = vote(1, 9).id;
        let mut waiting = proposer();
        let prepare = Request::Prepare { ballot: ballot(1) };
        waiting.handle_answer(3, &prepare, &Ok(Answer::Decided { id }));
        let mut preparing = proposer();
        begin(&mut preparing, 1);
        preparing.handle_answer(3, &prepare, &Ok(Answer::Decided { id }));
        for proposer in [waiting, preparing] {
            assert_eq!((proposer.decided(), proposer.poll_timeout()), (Some(id), None));
        }
    }
}
