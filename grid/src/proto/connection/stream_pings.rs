//! Liveness of the other end of a stream: its caller pings, its callee expects pings ([B07]).
//!
//! [B07]: crate::rules#b07

use std::time::Duration;

use super::timers::Timer;
use super::{Connection, Initiator};
use crate::proto::end::End;
use crate::proto::inbound::{InboundState, InboundStream};
use crate::proto::message::{Flags, Header, Message, Op};
use crate::proto::outbound::{OutboundCall, OutboundState};
use crate::proto::payload::{self, PongPayload};
use crate::proto::stream;
use crate::time::{Instant, Timestamp};

impl<S> Connection<S> {
    pub(super) fn ping_stream(&mut self, mux_id: u64, now: Instant) {
        let max = self.limits.stream_pings_missed_by_caller_max;
        let Some(call) = self.outbound.get_mut(mux_id) else { return };
        match &mut call.state {
            OutboundState::Blocked { .. } | OutboundState::Sent => return,
            // Not sent yet: the connection's own pings check the peer's liveness.
            OutboundState::StreamBlocked { .. } => {}
            OutboundState::Stream { stream, .. } => {
                if stream.pings_without_pong >= max {
                    let missed = stream.pings_without_pong;
                    return self.end_and_notify_peer(mux_id, End::PingTimeout { missed });
                }
                stream.pings_without_pong += 1;
                let sequence = stream.next_sequence();
                self.control(Header { sequence, ..Header::new(mux_id, Op::Ping) }, &[]);
            }
        }
        if !self.is_closed {
            self.arm(now + self.limits.stream_ping_interval, Timer::StreamPing(mux_id));
        }
    }

    pub(super) fn handle_stream_ping(&mut self, header: &Header, now: Instant) {
        let mux_id = header.mux_id;
        let mut pong = PongPayload { not_found: false, error: None, t: Timestamp::default() };
        let checked = match self.inbound.get_mut(mux_id).map(|call| &mut call.state) {
            Some(InboundState::Stream(inbound_stream)) => {
                inbound_stream.stream.last_ping = now;
                inbound_stream.stream.check_sequence(header.sequence)
            }
            // Known, but not accepted or refused yet.
            Some(InboundState::Opening { pings, .. }) => {
                *pings = pings.wrapping_add(1); // it counts as a sequence number does (P16)
                stream::check_sequence(*pings, header.sequence)
            }
            Some(InboundState::Running | InboundState::Blocked { .. }) | None => {
                pong.not_found = true;
                Ok(())
            }
        };
        if let Err(violation) = checked {
            return self.fail_inbound(mux_id, violation);
        }
        let header = Header { op: Op::Pong, flags: Flags::NONE, ..*header };
        self.control(header, &payload::encode(&pong));
    }

    pub(super) fn handle_stream_pong(&mut self, message: &Message) {
        let mux_id = message.header.mux_id;
        let Some(stream) = self.outbound.stream_mut(mux_id) else {
            return self.send_disconnect_for_unknown_mux(message.header, Initiator::Local);
        };
        match payload::decode::<PongPayload>(&message.payload) {
            Err(error) => self.protocol_error(format!("malformed Pong: {error}")),
            Ok(PongPayload { error: Some(error), .. }) => {
                self.end_call(mux_id, End::RemoteError(error.into()));
            }
            Ok(PongPayload { not_found: true, .. }) => {
                if let Some(OutboundCall { slot, state: OutboundState::Stream { stream, .. } }) =
                    self.outbound.remove(mux_id)
                {
                    self.stream_ended(slot, *stream, End::NotFound);
                }
            }
            Ok(_) => stream.pings_without_pong = 0,
        }
    }

    /// Returns the longest wait for a ping: the last missed one is late after one more interval.
    fn stream_ping_timeout(&self) -> Duration {
        let intervals = self.limits.stream_pings_missed_by_callee_max.saturating_add(1);
        self.limits.stream_ping_interval.saturating_mul(intervals)
    }

    pub(super) fn arm_stream_ping_timeout(
        &mut self,
        mux_id: u64,
        serial: u64,
        deadline: Option<Instant>,
        now: Instant,
    ) {
        let until = now + self.stream_ping_timeout();
        if deadline.is_none_or(|deadline| deadline > until) {
            self.arm(until, Timer::StreamPingTimeout { mux_id, serial });
        }
    }

    pub(super) fn check_stream_ping_timeout(&mut self, mux_id: u64, serial: u64, now: Instant) {
        let stream_ping_timeout = self.stream_ping_timeout();
        let until = match self.inbound.stream_mut(mux_id) {
            Some(InboundStream { stream, .. }) => stream.last_ping + stream_ping_timeout,
            None => now, // not accepted in all this time
        };
        if until > now {
            return self.arm(until, Timer::StreamPingTimeout { mux_id, serial });
        }
        let missed = self.limits.stream_pings_missed_by_callee_max;
        self.remove_and_cancel_inbound(mux_id, End::PingTimeout { missed });
        let header = Header { flags: Flags::ERROR, ..Header::new(mux_id, Op::DisconnectClientMux) };
        let text = format!("no ping for {} s", stream_ping_timeout.as_secs());
        self.control(header, text.as_bytes());
    }
}
