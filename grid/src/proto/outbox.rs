//! Messages that wait to be written, as finished frames.
//!
//! Messages are encoded directly into the frame that carries them. The first one opens a frame,
//! later ones join it until it is large enough. When the frame is taken, it is a bare message or a
//! merged one ([P20]). Nothing is copied in between. A message that would fill a frame by itself is
//! encoded later, by the code that takes it: copying and checksumming megabytes must not happen
//! under a lock.
//!
//! Two lanes: the connection's own pings and pongs overtake data, because a full queue must not
//! look like a dead peer ([B07]). Messages of a call keep their order.
//!
//! [B07]: crate::rules#b07
//! [P20]: crate::protocol#p20

use std::collections::VecDeque;

use bytes::Bytes;

use super::counter;
use super::message::{self, Checksum, Header, Op, Outgoing};
use super::subroute::SubrouteId;

/// Room for the longest envelope in front of a frame: an array of seven whose only field of more
/// than a byte is the count.
const ENVELOPE_ROOM: usize = 13;

/// The queue of frames, the last of each lane still under construction.
#[derive(Debug)]
pub(super) struct Outbox {
    urgent: VecDeque<Frame>,
    data: VecDeque<Frame>,
    queued_bytes: usize,
    frame_bytes_target: usize,
}

/// A frame to be written as one binary WebSocket message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    content: Content,
    /// Number of messages in the frame.
    pub messages: u32,
    /// Whether the queue is empty after this frame.
    pub is_last: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Encoded(Bytes),
    Large(LargeMessage),
}

/// A message that is sent alone and is not encoded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LargeMessage {
    header: Header,
    subroute: Option<SubrouteId>,
    payload: Bytes,
    checksum: Checksum,
    /// Encoded length in bytes.
    length: usize,
}

impl Transmit {
    /// Returns the length of the frame in bytes.
    pub fn frame_bytes(&self) -> usize {
        match &self.content {
            Content::Encoded(bytes) => bytes.len(),
            Content::Large(large) => large.length,
        }
    }

    /// Returns the frame. May copy and checksum a large message: not to be called under a lock.
    pub fn into_bytes(self) -> Bytes {
        match self.content {
            Content::Encoded(bytes) => bytes,
            Content::Large(large) => large.encode(),
        }
    }
}

impl LargeMessage {
    fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.length);
        let Self { header, subroute, payload, checksum, .. } = self;
        Outgoing { header: *header, payload, subroute: subroute.as_ref(), checksum: *checksum }
            .encode(&mut bytes);
        debug_assert_eq!(bytes.len(), self.length, "encoded_len is exact");
        bytes.into()
    }
}

/// The lane of a message, which decides what it may overtake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Overtakes all messages of calls.
    Urgent,
    /// Overtakes nothing.
    InOrder,
}

#[derive(Debug)]
enum Frame {
    Open(OpenFrame),
    Large(LargeMessage),
}

#[derive(Debug)]
struct OpenFrame {
    /// Room for an envelope, then each message after the header of a bin.
    buffer: Vec<u8>,
    messages: u32,
    /// Bytes of the messages alone.
    message_bytes: usize,
    /// Length of the bin header before the first message, which is stripped from a bare one.
    first_header_len: usize,
}

impl Outbox {
    pub(super) fn new(frame_bytes_target: usize) -> Self {
        Self { urgent: VecDeque::new(), data: VecDeque::new(), queued_bytes: 0, frame_bytes_target }
    }

