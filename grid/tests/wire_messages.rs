//! Properties of every message: encoding and parsing are inverse, every legal form of a field is
//! accepted, and no input makes a parser panic, guess or copy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod wire;

use bytes::Bytes;
use grid::proto::handshake::{ConnectRequest, ConnectResponse};
use grid::proto::message::{Checksum, Flags, Header, Message, Op, ParseError};
use proptest::collection::vec;
use proptest::prelude::{Just, any};
use proptest::sample::Index;
use proptest::{prop_assert, prop_assert_eq, proptest};
use wire::{
    BinForm, any_checksum, any_header, any_message, any_message_with, any_payload,
    few_short_messages, merged_of, parse_whole_frame, put_bin,
};

// ---- round trips ----

proptest! {
    #[test]
    fn p05_p08_an_encoded_message_parses_to_itself(sent in any_message()) {
        let bytes = sent.encoded();
        prop_assert_eq!(bytes.len(), sent.outgoing().encoded_len(), "encoded_len is exact");
        prop_assert_eq!(Message::parse(&bytes), Ok(sent.received()));
        prop_assert_eq!(parse_whole_frame(&bytes), (vec![sent.received()], Ok(())));
    }

    #[test]
    fn p05_encoding_appends_and_keeps_earlier_bytes(
        before in vec(any::<u8>(), 0..50),
        sent in any_message(),
    ) {
        let mut buffer = before.clone();
        sent.outgoing().encode(&mut buffer);
        prop_assert_eq!(&buffer[..before.len()], &before[..]);
        prop_assert_eq!(&buffer[before.len()..], &sent.encoded()[..]);
    }

    #[test]
    fn p05_empty_and_absent_payloads_are_distinguished_by_the_flag(sent in any_message()) {
        let message = Message::parse(&sent.encoded()).expect("parses");
        let is_absent = sent.payload.is_empty() && !sent.header.flags.contains(Flags::ZERO);
        let expected = (!is_absent).then(|| Bytes::from(sent.payload));
        prop_assert_eq!(message.present_payload(), expected.as_ref());
    }

    #[test]
    fn b31_a_payload_is_a_slice_of_its_frame(sent in vec(any_message(), 1..10)) {
        for frame in [merged_of(&sent), sent[0].encoded()] {
            let memory = frame.as_ptr_range();
            let (messages, result) = parse_whole_frame(&frame);
            prop_assert_eq!(result, Ok(()));
            for payload in messages.iter().map(|message| &message.payload) {
                let slice = payload.as_ptr_range();
                let is_inside = memory.start <= slice.start && slice.end <= memory.end;
                prop_assert!(payload.is_empty() || is_inside, "copied out of the frame");
            }
        }
    }

    #[test]
    fn p07_every_number_survives_a_round_trip_as_an_op(number in any::<u8>()) {
        prop_assert_eq!(Op::from_number(number).number(), number);
        let is_known = !matches!(Op::from_number(number), Op::Unknown(_));
        prop_assert_eq!(is_known, (1..=17).contains(&number));
    }
}

// ---- every legal form, and no other ----

/// One of msgpack's forms of an integer, by its marker and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IntForm {
    Fix,
    Unsigned { marker: u8, width: usize },
    Signed { marker: u8, width: usize },
}

const INT_FORMS: [IntForm; 9] = [
    IntForm::Fix,
    IntForm::Unsigned { marker: 0xcc, width: 1 },
    IntForm::Unsigned { marker: 0xcd, width: 2 },
    IntForm::Unsigned { marker: 0xce, width: 4 },
    IntForm::Unsigned { marker: 0xcf, width: 8 },
    IntForm::Signed { marker: 0xd0, width: 1 },
    IntForm::Signed { marker: 0xd1, width: 2 },
    IntForm::Signed { marker: 0xd2, width: 4 },
    IntForm::Signed { marker: 0xd3, width: 8 },
];

impl IntForm {
    fn holds(self, number: u64) -> bool {
        match self {
            Self::Fix => number < 1 << 7,
            Self::Unsigned { width: 8, .. } => true,
            Self::Unsigned { width, .. } => number < 1 << (8 * width),
            Self::Signed { width, .. } => number < 1 << (8 * width - 1),
        }
    }

    fn put(self, buffer: &mut Vec<u8>, number: u64) {
        match self {
            Self::Fix => buffer.push(number as u8),
            Self::Unsigned { marker, width } | Self::Signed { marker, width } => {
                buffer.push(marker);
                buffer.extend_from_slice(&number.to_be_bytes()[8 - width..]);
            }
        }
    }

    /// Chooses one of the forms that hold `number`.
    fn choose(number: u64, which: Index) -> Self {
        let legal: Vec<_> = INT_FORMS.into_iter().filter(|form| form.holds(number)).collect();
        *which.get(&legal)
    }
}

