//! Model of one stream: what each end sent and received, and how it ended.
//!
//! The model knows of each end which messages were sent, which one waits, and how many of the
//! other end's it has received, but nothing of how the machines do it. A received message is
//! compared with the list of sent ones, position by position. So a gap, a duplicate, a wrong order,
//! another stream's message and an empty message in the wrong position are all noticed.

use bytes::Bytes;
use grid::proto::connection::{Capacities, End, StreamId, StreamSide};
use grid::time::Instant;

use super::operation::EndpointId;

/// Slots of the callees' ends begin here, those of the callers' ends at 0.
pub(super) const CALLEE_SLOTS: usize = 1 << 20;

/// A stream in the model. Its index there is its token.
#[derive(Debug)]
pub struct Stream {
    pub(super) caller: EndpointId,
    pub(super) mux_id: u64,
    pub(super) payload: Option<Bytes>,
    pub(super) deadline: Option<Instant>,
    /// The deadline by the callee's clock.
    pub(super) callee_deadline: Option<Instant>,
    pub(super) capacities: Capacities,
    pub(super) callee_state: CalleeState,
    pub(super) is_acknowledged: bool,
    pub(super) is_cancelled: bool,
    /// Whether the stream was cancelled before its opening message was sent: the callee must never
    /// receive it.
    pub(super) never_sent: bool,
    /// The handler's result, or the refusal, which the caller must see.
    pub(super) expected_end: Option<ExpectedEnd>,
    pub(super) caller_half: StreamHalf,
    pub(super) callee_half: StreamHalf,
}

/// The callee's progress with a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CalleeState {
    /// The opening message has not arrived.
    Unknown,
    /// Accepted or refused: not decided yet.
    Undecided,
    /// Its handler runs, or has returned.
    Accepted,
    /// The callee refused it.
    Refused,
    /// It ended before the decision.
    Dropped,
}

/// The end that the caller must see, unless the stream ends before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ExpectedEnd {
    End(End),
    /// An error that reports an error above the size limit.
    TooLarge,
}

/// One end of a stream.
#[derive(Debug, Default)]
pub(super) struct StreamHalf {
    /// Messages sent, in their order.
    pub(super) sent: Vec<Bytes>,
    /// The submitted message that waits.
    pub(super) waiting: Option<Bytes>,
    /// A message that waited when the handler's error ended the stream: it was sent before the
    /// error if there was credit for it, and was overtaken if there was none (B24). Only the other
    /// end can distinguish the two.
    pub(super) maybe_sent: Option<Bytes>,
    /// Number of messages ever submitted.
    pub(super) submitted: usize,
    /// Whether this end has finished sending.
    pub(super) is_finished: bool,
    /// Number of the other end's messages received here.
    pub(super) received: usize,
    /// Whether this end discards its input.
    pub(super) is_discarding: bool,
    /// Whether the receiver found nothing, and has not been notified since.
    pub(super) is_receiver_waiting: bool,
    /// How it ended, once it has.
    pub(super) end: Option<End>,
    /// Whether the handler was notified of the end of the stream, or that its response was retired.
    pub(super) is_handler_notified: bool,
    /// Whether its handler returned after the deadline.
    pub(super) is_late: bool,
    pub(super) wire: WireCounters,
}

/// Counters of what one end of a stream has sent, as seen on the wire.
#[derive(Debug, Default)]
pub(super) struct WireCounters {
    pub(super) messages: u32,
    /// Messages and ends, each of which uses a credit.
    pub(super) data: usize,
    /// Credits granted.
    pub(super) credits: usize,
}

impl Stream {
    pub(super) fn half(&self, side: StreamSide) -> &StreamHalf {
        match side {
            StreamSide::Caller => &self.caller_half,
            StreamSide::Callee => &self.callee_half,
        }
    }

    pub(super) fn half_mut(&mut self, side: StreamSide) -> &mut StreamHalf {
        match side {
            StreamSide::Caller => &mut self.caller_half,
            StreamSide::Callee => &mut self.callee_half,
        }
    }

