//! Single requests: the account of them, and what their callers and handlers do.

use std::time::Duration;

use bytes::Bytes;
use grid::error::HandlerError;
use grid::proto::connection::{Outcome, Request, Slot, StartError};
use grid::proto::subroute::SubrouteId;
use grid::time::Instant;

use super::World;
use super::operation::{End, How, MESSAGE_BYTES_MAX, pick};

/// What a payload begins with.
pub(super) const TOKEN_BYTES: usize = size_of::<usize>();

/// A call in the world's account. Its index there is its token and its slot.
#[derive(Debug)]
pub struct Call {
    pub(super) caller: End,
    pub(super) mux_id: u64,
    pub(super) payload: Bytes,
    pub(super) deadline: Instant,
    /// By the serving side's clock.
    pub(super) served_deadline: Option<Instant>,
    /// How it ended, once it has.
    pub end: Option<CallEnd>,
    /// What the handler did, once it has.
    pub expected: Option<Expected>,
    pub(super) was_served: bool,
    /// Given up before its request had left: the other side must never hear of it.
    pub(super) is_secret: bool,
}

/// What the caller must get for what the handler did, unless the call ends before.
#[derive(Debug)]
pub enum Expected {
    /// This.
    Outcome(Outcome),
    /// An error that tells of an answer beyond the limit.
    TooLarge,
}

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// The machine said how.
    Event(Outcome),
    /// Its caller did not want it any more.
    GivenUp,
}

impl World {
    pub(super) fn call(&mut self, end: End, payload_bytes: usize, deadline_ms: u32) {
        let (now, token, calls_made_max) = (self.now, self.calls.len(), self.limits.calls_made_max);
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

        let side = self.side(end);
        let live_before = side.connection.live_calls();
        let ids_in_use = side.running.clone();
        let started = side.connection.call(Slot(token), &request, now);
        let expected_error = if side.is_draining || side.is_closed {
            Some(StartError::Draining)
        } else if deadline_ms == 0 {
            Some(StartError::DeadlinePassed)
        } else if live_before >= calls_made_max {
            Some(StartError::TooManyCalls)
        } else {
            None
        };
        match (started, expected_error) {
            (Ok(mux_id), None) if payload_bytes < MESSAGE_BYTES_MAX => {
                if ids_in_use.contains_key(&mux_id) {
                    self.seen.insert("one number in use in both directions");
                }
                self.calls.push(Call {
                    caller: end,
                    mux_id,
                    payload,
                    deadline,
                    served_deadline: None,
                    end: None,
                    expected: None,
                    was_served: false,
                    is_secret: false,
                });
            }
            (Err(StartError::TooLarge { bytes }), None) => assert!(bytes > MESSAGE_BYTES_MAX),
            (Err(error), Some(expected)) => assert_eq!(error, expected),
            (started, expected) => panic!("{started:?} instead of {expected:?}"),
        }
    }

    /// Gives one of the calls of `end` up, which may be over already.
    pub(super) fn give_up(&mut self, end: End, which: u32) {
        let made: Vec<_> =
            (0..self.calls.len()).filter(|token| self.calls[*token].caller == end).collect();
        let Some(token) = pick(&made, which) else { return };
        let mux_id = self.calls[token].mux_id;
        let connection = &mut self.side(end).connection;
        let before = (connection.queued_bytes(), connection.blocked_messages());
        connection.give_up(mux_id);
        let after = (connection.queued_bytes(), connection.blocked_messages());

        let call = &mut self.calls[token];
        if call.end.is_some() {
            return assert_eq!(before, after, "giving up what is over does nothing");
        }
        call.end = Some(CallEnd::GivenUp);
        call.is_secret = after.1 < before.1 && before.0 == after.0;
        let is_secret = call.is_secret;
        self.seen.insert(if is_secret { "given up while blocked" } else { "given up" });
    }

    /// The handler of a call is done.
    pub(super) fn finish(&mut self, end: End, mux_id: u64, how: How) {
        let now = self.now;
        let side = self.side(end);
        let token = side.running.remove(&mux_id).expect("it runs");
        assert!(side.connection.is_serving(mux_id), "what was not cancelled is wanted");

        let payload = Bytes::from(format!("the answer to {token}"));
        let text = format!("the error of {token}");
        let too_large = "x".repeat(MESSAGE_BYTES_MAX);
        let answer = match how {
            How::Answer => Ok(payload.clone()),
            How::AnswerTooLarge => Ok(too_large.into()),
            How::Error => Err(HandlerError::new(text.clone())),
            How::ErrorTooLarge => Err(too_large.into()),
            How::UnknownHandler | How::Refusal => return self.refuse(end, mux_id, token, how),
        };
        let is_wanted = side.connection.answer(mux_id, &answer, now);
        let is_late = self.calls[token].served_deadline.is_some_and(|deadline| deadline <= now);
        assert_eq!(is_wanted, !is_late, "what was not cancelled is wanted");
        if is_late {
            self.seen.insert("answer too late");
            return;
        }
        self.calls[token].expected = Some(match how {
            How::Answer => Expected::Outcome(Outcome::Response(payload)),
            How::Error => Expected::Outcome(Outcome::RemoteError(text.into())),
            _ => Expected::TooLarge,
        });
    }

    fn refuse(&mut self, end: End, mux_id: u64, token: usize, how: How) {
        let (reason, outcome): (_, fn(_) -> Outcome) = match how {
            How::UnknownHandler => {
                (format!("Invalid Handler for type: {token}"), Outcome::UnknownHandler)
            }
            _ => (format!("{token} is not wanted here"), Outcome::Refused),
        };
        self.side(end).connection.refuse(mux_id, &reason);
        self.calls[token].expected = Some(Expected::Outcome(outcome(reason.into())));
    }
}