/// The names of the six numbers in parse errors, and the largest value of each.
const FIELDS: [(&str, u64); 6] = [
    ("mux id", u64::MAX),
    ("sequence", u32::MAX as u64),
    ("deadline", u32::MAX as u64),
    ("handler", u8::MAX as u64),
    ("op", u8::MAX as u64),
    ("flags", u8::MAX as u64),
];

/// Encodes a message of all ones whose field `at` is `bytes`. Flag 1 is left out: no checksum.
fn with_field(at: usize, bytes: &[u8]) -> Bytes {
    let mut message = vec![0x97];
    for field in 0..FIELDS.len() {
        match field {
            _ if field == at => message.extend_from_slice(bytes),
            5 => message.push(2),
            _ => message.push(1),
        }
    }
    message.extend_from_slice(&[0xc4, 0]);
    message.into()
}

proptest! {
    #[test]
    fn p05_decoders_take_every_width_and_signedness_that_fits(
        header in any_header(),
        payload in any_payload(),
        forms in any::<[Index; 6]>(),
        bin_form in any::<Index>(),
    ) {
        let flags = header.flags.without(Flags::CRC).without(Flags::SUBROUTE);
        let header = Header { flags, ..header };
        let numbers = [
            header.mux_id,
            u64::from(header.sequence),
            u64::from(header.deadline_ms),
            u64::from(header.handler),
            u64::from(header.op.number()),
            u64::from(header.flags.bits()),
        ];
        let mut bytes = vec![0x97];
        for (number, which) in numbers.into_iter().zip(forms) {
            IntForm::choose(number, which).put(&mut bytes, number);
        }
        put_bin(&mut bytes, &payload, BinForm::choose(payload.len(), bin_form));
        let message = Message { header, payload: payload.into(), subroute: None };
        prop_assert_eq!(Message::parse(&bytes.into()), Ok(message));
    }

    #[test]
    fn p05_negative_numbers_are_malformed(at in 0..6_usize, number in i64::MIN..0) {
        for (marker, width) in [(0xd0, 1), (0xd1, 2), (0xd2, 4), (0xd3, 8)] {
            if i128::from(number) >= -(1 << (8 * width - 1)) {
                let mut bytes = vec![marker];
                bytes.extend_from_slice(&number.to_be_bytes()[8 - width..]);
                let error = ParseError::Malformed(FIELDS[at].0);
                prop_assert_eq!(Message::parse(&with_field(at, &bytes)), Err(error));
            }
        }
    }

    #[test]
    fn p05_numbers_that_do_not_fit_their_field_are_malformed(
        at in 1..6_usize,
        beyond in 1..u64::from(u32::MAX),
        form in any::<Index>(),
    ) {
        let (field, max) = FIELDS[at];
        let number = max + beyond;
        let mut bytes = Vec::new();
        IntForm::choose(number, form).put(&mut bytes, number);
        let error = ParseError::Malformed(field);
        prop_assert_eq!(Message::parse(&with_field(at, &bytes)), Err(error));
    }
}

#[test]
fn p05_each_field_takes_each_form() {
    for (at, _) in FIELDS.iter().enumerate() {
        for form in INT_FORMS {
            let mut bytes = Vec::new();
            form.put(&mut bytes, 2);
            Message::parse(&with_field(at, &bytes))
                .unwrap_or_else(|error| panic!("field {at} as {form:?}: {error}"));
        }
    }
}

#[test]
fn p05_short_negative_numbers_are_malformed() {
    for (at, (field, _)) in FIELDS.into_iter().enumerate() {
        for marker in 0xe0..=0xff {
            let parsed = Message::parse(&with_field(at, &[marker]));
            assert_eq!(parsed, Err(ParseError::Malformed(field)), "{marker:#x}");
        }
    }
}

#[test]
fn p05_a_number_of_another_type_is_malformed() {
    // nil, false, a str, a bin, a float of each width, an array and a map.
    let others: [&[u8]; 8] = [
        &[0xc0],
        &[0xc2],
        &[0xa1, b'1'],
        &[0xc4, 1, 1],
        &[0xca, 0x3f, 0x80, 0, 0],
        &[0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0],
        &[0x91, 1],
        &[0x81, 1, 1],
    ];
    for (at, (field, _)) in FIELDS.into_iter().enumerate() {
        for other in others {
            let parsed = Message::parse(&with_field(at, other));
            assert_eq!(parsed, Err(ParseError::Malformed(field)), "{other:x?}");
        }
    }
}

#[test]
fn p05_a_payload_that_is_not_a_bin_is_malformed() {
    for payload in [&[0xc0][..], &[0xa1, b'x'], &[0x05], &[0xc7, 1, 5, 0]] {
        let mut bytes = vec![0x97, 1, 0, 0, 1, 14, 2];
        bytes.extend_from_slice(payload);
        let parsed = Message::parse(&bytes.into());
        assert_eq!(parsed, Err(ParseError::Malformed("payload")), "{payload:x?}");
    }
}

