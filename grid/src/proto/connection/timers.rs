//! Timers of a connection: deadlines of calls, and the pings of streams and of the connection.

use super::Connection;
use crate::proto::end::End;
use crate::proto::event::CloseReason;
use crate::proto::message::{Checksum, Header, Op};
use crate::proto::payload;
use crate::proto::ping::PingAction;
use crate::time::{Instant, Timestamp};

/// Most timers per call: a stream has its deadline and its pings. With a smaller number, the sweep
/// of stale timers would walk over those of all streams and find few.
pub(super) const TIMERS_PER_CALL_MAX: usize = 2;

/// The key of a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    OutboundDeadline(u64),
    /// With a serial number: a peer may reuse an id, though it must not ([P9]). The timers of its
    /// earlier calls must then neither cut the new one short nor accumulate.
    ///
    /// [P9]: crate::protocol#p9
    InboundDeadline {
        mux_id: u64,
        serial: u64,
    },
    /// The next ping of an outbound stream.
    StreamPing(u64),
    /// The time by which an inbound stream must have been pinged.
    StreamPingTimeout {
        mux_id: u64,
        serial: u64,
    },
}

impl<S> Connection<S> {
    /// Returns the time at which [`handle_timeout`](Self::handle_timeout) should be called. It may
    /// be the deadline of a call that has ended; `handle_timeout` then has no work.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_closed {
            return None;
        }
        let ping = self.pinger.next_at();
        Some(self.deadlines.next().map_or(ping, |deadline| deadline.min(ping)))
    }

    /// Runs the timers that have expired at `now`. `wall` is sent in pings.
    pub fn handle_timeout(&mut self, now: Instant, wall: Timestamp) {
        self.checked(|connection| connection.run_timers(now, wall));
    }

    fn run_timers(&mut self, now: Instant, wall: Timestamp) {
        if self.is_closed {
            return;
        }
        while let Some(timer) = self.deadlines.pop_expired(now) {
            match timer {
                Timer::OutboundDeadline(mux_id) => self.expire_call(mux_id),
                Timer::InboundDeadline { mux_id, serial } => {
                    if self.inbound.is_live(mux_id, serial) {
                        self.remove_and_cancel_inbound(mux_id, End::DeadlineExceeded);
                    }
                }
                Timer::StreamPing(mux_id) => self.ping_stream(mux_id, now),
                Timer::StreamPingTimeout { mux_id, serial } => {
                    if self.inbound.is_live(mux_id, serial) {
                        self.check_stream_ping_timeout(mux_id, serial, now);
                    }
                }
            }
        }
        match self.pinger.handle_timeout(now, wall) {
            PingAction::Nothing => {}
            PingAction::Dead { missed } => self.close_now(CloseReason::PingTimeout { missed }),
            PingAction::Send { payload, interval_ms } => {
                let header = Header { deadline_ms: interval_ms, ..Header::new(0, Op::Ping) };
                self.urgent(header, &payload::encode(&payload), Checksum::Off); // P12
            }
        }
    }

    pub(super) fn arm(&mut self, at: Instant, timer: Timer) {
        let (outbound, inbound) = (&self.outbound, &self.inbound);
        let live = TIMERS_PER_CALL_MAX * (outbound.len() + inbound.len());
        self.deadlines.push(at, timer, live, |timer| match timer {
            Timer::OutboundDeadline(mux_id) | Timer::StreamPing(mux_id) => {
                outbound.contains(mux_id)
            }
            Timer::InboundDeadline { mux_id, serial }
            | Timer::StreamPingTimeout { mux_id, serial } => inbound.is_live(mux_id, serial),
        });
    }
}
