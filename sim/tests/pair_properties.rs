//! Two machines, a wire between them and a clock that only moves when told: whatever is called,
//! answered, given up, delayed or cut, in whatever order, each call ends exactly once and as it
//! should, and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use grid::proto::message::Checksum;
use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::proptest;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use sim::pair::operation::Operation;
use sim::pair::strategies::{any_checksum, any_limits, wide_limits};
use sim::pair::{CallEnd, World};

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
fn an_operation_is_plain_data_and_survives_being_written_down() {
    let mut runner = TestRunner::deterministic();
    let some = vec(any::<Operation>(), 200);
    let operations = some.new_tree(&mut runner).expect("operations").current();
    let json = serde_json::to_string(&operations).expect("plain data");
    let read: Vec<Operation> = serde_json::from_str(&json).expect("as it was written");
    assert_eq!(read, operations);
}

#[test]
fn the_operations_reach_every_end_of_a_call_and_of_a_connection() {
    let mut runner = TestRunner::deterministic();
    let worlds = (any_limits(), vec(any::<Operation>(), 0..150));
    let mut seen = BTreeSet::new();
    for _ in 0..1_500 {
        let (limits, operations) = worlds.new_tree(&mut runner).expect("a world").current();
        let mut world = World::new(&limits, Checksum::On);
        world.run(&operations);
        world.finish_everything();
        seen.extend(world.seen);
    }
    let every = [
        "answer too large",
        "answer waited for room",
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
