//! Two machines, a wire between them and a clock that only moves when told: whatever is called,
//! answered, given up, delayed or cut, in whatever order, each call ends exactly once and as it
//! should, and nothing is left behind.
//!
//! The world keeps its own, simple account of every call and holds the machines to it after each
//! operation. Payloads carry a token of their call, so that an answer that reached another call
//! would be seen.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use grid::error::HandlerError;
use grid::limits::Limits;
use grid::proto::connection::{
    CloseReason, Connection, Event, Incoming, Outcome, Request, Slot, StartError,
};
use grid::proto::message::{Checksum, parse_frame};
use grid::proto::subroute::SubrouteId;
use grid::time::{Instant, Timestamp};
use proptest::collection::vec;
use proptest::prelude::{Arbitrary, BoxedStrategy, Just, Strategy, any};
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use proptest::{prop_oneof, proptest};

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    A,
    B,
}

impl End {
    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// How a handler answers.
#[derive(Debug, Clone, Copy)]
enum How {
    Answer,
    AnswerTooLarge,
    Error,
    ErrorTooLarge,
    UnknownHandler,
    Refusal,
}

/// What can happen. Where one of several calls is meant, `which` picks it.
#[derive(Debug, Clone)]
enum Operation {
    Call {
        end: End,
        payload_bytes: usize,
        deadline_ms: u64,
    },
    GiveUp {
        end: End,
        which: Index,
    },
    /// Moves frames from a machine's queue onto the wire.
    Transmit {
        end: End,
        frames: usize,
    },
    /// Takes frames from the wire into a machine, or learns that the other end is gone.
    Receive {
        end: End,
        frames: usize,
    },
    Finish {
        end: End,
        which: Index,
        how: How,
    },
    Advance {
        millis: u64,
    },
    Drain {
        end: End,
    },
    Close {
        end: End,
    },
}

impl Arbitrary for Operation {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> BoxedStrategy<Self> {
        let end = || select(vec![End::A, End::B]);
        let which = any::<Index>;
        let frames = || prop_oneof![3 => 1..3_usize, 1 => Just(100)];
        let payload_bytes = prop_oneof![8 => 10..150_usize, 1 => Just(MESSAGE_BYTES_MAX)];
        let deadline_ms = prop_oneof![
            1 => Just(0_u64),
            4 => 1..2_000_u64,
            8 => Just(60_000),
        ];
        let how = prop_oneof![
            6 => Just(How::Answer),
            1 => Just(How::AnswerTooLarge),
            2 => Just(How::Error),
            1 => Just(How::ErrorTooLarge),
            1 => Just(How::UnknownHandler),
            1 => Just(How::Refusal),
        ];
        let millis = prop_oneof![4 => 0..100_u64, 2 => 0..3_000_u64, 1 => Just(12_000)];
        prop_oneof![
            30 => (end(), payload_bytes, deadline_ms)
                .prop_map(|(end, payload_bytes, deadline_ms)| {
                    Self::Call { end, payload_bytes, deadline_ms }
                }),
            10 => (end(), which()).prop_map(|(end, which)| Self::GiveUp { end, which }),
            20 => (end(), frames()).prop_map(|(end, frames)| Self::Transmit { end, frames }),
            20 => (end(), frames()).prop_map(|(end, frames)| Self::Receive { end, frames }),
            25 => (end(), which(), how).prop_map(|(end, which, how)| {
                Self::Finish { end, which, how }
            }),
            10 => millis.prop_map(|millis| Self::Advance { millis }),
            1 => end().prop_map(|end| Self::Drain { end }),
            1 => end().prop_map(|end| Self::Close { end }),
        ]
        .boxed()
    }
}

const MESSAGE_BYTES_MAX: usize = 300;

/// Limits that a few messages reach.
fn any_limits() -> impl Strategy<Value = Limits> {
    let queue = select(vec![2 * MESSAGE_BYTES_MAX, 100_000]);
    let control = select(vec![250_usize, 10_000]);
    let frame = select(vec![1_usize, 150, MESSAGE_BYTES_MAX]);
    let calls = || select(vec![3_usize, 100]);
    (queue, control, frame, calls(), calls()).prop_map(|(queue, control, frame, made, served)| {
        let mut limits = wide_limits();
        limits.queue_bytes_max = queue;
        limits.control_bytes_max = control;
        limits.frame_bytes_target = frame;
        limits.calls_made_max = made;
        limits.calls_served_max = served;
        limits
    })
}

/// Limits that nothing reaches, but for the size of one message.
fn wide_limits() -> Limits {
    let mut limits = Limits::default();
    limits.message_bytes_max = MESSAGE_BYTES_MAX;
    limits.frame_bytes_target = MESSAGE_BYTES_MAX;
    limits
}

/// A call in the world's account. Its index there is its token and its slot.
struct Call {
    caller: End,
    mux_id: u64,
    payload: Bytes,
    deadline: Instant,
    end: Option<CallEnd>,
    /// What the handler did, once it has.
    expected: Option<Expected>,
    was_served: bool,
    /// Given up before its request had left: the other side must never hear of it.
    is_secret: bool,
}

/// What the caller must get for what the handler did, unless the call ends before.
#[derive(Debug)]
enum Expected {
    Outcome(Outcome),
    /// An error that tells of an answer beyond the limit.
    TooLarge,
}

#[derive(Debug, PartialEq, Eq)]
enum CallEnd {
    Event(Outcome),
    GivenUp,
}

struct Side {
    connection: Connection,
    /// Frames that this side has written and the other has not read.
    wire: VecDeque<Bytes>,
    is_closed: bool,
    is_draining: bool,
    /// Tokens of the calls that are served here and whose handler has not finished, by mux id.
    running: BTreeMap<u64, usize>,
    last_served: u64,
}

struct World {
    limits: Limits,
    now: Instant,
    a: Side,
    b: Side,
    calls: Vec<Call>,
    /// What happened at least once: properties of what never happens would be worth nothing.
    seen: BTreeSet<&'static str>,
}

impl World {
    fn new(limits: &Limits, checksum: Checksum) -> Self {
        let now = Instant::from_nanos(5);
        let side = || Side {
            connection: Connection::new(limits, checksum, now),
            wire: VecDeque::new(),
            is_closed: false,
            is_draining: false,
            running: BTreeMap::new(),
            last_served: 0,
        };
        Self {
            limits: limits.clone(),
            now,
            a: side(),
            b: side(),
            calls: Vec::new(),
            seen: BTreeSet::new(),
        }
    }

