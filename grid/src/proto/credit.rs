//! Flow control for one direction of a stream (P17, B21).
//!
//! A sender may have as many messages under way as the receiving side was registered for, and gets
//! one back with each message that is taken there. This module only counts; what is sent and who
//! waits is `stream`'s business.

/// What a sender may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SendCredit {
    available: u32,
    capacity: u32,
    is_granted: bool,
}

impl SendCredit {
    /// Nothing may be sent until it is granted.
    pub(super) const fn none(capacity: u32) -> Self {
        Self { available: 0, capacity, is_granted: false }
    }

    /// All of the capacity may be sent.
    pub(super) const fn full(capacity: u32) -> Self {
        Self { available: capacity, capacity, is_granted: true }
    }

    /// All of the capacity was granted. Only the first time: a peer that says it again has not
    /// got more room by that.
    pub(super) fn grant_all(&mut self) {
        if !self.is_granted {
            self.is_granted = true;
            self.available = self.capacity;
        }
    }

    /// One message was taken on the other side. A credit beyond the capacity, or before anything
    /// was granted (existing peers may send one), is worth nothing: a peer must never be sent more
    /// than it has room for.
    pub(super) fn grant_one(&mut self) {
        if self.is_granted {
            self.available = self.capacity.min(self.available.saturating_add(1));
        }
    }

    pub(super) const fn is_available(self) -> bool {
        self.available > 0
    }

    pub(super) fn consume(&mut self) {
        debug_assert!(self.is_available(), "checked before");
        self.available = self.available.saturating_sub(1);
    }
}

/// What the sender on the other side has used of what this side granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReceiveCredit {
    used: u32,
    /// Taken here, and not yet given back.
    owed: u32,
    capacity: u32,
}

/// More came than was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exceeded;

impl ReceiveCredit {
    pub(super) const fn new(capacity: u32) -> Self {
        Self { used: 0, owed: 0, capacity }
    }

    /// A message came in.
    pub(super) fn receive(&mut self) -> Result<(), Exceeded> {
        if self.used >= self.capacity {
            return Err(Exceeded);
        }
        self.used += 1;
        Ok(())
    }

    /// A message was taken: its credit is to be given back.
    pub(super) fn take(&mut self) {
        debug_assert!(self.owed < self.used, "only what came in can be taken");
        self.owed += 1;
    }

    /// Whether a credit is to be given back.
    pub(super) const fn is_owed(self) -> bool {
        self.owed > 0
    }

    /// A credit was given back.
    pub(super) fn give_back(&mut self) {
        debug_assert!(self.is_owed(), "checked before");
        self.owed = self.owed.saturating_sub(1);
        self.used = self.used.saturating_sub(1);
    }

    /// The sender is done: it needs no credit any more.
    pub(super) fn forgive(&mut self) {
        self.owed = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b21_a_sender_has_what_was_granted_and_no_more() {
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
    fn p17_credits_beyond_the_capacity_are_worth_nothing() {
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
    fn p17_a_message_beyond_the_credit_is_an_error_until_one_was_given_back() {
        let mut credit = ReceiveCredit::new(1);
        assert_eq!(credit.receive(), Ok(()));
        assert_eq!(credit.receive(), Err(Exceeded));
        credit.take();
        assert_eq!(credit.receive(), Err(Exceeded), "taken, but the sender cannot know it yet");
        credit.give_back();
        assert_eq!(credit.receive(), Ok(()));
    }
}