    /// Returns the bytes of the queued messages.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.data.is_empty() && self.urgent.is_empty()
    }

    /// Appends a message to its lane. Returns its length.
    pub(super) fn push(&mut self, lane: Lane, message: &Outgoing<'_>) -> usize {
        let length = message.encoded_len();
        let frames = match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::InOrder => &mut self.data,
        };
        self.queued_bytes += length;
        if let Some(Frame::Open(frame)) = frames.back_mut()
            && frame.buffer.len() + length <= self.frame_bytes_target
        {
            frame.push(message, length);
            return length;
        }
        let mut frame = OpenFrame::with_room_for(length);
        frame.push(message, length);
        frames.push_back(Frame::Open(frame));
        length
    }

    /// Appends a data message whose payload is `payload`. A large payload is neither read nor
    /// copied.
    pub(super) fn push_data(&mut self, message: &Outgoing<'_>, payload: &Bytes) -> usize {
        let length = message.encoded_len();
        if length <= self.frame_bytes_target {
            return self.push(Lane::InOrder, message);
        }
        self.queued_bytes += length;
        self.data.push_back(Frame::Large(LargeMessage {
            header: message.header,
            subroute: message.subroute.copied(),
            payload: payload.clone(),
            checksum: message.checksum,
            length,
        }));
        length
    }

    /// Takes the next frame to be written.
    pub(super) fn pop(&mut self) -> Option<Transmit> {
        let frame = self.urgent.pop_front().or_else(|| self.data.pop_front())?;
        let (length, messages, content) = match frame {
            Frame::Large(large) => (large.length, 1, Content::Large(large)),
            Frame::Open(frame) => {
                (frame.message_bytes, frame.messages, Content::Encoded(frame.finish()))
            }
        };
        counter::subtract(&mut self.queued_bytes, length, "outbox.queued_bytes");
        Some(Transmit { content, messages, is_last: self.is_empty() })
    }

    /// Returns the number of queued frames.
    pub(super) fn frames(&self) -> usize {
        self.urgent.len() + self.data.len()
    }

    /// Checks what must hold between two operations: the counted bytes are those of the frames.
    pub(super) fn check_invariants(&self) {
        let bytes: usize = self.urgent.iter().chain(&self.data).map(Frame::checked_bytes).sum();
        assert_eq!(self.queued_bytes, bytes, "outbox.queued_bytes, and the bytes of its frames");
    }

    /// Discards all frames. Returns the payloads that the caller must drop.
    pub(super) fn clear(&mut self) -> Vec<Bytes> {
        self.urgent.clear();
        self.queued_bytes = 0;
        let payload = |frame| match frame {
            Frame::Large(large) => Some(large.payload),
            Frame::Open(_) => None,
        };
        self.data.drain(..).filter_map(payload).collect()
    }
}

impl Frame {
    /// Returns the bytes of the messages, after a check of the frame itself.
    fn checked_bytes(&self) -> usize {
        match self {
            Self::Large(large) => large.length,
            Self::Open(frame) => {
                let OpenFrame { buffer, messages, message_bytes, first_header_len } = frame;
                assert!(*messages > 0, "frame.messages = 0: an empty frame is never queued");
                let framed = buffer.len() - ENVELOPE_ROOM;
                let least = message_bytes + first_header_len;
                let is_complete = if *messages == 1 { framed == least } else { framed > least };
                assert!(
                    is_complete,
                    "frame.buffer holds {framed} bytes, frame.message_bytes = {message_bytes} in \
                     {messages} messages"
                );
                *message_bytes
            }
        }
    }
}

impl OpenFrame {
    fn with_room_for(length: usize) -> Self {
        let capacity = ENVELOPE_ROOM + message::bin_header_len(length) + length;
        let mut buffer = Vec::with_capacity(capacity.max(1024));
        buffer.resize(ENVELOPE_ROOM, 0);
        Self {
            buffer,
            messages: 0,
            message_bytes: 0,
            first_header_len: message::bin_header_len(length),
        }
    }

    fn push(&mut self, message: &Outgoing<'_>, length: usize) {
        self.buffer.reserve(message::bin_header_len(length) + length);
        message::put_bin_header(&mut self.buffer, length);
        let start = self.buffer.len();
        message.encode(&mut self.buffer);
        debug_assert_eq!(self.buffer.len() - start, length, "encoded_len is exact");
        self.messages += 1;
        self.message_bytes += length;
    }

    fn finish(mut self) -> Bytes {
        let start = if self.messages == 1 {
            ENVELOPE_ROOM + self.first_header_len
        } else {
            let envelope = envelope(self.messages);
            let start = ENVELOPE_ROOM - envelope.len();
            self.buffer[start..ENVELOPE_ROOM].copy_from_slice(&envelope);
            start
        };
        let mut bytes = Bytes::from(self.buffer);
        bytes::Buf::advance(&mut bytes, start);
        bytes
    }
}

