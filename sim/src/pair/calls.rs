//! Single requests: their model, and the actions of their callers and handlers.

use std::time::Duration;

use bytes::Bytes;
use grid::error::HandlerError;
use grid::proto::connection::{CallOutcome, End, Request, Respond, Slot, StartError};
use grid::proto::subroute::SubrouteId;
use grid::time::Instant;

use super::Pair;
use super::operation::{EndpointId, MESSAGE_BYTES_MAX, ReplyKind, pick};

/// Bytes of the token at the start of a payload.
pub(super) const TOKEN_BYTES: usize = size_of::<usize>();

/// A call in the model. Its index there is its token and its slot.
#[derive(Debug)]
pub struct Call {
    pub(super) caller: EndpointId,
    pub(super) mux_id: u64,
    pub(super) payload: Bytes,
    pub(super) deadline: Instant,
    /// The deadline by the callee's clock.
    pub(super) callee_deadline: Option<Instant>,
    /// How the call ended, once it has.
    pub end: Option<CallEnd>,
    /// The handler's result, once it has returned.
    pub expected: Option<Expected>,
    pub(super) was_served: bool,
    /// Whether the call was cancelled before its request was sent: the callee must never receive
    /// it.
    pub(super) never_sent: bool,
}

/// The result that the caller must see, unless the call ends before.
#[derive(Debug)]
pub enum Expected {
    /// This outcome.
    Outcome(CallOutcome),
    /// An error that reports a response above the limit.
    TooLarge,
}

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// With an outcome of the machine.
    Event(CallOutcome),
    /// By its caller's cancellation.
    Cancelled,
}

impl Pair {
    pub(super) fn call(&mut self, end: EndpointId, payload_bytes: usize, deadline_ms: u32) {
        let (now, token, outbound_calls_max) =
            (self.now, self.calls.len(), self.limits.outbound_calls_max);
        let mut payload = token.to_be_bytes().to_vec();
        payload.resize(payload_bytes, end as u8);
        let payload = Bytes::from(payload);
        let deadline = now + Duration::from_millis(u64::from(deadline_ms));
        let request = Request {
            handler: 7,
            subroute: token.is_multiple_of(3).then(|| SubrouteId::new(7, "drive-1")),
            payload: payload.clone(),
            deadline,
        };

        let endpoint = self.endpoint_mut(end);
        let live_before = endpoint.connection.live_outbound_calls();
        let ids_in_use = endpoint.running.clone();
        let started = endpoint.connection.call(Slot(token), &request, now);
        let expected_error = if endpoint.is_draining || endpoint.is_closed {
            Some(StartError::Draining)
        } else if deadline_ms == 0 {
            Some(StartError::DeadlinePassed)
        } else if live_before >= outbound_calls_max {
            Some(StartError::TooManyCalls)
        } else {
            None
        };
        match (started, expected_error) {
            (Ok(mux_id), None) if payload_bytes < MESSAGE_BYTES_MAX => {
                if ids_in_use.contains_key(&mux_id) {
                    self.reached.insert("one mux id in use in both directions");
                }
                self.calls.push(Call {
                    caller: end,
                    mux_id,
                    payload,
                    deadline,
                    callee_deadline: None,
                    end: None,
                    expected: None,
                    was_served: false,
                    never_sent: false,
                });
            }
            (Err(StartError::TooLarge { bytes }), None) => assert!(bytes > MESSAGE_BYTES_MAX),
            (Err(error), Some(expected)) => assert_eq!(error, expected),
            (started, expected) => panic!("{started:?} instead of {expected:?}"),
        }
    }

    /// Cancels one of the calls of `end`, which may have ended already.
    pub(super) fn cancel_call(&mut self, end: EndpointId, selector: u32) {
        let made: Vec<_> =
            (0..self.calls.len()).filter(|token| self.calls[*token].caller == end).collect();
        let Some(token) = pick(&made, selector) else { return };
        let mux_id = self.calls[token].mux_id;
        let connection = &mut self.endpoint_mut(end).connection;
        let before = (connection.queued_bytes(), connection.blocked_messages());
        connection.cancel(mux_id);
        let after = (connection.queued_bytes(), connection.blocked_messages());

        let call = &mut self.calls[token];
        if call.end.is_some() {
            return assert_eq!(before, after, "cancelling an ended call does nothing");
        }
        call.end = Some(CallEnd::Cancelled);
        call.never_sent = after.1 < before.1 && before.0 == after.0;
        let never_sent = call.never_sent;
        self.reached.insert(if never_sent { "cancelled while blocked" } else { "cancelled" });
    }

    /// Returns from the handler of a call.
    pub(super) fn finish(&mut self, end: EndpointId, mux_id: u64, reply: ReplyKind) {
        let now = self.now;
        let endpoint = self.endpoint_mut(end);
        let token = endpoint.running.remove(&mux_id).expect("the handler is running");
        assert!(
            endpoint.connection.is_inbound_live(mux_id),
            "a call that was not cancelled is live"
        );

        let payload = Bytes::from(format!("the response to {token}"));
        let text = format!("the error of {token}");
        let too_large = "x".repeat(MESSAGE_BYTES_MAX);
        let response = match reply {
            ReplyKind::Response => Ok(payload.clone()),
            ReplyKind::ResponseTooLarge => Ok(too_large.into()),
            ReplyKind::Error => Err(HandlerError::new(text.clone())),
            ReplyKind::ErrorTooLarge => Err(too_large.into()),
            ReplyKind::UnknownHandler | ReplyKind::Refusal => {
                return self.refuse(end, mux_id, token, reply);
            }
        };
        let is_live = endpoint.connection.respond(mux_id, &response, now) == Respond::Accepted;
        let is_late = self.calls[token].callee_deadline.is_some_and(|deadline| deadline <= now);
        assert_eq!(is_live, !is_late, "a call that was not cancelled is live");
        if is_late {
            self.reached.insert("response too late");
            return;
        }
        self.calls[token].expected = Some(match reply {
            ReplyKind::Response => Expected::Outcome(Ok(payload)),
            ReplyKind::Error => Expected::Outcome(Err(End::RemoteError(text.into()))),
            _ => Expected::TooLarge,
        });
    }

    fn refuse(&mut self, end: EndpointId, mux_id: u64, token: usize, reply: ReplyKind) {
        let (reason, end_of): (_, fn(_) -> End) = match reply {
            ReplyKind::UnknownHandler => {
                (format!("Invalid Handler for type: {token}"), End::UnknownHandler)
            }
            _ => (format!("{token} is not wanted here"), End::Refused),
        };
        self.endpoint_mut(end).connection.refuse(mux_id, &reason);
        self.calls[token].expected = Some(Expected::Outcome(Err(end_of(reason.into()))));
    }
}
