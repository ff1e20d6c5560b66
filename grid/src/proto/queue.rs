//! What may wait to be written, how much of it, and who waits in line for room.
//!
//! Data is admitted up to a limit and then waits in a line, first come, first served. Control
//! messages have a reserve beyond it and never wait: a full queue must not stop a cancellation or a
//! ping (B06).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::message::Outgoing;
use super::outbox::{Lane, Outbox, Transmit};
use crate::limits::Limits;

/// Frames to be written, and the line in front of them.
#[derive(Debug)]
pub(super) struct Queue<W> {
    outbox: Outbox,
    bytes_max: usize,
    control_bytes_max: usize,
    /// Who waits for room, by their place. There are never more than calls made and served, which
    /// are bounded.
    line: BTreeMap<u64, W>,
    next_place: u64,
}

/// A control message found even the reserve used up.
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
            line: BTreeMap::new(),
            next_place: 0,
        }
    }

    /// Queues data whose payload is `payload`, if there is room and nobody waits in line. Returns
    /// whether it was queued.
    pub(super) fn try_push(&mut self, message: &Outgoing<'_>, payload: Option<&Bytes>) -> bool {
        self.line.is_empty() && self.push_from_line(message, payload)
    }

    /// Queues data of whoever is first in line, if there is room. Returns whether it was queued.
    pub(super) fn push_from_line(
        &mut self,
        message: &Outgoing<'_>,
        payload: Option<&Bytes>,
    ) -> bool {
        if self.outbox.queued_bytes() + message.encoded_len() > self.bytes_max {
            return false;
        }
        match payload {
            Some(payload) => self.outbox.push_data(message, payload),
            None => self.outbox.push(Lane::InOrder, message),
        };
        true
    }

    /// Queues a control message.
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

    /// The last place in line.
    pub(super) fn stand_in_line(&mut self, who: W) -> u64 {
        let place = self.next_place;
        self.next_place += 1;
        self.line.insert(place, who);
        place
    }

    /// Whoever has this place does not wait any more.
    pub(super) fn leave_line(&mut self, place: u64) {
        self.line.remove(&place);
    }

    /// Who is first in line, and their place.
    pub(super) fn first_in_line(&self) -> Option<(u64, W)> {
        self.line.first_key_value().map(|(place, who)| (*place, *who))
    }

    /// The next frame to be written.
    pub(super) fn pop(&mut self) -> Option<Transmit> {
        self.outbox.pop()
    }

    /// Forgets everything and everybody. Returns the payloads that are not ours to drop.
    pub(super) fn clear(&mut self) -> Vec<Bytes> {
        self.line.clear();
        self.outbox.clear()
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Bytes of messages that wait to be written.
    pub(super) fn queued_bytes(&self) -> usize {
        self.outbox.queued_bytes()
    }

    /// How many wait in line.
    pub(super) fn line_len(&self) -> usize {
        self.line.len()
    }
}
