//! Two machines, a wire between them and a clock that only moves on demand. Whatever is called,
//! opened, sent, cancelled, delayed or cut, in any order, each call and each end of a stream ends
//! exactly once and as it should, no message is lost, and nothing leaks.
//!
//! A failure becomes a list of operations in `regressions.rs`, not a file of seeds.

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
    any_checksum, any_limits, any_lossless_limits, any_lossless_operation, wide_limits,
};
use sim::pair::{CallEnd, Pair};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn b14_b16_each_call_ends_once_with_its_own_response_when_everything_is_delivered(
        limits in any_limits(),
        checksum in any_checksum(),
        operations in vec(any::<Operation>(), 0..150),
    ) {
        let mut pair = Pair::new(&limits, checksum);
        pair.run(&operations);
        pair.finish_everything();
        pair.close_everything();
    }

    #[test]
    fn b05_b14_each_call_ends_once_and_nothing_leaks_when_the_connection_ends(
        limits in any_limits(),
        checksum in any_checksum(),
        operations in vec(any::<Operation>(), 0..150),
        after in vec(any::<Operation>(), 0..20),
    ) {
        let mut pair = Pair::new(&limits, checksum);
        pair.run(&operations);
        pair.close_everything();
        let count = pair.calls.len();
        pair.run(&after);
        assert_eq!(pair.calls.len(), count, "nothing starts on a closed connection");
    }

    // Without closes, delays and tight limits, so that rare operations do not dominate.
    #[test]
    fn b14_on_a_lossless_connection_no_call_is_disconnected_refused_or_late(
        operations in vec(any::<Operation>(), 0..300),
    ) {
        let is_harmless = |operation: &Operation| !matches!(
            operation,
            Operation::Close { .. }
                | Operation::Advance { .. }
                | Operation::Stall { .. }
                | Operation::Run { .. }
                | Operation::Drain { .. }
        );
        let operations: Vec<_> = operations.into_iter().filter(is_harmless).collect();
        let mut pair = Pair::new(&wide_limits(), Checksum::On);
        pair.run(&operations);
        pair.finish_everything();
        for call in &pair.calls {
            let end = call.end.as_ref().expect("every call has an end");
            let is_as_requested = *end == CallEnd::Cancelled || call.expected.is_some();
            assert!(is_as_requested, "{end:?}, but the handler did {:?}", call.expected);
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
    fn b14_b21_b22_b23_streams_lose_nothing_and_never_stall_when_everything_is_delivered(
        limits in any_limits(),
        checksum in any_checksum(),
        operations in vec(any::<Operation>(), 0..100),
    ) {
        let mut pair = Pair::new(&limits, checksum);
        pair.run(&operations);
        pair.finish_everything();
        pair.close_everything();
    }

    // Without closes, delays and tight limits, so that rare operations do not dominate.
    #[test]
    fn b23_on_a_lossless_connection_a_stream_ends_as_its_handler_or_caller_ended_it(
        limits in any_lossless_limits(),
        operations in vec(any_lossless_operation(), 0..100),
    ) {
        let mut pair = Pair::new(&limits, Checksum::On);
        pair.run(&operations);
        pair.finish_everything();
        for stream in &pair.streams {
            stream.assert_ended_as_requested();
        }
    }
}

#[test]
fn operations_survive_serialization() {
    let mut runner = TestRunner::deterministic();
    let some = vec(any::<Operation>(), 200);
    let operations = some.new_tree(&mut runner).expect("operations").current();
    let json = serde_json::to_string(&operations).expect("plain data");
    let read: Vec<Operation> = serde_json::from_str(&json).expect("as it was written");
    assert_eq!(read, operations);
}

#[test]
fn operations_reach_every_end_of_a_call_a_stream_and_a_connection() {
    let mut runner = TestRunner::deterministic();
    let pairs = (any_limits(), vec(any::<Operation>(), 0..150));
    let mut seen = BTreeSet::new();
    for _ in 0..3_000 {
        let (limits, operations) = pairs.new_tree(&mut runner).expect("a pair").current();
        let mut pair = Pair::new(&limits, Checksum::On);
        pair.run(&operations);
        pair.finish_everything();
        seen.extend(pair.reached);
    }
    let every = [
        "cancelled",
        "cancelled while blocked",
        "closed by the peer",
        "control overrun",
        "crossed ends",
        "cut",
        "deadline after the handler started",
        "deadline before the handler started",
        "disconnected",
        "draining",
        "end of input waited",
        "end waited for credit",
        "error overtook a waiting message",
        "error without credit",
        "half-closed",
        "handler cancelled",
        "inbound stream cancelled",
        "inbound stream deadline",
        "inbound stream disconnected",
        "inbound stream finished",
        "inbound stream silent",
        "input unread when the handler returned",
        "one mux id in use in both directions",
        "one stream mux id in use in both directions",
        "overloaded",
        "ping timeout",
        "refused",
        "remote error",
        "response",
        "response too large",
        "response too late",
        "response waited for queue space",
        "send cancelled",
        "stopped receiving",
        "stream cancelled",
        "stream cancelled by its caller",
        "stream cancelled while blocked",
        "stream deadline",
        "stream disconnected",
        "stream ended before it was accepted",
        "stream error too large",
        "stream finished",
        "stream refused",
        "stream refused before it was served",
        "stream remote error",
        "stream silent, reported by the callee",
        "stream silent, seen by its caller",
        "stream unknown handler",
        "unknown handler",
        "waited for credit",
        "waited for queue space",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), every);
}
