//! Acceptor: the durable promises and votes of one server.
//!
//! Every method returns the state that the server would *change to*. The change takes effect when
//! it is on disk, and only then the response is sent: a promise lost in a crash was never made.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Ballot, PaxosRequest, PaxosResponse, Vote};
use crate::deployment::id::DeploymentId;
use crate::limits::BALLOT_LEAD_MAX;

/// Durable state of an acceptor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptorState {
    /// Nothing is accepted in ballots lower than this.
    #[serde(default)]
    pub promised: Ballot,
    /// Vote that was accepted last.
    #[serde(default)]
    pub accepted: Option<Vote>,
    /// The decided id. The other fields have no meaning once it is set.
    #[serde(default)]
    pub decided: Option<DeploymentId>,
}

/// Result of handling a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Transition {
    /// State that must be on disk before the response is sent; `None` if it is there already.
    pub save: Option<AcceptorState>,
    /// Response to send.
    pub response: PaxosResponse,
}

impl AcceptorState {
    /// Promises this server's own next attempt, in a ballot that it never used before, higher than
    /// any known ballot and than round `above`.
    pub fn claim(&self, node: &Arc<str>, above: u64) -> Transition {
        if let Some(id) = self.decided {
            return response_without_save(PaxosResponse::Decided { id });
        }
        let above = above.min(self.promised.round.saturating_add(BALLOT_LEAD_MAX - 1));
        let round = self.promised.round.max(above).saturating_add(1);
        self.checked(self.promise(&Ballot { round, node: Arc::clone(node) }))
    }

    /// Handles a request of another server, or of this one.
    pub fn handle(&self, request: &PaxosRequest) -> Transition {
        self.checked(match (request, self.decided) {
            (PaxosRequest::Learn { id }, Some(ours)) if *id != ours => {
                response_without_save(PaxosResponse::Conflict { ours })
            }
            (_, Some(id)) => response_without_save(PaxosResponse::Decided { id }),
            (PaxosRequest::Learn { id }, None) => Transition {
                save: Some(Self { decided: Some(*id), ..self.clone() }),
                response: PaxosResponse::Decided { id: *id },
            },
            (PaxosRequest::Prepare { ballot }, None) => self.promise(ballot),
            (PaxosRequest::Accept(vote), None) => self.accept(vote),
        })
    }

    /// Checks that the vote is in a ballot that was promised.
    ///
    /// # Panics
    ///
    /// If it is not. The message names the fields and their values.
    pub fn check_invariants(&self) {
        let Some(vote) = &self.accepted else { return };
        let (promised, accepted) = (&self.promised, &vote.ballot);
        assert!(accepted <= promised, "accepted.ballot is {accepted:?}, promised is {promised:?}");
        assert!(accepted.round > 0, "accepted.ballot.round is 0, and no attempt is in round 0");
    }

    /// Checks in debug builds that a transition takes back neither promise nor vote nor decision.
    fn checked(&self, transition: Transition) -> Transition {
        if cfg!(debug_assertions)
            && let Some(next) = &transition.save
        {
            next.check_invariants();
            let (decided, next_decided) = (self.decided, next.decided);
            assert!(decided.is_none(), "decided is {decided:?}, and becomes {next_decided:?}");
            let (promised, next_promised) = (&self.promised, &next.promised);
            assert!(promised <= next_promised, "promised {promised:?} becomes {next_promised:?}");
            let [vote, next_vote] =
                [self, next].map(|state| state.accepted.as_ref().map(|vote| &vote.ballot));
            assert!(vote <= next_vote, "accepted.ballot {vote:?} becomes {next_vote:?}");
            assert_ne!(self, next, "only a changed state is saved");
        }
        transition
    }

    fn promise(&self, ballot: &Ballot) -> Transition {
        if !self.may_follow(ballot) {
            return response_without_save(PaxosResponse::Refused {
                promised: self.promised.clone(),
            });
        }
        let promised = Self { promised: ballot.clone(), ..self.clone() };
        let response =
            PaxosResponse::Promised { ballot: ballot.clone(), accepted: self.accepted.clone() };
        Transition { save: (promised != *self).then_some(promised), response }
    }

    fn accept(&self, vote: &Vote) -> Transition {
        if !self.may_follow(&vote.ballot) {
            return response_without_save(PaxosResponse::Refused {
                promised: self.promised.clone(),
            });
        }
        let accepted = Some(vote.clone());
        let accepted = Self { promised: vote.ballot.clone(), accepted, ..self.clone() };
        Transition {
            save: (accepted != *self).then_some(accepted),
            response: PaxosResponse::Accepted,
        }
    }

