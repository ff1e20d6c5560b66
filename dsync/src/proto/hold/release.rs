//! How everything that an attempt may have got is released.

use std::sync::Arc;

use grid::time::Instant;

use super::seat::Vote;
use super::{Debt, End, Hold, Message, Output, Phase};

impl Hold {
    /// It is not held, and will not be.
    pub(super) fn end(&mut self, end: End, now: Instant) {
        self.phase = Phase::Ended(end);
        for locker in 0..self.seats.len() {
            self.stop_waiting(locker);
        }
        self.release_all(now);
    }

    pub(super) fn stop_waiting(&mut self, locker: usize) {
        if let Some(call) = self.seats[locker].wait.take() {
            self.out.push_back(Output::Cancel { call });
        }
    }

    /// Releases what the current attempt has got, and what it may get while an answer is under way.
    pub(super) fn release_all(&mut self, now: Instant) {
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
                seat.debt = Some(Debt { uid, until, retry_at: now, tries: 0, call: None });
            }
        }
        self.pay_debts(now);
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
