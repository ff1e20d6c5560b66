//! How likely what is: proptest's side of operations and limits.

use grid::limits::Limits;
use grid::proto::message::Checksum;
use proptest::prelude::{Arbitrary, BoxedStrategy, Just, Strategy, any};
use proptest::prop_oneof;
use proptest::sample::select;

use super::operation::{End, How, MESSAGE_BYTES_MAX, Operation};

impl Arbitrary for Operation {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> BoxedStrategy<Self> {
        prop_oneof![75 => any_call_operation(), 62 => any_common_operation()].boxed()
    }
}

fn any_end() -> impl Strategy<Value = End> {
    select(End::BOTH.to_vec())
}

fn any_call_operation() -> impl Strategy<Value = Operation> {
    let which = any::<u32>;
    let payload_bytes = prop_oneof![8 => 10..150_u16, 1 => Just(MESSAGE_BYTES_MAX as u16)];
    let deadline_ms = prop_oneof![1 => Just(0_u32), 4 => 1..2_000_u32, 8 => Just(60_000)];
    let how = prop_oneof![
        6 => Just(How::Answer),
        1 => Just(How::AnswerTooLarge),
        2 => Just(How::Error),
        1 => Just(How::ErrorTooLarge),
        1 => Just(How::UnknownHandler),
        1 => Just(How::Refusal),
    ];
    prop_oneof![
        30 => (any_end(), payload_bytes, deadline_ms).prop_map(
            |(end, payload_bytes, deadline_ms)| Operation::Call { end, payload_bytes, deadline_ms }
        ),
        10 => (any_end(), which()).prop_map(|(end, which)| Operation::GiveUp { end, which }),
        25 => (any_end(), which(), how).prop_map(|(end, which, how)| {
            Operation::Finish { end, which, how }
        }),
    ]
}

fn any_common_operation() -> impl Strategy<Value = Operation> {
    let frames = || prop_oneof![3 => 1..3_u8, 1 => Just(100)];
    let millis = prop_oneof![4 => 0..100_u32, 2 => 0..3_000_u32, 1 => Just(12_000)];
    prop_oneof![
        20 => (any_end(), frames()).prop_map(|(end, frames)| Operation::Transmit { end, frames }),
        20 => (any_end(), frames()).prop_map(|(end, frames)| Operation::Receive { end, frames }),
        10 => millis.prop_map(|millis| Operation::Advance { millis }),
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
pub fn wide_limits() -> Limits {
    let mut limits = Limits::default();
    limits.message_bytes_max = MESSAGE_BYTES_MAX;
    limits.frame_bytes_target = MESSAGE_BYTES_MAX;
    limits
}