    /// Returns whether a ballot is at least as high as the promised one, and not implausibly
    /// higher.
    fn may_follow(&self, ballot: &Ballot) -> bool {
        let highest = self.promised.round.saturating_add(BALLOT_LEAD_MAX);
        *ballot >= self.promised && (1..=highest).contains(&ballot.round)
    }
}

fn response_without_save(response: PaxosResponse) -> Transition {
    Transition { save: None, response }
}

#[cfg(test)]
mod table_tests;
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

    /// Returns the state after a request, as it would be on disk, and the response.
    fn after(state: &AcceptorState, request: &PaxosRequest) -> (AcceptorState, PaxosResponse) {
        let Transition { save, response } = state.handle(request);
        (save.unwrap_or_else(|| state.clone()), response)
    }

    #[test]
    fn b63_nothing_is_accepted_below_the_promised_ballot() {
        let prepare = |round| PaxosRequest::Prepare { ballot: ballot(round, "b") };
        let (state, response) = after(&AcceptorState::default(), &prepare(2));
        assert_eq!(response, PaxosResponse::Promised { ballot: ballot(2, "b"), accepted: None });
        let refused = PaxosResponse::Refused { promised: ballot(2, "b") };
        for lower in [vote(1, "z", 1), vote(2, "a", 1)] {
            assert_eq!(
                state.handle(&PaxosRequest::Accept(lower)),
                response_without_save(refused.clone())
            );
        }
        assert_eq!(state.handle(&prepare(1)), response_without_save(refused));
        let (state, response) = after(&state, &PaxosRequest::Accept(vote(2, "b", 1)));
        assert_eq!((response, &state.accepted), (PaxosResponse::Accepted, &Some(vote(2, "b", 1))));
        let (_, response) = after(&state, &prepare(3));
        let accepted = Some(vote(2, "b", 1));
        assert_eq!(response, PaxosResponse::Promised { ballot: ballot(3, "b"), accepted });
    }

    #[test]
    fn b63_accepting_a_vote_promises_its_ballot() {
        let (state, response) =
            after(&AcceptorState::default(), &PaxosRequest::Accept(vote(5, "a", 1)));
        assert_eq!((response, &state.promised), (PaxosResponse::Accepted, &ballot(5, "a")));
        let refused = PaxosResponse::Refused { promised: ballot(5, "a") };
        assert_eq!(
            state.handle(&PaxosRequest::Accept(vote(4, "b", 2))),
            response_without_save(refused)
        );
    }

    #[test]
    fn b63_decided_id_stays_and_another_id_is_a_conflict() {
        let (state, response) =
            after(&AcceptorState::default(), &PaxosRequest::Learn { id: id(1) });
        assert_eq!((state.decided, response), (Some(id(1)), PaxosResponse::Decided { id: id(1) }));
        let conflict = PaxosResponse::Conflict { ours: id(1) };
        assert_eq!(
            state.handle(&PaxosRequest::Learn { id: id(2) }),
            response_without_save(conflict)
        );
        let known = response_without_save(PaxosResponse::Decided { id: id(1) });
        assert_eq!(state.handle(&PaxosRequest::Accept(vote(9, "b", 2))), known);
        assert_eq!(state.claim(&"a".into(), 0), known);
    }

    #[test]
    fn claim_is_higher_than_every_known_ballot_and_never_repeats() {
        let node: Arc<str> = "a".into();
        let mut state = AcceptorState { promised: ballot(7, "z"), ..AcceptorState::default() };
        let mut last = state.promised.clone();
        for above in [0, 3, 20, 5] {
            let step = state.claim(&node, above);
            let claimed = step.save.expect("a new promise needs a save");
            assert!(claimed.promised > last && claimed.promised.round > above);
            (last, state) = (claimed.promised.clone(), claimed);
        }
    }

    #[test]
    fn rounds_cannot_be_exhausted_by_one_request() {
        let state = AcceptorState::default();
        let implausible = PaxosRequest::Prepare { ballot: ballot(u64::MAX, "z") };
        assert!(matches!(state.handle(&implausible).response, PaxosResponse::Refused { .. }));
        let claimed = state.claim(&"a".into(), u64::MAX).save.expect("a new promise needs a save");
        assert!(claimed.promised.round <= BALLOT_LEAD_MAX);
        assert!(
            matches!(
                state.handle(&PaxosRequest::Prepare { ballot: Ballot::default() }).response,
                PaxosResponse::Refused { .. }
            ),
            "no attempt is in round 0"
        );
    }
}
