//! What one server has promised and accepted: the memory that makes an agreement last.
//!
//! Everything here says what the state would *become*. It becomes so when it is on disk, and only then
//! anybody is told: what a crash forgets was never promised.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Answer, Ballot, Request, Vote};
use crate::deployment::id::DeploymentId;
use crate::limits::BALLOT_LEAD_MAX;

/// What a server keeps of the deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Nothing is accepted in ballots lower than this.
    #[serde(default)]
    pub promised: Ballot,
    /// What was accepted last.
    #[serde(default)]
    pub accepted: Option<Vote>,
    /// What is decided. The rest has no meaning any more then.
    #[serde(default)]
    pub decided: Option<DeploymentId>,
}

/// What comes of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Step {
    /// What must be on disk before anybody hears the answer; `None` if that is there already.
    pub save: Option<State>,
    /// The answer.
    pub answer: Answer,
}

impl State {
    /// Promises this server's own next attempt: in a ballot that it never used before, higher than any
    /// that it knows of and than round `above`.
    pub fn claim(&self, node: &Arc<str>, above: u64) -> Step {
        if let Some(id) = self.decided {
            return Step { save: None, answer: Answer::Decided { id } };
        }
        let above = above.min(self.promised.round.saturating_add(BALLOT_LEAD_MAX - 1));
        let round = self.promised.round.max(above).saturating_add(1);
        self.promise(&Ballot { round, node: Arc::clone(node) })
    }

    /// What another server's question, or this one's own, comes to.
    pub fn handle(&self, request: &Request) -> Step {
        match (request, self.decided) {
            (Request::Learn { id }, Some(ours)) if *id != ours => answer(Answer::Conflict { ours }),
            (_, Some(id)) => answer(Answer::Decided { id }),
            (Request::Learn { id }, None) => Step {
                save: Some(Self { decided: Some(*id), ..self.clone() }),
                answer: Answer::Decided { id: *id },
            },
            (Request::Prepare { ballot }, None) => self.promise(ballot),
            (Request::Accept(vote), None) => self.accept(vote),
        }
    }

    fn promise(&self, ballot: &Ballot) -> Step {
        if !self.may_follow(ballot) {
            return answer(Answer::Refused { promised: self.promised.clone() });
        }
        let promised = Self { promised: ballot.clone(), ..self.clone() };
        let answer = Answer::Promised { ballot: ballot.clone(), accepted: self.accepted.clone() };
        Step { save: (promised != *self).then_some(promised), answer }
    }

    fn accept(&self, vote: &Vote) -> Step {
        if !self.may_follow(&vote.ballot) {
            return answer(Answer::Refused { promised: self.promised.clone() });
        }
        let accepted = Some(vote.clone());
        let accepted = Self { promised: vote.ballot.clone(), accepted, ..self.clone() };
        Step { save: (accepted != *self).then_some(accepted), answer: Answer::Accepted }
    }

    /// Whether a ballot is as high as what was promised, and not absurdly higher.
    fn may_follow(&self, ballot: &Ballot) -> bool {
        let highest = self.promised.round.saturating_add(BALLOT_LEAD_MAX);
        *ballot >= self.promised && (1..=highest).contains(&ballot.round)
    }
}

fn answer(answer: Answer) -> Step {
    Step { save: None, answer }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(round: u64, node: &str) -> Ballot {
        Ballot { round, node: node.into() }
    }

    fn id(bits: u128) -> DeploymentId {
        DeploymentId::from_bits(bits).expect("not nil")
    }

    fn vote(round: u64, node: &str, bits: u128) -> Vote {
        Vote { ballot: ballot(round, node), id: id(bits) }
    }

    /// The state after a question, as it would be on disk.
    fn after(state: &State, request: &Request) -> (State, Answer) {
        let Step { save, answer } = state.handle(request);
        (save.unwrap_or_else(|| state.clone()), answer)
    }

    #[test]
    fn b63_nothing_is_accepted_below_what_was_promised() {
        let prepare = |round| Request::Prepare { ballot: ballot(round, "b") };
        let (state, answer) = after(&State::default(), &prepare(2));
        assert_eq!(answer, Answer::Promised { ballot: ballot(2, "b"), accepted: None });
        let refused = Answer::Refused { promised: ballot(2, "b") };
        for lower in [vote(1, "z", 1), vote(2, "a", 1)] {
            assert_eq!(state.handle(&Request::Accept(lower)), self::answer(refused.clone()));
        }
        assert_eq!(state.handle(&prepare(1)), self::answer(refused));
        let (state, answer) = after(&state, &Request::Accept(vote(2, "b", 1)));
        assert_eq!((answer, &state.accepted), (Answer::Accepted, &Some(vote(2, "b", 1))));
        let (_, answer) = after(&state, &prepare(3));
        let accepted = Some(vote(2, "b", 1));
        assert_eq!(answer, Answer::Promised { ballot: ballot(3, "b"), accepted });
    }

    #[test]
    fn b63_whoever_accepts_has_promised() {
        let (state, answer) = after(&State::default(), &Request::Accept(vote(5, "a", 1)));
        assert_eq!((answer, &state.promised), (Answer::Accepted, &ballot(5, "a")));
        let refused = Answer::Refused { promised: ballot(5, "a") };
        assert_eq!(state.handle(&Request::Accept(vote(4, "b", 2))), self::answer(refused));
    }

    #[test]
    fn b63_what_is_decided_stays_and_whoever_says_otherwise_is_told() {
        let (state, answer) = after(&State::default(), &Request::Learn { id: id(1) });
        assert_eq!((state.decided, answer), (Some(id(1)), Answer::Decided { id: id(1) }));
        let conflict = Answer::Conflict { ours: id(1) };
        assert_eq!(state.handle(&Request::Learn { id: id(2) }), self::answer(conflict));
        let known = self::answer(Answer::Decided { id: id(1) });
        assert_eq!(state.handle(&Request::Accept(vote(9, "b", 2))), known);
        assert_eq!(state.claim(&"a".into(), 0), known);
    }

    #[test]
    fn a_claim_is_higher_than_everything_known_and_never_the_same_twice() {
        let node: Arc<str> = "a".into();
        let mut state = State { promised: ballot(7, "z"), ..State::default() };
        let mut last = state.promised.clone();
        for above in [0, 3, 20, 5] {
            let step = state.claim(&node, above);
            let claimed = step.save.expect("it must be on disk");
            assert!(claimed.promised > last && claimed.promised.round > above);
            (last, state) = (claimed.promised.clone(), claimed);
        }
    }

    #[test]
    fn rounds_cannot_be_used_up_at_once() {
        let state = State::default();
        let absurd = Request::Prepare { ballot: ballot(u64::MAX, "z") };
        assert!(matches!(state.handle(&absurd).answer, Answer::Refused { .. }));
        let claimed = state.claim(&"a".into(), u64::MAX).save.expect("it must be on disk");
        assert!(claimed.promised.round <= BALLOT_LEAD_MAX);
        assert!(
            matches!(
                state.handle(&Request::Prepare { ballot: Ballot::default() }).answer,
                Answer::Refused { .. }
            ),
            "no attempt is in round 0"
        );
    }
}
