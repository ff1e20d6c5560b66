//! How calls and streams end, on either side ([P14], [P18]).
//!
//! Each end has one function per direction: it removes the call from the table, the waiter from the queue, and emits
//! the event. What the peer must be sent is added by the function that knows the cause.
//!
//! [P14]: crate::protocol#p14
//! [P18]: crate::protocol#p18

use super::Connection;
use crate::proto::end::End;
use crate::proto::event::Event;
use crate::proto::inbound::{InboundCall, InboundState, InboundStream};
use crate::proto::message::{Flags, Header, Message, Op};
use crate::proto::outbound::{self, OutboundCall, OutboundState};
use crate::proto::stream::Stream;
use crate::time::Instant;

impl<S> Connection<S> {
    /// Ends an outbound call with its response. A stream has no Response.
    pub(super) fn handle_response(&mut self, message: Message) {
        let mux_id = message.header.mux_id;
        match self.outbound.get(mux_id).map(|call| &call.state) {
            Some(OutboundState::Stream { .. }) => self.skip(message.header),
            Some(OutboundState::Sent) => {
                if let Some(OutboundCall { slot, .. }) = self.outbound.remove(mux_id) {
                    let outcome = outbound::outcome_of_response(message);
                    self.events.push_back(Event::CallEnded { slot, outcome });
                }
            }
            // The peer has not received this call, or the call is gone: as in `end_call`.
            Some(OutboundState::Blocked { .. } | OutboundState::StreamBlocked { .. }) | None => {}
        }
    }

    /// Ends an outbound call that the peer regards as ended. A call that is gone needs no reply: a
    /// late message carries EOF or refers to no call ([P18]).
    ///
    /// [P18]: crate::protocol#p18
    pub(super) fn end_call(&mut self, mux_id: u64, end: End) {
        match self.outbound.get(mux_id).map(|call| &call.state) {
            // The peer has not received this call: no message of the peer can end it.
            Some(OutboundState::Blocked { .. } | OutboundState::StreamBlocked { .. }) | None => {}
            Some(OutboundState::Sent | OutboundState::Stream { .. }) => {
                if let Some(call) = self.outbound.remove(mux_id) {
                    self.call_ended(call, end);
                }
            }
        }
    }

    /// Emits the end of an outbound call or stream that has been removed.
    pub(super) fn call_ended(&mut self, call: OutboundCall<S>, end: End) {
        let OutboundCall { slot, state } = call;
        match state {
            OutboundState::Blocked { position, request } => {
                self.queue.remove_waiter(position);
                self.retired_payloads.push(request.payload);
                self.events.push_back(Event::CallEnded { slot, outcome: Err(end) });
            }
            OutboundState::Sent => {
                self.events.push_back(Event::CallEnded { slot, outcome: Err(end) });
            }
            OutboundState::StreamBlocked { stream, open, position } => {
                self.queue.remove_waiter(position);
                self.retired_payloads.extend(open.payload);
                self.stream_ended(slot, *stream, end);
            }
            OutboundState::Stream { stream, .. } => self.stream_ended(slot, *stream, end),
        }
    }

    pub(super) fn stream_ended(&mut self, slot: S, stream: Stream, end: End) {
        if let Some(position) = stream.position {
            self.queue.remove_waiter(position);
        }
        let (rest, waiting) = stream.into_received();
        self.retired_payloads.extend(waiting);
        self.events.push_back(Event::StreamEnded { slot, rest, end });
    }

    /// Cancels a removed outbound call, and notifies the callee if the call was sent.
    pub(super) fn cancel_outbound(&mut self, mux_id: u64, call: OutboundCall<S>) {
        match call.state {
            OutboundState::Blocked { position, request } => {
                self.queue.remove_waiter(position);
                self.retired_payloads.push(request.payload);
            }
            OutboundState::StreamBlocked { stream, open, position } => {
                self.queue.remove_waiter(position);
                self.retired_payloads.extend(open.payload);
                self.stream_ended(call.slot, *stream, End::Cancelled);
            }
            OutboundState::Sent => self.send_disconnect_server_mux(mux_id),
            OutboundState::Stream { stream, .. } => {
                self.stream_ended(call.slot, *stream, End::Cancelled);
                self.send_disconnect_server_mux(mux_id);
            }
        }
    }

    pub(super) fn send_disconnect_server_mux(&mut self, mux_id: u64) {
        self.control(Header::new(mux_id, Op::DisconnectServerMux), &[]);
    }

    /// Handles a DisconnectClientMux: the callee ended the call, or no longer has it. A callee
    /// drops a stream silently at its deadline, and its clock may be slightly fast. A message sent
    /// to it then provokes a disconnect without a reason ([P18]). In that case the end is the
    /// deadline.
    ///
    /// [P18]: crate::protocol#p18
    pub(super) fn handle_remote_end(&mut self, message: &Message, now: Instant) {
        let mux_id = message.header.mux_id;
        let has_reason = message.header.flags.contains(Flags::ERROR);
        let stream = self.outbound.stream_mut(mux_id);
        let may_have_expired = stream.is_some_and(|stream| stream.may_have_expired_remotely(now));
        let end = match (has_reason, may_have_expired) {
            (false, true) => End::DeadlineExceeded,
            _ => outbound::end_of_disconnect(message),
        };
        self.end_call(mux_id, end);
    }

    /// Cancels an inbound call whose result is no longer needed. Does nothing if it has ended.
    pub(super) fn remove_and_cancel_inbound(&mut self, mux_id: u64, end: End) {
        if let Some(call) = self.inbound.remove(mux_id) {
            self.cancel_inbound(mux_id, call, end);
        }
    }

    pub(super) fn cancel_inbound(&mut self, mux_id: u64, call: InboundCall<S>, end: End) {
        match call.state {
            InboundState::Running | InboundState::Opening { .. } => {
                self.events.push_back(Event::Cancel { mux_id });
            }
            InboundState::Blocked { position, response } => {
                self.queue.remove_waiter(position);
                self.retired_payloads.extend(response);
                self.events.push_back(Event::ResponseRetired { mux_id });
            }
            InboundState::Stream(inbound_stream) => {
                let InboundStream { slot, stream } = *inbound_stream;
                let is_handler_running = stream.is_handler_running();
                self.stream_ended(slot, stream, end);
                self.events.push_back(if is_handler_running {
                    Event::Cancel { mux_id }
                } else {
                    Event::ResponseRetired { mux_id }
                });
            }
        }
    }

    pub(super) fn expire_call(&mut self, mux_id: u64) {
        self.end_and_notify_peer(mux_id, End::DeadlineExceeded);
    }

    /// Ends an outbound call for a local reason, and notifies the callee if the call was sent.
    pub(super) fn end_and_notify_peer(&mut self, mux_id: u64, end: End) {
        let Some(call) = self.outbound.remove(mux_id) else { return };
        let is_sent = call.state.is_sent();
        self.call_ended(call, end);
        if is_sent {
            self.send_disconnect_server_mux(mux_id);
        }
    }
}
