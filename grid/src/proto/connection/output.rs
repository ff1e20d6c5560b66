//! What a connection sends: frames out of the queue, and room for those who wait in line.

use super::{Blocked, Connection};
use crate::proto::connection::CloseReason;
use crate::proto::message::{Checksum, Header, Outgoing};
use crate::proto::outbox::{Lane, Transmit};
use crate::proto::queue::Overrun;
use crate::time::Instant;

impl<S> Connection<S> {
    /// The next frame to be written, and room for those who wait for it.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let mut transmit = self.queue.pop()?;
        self.counters.messages_out += u64::from(transmit.messages);
        self.counters.bytes_out += transmit.frame_bytes() as u64;
        self.unblock(now);
        transmit.is_last = self.queue.is_empty();
        Some(transmit)
    }

    /// Encodes those who wait, in their order, as long as there is room. Those who waited beyond
    /// their deadline are not sent, also where its timer has not run yet (B10, P14).
    fn unblock(&mut self, now: Instant) {
        while let Some((place, who)) = self.queue.first_in_line() {
            let is_out_of_line = match who {
                Blocked::Request(mux_id) => self.unblock_request(mux_id, now),
                Blocked::Answer(mux_id) => self.unblock_answer(mux_id, now),
                Blocked::Open(mux_id) => self.unblock_open(mux_id, now),
                Blocked::Stream(id) => self.unblock_stream(id, now),
            };
            if !is_out_of_line {
                return;
            }
            self.queue.leave_line(place);
        }
    }

    /// Queues a control message of a call. It never waits for room, but stays behind what its call
    /// has queued: a cancellation must not overtake its request.
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
            self.close(CloseReason::ControlOverrun { max });
        }
    }
}
