//! What can happen in a world, and the limits within which it does.

use grid::limits::Limits;
use proptest::prelude::{Arbitrary, BoxedStrategy, Just, Strategy, any};
use proptest::prop_oneof;
use proptest::sample::{Index, select};

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    A,
    B,
}

impl End {
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// How a handler answers.
#[derive(Debug, Clone, Copy)]
pub enum How {
    Answer,
    AnswerTooLarge,
    Error,
    ErrorTooLarge,
    UnknownHandler,
    Refusal,
}

/// What can happen. Where one of several calls is meant, `which` picks it.
#[derive(Debug, Clone)]
pub enum Operation {
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

pub const MESSAGE_BYTES_MAX: usize = 300;

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
