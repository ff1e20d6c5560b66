//! The bounded send queue of a connection, and the waiters for room in it.
//!
//! Data is admitted up to a limit; beyond it, its senders wait in first-come, first-served order.
//! Control messages have a reserve beyond the limit and never wait: a full queue must not stop a
//! cancellation or a ping ([B06]).
//!
//! [B06]: crate::rules#b06

use std::collections::BTreeMap;

use bytes::Bytes;

use super::message::Outgoing;
use super::outbox::{Lane, Outbox, Transmit};
use crate::limits::Limits;

/// Frames to be written, and the waiters for room.
#[derive(Debug)]
pub(super) struct Queue<W> {
    outbox: Outbox,
    bytes_max: usize,
    control_bytes_max: usize,
    /// Waiters for room, by position. Bounded, because each belongs to an outbound or inbound call.
    waiters: BTreeMap<u64, W>,
    next_position: u64,
}

/// The result of queueing data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Push {
    /// The message is queued.
    Queued,
    /// The queue is full, or earlier messages wait for room: the message must wait too.
    NoRoom,
}

/// The reserve for control messages is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overrun {
    pub(super) max: usize,
}

impl<W: Copy> Queue<W> {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            outbox: Outbox::new(limits.frame_bytes_target.min(limits.message_bytes_max)),
            bytes_max: limits.queue_bytes_max,
            control_bytes_max: limits.control_bytes_max,
            waiters: BTreeMap::new(),
            next_position: 0,
        }
    }

    /// Queues data whose payload is `payload`, if there is room and no waiter.
    pub(super) fn try_push(&mut self, message: &Outgoing<'_>, payload: Option<&Bytes>) -> Push {
        if self.waiters.is_empty() { self.push_for_waiter(message, payload) } else { Push::NoRoom }
    }

    /// Queues data of the front waiter, if there is room.
    pub(super) fn push_for_waiter(
        &mut self,
        message: &Outgoing<'_>,
        payload: Option<&Bytes>,
    ) -> Push {
        if self.outbox.queued_bytes() + message.encoded_len() > self.bytes_max {
            return Push::NoRoom;
        }
        match payload {
            Some(payload) => self.outbox.push_data(message, payload),
            None => self.outbox.push(Lane::InOrder, message),
        };
        Push::Queued
    }

    /// Queues a control message.
    ///
    /// # Errors
    ///
    /// [`Overrun`] if even the reserve has no room.
    pub(super) fn push_control(
        &mut self,
        lane: Lane,
        message: &Outgoing<'_>,
    ) -> Result<(), Overrun> {
        let max = self.control_bytes_max;
        if self.outbox.queued_bytes() + message.encoded_len() > self.bytes_max + max {
            return Err(Overrun { max });
        }
        self.outbox.push(lane, message);
        Ok(())
    }

    /// Appends a waiter and returns its position.
    pub(super) fn enqueue_waiter(&mut self, waiter: W) -> u64 {
        let position = self.next_position;
        self.next_position += 1;
        self.waiters.insert(position, waiter);
        position
    }

    /// Removes the waiter at a position.
    pub(super) fn remove_waiter(&mut self, position: u64) {
        self.waiters.remove(&position);
    }

    /// Returns the front waiter and its position.
    pub(super) fn front_waiter(&self) -> Option<(u64, W)> {
        self.waiters.first_key_value().map(|(position, waiter)| (*position, *waiter))
    }

    /// Takes the next frame to be written.
    pub(super) fn pop(&mut self) -> Option<Transmit> {
        self.outbox.pop()
    }

    /// Discards all frames and waiters. Returns the payloads that the caller must drop.
    pub(super) fn clear(&mut self) -> Vec<Bytes> {
        self.waiters.clear();
        self.outbox.clear()
    }

    /// Whether no frame is queued.
    pub(super) fn is_empty(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Returns the bytes of the queued messages.
    pub(super) fn queued_bytes(&self) -> usize {
        self.outbox.queued_bytes()
    }

    /// Returns the waiters with their positions, in their order.
    pub(super) fn waiters(&self) -> impl Iterator<Item = (u64, W)> {
        self.waiters.iter().map(|(position, waiter)| (*position, *waiter))
    }

    /// Returns the number of queued frames.
    pub(super) fn frames(&self) -> usize {
        self.outbox.frames()
    }

    /// Checks what must hold between two operations.
    pub(super) fn check_invariants(&self) {
        self.outbox.check_invariants();
        let queued = self.outbox.queued_bytes();
        let max = self.bytes_max + self.control_bytes_max;
        assert!(queued <= max, "outbox.queued_bytes = {queued} exceeds the limits' {max}");
        if let Some((last, _)) = self.waiters.last_key_value() {
            let next = self.next_position;
            assert!(*last < next, "the last waiter is at {last}, queue.next_position = {next}");
        }
        // A waiter is served when a frame leaves: with none, it would wait for ever (B06).
        let waiters = self.waiters.len();
        assert!(waiters == 0 || !self.is_empty(), "queue.waiters = {waiters} with no frame queued");
    }

    /// Returns the number of waiters.
    pub(super) fn waiters_len(&self) -> usize {
        self.waiters.len()
    }
}
