//! Failures that the property tests found, each as the shortest list of operations that reproduces
//! it. The comment of a test describes the bug.

use grid::proto::message::Checksum;
use sim::pair::Pair;
use sim::pair::operation::{
    Decision, EndpointId, HandlerResult, InitialPayload, MESSAGE_BYTES_MAX, Message, Operation,
    StreamAction,
};
use sim::pair::strategies::wide_limits;

const ALL: u8 = u8::MAX;

fn open(initial: InitialPayload, deadline_ms: u32) -> Operation {
    Operation::Open { end: EndpointId::A, initial, input: 1, output: 0, deadline_ms }
}

fn at_b(action: StreamAction) -> Operation {
    Operation::Stream { end: EndpointId::B, selector: 0, action }
}

const ACCEPT: Operation =
    Operation::Decide { end: EndpointId::B, selector: 0, decision: Decision::Accept };

// The stream ended without an event, so the task that held its other half waited for ever.
#[test]
fn b14_stream_cancelled_before_it_was_sent_ends_like_any_other() {
    let mut limits = wide_limits();
    limits.queue_bytes_max = 2 * MESSAGE_BYTES_MAX;
    let mut pair = Pair::new(&limits, Checksum::On);
    let mut operations = vec![open(InitialPayload::Bytes(250), 0); 3];
    operations.push(Operation::Stream {
        end: EndpointId::A,
        selector: 2,
        action: StreamAction::Cancel,
    });
    pair.run(&operations);
    assert!(pair.reached.contains("stream cancelled while blocked"), "{:?}", pair.reached);
    pair.finish_everything();
    assert!(pair.reached.contains("stream cancelled"), "{:?}", pair.reached);
}

// The callee's end and its queued message were removed without an event.
#[test]
fn b14_handler_that_returns_too_late_still_ends_its_end_of_the_stream() {
    let mut pair = Pair::new(&wide_limits(), Checksum::On);
    pair.run(&[
        open(InitialPayload::Absent, 50),
        Operation::Transmit { end: EndpointId::A, frames: ALL },
        Operation::Receive { end: EndpointId::B, frames: ALL },
        ACCEPT,
        Operation::Stall { millis: 100 },
        at_b(StreamAction::Return(HandlerResult::Ok)),
    ]);
    assert!(pair.reached.contains("inbound stream deadline"), "{:?}", pair.reached);
    pair.finish_everything();
}

// The pong reported that there is no such stream, which ended it. On a connection whose socket was
// stuck for an interval, the opening message and the next ping arrive in one frame, before any
// accept.
#[test]
fn b07_stream_pinged_before_it_is_accepted_lives() {
    let mut pair = Pair::new(&wide_limits(), Checksum::On);
    pair.run(&[
        open(InitialPayload::Absent, 0),
        Operation::Run { millis: 40_000 },
        ACCEPT,
        Operation::Run { millis: 40_000 },
        at_b(StreamAction::Send(Message::Empty)),
        at_b(StreamAction::Return(HandlerResult::Ok)),
    ]);
    pair.finish_everything();
    pair.streams[0].assert_ended_as_requested();
}
