//! Flow control for one direction of a stream ([P17], [B21]).
//!
//! A sender may have as many messages in flight as the receiver's handler was registered for, and
//! regains one credit for each message consumed there. This module only counts; `stream` chooses
//! what to send.
//!
//! [B21]: crate::rules#b21
//! [P17]: crate::protocol#p17

use super::counter;

/// The number of messages that the local sender may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SendCredit {
    available: u32,
    capacity: u32,
    is_granted: bool,
}

impl SendCredit {
    /// Creates a credit of zero, to be granted by the peer later.
    pub(super) const fn none(capacity: u32) -> Self {
        Self { available: 0, capacity, is_granted: false }
    }

    /// Creates a credit of the whole capacity.
    pub(super) const fn full(capacity: u32) -> Self {
        Self { available: capacity, capacity, is_granted: true }
    }

    /// Grants the whole capacity. Only the first call has an effect: a peer that repeats its grant
    /// has no more room.
    pub(super) fn grant_all(&mut self) {
        if !self.is_granted {
            self.is_granted = true;
            self.available = self.capacity;
        }
    }

    /// Grants one message, which the peer has consumed. A credit beyond the capacity, or before the
    /// first grant (MinIO peers may send one), is ignored: a peer must never be sent more than
    /// it has room for.
    pub(super) fn grant_one(&mut self) {
        if self.is_granted && self.available < self.capacity {
            self.available += 1;
        }
    }

    pub(super) const fn is_available(self) -> bool {
        self.available > 0
    }

    /// Returns the number of messages whose credit has not come back.
    pub(super) const fn in_flight(self) -> u32 {
        if self.is_granted { self.capacity.saturating_sub(self.available) } else { 0 }
    }

    pub(super) fn consume(&mut self) {
        counter::subtract(&mut self.available, 1, "send_credit.available");
    }

    /// Checks what must hold between two operations.
    pub(super) fn check_invariants(self) {
        let Self { available, capacity, is_granted } = self;
        assert!(
            available <= capacity,
            "send_credit.available = {available} exceeds send_credit.capacity = {capacity}"
        );
        assert!(
            is_granted || available == 0,
            "send_credit.available = {available} before the grant"
        );
    }
}

/// The part of the granted credit that the remote sender has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReceiveCredit {
    used: u32,
    /// Credits of consumed messages that are not returned yet.
    to_return: u32,
    capacity: u32,
}

/// The peer sent more messages than its credit allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CreditExceeded;

impl ReceiveCredit {
    pub(super) const fn new(capacity: u32) -> Self {
        Self { used: 0, to_return: 0, capacity }
    }

    /// Returns the number of messages whose credit was not returned.
    pub(super) const fn in_flight(self) -> u32 {
        self.used
    }

    /// Counts an incoming message.
    pub(super) fn receive(&mut self) -> Result<(), CreditExceeded> {
        if self.used >= self.capacity {
            return Err(CreditExceeded);
        }
        self.used += 1;
        Ok(())
    }

    /// Counts a consumed message, whose credit is to be returned.
    pub(super) fn mark_consumed(&mut self) {
        debug_assert!(self.to_return < self.used, "only a received message can be consumed");
        self.to_return += 1;
    }

    /// Whether a credit is to be returned.
    pub(super) const fn has_credit_to_return(self) -> bool {
        self.to_return > 0
    }

    /// Records that one credit was returned.
    pub(super) fn return_one(&mut self) {
        counter::subtract(&mut self.to_return, 1, "receive_credit.to_return");
        counter::subtract(&mut self.used, 1, "receive_credit.used");
    }

    /// Checks what must hold between two operations. `unread` is the number of messages that were
    /// received and not consumed.
    pub(super) fn check_invariants(self, unread: usize, is_closed: bool) {
        let Self { used, to_return, capacity } = self;
        assert!(
            used <= capacity,
            "receive_credit.used = {used} exceeds receive_credit.capacity = {capacity}"
        );
        let held = unread + to_return as usize;
        if is_closed {
            assert_eq!(to_return, 0, "receive_credit.to_return after the end of the input");
            assert!(unread <= used as usize, "received = {unread}, receive_credit.used = {used}");
        } else {
            assert_eq!(
                used as usize, held,
                "receive_credit.used, and received = {unread} plus to_return = {to_return}"
            );
        }
    }

    /// Drops the credits to be returned: the sender has finished and needs none.
    pub(super) fn close(&mut self) {
        self.to_return = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b21_a_sender_may_send_exactly_the_granted_credit() {
        let mut credit = SendCredit::none(2);
        assert!(!credit.is_available());
        credit.grant_all();
        credit.consume();
        credit.consume();
        assert!(!credit.is_available());
        credit.grant_one();
        assert!(credit.is_available());
    }

    #[test]
    fn p17_credits_beyond_the_capacity_are_ignored() {
        let mut credit = SendCredit::full(1);
        credit.grant_one();
        credit.grant_one();
        credit.consume();
        assert!(!credit.is_available());

        let mut early = SendCredit::none(1);
        early.grant_one();
        assert!(!early.is_available(), "a credit before the acknowledgement (P15)");
        early.grant_all();
        early.consume();
        early.grant_all();
        assert!(!early.is_available(), "a second acknowledgement");
    }

    #[test]
    fn p17_a_message_beyond_the_credit_is_an_error_until_a_credit_returns() {
        let mut credit = ReceiveCredit::new(1);
        assert_eq!(credit.receive(), Ok(()));
        assert_eq!(credit.receive(), Err(CreditExceeded));
        credit.mark_consumed();
        assert_eq!(
            credit.receive(),
            Err(CreditExceeded),
            "consumed, but the credit is not returned yet"
        );
        credit.return_one();
        assert_eq!(credit.receive(), Ok(()));
    }
}