#[test]
fn p05_an_array_of_another_length_is_malformed() {
    for elements in (0..16_u8).filter(|elements| *elements != 7) {
        // After the header stands a valid message of seven elements.
        let bytes = Bytes::from(vec![0x90 | elements, 1, 0, 0, 1, 15, 2, 0xc4, 0]);
        assert!(matches!(Message::parse(&bytes), Err(ParseError::Malformed(_))), "{elements}");
    }
}

#[test]
fn p05_an_array_of_seven_may_have_a_longer_header() {
    let message = [1, 0, 0, 1, 15, 2, 0xc4, 0];
    for array in [&[0x97][..], &[0xdc, 0, 7], &[0xdd, 0, 0, 0, 7]] {
        let bytes = Bytes::from([array, &message].concat());
        assert_eq!(Message::parse(&bytes).map(|message| message.header.op), Ok(Op::Response));
    }
}

// ---- damaged, cut and random messages ----

proptest! {
    #[test]
    fn p05_a_message_that_is_cut_anywhere_is_an_error(
        sent in any_message_with(vec(any::<u8>(), 0..100), any_checksum()),
    ) {
        let bytes = sent.encoded();
        for length in 0..bytes.len() {
            let cut = bytes.slice(..length);
            prop_assert!(Message::parse(&cut).is_err(), "{} of {}", length, bytes.len());
            prop_assert!(parse_whole_frame(&cut).1.is_err(), "{} of {}", length, bytes.len());
        }
    }

    #[test]
    fn p08_bytes_after_a_message_are_an_error(
        sent in any_message(),
        behind in vec(any::<u8>(), 1..40),
    ) {
        let bytes = Bytes::from([&sent.encoded()[..], &behind].concat());
        prop_assert_eq!(Message::parse(&bytes), Err(ParseError::Trailing(behind.len())));
    }

    #[test]
    fn p08_each_flipped_bit_of_a_message_with_a_checksum_is_found(
        sent in any_message_with(vec(any::<u8>(), 0..60), Just(Checksum::On)),
    ) {
        let bytes = sent.encoded().to_vec();
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let damaged = Bytes::from(damaged);
            prop_assert!(Message::parse(&damaged).is_err(), "bit {}", bit);
            prop_assert!(parse_whole_frame(&damaged).1.is_err(), "bit {} in a frame", bit);
        }
    }

    #[test]
    fn p08_a_damaged_byte_under_the_checksum_is_a_wrong_checksum(
        sent in any_message_with(vec(any::<u8>(), 1..60), Just(Checksum::On)),
        at in any::<Index>(),
        damage in 1..=u8::MAX,
    ) {
        let mut bytes = sent.encoded().to_vec();
        // Payload, subroute and checksum: damage before them is a malformed message instead.
        let behind_header =
            bytes.len() - 4 - sent.subroute.map_or(0, |_| 32) - sent.payload.len();
        let damaged = behind_header + at.index(bytes.len() - behind_header);
        bytes[damaged] ^= damage;
        prop_assert_eq!(Message::parse(&bytes.into()), Err(ParseError::Checksum));
    }

    #[test]
    fn b40_no_bytes_make_a_parser_panic(bytes in vec(any::<u8>(), 0..300)) {
        let with_array = [&[0x97], &bytes[..]].concat();
        for bytes in [Bytes::from(bytes), Bytes::from(with_array)] {
            parse_with_every_parser(&bytes);
        }
    }

    #[test]
    fn b40_no_damage_to_valid_bytes_makes_a_parser_panic(
        sent in few_short_messages(Checksum::Off),
        damages in vec((any::<Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = merged_of(&sent).to_vec();
        for (at, byte) in damages {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        parse_with_every_parser(&bytes.into());
    }
}

fn parse_with_every_parser(bytes: &Bytes) {
    let (messages, result) = parse_whole_frame(bytes);
    if let (Ok(message), Ok(())) = (Message::parse(bytes), result) {
        assert_eq!(messages, [message], "the two parsers agree on a bare message");
    }
    let _ = ConnectRequest::parse(bytes);
    let _ = ConnectResponse::parse(bytes);
}

#[test]
fn p05_a_length_allocates_nothing_for_bytes_that_did_not_arrive() {
    let bytes = Bytes::from_static(&[0x97, 1, 0, 0, 1, 14, 2, 0xc6, 0xff, 0xff, 0xff, 0xff, 1]);
    assert_eq!(Message::parse(&bytes), Err(ParseError::Truncated("payload")));
}

#[test]
fn p08_an_announced_trailer_that_is_missing_is_an_error() {
    for (flags, trailer, length) in [(1, "checksum", 4), (32, "subroute", 32), (33, "checksum", 36)]
    {
        let mut bytes = vec![0x97, 1, 0, 0, 1, 14, flags, 0xc4, 0];
        bytes.extend_from_slice(&vec![0; length - 1]);
        assert_eq!(Message::parse(&bytes.into()), Err(ParseError::Truncated(trailer)));
    }
}