    /// Asserts that a stream which only its handler and its caller could end ended as they
    /// requested, and with every message that they sent ([B23]).
    ///
    /// # Panics
    ///
    /// If it did not.
    ///
    /// [B23]: crate::rules#b23
    pub fn assert_ended_as_requested(&self) {
        let end = self.caller_half.end.as_ref();
        if self.is_cancelled {
            assert_eq!(end, Some(&End::Cancelled));
            return;
        }
        match &self.expected_end {
            // It was not accepted for as long as pings may be missed.
            None if self.callee_state == CalleeState::Dropped => {
                assert!(matches!(end, Some(End::RemoteError(_))), "{self:?}");
            }
            Some(ExpectedEnd::End(expected)) => assert_eq!(end, Some(expected), "{self:?}"),
            Some(ExpectedEnd::TooLarge) => assert!(matches!(end, Some(End::RemoteError(_)))),
            None => panic!("ended for no reason, {end:?}: {self:?}"),
        }
        let callee_is_live = self.callee_state == CalleeState::Accepted;
        let is_finished = self.callee_half.end == Some(End::Finished);
        assert!(is_finished || !callee_is_live, "{self:?}");
        let sent_count = self.callee_half.sent.len();
        assert!(
            self.caller_half.received == sent_count || self.caller_half.is_discarding,
            "{self:?}"
        );
    }

    /// Whether one end of it is live.
    pub(super) fn is_live(&self, side: StreamSide) -> bool {
        let exists = side == StreamSide::Caller || self.callee_state == CalleeState::Accepted;
        exists && self.half(side).end.is_none()
    }

    /// Returns the endpoint of one side of the stream.
    pub(super) fn endpoint_id_of(&self, side: StreamSide) -> EndpointId {
        match side {
            StreamSide::Caller => self.caller,
            StreamSide::Callee => self.caller.other(),
        }
    }

    pub(super) fn id(&self, side: StreamSide) -> StreamId {
        StreamId { side, mux_id: self.mux_id }
    }

    /// Returns the number of messages that may be in flight from one end of it.
    pub(super) fn capacity_from(&self, side: StreamSide) -> usize {
        let capacity = match side {
            StreamSide::Caller => self.capacities.input,
            StreamSide::Callee => self.capacities.output,
        };
        capacity as usize
    }

    /// Checks that a received message is the next that the other end sent (B22).
    pub(super) fn assert_next(&mut self, side: StreamSide, payload: &Bytes) {
        let nth = self.half(side).received;
        let sender = self.half_mut(other_side(side));
        if nth == sender.sent.len() {
            sender.sent.extend(sender.maybe_sent.take());
        }
        let expected = self.half(other_side(side)).sent.get(nth);
        assert_eq!(Some(payload), expected, "message {nth}, in order and unchanged (B22)");
        assert!(!self.half(side).is_discarding, "the input is discarded");
        self.half_mut(side).received += 1;
    }

    /// Records that a message was sent from one end of it.
    pub(super) fn record_sent(&mut self, side: StreamSide, payload: Bytes) {
        assert!(
            self.is_acknowledged || side == StreamSide::Callee,
            "before the acknowledgement (P15)"
        );
        let capacity = self.capacity_from(side);
        let half = self.half_mut(side);
        half.sent.push(payload);
        let sent_count = half.sent.len();
        let receiver = self.half(other_side(side));
        let in_flight = sent_count - receiver.received;
        assert!(in_flight <= capacity || receiver.is_discarding, "{in_flight} in flight (B21)");
    }

    /// Returns whether the handler returned an error.
    pub(super) fn has_failed(&self) -> bool {
        !matches!(self.expected_end, None | Some(ExpectedEnd::End(End::Finished)))
    }

    /// Records that the message that waited at one end, if any, was sent.
    pub(super) fn record_waiting_sent(&mut self, side: StreamSide) {
        if let Some(payload) = self.half_mut(side).waiting.take() {
            self.record_sent(side, payload);
        }
    }
}

pub(super) fn other_side(side: StreamSide) -> StreamSide {
    match side {
        StreamSide::Caller => StreamSide::Callee,
        StreamSide::Callee => StreamSide::Caller,
    }
}
