//! Weights of operations and limits for proptest.

use std::time::Duration;

use grid::limits::Limits;
use grid::proto::message::Checksum;
use proptest::prelude::{Arbitrary, BoxedStrategy, Just, Strategy, any};
use proptest::prop_oneof;
use proptest::sample::select;

use super::operation::{
    Decision, EndpointId, HandlerResult, InitialPayload, MESSAGE_BYTES_MAX, Message, Operation,
    ReplyKind, StreamAction,
};

impl Arbitrary for Operation {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> BoxedStrategy<Self> {
        prop_oneof![
            30 => any_call_operation(),
            80 => any_stream_operation(),
            60 => any_common_operation(),
        ]
        .boxed()
    }
}

fn any_end() -> impl Strategy<Value = EndpointId> {
    select(EndpointId::BOTH.to_vec())
}

fn any_call_operation() -> impl Strategy<Value = Operation> {
    let selector = any::<u32>;
    let payload_bytes = prop_oneof![8 => 10..150_u16, 1 => Just(MESSAGE_BYTES_MAX as u16)];
    let deadline_ms = prop_oneof![1 => Just(0_u32), 4 => 1..2_000_u32, 8 => Just(60_000)];
    let reply = prop_oneof![
        6 => Just(ReplyKind::Response),
        1 => Just(ReplyKind::ResponseTooLarge),
        2 => Just(ReplyKind::Error),
        1 => Just(ReplyKind::ErrorTooLarge),
        1 => Just(ReplyKind::UnknownHandler),
        1 => Just(ReplyKind::Refusal),
    ];
    prop_oneof![
        30 => (any_end(), payload_bytes, deadline_ms).prop_map(
            |(end, payload_bytes, deadline_ms)| Operation::Call { end, payload_bytes, deadline_ms }
        ),
        10 => (any_end(), selector())
            .prop_map(|(end, selector)| Operation::Cancel { end, selector }),
        25 => (any_end(), selector(), reply).prop_map(|(end, selector, reply)| {
            Operation::Finish { end, selector, reply }
        }),
    ]
}

fn any_stream_operation() -> impl Strategy<Value = Operation> {
    let selector = any::<u32>;
    let initial = prop_oneof![
        1 => Just(InitialPayload::Absent),
        1 => Just(InitialPayload::Empty),
        4 => (10..150_u16).prop_map(InitialPayload::Bytes),
        1 => Just(InitialPayload::Bytes(MESSAGE_BYTES_MAX as u16)),
    ];
    let deadline_ms = prop_oneof![6 => Just(0_u32), 1 => 1..3_000_u32, 2 => Just(100_000)];
    let open = (any_end(), initial, 0..4_u8, 0..3_u8, deadline_ms).prop_map(
        |(end, initial, input, output, deadline_ms)| Operation::Open {
            end,
            initial,
            input,
            output,
            deadline_ms,
        },
    );
    let decision = prop_oneof![
        10 => Just(Decision::Accept),
        1 => Just(Decision::UnknownHandler),
        1 => Just(Decision::Refuse),
    ];
    prop_oneof![
        10 => open,
        15 => (any_end(), selector(), decision)
            .prop_map(|(end, selector, decision)| Operation::Decide { end, selector, decision }),
        55 => (any_end(), selector(), any_stream_action())
            .prop_map(|(end, selector, action)| Operation::Stream { end, selector, action }),
    ]
}

fn any_stream_action() -> impl Strategy<Value = StreamAction> {
    let message = prop_oneof![
        2 => Just(Message::Empty),
        8 => (10..150_u16).prop_map(Message::Bytes),
        1 => Just(Message::Bytes(MESSAGE_BYTES_MAX as u16)),
    ];
    let result = prop_oneof![
        4 => Just(HandlerResult::Ok),
        3 => Just(HandlerResult::Error),
        1 => Just(HandlerResult::ErrorTooLarge),
    ];
    prop_oneof![
        40 => message.prop_map(StreamAction::Send),
        25 => Just(StreamAction::Receive),
        2 => Just(StreamAction::StopReceiving),
        5 => Just(StreamAction::CancelSend),
        4 => Just(StreamAction::Finish),
        4 => Just(StreamAction::Cancel),
        6 => result.prop_map(StreamAction::Return),
    ]
}

