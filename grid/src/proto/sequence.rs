//! The sequence numbers of one direction of a stream ([P16]).
//!
//! [P16]: crate::protocol#p16

/// A counter whose number goes on the wire with 32 bits, and wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequence {
    next: u32,
    /// Messages counted so far: unlike the number, this does not wrap.
    messages: u64,
}

impl Sequence {
    /// Creates a counter whose next message has the number `first`.
    pub(super) const fn starting_at(first: u32) -> Self {
        Self { next: first, messages: 0 }
    }

    /// Returns the number of the next message.
    pub(super) const fn next(self) -> u32 {
        self.next
    }

    /// Takes the number of one message.
    pub(super) fn take(&mut self) -> u32 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.messages += 1;
        number
    }

    /// Checks that at least `in_flight` messages took a number, those whose credit is still used.
    pub(super) fn check_invariants(self, in_flight: u32, name: &str) {
        let Self { messages, .. } = self;
        assert!(
            messages >= u64::from(in_flight),
            "{name}.messages = {messages}, but {in_flight} of them are in flight"
        );
    }
}
