//! Invariants of a hold: its phase agrees with what it knows of each locker.

use std::collections::BTreeSet;

use super::locker_state::{LockerState, PendingRelease, Vote};
use super::{Hold, Output, Phase, RpcId};
use crate::proto::quorum::quorum;

impl Hold {
    /// Checks the invariants as often as the number of lockers permits. To be called at the end of
    /// each public method that changes the hold.
    pub(super) fn check_after_change(&mut self) {
        if self.checks.is_due_after_operation(self.lockers.len()) {
            self.check_invariants();
        }
    }

    /// Checks that all parts of the hold agree with each other.
    ///
    /// # Panics
    ///
    /// If they do not: the message names the field, and has both values.
    pub fn check_invariants(&self) {
        let lockers = self.lockers.len();
        assert_eq!(lockers, self.config.lockers, "Hold.lockers, HoldConfig.lockers");
        let needed = quorum(lockers, self.config.kind);
        assert_eq!(self.quorum, needed, "Hold.quorum of {lockers} lockers");
        let stats = self.stats;
        let refused = stats.in_conflict + stats.queued_ahead + stats.not_ready + stats.list_differs;
        let counted = stats.granted + refused + stats.unreachable + stats.not_waited_for;
        assert_eq!(counted, stats.lockers, "AttemptStats counts {counted} lockers: {stats:?}");
        self.check_attempt();
        self.check_votes();
        for (index, state) in self.lockers.iter().enumerate() {
            self.check_locker(index, state);
        }
        self.check_rpcs();
        let (timer, is_finished) = (self.poll_timeout(), self.is_finished());
        assert_eq!(timer.is_none(), is_finished, "Hold timer {timer:?}, {:?}", self.phase);
    }

    /// Checks that the ids are those of the latest attempt.
    fn check_attempt(&self) {
        let attempts = self.stats.attempts;
        let uid = format!("{}.{attempts}", self.config.id);
        assert_eq!(*self.uid, *uid, "Hold.uid in attempt {attempts}");
        let request = self.request.as_ref().map(|request| (&*request.uid, request.quorum));
        assert_eq!(request, Some((&*uid, self.quorum)), "Hold.request in attempt {attempts}");
    }

    /// Checks that the votes suffice for the phase, or still can.
    fn check_votes(&self) {
        let count = |holds: &dyn Fn(&LockerState) -> bool| {
            self.lockers.iter().filter(|state| holds(state)).count()
        };
        let votes = count(&|state| state.vote != Vote::None);
        let outstanding = count(&|state| state.rpc.is_some());
        let (phase, quorum) = (self.phase, self.quorum);
        match phase {
            Phase::Voting { .. } => {
                assert!(
                    votes + outstanding >= quorum || self.awaits_ticket_time(),
                    "{phase:?}: {votes} votes, {outstanding} outstanding, quorum {quorum}"
                );
                let confirmed = count(&|state| state.confirmed_token.is_some());
                assert_eq!(confirmed, 0, "LockerState.confirmed_token in {phase:?}");
            }
            Phase::Fencing { token, .. } => {
                let known = count(&|s| s.confirmed_token == Some(token) && s.vote != Vote::None);
                assert!(
                    known + outstanding >= quorum,
                    "{phase:?}: {known} know it, {outstanding} outstanding, quorum {quorum}"
                );
            }
            Phase::Held { .. } => {
                assert!(votes >= quorum, "{phase:?}: {votes} votes, quorum {quorum}");
            }
            Phase::Waiting { .. } | Phase::Ended(_) => {
                assert_eq!((votes, outstanding), (0, 0), "(votes, outstanding) in {phase:?}");
            }
        }
    }

    /// Checks what is known of one locker.
    fn check_locker(&self, index: usize, state: &LockerState) {
        let (phase, may_have_granted) = (self.phase, state.may_have_granted);
        let is_over = matches!(phase, Phase::Waiting { .. } | Phase::Ended(_));
        assert!(
            !(is_over && may_have_granted),
            "LockerState.may_have_granted of {index}: {may_have_granted} in {phase:?}"
        );
        let is_involved = state.vote != Vote::None || state.rpc.is_some();
        assert!(
            may_have_granted || !is_involved,
            "LockerState.may_have_granted of {index}: {may_have_granted}, {:?}, {:?}",
            state.vote,
            state.rpc
        );
        let is_acquiring = !matches!(phase, Phase::Held { .. } | Phase::Ended(_));
        assert!(
            is_acquiring || (state.wait_rpc.is_none() && state.wait_at.is_none()),
            "LockerState.wait_rpc of {index}: {:?}, {:?} in {phase:?}",
            state.wait_rpc,
            state.wait_at
        );
        assert!(
            self.ticket.is_some() || (state.wait_rpc.is_none() && !state.may_be_queued),
            "LockerState.wait_rpc of {index}: {:?} without a ticket",
            state.wait_rpc
        );
        assert!(
            state.is_ours() || state.confirmed_token.is_none(),
            "LockerState.confirmed_token of {index}: {:?} of {:?}",
            state.confirmed_token,
            state.family
        );
        let Some(release) = &state.pending_release else { return };
        let PendingRelease { uid, rpc, is_sent, lock_rpc, .. } = release;
        assert!(
            !may_have_granted,
            "LockerState.pending_release of {index}: {uid}, while {} may be granted",
            self.uid
        );
        assert!(is_over || *uid != self.uid, "PendingRelease.uid of {index}: {uid} in {phase:?}");
        assert!(
            lock_rpc.is_none() || rpc.is_none(),
            "PendingRelease.rpc of {index}: {rpc:?} overtakes {lock_rpc:?}"
        );
        assert!(*is_sent || rpc.is_none(), "PendingRelease.is_sent of {index}: {is_sent}, {rpc:?}");
    }

    /// Checks that each outstanding RPC has an id of its own, of those that were used.
    fn check_rpcs(&self) {
        let mut ids = BTreeSet::new();
        for (index, state) in self.lockers.iter().enumerate() {
            let releases = state.pending_release.iter().flat_map(PendingRelease::rpcs);
            let others = [
                state.rpc.map(|rpc| rpc.id),
                state.wait_rpc,
                state.ticket_cancel.map(|cancel| cancel.rpc),
            ];
            for RpcId(id) in releases.chain(others.into_iter().flatten()) {
                assert!(ids.insert(id), "RpcId {id} of {index} is used twice");
            }
        }
        let sent = self.out.iter().filter_map(|output| match output {
            Output::Send { rpc: RpcId(id), .. } => Some(*id),
            Output::Cancel { .. } => None,
        });
        let (latest, next) = (ids.last().copied().max(sent.max()), self.next_rpc);
        assert!(latest < Some(next), "Hold.next_rpc {next}, latest in use {latest:?}");
    }
}