fn any_common_operation() -> impl Strategy<Value = Operation> {
    let frames = || prop_oneof![3 => 1..3_u8, 1 => Just(100)];
    let millis = prop_oneof![8 => 0..100_u32, 3 => 0..3_000_u32, 1 => Just(12_000)];
    prop_oneof![
        20 => (any_end(), frames()).prop_map(|(end, frames)| Operation::Transmit { end, frames }),
        20 => (any_end(), frames()).prop_map(|(end, frames)| Operation::Receive { end, frames }),
        10 => millis.prop_map(|millis| Operation::Advance { millis }),
        1 => (0..3_000_u32).prop_map(|millis| Operation::Stall { millis }),
        1 => (0..40_000_u32).prop_map(|millis| Operation::Run { millis }),
        1 => any_end().prop_map(|end| Operation::Drain { end }),
        1 => any_end().prop_map(|end| Operation::Close { end }),
    ]
}

/// With or without checksums.
pub fn any_checksum() -> impl Strategy<Value = Checksum> {
    select(vec![Checksum::On, Checksum::Off])
}

/// Limits that a few messages reach.
pub fn any_limits() -> impl Strategy<Value = Limits> {
    let queue = select(vec![2 * MESSAGE_BYTES_MAX, 100_000]);
    let control = select(vec![150_usize, 10_000]);
    let frame = select(vec![1_usize, 150, MESSAGE_BYTES_MAX]);
    let calls = || select(vec![3_usize, 100]);
    // Chosen so that streams can be silent on a connection that is not.
    let pings = select(vec![Duration::from_secs(2), Duration::from_secs(15)]);
    let all = (queue, control, frame, calls(), calls(), pings);
    all.prop_map(|(queue, control, frame, made, served, pings)| {
        let mut limits = wide_limits();
        limits.stream_ping_interval = pings;
        limits.queue_bytes_max = queue;
        limits.control_bytes_max = control;
        limits.frame_bytes_target = frame;
        limits.outbound_calls_max = made;
        limits.inbound_calls_max = served;
        limits
    })
}

/// Limits that are never reached, except the size of one message.
pub fn wide_limits() -> Limits {
    let mut limits = Limits::default();
    limits.message_bytes_max = MESSAGE_BYTES_MAX;
    limits.frame_bytes_target = MESSAGE_BYTES_MAX;
    limits
}

/// Limits that are never reached except the queue's: messages wait, and none is refused for it.
pub fn any_lossless_limits() -> impl Strategy<Value = Limits> {
    let queue = select(vec![2 * MESSAGE_BYTES_MAX, 100_000]);
    let pings = select(vec![Duration::from_secs(2), Duration::from_secs(15)]);
    (queue, select(vec![1_usize, MESSAGE_BYTES_MAX]), pings).prop_map(|(queue, frame, pings)| {
        let mut limits = wide_limits();
        limits.queue_bytes_max = queue;
        limits.frame_bytes_target = frame;
        limits.stream_ping_interval = pings;
        limits
    })
}

/// Operations on a connection on which time only passes while messages are delivered, and on which
/// no stream has a deadline.
pub fn any_lossless_operation() -> impl Strategy<Value = Operation> {
    any::<Operation>().prop_map(|operation| match operation {
        Operation::Open { end, initial, input, output, .. } => {
            Operation::Open { end, initial, input, output, deadline_ms: 0 }
        }
        Operation::Close { end } | Operation::Drain { end } => {
            Operation::Transmit { end, frames: u8::MAX }
        }
        Operation::Advance { millis } | Operation::Stall { millis } => Operation::Run { millis },
        other => other,
    })
}
