//! How everything that an attempt may have got is released.

use std::sync::Arc;

use grid::time::Instant;

use super::seat::Vote;
use super::{Debt, End, Hold, Message, Output, Phase};

impl Hold {
    /// It is not held, and will not be. What was lost is not released yet: its holder has to learn of
    /// it first, and to come to an end, which may take longer than it takes others to get the lock. It
    /// is released when the holder [lets go](Hold::let_go), and lapses by itself.
    pub(super) fn end(&mut self, end: End, now: Instant) {
        self.phase = Phase::Ended(end);
        for locker in 0..self.seats.len() {
            self.stop_waiting(locker);
        }
        match end {
            End::Expired | End::Revoked => self.owe_all(now + self.config.limits.lease, now),
            End::Unlocked | End::GivenUp | End::TimedOut => self.release_all(now),
        }
    }

    /// Its holder has come to an end.
    pub(super) fn release_what_was_lost(&mut self, now: Instant) {
        let debts = self.seats.iter_mut().filter_map(|seat| seat.debt.as_mut());
        for debt in debts.filter(|debt| debt.tries == 0 && debt.call.is_none()) {
            debt.retry_at = now;
        }
        self.pay_debts(now);
    }

    pub(super) fn stop_waiting(&mut self, locker: usize) {
        if let Some(call) = self.seats[locker].wait.take() {
            self.out.push_back(Output::Cancel { call });
        }
    }

    /// Releases what the current attempt has got, and what it may get while an answer is under way.
    pub(super) fn release_all(&mut self, now: Instant) {
        self.owe_all(now, now);
        self.pay_debts(now);
    }

    /// Nothing of the current attempt counts any more, and all of it is to be released from `at` on.
    fn owe_all(&mut self, at: Instant, now: Instant) {
        let until = now + self.config.limits.lease;
        for locker in 0..self.seats.len() {
            let uid = Arc::clone(&self.uid);
            let seat = &mut self.seats[locker];
            if let Some(call) = seat.call.take() {
                self.out.push_back(Output::Cancel { call: call.id });
            }
            (seat.vote, seat.knows) = (Vote::None, None);
            if std::mem::take(&mut seat.may_hold) {
                debug_assert!(seat.debt.is_none(), "who owes is not asked");
                seat.debt = Some(Debt { uid, until, retry_at: at, tries: 0, call: None });
            }
        }
    }

    /// Asks to release what is due, and forgets what can stand no more.
    pub(super) fn pay_debts(&mut self, now: Instant) {
        for locker in 0..self.seats.len() {
            let Some(debt) = &self.seats[locker].debt else { continue };
            if debt.until <= now {
                let forgotten = self.seats[locker].debt.take().and_then(|debt| debt.call);
                self.out.extend(forgotten.map(|call| Output::Cancel { call }));
            } else if debt.call.is_none() && debt.retry_at <= now {
                let (uid, names) = (Arc::clone(&debt.uid), Some(self.config.names.clone()));
                let kind = self.config.kind;
                let call = self.send(locker, Message::Unlock { uid, names, kind });
                if let Some(debt) = &mut self.seats[locker].debt {
                    debt.call = Some(call);
                }
            }
        }
    }
}