    fn side(&mut self, end: End) -> &mut Side {
        match end {
            End::A => &mut self.a,
            End::B => &mut self.b,
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp::new(1_700_000_000 + (self.now.as_nanos() / 1_000_000_000) as i64, 0)
    }

    fn run(&mut self, operations: &[Operation]) {
        for operation in operations {
            self.apply(operation);
            self.take_events();
            self.check();
        }
    }

    fn apply(&mut self, operation: &Operation) {
        match *operation {
            Operation::Call { end, payload_bytes, deadline_ms } => {
                self.call(end, payload_bytes, deadline_ms);
            }
            Operation::GiveUp { end, which } => self.give_up(end, which),
            Operation::Transmit { end, frames } => self.transmit(end, frames),
            Operation::Receive { end, frames } => self.receive(end, frames),
            Operation::Finish { end, which, how } => {
                let running: Vec<_> = self.side(end).running.keys().copied().collect();
                if !running.is_empty() {
                    self.finish(end, *which.get(&running), how);
                }
            }
            Operation::Advance { millis } => self.advance(Duration::from_millis(millis)),
            Operation::Drain { end } => {
                let side = self.side(end);
                side.connection.drain();
                side.is_draining = true;
            }
            Operation::Close { end } => {
                self.side(end).connection.close(CloseReason::Transport("cut".into()));
            }
        }
    }

    fn call(&mut self, end: End, payload_bytes: usize, deadline_ms: u64) {
        let (now, token, calls_made_max) = (self.now, self.calls.len(), self.limits.calls_made_max);
        let mut payload = token.to_be_bytes().to_vec();
        payload.resize(payload_bytes, end as u8);
        let payload = Bytes::from(payload);
        let deadline = now + Duration::from_millis(deadline_ms);
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
    fn give_up(&mut self, end: End, which: Index) {
        let made: Vec<_> =
            (0..self.calls.len()).filter(|token| self.calls[*token].caller == end).collect();
        if made.is_empty() {
            return;
        }
        let token = *which.get(&made);
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

    fn transmit(&mut self, end: End, frames: usize) {
        let (now, other) = (self.now, end.other());
        let is_read = !self.side(other).is_closed;
        let side = self.side(end);
        for _ in 0..frames {
            let Some(transmit) = side.connection.poll_transmit(now) else { return };
            if is_read {
                side.wire.push_back(transmit.bytes);
            }
        }
    }

    fn receive(&mut self, end: End, frames: usize) {
        let now = self.now;
        for _ in 0..frames {
            let other = self.side(end.other());
            match other.wire.pop_front() {
                Some(frame) => {
                    let mut messages = Vec::new();
                    parse_frame(&frame, &mut messages).expect("the frames of a machine parse");
                    for message in messages {
                        self.side(end).connection.handle_message(message, now);
                    }
                }
                None if other.is_closed => self.side(end).connection.close(CloseReason::Peer),
                None => return,
            }
        }
    }

    /// The handler of a call is done.
    fn finish(&mut self, end: End, mux_id: u64, how: How) {
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
        assert!(is_wanted, "what was not cancelled is wanted");
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

    /// Moves the clock, and lets the machines do what is due at the instant at which it is.
    fn advance(&mut self, duration: Duration) {
        let target = self.now + duration;
        loop {
            let due = [&self.a, &self.b].iter().filter_map(|s| s.connection.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= target) else { break };
            assert!(due > self.now, "a timeout that was handled is not due again");
            self.now = due;
            let (now, wall) = (self.now, self.wall());
            for end in [End::A, End::B] {
                self.side(end).connection.handle_timeout(now, wall);
            }
            self.take_events();
        }
        self.now = target;
    }

    // ---- what the machines say ----

    fn take_events(&mut self) {
        for end in [End::A, End::B] {
            let mut is_disconnected = false;
            while let Some(event) = self.side(end).connection.poll_event() {
                assert!(!self.side(end).is_closed, "{event:?} after the last event");
                match event {
                    Event::Ended { slot, outcome } => {
                        is_disconnected |= outcome == Outcome::Disconnected;
                        self.call_ended(end, slot.0, outcome);
                    }
                    Event::Serve(incoming) => self.serve(end, &incoming),
                    Event::Cancel { mux_id } => self.cancel(end, mux_id),
                    Event::Skipped { op, mux_id } => panic!("{op:?} of {mux_id} meant nothing"),
                    Event::Closed(reason) => self.closed(end, &reason),
                }
            }
            assert!(!is_disconnected || self.side(end).is_closed, "disconnected while open");
        }
    }

    fn call_ended(&mut self, end: End, token: usize, outcome: Outcome) {
        let now = self.now;
        let call = &mut self.calls[token];
        assert_eq!(call.caller, end, "the end of a call reaches its caller");
        assert_eq!(call.end, None, "a call ends once (B14)");
        match (&outcome, &call.expected) {
            (Outcome::DeadlineExceeded, _) => assert!(call.deadline <= now),
            (Outcome::Disconnected, _) => {}
            (Outcome::Refused(text), None) => {
                assert!(!call.was_served, "what is refused like this does not run");
                let reasons = ["overloaded:", "this server is shutting down"];
                assert!(reasons.iter().any(|reason| text.starts_with(reason)), "{text}");
            }
            (Outcome::RemoteError(text), Some(Expected::TooLarge)) => {
                assert!(text.contains("larger than the limit"), "{text}");
            }
            (_, Some(Expected::Outcome(expected))) => assert_eq!(outcome, *expected),
            (_, expected) => panic!("{outcome:?} instead of {expected:?}"),
        }
        let seen = match &outcome {
            Outcome::Response(_) => "response",
            Outcome::RemoteError(_) if matches!(call.expected, Some(Expected::TooLarge)) => {
                "answer too large"
            }
            Outcome::RemoteError(_) => "remote error",
            Outcome::UnknownHandler(_) => "unknown handler",
            Outcome::Refused(text) if text.starts_with("overloaded:") => "overloaded",
            Outcome::Refused(text) if text.contains("shutting down") => "draining",
            Outcome::Refused(_) => "refused",
            Outcome::DeadlineExceeded if call.was_served => "deadline of what ran",
            Outcome::DeadlineExceeded => "deadline of what did not run",
            Outcome::Disconnected => "disconnected",
        };
        call.end = Some(CallEnd::Event(outcome));
        self.seen.insert(seen);
    }

    fn serve(&mut self, end: End, incoming: &Incoming) {
        let now = self.now;
        let token = usize::from_be_bytes(incoming.payload[..8].try_into().expect("a token"));
        let call = &mut self.calls[token];
        assert_eq!(call.caller, end.other(), "a call is served by the other side");
        assert_eq!((call.mux_id, &call.payload), (incoming.mux_id, &incoming.payload));
        assert_eq!(incoming.handler, 7);
        assert_eq!(incoming.subroute.is_some(), token.is_multiple_of(3));
        assert!(!call.was_served, "a call is served at most once");
        assert!(!call.is_secret, "a request that never left is never served");
        let deadline = incoming.deadline.expect("every call has one");
        assert!(deadline >= call.deadline && deadline > now);
        call.was_served = true;

        let side = self.side(end);
        assert!(!side.is_draining, "new calls are not taken");
        assert!(incoming.mux_id > side.last_served, "calls are served in the order of their ids");
        side.last_served = incoming.mux_id;
        side.running.insert(incoming.mux_id, token);
    }

    fn cancel(&mut self, end: End, mux_id: u64) {
        let side = self.side(end);
        let was_running = side.running.remove(&mux_id).is_some();
        let is_serving = side.connection.is_serving(mux_id);
        assert!(was_running, "no handler runs for {mux_id}");
        assert!(!is_serving, "what is cancelled is not wanted");
        self.seen.insert("handler cancelled");
    }

    fn closed(&mut self, end: End, reason: &CloseReason) {
        self.seen.insert(match reason {
            CloseReason::Peer => "closed by the peer",
            CloseReason::Transport(_) => "cut",
            CloseReason::PingTimeout { .. } => "ping timeout",
            CloseReason::ControlOverrun { .. } => "control overrun",
            other => panic!("closed for {other}"),
        });
        let side = self.side(end);
        side.is_closed = true;
        assert!(side.running.is_empty(), "every handler is cancelled (B05)");
        self.side(end.other()).wire.clear();
    }

    // ---- what must hold ----

    fn check(&mut self) {
        let now = self.now;
        let limits = self.limits.clone();
        for end in [End::A, End::B] {
            let live = self.live_calls_of(end).len();
            let side = self.side(end);
            let connection = &side.connection;
            assert_eq!(connection.live_calls(), live, "the machine's account is the world's");
            assert!(connection.live_calls() <= limits.calls_made_max);
            assert!(connection.live_served() <= limits.calls_served_max);
            assert!(connection.live_served() >= side.running.len());
            assert!(side.running.keys().all(|mux_id| connection.is_serving(*mux_id)));
            let bound = limits.queue_bytes_max + limits.control_bytes_max;
            assert!(connection.queued_bytes() <= bound, "the queue is bounded");
            let blocked = connection.blocked_messages();
            assert!(blocked <= connection.live_calls() + connection.live_served());
            assert!(blocked == 0 || connection.wants_transmit(), "who waits will be woken");
            assert_eq!(connection.wants_transmit(), connection.queued_bytes() > 0);
            if side.is_closed {
                assert_nothing_is_left(&mut side.connection, now);
            }
        }
        for call in self.calls.iter().filter(|call| call.end.is_none()) {
            assert!(call.deadline > now, "no call outlives its deadline");
        }
    }

    fn live_calls_of(&self, end: End) -> BTreeSet<u64> {
        let live = |call: &&Call| call.caller == end && call.end.is_none();
        self.calls.iter().filter(live).map(|call| call.mux_id).collect()
    }

    /// Delivers whatever waits, in both directions, until nothing moves.
    fn deliver_everything(&mut self) {
        loop {
            for end in [End::A, End::B] {
                self.transmit(end, usize::MAX);
                self.take_events();
            }
            if [&self.a, &self.b].iter().all(|side| side.wire.is_empty() && !side.is_closed) {
                return self.check();
            }
            for end in [End::A, End::B] {
                let waiting = self.side(end.other()).wire.len();
                self.receive(end, waiting + 1);
                self.take_events();
            }
            if self.a.is_closed && self.b.is_closed {
                return self.check();
            }
            self.check();
        }
    }

    /// Every call under way is answered, and the answers arrive.
    fn finish_everything(&mut self) {
        self.deliver_everything();
        if !self.a.is_closed {
            for end in [End::A, End::B] {
                let running: BTreeSet<_> = self.side(end).running.keys().copied().collect();
                let wanted = self.live_calls_of(end.other());
                assert_eq!(running, wanted, "what is served is what is waited for (B11)");
                for mux_id in running {
                    self.finish(end, mux_id, How::Answer);
                    self.take_events();
                    self.check();
                }
            }
        }
        self.deliver_everything();
        let left = self.calls.iter().filter(|call| call.end.is_none()).count();
        assert_eq!(left, 0, "after everything was delivered no call is without an end (B14)");
        for side in [&self.a, &self.b] {
            assert!(side.connection.is_idle(), "nothing is under way");
        }
    }

    fn close_everything(&mut self) {
        for end in [End::A, End::B] {
            self.side(end).connection.close(CloseReason::Transport("cut".into()));
        }
        self.take_events();
        self.check();
        let left = self.calls.iter().filter(|call| call.end.is_none()).count();
        assert_eq!(left, 0, "after the end of the connection no call is without an end (B14)");
    }
}

/// B05, and that a connection which is over stays so.
fn assert_nothing_is_left(connection: &mut Connection, now: Instant) {
    assert_eq!(connection.live_calls(), 0);
    assert_eq!(connection.live_served(), 0);
    assert_eq!(connection.queued_bytes(), 0);
    assert_eq!(connection.blocked_messages(), 0);
    assert_eq!(connection.poll_timeout(), None);
    assert_eq!(connection.poll_transmit(now), None);
    assert!(connection.is_idle());
}

fn any_checksum() -> impl Strategy<Value = Checksum> {
    select(vec![Checksum::On, Checksum::Off])
}

proptest! {
    #[test]
    fn b14_b16_each_call_ends_once_with_its_own_answer_when_everything_is_delivered(
        limits in any_limits(),
        checksum in any_checksum(),
        operations in vec(any::<Operation>(), 0..150),
    ) {
        let mut world = World::new(&limits, checksum);
        world.run(&operations);
        world.finish_everything();
        world.close_everything();
    }

    #[test]
    fn b05_b14_each_call_ends_once_and_nothing_is_left_when_the_connection_ends(
        limits in any_limits(),
        checksum in any_checksum(),
        operations in vec(any::<Operation>(), 0..150),
        after in vec(any::<Operation>(), 0..20),
    ) {
        let mut world = World::new(&limits, checksum);
        world.run(&operations);
        world.close_everything();
        let count = world.calls.len();
        world.run(&after);
        assert_eq!(world.calls.len(), count, "nothing starts on a connection that is over");
    }

    // Without closes, waiting and tight limits: what is common must not be drowned by what is rare.
    #[test]
    fn b14_on_a_good_connection_no_call_is_disconnected_or_refused_or_late(
        operations in vec(any::<Operation>(), 0..300),
    ) {
        let is_good = |operation: &Operation| !matches!(
            operation,
            Operation::Close { .. } | Operation::Advance { .. } | Operation::Drain { .. }
        );
        let operations: Vec<_> = operations.into_iter().filter(is_good).collect();
        let mut world = World::new(&wide_limits(), Checksum::On);
        world.run(&operations);
        world.finish_everything();
        for call in &world.calls {
            let end = call.end.as_ref().expect("every call has an end");
            let is_as_told = *end == CallEnd::GivenUp || call.expected.is_some();
            assert!(is_as_told, "{end:?}, but the handler did {:?}", call.expected);
        }
    }
}

#[test]
fn the_operations_reach_every_end_of_a_call_and_of_a_connection() {
    let mut runner = TestRunner::deterministic();
    let worlds = (any_limits(), vec(any::<Operation>(), 0..150));
    let mut seen = BTreeSet::new();
    for _ in 0..500 {
        let (limits, operations) = worlds.new_tree(&mut runner).expect("a world").current();
        let mut world = World::new(&limits, Checksum::On);
        world.run(&operations);
        world.finish_everything();
        seen.extend(world.seen);
    }
    let every = [
        "answer too large",
        "closed by the peer",
        "control overrun",
        "cut",
        "deadline of what did not run",
        "deadline of what ran",
        "disconnected",
        "draining",
        "given up",
        "given up while blocked",
        "handler cancelled",
        "one number in use in both directions",
        "overloaded",
        "ping timeout",
        "refused",
        "remote error",
        "response",
        "unknown handler",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), every);
}