fn envelope(messages: u32) -> Vec<u8> {
    let envelope = Outgoing {
        header: Header { sequence: messages, ..Header::new(0, Op::Merged) },
        payload: &[],
        subroute: None,
        checksum: Checksum::Off, // P12: the messages inside have their own
    };
    let mut bytes = Vec::with_capacity(ENVELOPE_ROOM);
    envelope.encode(&mut bytes);
    debug_assert!(bytes.len() <= ENVELOPE_ROOM);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::message::{Message, parse_frame};

    fn message(mux_id: u64, payload: &[u8]) -> Outgoing<'_> {
        Outgoing {
            header: Header::new(mux_id, Op::Response),
            payload,
            subroute: None,
            checksum: Checksum::On,
        }
    }

    fn ids(transmit: &Transmit) -> Vec<u64> {
        let mut messages: Vec<Message> = Vec::new();
        let count = transmit.messages as usize;
        let bytes = transmit.clone().into_bytes();
        assert_eq!(bytes.len(), transmit.frame_bytes());
        parse_frame(&bytes, &mut messages).expect("an encoded frame parses");
        assert_eq!(messages.len(), count);
        messages.iter().map(|message| message.header.mux_id).collect()
    }

    #[test]
    fn p20_one_message_is_sent_bare_and_several_are_merged() {
        let mut outbox = Outbox::new(1024);
        outbox.push(Lane::InOrder, &message(1, b"one"));
        let bare = outbox.pop().expect("a frame");
        Message::parse(&bare.into_bytes()).expect("a bare message");

        for mux_id in 1..=3 {
            outbox.push(Lane::InOrder, &message(mux_id, b"many"));
        }
        assert_eq!(ids(&outbox.pop().expect("a frame")), [1, 2, 3]);
        assert!(outbox.pop().is_none());
        assert_eq!(outbox.queued_bytes(), 0);
    }

    #[test]
    fn p20_a_large_message_is_sent_alone_and_in_order() {
        let mut outbox = Outbox::new(1024);
        let large = vec![7; 70_000];
        outbox.push(Lane::InOrder, &message(1, b"small"));
        outbox.push(Lane::InOrder, &message(2, &large));
        outbox.push(Lane::InOrder, &message(3, b"small"));
        let frames: Vec<_> = std::iter::from_fn(|| outbox.pop()).map(|t| ids(&t)).collect();
        assert_eq!(frames, [[1], [2], [3]]);
    }

    #[test]
    fn a_large_payload_is_neither_copied_nor_dropped_under_the_lock() {
        let mut outbox = Outbox::new(1024);
        let payload = Bytes::from(vec![7; 70_000]);
        outbox.push(Lane::InOrder, &message(1, b"small"));
        outbox.push_data(&message(2, &payload), &payload);
        outbox.push_data(&message(3, b"small"), &Bytes::from_static(b"small"));
        let mut copied = Outbox::new(1024);
        copied.push(Lane::InOrder, &message(2, &payload));

        assert!(matches!(outbox.data[1], Frame::Large(ref large)
            if large.payload.as_ptr() == payload.as_ptr()));
        assert_eq!(ids(&outbox.pop().expect("a frame")), [1]);
        let large = outbox.pop().expect("a frame");
        let same = copied.pop().expect("a frame");
        assert_eq!(large.frame_bytes(), same.frame_bytes());
        assert_eq!(large.into_bytes(), same.into_bytes());
        assert_eq!(ids(&outbox.pop().expect("a frame")), [3]);
        assert_eq!(outbox.queued_bytes(), 0);

        outbox.push_data(&message(4, &payload), &payload);
        assert_eq!(outbox.clear(), [payload]);
    }

    #[test]
    fn b07_urgent_messages_overtake_data() {
        let mut outbox = Outbox::new(1024);
        outbox.push(Lane::InOrder, &message(1, b"data"));
        outbox.push(Lane::Urgent, &message(0, b"ping"));
        assert_eq!(ids(&outbox.pop().expect("urgent")), [0]);
        assert_eq!(ids(&outbox.pop().expect("data")), [1]);
    }

    #[test]
    fn queued_bytes_is_the_sum_of_the_pushed_messages() {
        let mut outbox = Outbox::new(64);
        let pushed: usize =
            (0..100).map(|id| outbox.push(Lane::InOrder, &message(id, &[1; 40]))).sum();
        assert_eq!(outbox.queued_bytes(), pushed);
        while outbox.pop().is_some() {}
        assert_eq!(outbox.queued_bytes(), 0);
        assert!(outbox.is_empty());
    }
}
