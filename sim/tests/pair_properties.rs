//! Two machines, a wire between them and a clock that only moves when told: whatever is called,
//! opened, sent, answered, given up, delayed or cut, in whatever order, each call and each end of a
//! stream ends exactly once and as it should, no message is lost, and nothing is left behind.
//!
//! A failure that is found becomes a list of operations in `regressions.rs`, not a file of seeds.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use grid::proto::message::Checksum;
use proptest::collection::vec;
use proptest::prelude::ProptestConfig;
use proptest::prelude::{Strategy, any};
use proptest::proptest;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sim::pair::operation::Operation;
use sim::pair::strategies::{
    any_checksum, any_good_limits, any_good_operation, any_limits, wide_limits,
};
use sim::pair::{CallEnd, World};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

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
            Operation::Close { .. }
                | Operation::Advance { .. }
                | Operation::Sleep { .. }
                | Operation::Live { .. }
                | Operation::Drain { .. }
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

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(10_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn b14_b21_b22_b23_streams_lose_nothing_and_nobody_is_stuck_when_everything_is_delivered(
        limits in any_limits(),
        checksum in any_checksum(),
        operations in vec(any::<Operation>(), 0..100),
    ) {
        let mut world = World::new(&limits, checksum);
        world.run(&operations);
        world.finish_everything();
        world.close_everything();
    }

    // Without closes, waiting and tight limits: what is common must not be drowned by what is rare.
    #[test]
    fn b23_on_a_good_connection_a_stream_ends_as_its_handler_or_its_caller_ended_it(
        limits in any_good_limits(),
        operations in vec(any_good_operation(), 0..100),
    ) {
        let mut world = World::new(&limits, Checksum::On);
        world.run(&operations);
        world.finish_everything();
        for stream in &world.streams {
            stream.assert_ended_as_told();
        }
    }
}

#[test]
fn an_operation_is_plain_data_and_survives_being_written_down() {
    let mut runner = TestRunner::deterministic();
    let some = vec(any::<Operation>(), 200);
    let operations = some.new_tree(&mut runner).expect("operations").current();
    let json = serde_json::to_string(&operations).expect("plain data");
    let read: Vec<Operation> = serde_json::from_str(&json).expect("as it was written");
    assert_eq!(read, operations);
}

#[test]
fn the_operations_reach_every_end_of_a_call_of_a_stream_and_of_a_connection() {
    let mut runner = TestRunner::deterministic();
    let worlds = (any_limits(), vec(any::<Operation>(), 0..150));
    let mut seen = BTreeSet::new();
    for _ in 0..3_000 {
        let (limits, operations) = worlds.new_tree(&mut runner).expect("a world").current();
        let mut world = World::new(&limits, Checksum::On);
        world.run(&operations);
        world.finish_everything();
        seen.extend(world.seen);
    }
    let every = [
        "abort without credit",
        "answer too large",
        "answer too late",
        "answer waited for room",
        "closed by the peer",
        "control overrun",
        "cut",
        "deadline of what did not run",
        "deadline of what ran",
        "disconnected",
        "draining",
        "end of input waited",
        "end waited for credit",
        "ends crossed",
        "error overtook a message that waited",
        "given up",
        "given up while blocked",
        "half-closed",
        "handler cancelled",
        "input left when the handler returned",
        "one number in use in both directions",
        "one stream's number in use in both directions",
        "overloaded",
        "ping timeout",
        "refused",
        "remote error",
        "response",
        "send cancelled",
        "served stream cancelled",
        "served stream disconnected",
        "served stream silent",
        "served stream's deadline",
        "served to the end",
        "stopped receiving",
        "stream cancelled",
        "stream disconnected",
        "stream finished",
        "stream given up",
        "stream given up while blocked",
        "stream over before it was accepted",
        "stream refused",
        "stream refused unseen",
        "stream silent for its caller",
        "stream silent, said its handler's side",
        "stream's deadline",
        "stream's error too large",
        "stream's remote error",
        "stream's unknown handler",
        "unknown handler",
        "waited for credit",
        "waited in line",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), every);
}
