//! Strategies and helpers for property tests of the encoding: any message, merged frames, parsing.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::Bytes;
use grid::proto::message::{
    Checksum, Flags, Header, Message, Op, Outgoing, ParseError, parse_frame,
};
use grid::proto::subroute::SubrouteId;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::sample::{Index, select};
use proptest::{option, prop_oneof};

/// A message before encoding, owned.
#[derive(Debug, Clone)]
pub struct OwnedMessage {
    pub header: Header,
    pub payload: Vec<u8>,
    pub subroute: Option<SubrouteId>,
    pub checksum: Checksum,
}

impl OwnedMessage {
    pub fn outgoing(&self) -> Outgoing<'_> {
        Outgoing {
            header: self.header,
            payload: &self.payload,
            subroute: self.subroute.as_ref(),
            checksum: self.checksum,
        }
    }

    pub fn encoded(&self) -> Bytes {
        let mut bytes = Vec::new();
        self.outgoing().encode(&mut bytes);
        bytes.into()
    }

    /// Returns the message that a receiver parses: flags CRC and SUBROUTE follow from the trailers.
    pub fn received(&self) -> Message {
        let mut header = self.header;
        header.flags = header.flags.without(Flags::CRC).without(Flags::SUBROUTE);
        if self.subroute.is_some() {
            header.flags = header.flags.with(Flags::SUBROUTE);
        }
        if self.checksum == Checksum::On {
            header.flags = header.flags.with(Flags::CRC);
        }
        Message { header, payload: Bytes::from(self.payload.clone()), subroute: self.subroute }
    }
}

/// Any number, with a preference for the limits of msgpack's forms.
pub fn any_u64() -> impl Strategy<Value = u64> {
    let limits = [0, 1, 7, 8, 15, 16, 31, 32, 63]
        .into_iter()
        .flat_map(|bits: u32| [(1_u64 << bits) - 1, 1 << bits])
        .chain([u64::MAX])
        .collect::<Vec<_>>();
    prop_oneof![select(limits), any::<u64>()]
}

pub fn any_u32() -> impl Strategy<Value = u32> {
    any_u64().prop_map(|number| number as u32)
}

/// Any op but the envelope's, unknown ones included.
pub fn any_op() -> impl Strategy<Value = Op> {
    any::<u8>().prop_filter_map("an envelope is no bare message", |number| {
        (number != Op::Merged.number()).then(|| Op::from_number(number))
    })
}

pub fn any_header() -> impl Strategy<Value = Header> {
    let flags = any::<u8>().prop_map(Flags::from_bits);
    (any_u64(), any_u32(), any_u32(), any::<u8>(), any_op(), flags).prop_map(
        |(mux_id, sequence, deadline_ms, handler, op, flags)| Header {
            mux_id,
            sequence,
            deadline_ms,
            handler,
            op,
            flags,
        },
    )
}

/// Any payload: mostly short, sometimes around the limits of msgpack's forms.
pub fn any_payload() -> impl Strategy<Value = Vec<u8>> {
    let long = (select(vec![255_usize, 256, 65_535, 65_536, 70_000]), any::<u8>())
        .prop_map(|(length, byte)| vec![byte; length]);
    prop_oneof![8 => vec(any::<u8>(), 0..100), 1 => long]
}

pub fn any_checksum() -> impl Strategy<Value = Checksum> {
    select(vec![Checksum::On, Checksum::Off])
}

pub fn any_message() -> impl Strategy<Value = OwnedMessage> {
    any_message_with(any_payload(), any_checksum())
}

pub fn any_message_with(
    payload: impl Strategy<Value = Vec<u8>>,
    checksum: impl Strategy<Value = Checksum>,
) -> impl Strategy<Value = OwnedMessage> {
    let subroute = option::of(any::<[u8; 32]>().prop_map(SubrouteId::from_bytes));
    (any_header(), payload, subroute, checksum).prop_map(|(header, payload, subroute, checksum)| {
        OwnedMessage { header, payload, subroute, checksum }
    })
}

pub fn few_short_messages(checksum: Checksum) -> impl Strategy<Value = Vec<OwnedMessage>> {
    vec(any_message_with(vec(any::<u8>(), 0..40), Just(checksum)), 1..8)
}

/// Encodes a merged frame that announces `count` messages and holds `inner`.
pub fn merged(count: usize, inner: &[Bytes]) -> Bytes {
    let sequence = u32::try_from(count).expect("fits 32 bits");
    let envelope = Outgoing {
        header: Header { sequence, ..Header::new(0, Op::Merged) },
        payload: &[],
        subroute: None,
        checksum: Checksum::Off,
    };
    let mut frame = Vec::new();
    envelope.encode(&mut frame);
    for message in inner {
        put_bin(&mut frame, message, BinForm::shortest(message.len()));
    }
    frame.into()
}

pub fn merged_of(sent: &[OwnedMessage]) -> Bytes {
    let inner: Vec<_> = sent.iter().map(OwnedMessage::encoded).collect();
    merged(inner.len(), &inner)
}

pub fn received(sent: &[OwnedMessage]) -> Vec<Message> {
    sent.iter().map(OwnedMessage::received).collect()
}

pub fn parse_whole_frame(frame: &Bytes) -> (Vec<Message>, Result<(), ParseError>) {
    let mut messages = Vec::new();
    let result = parse_frame(frame, &mut messages);
    (messages, result)
}

/// One of msgpack's forms of a bin, by the width of its length.
#[derive(Debug, Clone, Copy)]
pub struct BinForm {
    pub width: usize,
}

pub const BIN_FORMS: [BinForm; 3] =
    [BinForm { width: 1 }, BinForm { width: 2 }, BinForm { width: 4 }];

impl BinForm {
    pub fn shortest(length: usize) -> Self {
        *BIN_FORMS.iter().find(|form| form.holds(length)).expect("4 GiB hold every test")
    }

    pub fn holds(self, length: usize) -> bool {
        (length as u64) < 1 << (8 * self.width)
    }

    /// Chooses one of the forms that hold `length` bytes.
    pub fn choose(length: usize, which: Index) -> Self {
        let legal: Vec<_> = BIN_FORMS.into_iter().filter(|form| form.holds(length)).collect();
        *which.get(&legal)
    }
}

pub fn put_bin(buffer: &mut Vec<u8>, bytes: &[u8], form: BinForm) {
    let marker = match form.width {
        1 => 0xc4,
        2 => 0xc5,
        _ => 0xc6,
    };
    buffer.push(marker);
    let length = u32::try_from(bytes.len()).expect("fits 32 bits");
    buffer.extend_from_slice(&length.to_be_bytes()[4 - form.width..]);
    buffer.extend_from_slice(bytes);
}
