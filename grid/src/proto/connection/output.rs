//! Output of a connection: frames from the queue, and room for its waiters.

use super::{Connection, QueueWaiter, UnblockResult};
use crate::proto::connection::CloseReason;
use crate::proto::message::{Checksum, Header, Outgoing};
use crate::proto::outbox::{Lane, Transmit};
use crate::proto::queue::Overrun;
use crate::time::Instant;

impl<S> Connection<S> {
    /// Returns the next frame to be written, and fills the freed room from the waiters.
    ///
    /// Call it until it returns `None` or the socket is full.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.checked(|connection| connection.next_transmit(now))
    }

    fn next_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let mut transmit = self.queue.pop()?;
        self.counters.messages_out += u64::from(transmit.messages);
        self.counters.bytes_out += transmit.frame_bytes() as u64;
        self.unblock_waiters(now);
        transmit.is_last = self.queue.is_empty();
        Some(transmit)
    }

    /// Queues the messages of waiters, in their order, as long as there is room. A message whose
    /// deadline has passed is not sent, even if its timer has not run yet ([B10], [P14]).
    ///
    /// [B10]: crate::rules#b10
    /// [P14]: crate::protocol#p14
    fn unblock_waiters(&mut self, now: Instant) {
        while let Some((position, waiter)) = self.queue.front_waiter() {
            let result = match waiter {
                QueueWaiter::Request(mux_id) => self.try_unblock_request(mux_id, now),
                QueueWaiter::Response(mux_id) => self.try_unblock_response(mux_id, now),
                QueueWaiter::Open(mux_id) => self.try_unblock_open(mux_id, now),
                QueueWaiter::Stream(id) => self.try_unblock_stream(id, now),
            };
            match result {
                UnblockResult::Dequeued => self.queue.remove_waiter(position),
                UnblockResult::NoRoom => return,
            }
        }
    }

    /// Queues a control message of a call. It never waits for room, but stays behind the queued
    /// messages of its call: a cancellation must not overtake its request.
    pub(super) fn control(&mut self, header: Header, payload: &[u8]) {
        let checksum = self.checksum;
        self.push_control(Lane::InOrder, Outgoing { header, payload, subroute: None, checksum });
    }

    /// Queues a message of the connection itself, ahead of all data.
    pub(super) fn urgent(&mut self, header: Header, payload: &[u8], checksum: Checksum) {
        self.push_control(Lane::Urgent, Outgoing { header, payload, subroute: None, checksum });
    }

    fn push_control(&mut self, lane: Lane, message: Outgoing<'_>) {
        if self.is_closed {
            return;
        }
        if let Err(Overrun { max }) = self.queue.push_control(lane, &message) {
            self.close_now(CloseReason::ControlOverrun { max });
        }
    }
}
