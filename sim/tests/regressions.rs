//! What worlds have found: each failure as the shortest list of operations that shows it.

use grid::proto::message::Checksum;
use sim::pair::World;
use sim::pair::operation::{
    Act, End, Initial, MESSAGE_BYTES_MAX, Message, Operation, Return, Welcome,
};
use sim::pair::strategies::wide_limits;

const ALL: u8 = u8::MAX;

fn open(initial: Initial, deadline_ms: u32) -> Operation {
    Operation::Open { end: End::A, initial, input: 1, output: 0, deadline_ms }
}

fn at_b(act: Act) -> Operation {
    Operation::Act { end: End::B, which: 0, act }
}

const ACCEPT: Operation = Operation::Welcome { end: End::B, which: 0, welcome: Welcome::Accept };

// Whoever held another part of it would have waited for ever.
#[test]
fn b14_a_stream_that_is_given_up_before_it_left_ends_like_any_other() {
    let mut limits = wide_limits();
    limits.queue_bytes_max = 2 * MESSAGE_BYTES_MAX;
    let mut world = World::new(&limits, Checksum::On);
    let mut operations = vec![open(Initial::Bytes(250), 0); 3];
    operations.push(Operation::Act { end: End::A, which: 2, act: Act::GiveUp });
    world.run(&operations);
    assert!(world.seen.contains("stream given up while blocked"), "{:?}", world.seen);
    world.finish_everything();
    assert!(world.seen.contains("stream cancelled"), "{:?}", world.seen);
}

// The handler's end was forgotten without a word, and so was its place in the line for room.
#[test]
fn b14_a_handler_that_returns_too_late_still_ends_its_end_of_the_stream() {
    let mut world = World::new(&wide_limits(), Checksum::On);
    world.run(&[
        open(Initial::Absent, 50),
        Operation::Transmit { end: End::A, frames: ALL },
        Operation::Receive { end: End::B, frames: ALL },
        ACCEPT,
        Operation::Sleep { millis: 100 },
        at_b(Act::Return(Return::Ok)),
    ]);
    assert!(world.seen.contains("served stream's deadline"), "{:?}", world.seen);
    world.finish_everything();
}

// The pong said that there is no such stream. On a connection whose socket was stuck for an interval
// the opening message and the ping behind it come in one frame: nobody could have accepted by then.
#[test]
fn b07_a_stream_that_is_pinged_before_it_is_accepted_lives() {
    let mut world = World::new(&wide_limits(), Checksum::On);
    world.run(&[
        open(Initial::Absent, 0),
        Operation::Live { millis: 40_000 },
        ACCEPT,
        Operation::Live { millis: 40_000 },
        at_b(Act::Send(Message::Empty)),
        at_b(Act::Return(Return::Ok)),
    ]);
    world.finish_everything();
    world.streams[0].assert_ended_as_told();
}
