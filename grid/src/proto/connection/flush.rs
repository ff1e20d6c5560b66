//! What streams send: credits, messages and ends, as far as there is credit and room ([P17]).
//!
//! `proto::stream` decides what comes next; this module queues it, and enqueues a waiter where there is no room.
//!
//! [P17]: crate::protocol#p17

use super::UnblockResult::{self, Dequeued, NoRoom};
use super::{Connection, QueueWaiter};
use crate::proto::end::End;
use crate::proto::event::Event;
use crate::proto::inbound::{InboundCall, InboundState, InboundStream};
use crate::proto::queue::Push;
use crate::proto::stream::{NextSend, StreamId, StreamSide};
use crate::time::Instant;

/// The items that flushing a stream has queued.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Flushed {
    has_sent: bool,
    has_ended: bool,
}

/// Whether more is left to be sent than there was room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
enum Rest {
    Nothing,
    NoRoom,
}

/// Whether a stream is already the front waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QueuePosition {
    New,
    Front,
}

impl<S> Connection<S> {
    /// Queues what a stream may send, as far as there is room for it.
    pub(super) fn flush_stream(&mut self, id: StreamId) -> Flushed {
        // A waiting stream is flushed when there is room. One without a message need not wait.
        let Some(stream) = self.stream_mut(id) else { return Flushed::default() };
        match (stream.position, stream.next_send()) {
            (Some(position), None) => {
                stream.position = None;
                self.queue.remove_waiter(position);
                Flushed::default()
            }
            (Some(_), Some(_)) | (None, None) => Flushed::default(),
            (None, Some(_)) => {
                let (flushed, rest) = self.push_all(id, QueuePosition::New);
                if rest == Rest::NoRoom {
                    let position = self.queue.enqueue_waiter(QueueWaiter::Stream(id));
                    if let Some(stream) = self.stream_mut(id) {
                        stream.position = Some(position);
                    }
                }
                flushed
            }
        }
    }

    pub(super) fn flush_and_emit(&mut self, id: StreamId) {
        let flushed = self.flush_stream(id);
        self.emit_flushed(id, &flushed);
    }

    pub(super) fn try_unblock_stream(&mut self, id: StreamId, now: Instant) -> UnblockResult {
        let deadline = match id.side {
            StreamSide::Callee => self.inbound.get(id.mux_id).and_then(|call| call.deadline),
            StreamSide::Caller => None, // its own timer expires it, and the callee has one too
        };
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.remove_and_cancel_inbound(id.mux_id, End::DeadlineExceeded);
            return Dequeued;
        }
        let (flushed, rest) = self.push_all(id, QueuePosition::Front);
        if rest == Rest::Nothing
            && let Some(stream) = self.stream_mut(id)
        {
            stream.position = None;
        }
        self.emit_flushed(id, &flushed);
        match rest {
            Rest::Nothing => Dequeued,
            Rest::NoRoom => NoRoom,
        }
    }

    /// Queues until nothing is left or there is no room.
    fn push_all(&mut self, id: StreamId, position: QueuePosition) -> (Flushed, Rest) {
        let Self { outbound, inbound, queue, retired_payloads, checksum, .. } = self;
        let mut flushed = Flushed::default();
        let stream = match id.side {
            StreamSide::Caller => outbound.stream_mut(id.mux_id),
            StreamSide::Callee => inbound.stream_mut(id.mux_id).map(|call| &mut call.stream),
        };
        let Some(stream) = stream else { return (flushed, Rest::Nothing) };
        while let Some(next) = stream.next_send() {
            let (message, payload) = stream.outgoing(next, id.mux_id, *checksum);
            let push = match position {
                QueuePosition::New => queue.try_push(&message, payload),
                QueuePosition::Front => queue.push_for_waiter(&message, payload),
            };
            match push {
                Push::NoRoom => return (flushed, Rest::NoRoom),
                Push::Queued => {}
            }
            retired_payloads.extend(stream.mark_sent(next));
            match next {
                NextSend::Credit => {}
                NextSend::Message => flushed.has_sent = true,
                NextSend::End | NextSend::Abort => flushed.has_ended = true,
            }
        }
        (flushed, Rest::Nothing)
    }

    fn emit_flushed(&mut self, id: StreamId, flushed: &Flushed) {
        if flushed.has_ended && id.side == StreamSide::Callee {
            self.inbound_stream_finished(id.mux_id);
        } else if flushed.has_sent || flushed.has_ended {
            self.events.push_back(Event::Writable(id));
        }
    }

    /// Removes an inbound stream whose end was queued.
    fn inbound_stream_finished(&mut self, mux_id: u64) {
        if let Some(InboundCall { state: InboundState::Stream(inbound_stream), .. }) =
            self.inbound.remove(mux_id)
        {
            let InboundStream { slot, stream } = *inbound_stream;
            self.stream_ended(slot, stream, End::Finished);
            self.events.push_back(Event::ResponseRetired { mux_id });
        }
    }
}
