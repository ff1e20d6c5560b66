//! Properties of every merged frame: its messages come out whole and in order, and a false envelope
//! or a damaged message never loses a message before it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod wire;

use bytes::Bytes;
use grid::proto::message::{Checksum, ParseError};
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::sample::Index;
use proptest::{prop_assert, prop_assert_eq, proptest};
use wire::{
    BinForm, OwnedMessage, any_message, few_short_messages, merged, merged_of, parse_whole_frame,
    put_bin, received,
};

// ---- messages that come out whole ----

proptest! {
    #[test]
    fn p20_merged_messages_come_out_whole_and_in_order(sent in vec(any_message(), 0..60)) {
        prop_assert_eq!(parse_whole_frame(&merged_of(&sent)), (received(&sent), Ok(())));
    }

    #[test]
    fn p20_the_bins_of_a_merged_message_may_have_any_width(
        sent in vec(any_message(), 0..10),
        forms in any::<[Index; 10]>(),
    ) {
        let mut frame = merged(sent.len(), &[]).to_vec();
        for (sent, which) in sent.iter().zip(forms) {
            let bytes = sent.encoded();
            put_bin(&mut frame, &bytes, BinForm::choose(bytes.len(), which));
        }
        prop_assert_eq!(parse_whole_frame(&frame.into()), (received(&sent), Ok(())));
    }
}

// ---- frames that are cut or damaged ----

proptest! {
    #[test]
    fn p20_a_merged_message_that_is_cut_anywhere_is_an_error_after_the_whole_messages(
        sent in few_short_messages(Checksum::On),
    ) {
        let (frame, whole) = (merged_of(&sent), received(&sent));
        for length in 0..frame.len() {
            let (messages, result) = parse_whole_frame(&frame.slice(..length));
            prop_assert!(result.is_err());
            prop_assert!(whole.starts_with(&messages));
            prop_assert!(messages.len() < whole.len());
        }
    }

    #[test]
    fn p20_messages_before_a_malformed_one_are_kept(
        sent in few_short_messages(Checksum::On),
        which in any::<Index>(),
        damage in 1..=u8::MAX,
    ) {
        let mut inner: Vec<_> = sent.iter().map(OwnedMessage::encoded).collect();
        let bad = which.index(inner.len());
        let mut bytes = inner[bad].to_vec();
        *bytes.last_mut().expect("a message has bytes") ^= damage;
        inner[bad] = bytes.into();
        let frame = merged(inner.len(), &inner);
        let error = Err(ParseError::Checksum);
        prop_assert_eq!(parse_whole_frame(&frame), (received(&sent[..bad]), error));
    }

    #[test]
    fn p20_bytes_after_the_last_message_are_an_error_after_all_messages(
        sent in few_short_messages(Checksum::On),
        behind in vec(any::<u8>(), 1..40),
    ) {
        let frame = Bytes::from([&merged_of(&sent)[..], &behind].concat());
        let error = Err(ParseError::Trailing(behind.len()));
        prop_assert_eq!(parse_whole_frame(&frame), (received(&sent), error));
    }
}

// ---- false envelopes ----

proptest! {
    #[test]
    fn p20_a_count_that_is_too_large_is_an_error_after_the_messages(
        sent in few_short_messages(Checksum::On),
        missing in 1..1_000_usize,
    ) {
        let inner: Vec<_> = sent.iter().map(OwnedMessage::encoded).collect();
        let frame = merged(inner.len() + missing, &inner);
        let error = Err(ParseError::Truncated("merged message"));
        prop_assert_eq!(parse_whole_frame(&frame), (received(&sent), error));
    }

    #[test]
    fn p20_a_count_that_is_too_small_is_an_error_after_the_announced_messages(
        sent in few_short_messages(Checksum::On),
        which in any::<Index>(),
    ) {
        let inner: Vec<_> = sent.iter().map(OwnedMessage::encoded).collect();
        let announced = which.index(inner.len());
        let beyond: usize = inner[announced..].iter().map(|bytes| 2 + bytes.len()).sum();
        let frame = merged(announced, &inner);
        let error = Err(ParseError::Trailing(beyond));
        prop_assert_eq!(parse_whole_frame(&frame), (received(&sent[..announced]), error));
    }

    #[test]
    fn p20_a_nested_merged_message_is_an_error_after_the_messages_before_it(
        sent in few_short_messages(Checksum::On),
        which in any::<Index>(),
    ) {
        let mut inner: Vec<_> = sent.iter().map(OwnedMessage::encoded).collect();
        let at = which.index(inner.len());
        inner[at] = merged_of(&sent);
        let frame = merged(inner.len(), &inner);
        let error = Err(ParseError::Nested);
        prop_assert_eq!(parse_whole_frame(&frame), (received(&sent[..at]), error));
    }
}

#[test]
fn p20_an_envelope_with_a_payload_is_malformed() {
    let frame = Bytes::from_static(&[0x97, 0, 0, 0, 0, 17, 0, 0xc4, 1, 7]);
    assert!(matches!(parse_whole_frame(&frame).1, Err(ParseError::Malformed(_))));
}

#[test]
fn p20_a_count_allocates_nothing_for_bytes_that_did_not_arrive() {
    let frame = merged(u32::MAX as usize, &[]);
    let (messages, result) = parse_whole_frame(&frame);
    assert_eq!(messages.capacity(), 0, "nothing is allocated for missing bytes");
    assert_eq!(result, Err(ParseError::Truncated("merged message")));
}
