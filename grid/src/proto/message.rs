//! One grid message: its fields, its bytes, and the checks on them ([P5] to [P9], [P20]).
//!
//! Parsing takes slices of the received frame and copies nothing; encoding appends to a buffer that
//! the caller owns. `connection` interprets messages.
//!
//! [P5]: crate::protocol#p5
//! [P9]: crate::protocol#p9
//! [P20]: crate::protocol#p20

use std::fmt;

use bytes::Bytes;
use rmp::decode::{self, Bytes as Reader};
use xxhash_rust::xxh3::xxh3_64;

use super::subroute::{SUBROUTE_ID_BYTES, SubrouteId};

/// The purpose of a message ([P7]).
///
/// [P7]: crate::protocol#p7
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// The dialer introduces itself.
    Connect,
    /// The acceptor accepts or rejects the connection.
    ConnectResponse,
    /// Checks that the peer, or the callee of a stream, is alive.
    Ping,
    /// Response to a ping.
    Pong,
    /// Opens a stream.
    ConnectMux,
    /// The callee refuses a call.
    MuxConnectError,
    /// The callee ends a call.
    DisconnectClientMux,
    /// The caller ends a call.
    DisconnectServerMux,
    /// A stream's message from its caller.
    MuxClientMsg,
    /// A stream's message from its handler.
    MuxServerMsg,
    /// Grants one more message toward the caller.
    UnblockSrvMux,
    /// Grants one more message toward the handler.
    UnblockClMux,
    /// The callee accepted a stream.
    AckMux,
    /// A single request.
    Request,
    /// The response to a single request.
    Response,
    /// The sender ends the connection.
    Disconnect,
    /// An envelope around several messages.
    Merged,
    /// An op unknown to this version; ignored.
    Unknown(u8),
}

/// Ordered by number, starting at 1.
const OPS: [Op; 17] = [
    Op::Connect,
    Op::ConnectResponse,
    Op::Ping,
    Op::Pong,
    Op::ConnectMux,
    Op::MuxConnectError,
    Op::DisconnectClientMux,
    Op::DisconnectServerMux,
    Op::MuxClientMsg,
    Op::MuxServerMsg,
    Op::UnblockSrvMux,
    Op::UnblockClMux,
    Op::AckMux,
    Op::Request,
    Op::Response,
    Op::Disconnect,
    Op::Merged,
];

impl Op {
    /// Returns the op's number on the wire.
    pub const fn number(self) -> u8 {
        match self {
            Self::Connect => 1,
            Self::ConnectResponse => 2,
            Self::Ping => 3,
            Self::Pong => 4,
            Self::ConnectMux => 5,
            Self::MuxConnectError => 6,
            Self::DisconnectClientMux => 7,
            Self::DisconnectServerMux => 8,
            Self::MuxClientMsg => 9,
            Self::MuxServerMsg => 10,
            Self::UnblockSrvMux => 11,
            Self::UnblockClMux => 12,
            Self::AckMux => 13,
            Self::Request => 14,
            Self::Response => 15,
            Self::Disconnect => 16,
            Self::Merged => 17,
            Self::Unknown(number) => number,
        }
    }

    /// Returns the op with this number.
    pub fn from_number(number: u8) -> Self {
        match number.checked_sub(1).and_then(|at| OPS.get(usize::from(at))) {
            Some(op) => *op,
            None => Self::Unknown(number),
        }
    }
}

/// Modifier bits of a message ([P6]).
///
/// [P6]: crate::protocol#p6
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// A checksum follows the message ([P8]).
    ///
    /// [P8]: crate::protocol#p8
    pub const CRC: Self = Self(1);
    /// The sender's last message of this call.
    pub const EOF: Self = Self(2);
    /// Reserved; refused.
    pub const STATELESS: Self = Self(4);
    /// The payload is the text of an error.
    pub const ERROR: Self = Self(8);
    /// The payload is empty, as opposed to absent.
    pub const ZERO: Self = Self(16);
    /// A subroute's id follows the message ([P19]).
    ///
    /// [P19]: crate::protocol#p19
    pub const SUBROUTE: Self = Self(32);

    /// Creates flags from bits. Unknown bits are kept and ignored.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Returns the bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns the union with `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Returns these flags without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 6] = ["CRC", "EOF", "STATELESS", "ERROR", "ZERO", "SUBROUTE"];
        let set = NAMES.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0);
        let mut list = f.debug_list();
        for (_, name) in set {
            list.entry(&format_args!("{name}"));
        }
        list.finish()
    }
}

/// The fixed fields of a message ([P5]).
///
/// [P5]: crate::protocol#p5
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Id of the call, chosen by its caller; 0 is the connection itself.
    pub mux_id: u64,
    /// Sequence number within the call, per direction.
    pub sequence: u32,
    /// Milliseconds to the call's deadline; 0 means none.
    pub deadline_ms: u32,
    /// Id of the handler, in an opening message.
    pub handler: u8,
    /// Purpose of the message.
    pub op: Op,
    /// Modifiers. `CRC` and `SUBROUTE` are set by encoding, not here.
    pub flags: Flags,
}

impl Header {
    /// Creates a header with only a call id and an op.
    pub const fn new(mux_id: u64, op: Op) -> Self {
        Self { mux_id, sequence: 0, deadline_ms: 0, handler: 0, op, flags: Flags::NONE }
    }
}

/// A received message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The fixed fields. The flags are those of the wire.
    pub header: Header,
    /// The payload: a slice of the received frame.
    pub payload: Bytes,
    /// The subroute that selects one of several handlers of one id.
    pub subroute: Option<SubrouteId>,
}

/// A message to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// The fixed fields.
    pub header: Header,
    /// The payload.
    pub payload: &'a [u8],
    /// The subroute that selects one of several handlers of one id.
    pub subroute: Option<&'a SubrouteId>,
    /// Whether to append a checksum.
    pub checksum: Checksum,
}

/// Whether messages of a connection carry a checksum ([P8]).
///
/// [P8]: crate::protocol#p8
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// Each message ends with a checksum.
    On,
    /// No checksum: the transport protects the messages, or they belong to the handshake.
    Off,
}

const ARRAY_OF_SEVEN: u8 = 0x97;
const CHECKSUM_BYTES: usize = 4;

impl Outgoing<'_> {
    /// Returns the number of bytes that [`encode`](Self::encode) will append.
    pub fn encoded_len(&self) -> usize {
        let Header { mux_id, sequence, deadline_ms, .. } = self.header;
        1 + uint_len(mux_id)
            + uint_len(u64::from(sequence))
            + uint_len(u64::from(deadline_ms))
            + uint_len(u64::from(self.header.handler))
            + uint_len(u64::from(self.header.op.number()))
            + uint_len(u64::from(self.wire_flags().bits()))
            + bin_header_len(self.payload.len())
            + self.payload.len()
            + self.subroute.map_or(0, |_| SUBROUTE_ID_BYTES)
            + if self.checksum == Checksum::On { CHECKSUM_BYTES } else { 0 }
    }

    /// Appends the message's bytes, trailers included ([P5], [P8]).
    ///
    /// [P5]: crate::protocol#p5
    /// [P8]: crate::protocol#p8
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let start = buffer.len();
        buffer.push(ARRAY_OF_SEVEN);
        put_uint(buffer, self.header.mux_id);
        put_uint(buffer, u64::from(self.header.sequence));
        put_uint(buffer, u64::from(self.header.deadline_ms));
        put_uint(buffer, u64::from(self.header.handler));
        put_uint(buffer, u64::from(self.header.op.number()));
        put_uint(buffer, u64::from(self.wire_flags().bits()));
        put_bin_header(buffer, self.payload.len());
        buffer.extend_from_slice(self.payload);
        if let Some(subroute) = self.subroute {
            buffer.extend_from_slice(subroute.as_bytes());
        }
        if self.checksum == Checksum::On {
            let sum = checksum(&buffer[start..]);
            buffer.extend_from_slice(&sum);
        }
    }

    fn wire_flags(&self) -> Flags {
        let flags = self.header.flags.without(Flags::CRC).without(Flags::SUBROUTE);
        let flags = if self.subroute.is_some() { flags.with(Flags::SUBROUTE) } else { flags };
        match self.checksum {
            Checksum::On => flags.with(Flags::CRC),
            Checksum::Off => flags,
        }
    }
}

/// Computes the checksum: the lower 32 bits of xxh3-64, little-endian (P8).
fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    (xxh3_64(bytes) as u32).to_le_bytes()
}

/// The reason why received bytes are not a message. Each ends the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The bytes end inside the message.
    #[error("truncated in {0}")]
    Truncated(&'static str),
    /// A field has the wrong type, or a number that is out of range.
    #[error("malformed {0}")]
    Malformed(&'static str),
    /// The checksum does not match the bytes.
    #[error("wrong checksum")]
    Checksum,
    /// Bytes follow the last trailer.
    #[error("{0} bytes behind the end of the message")]
    Trailing(usize),
    /// A merged message inside a merged one.
    #[error("a merged message inside a merged one")]
    Nested,
}

impl Message {
    /// Returns the payload, if present: a flag distinguishes an empty one from an absent one ([P5]).
    ///
    /// [P5]: crate::protocol#p5
    pub fn present_payload(&self) -> Option<&Bytes> {
        let absent = self.payload.is_empty() && !self.header.flags.contains(Flags::ZERO);
        (!absent).then_some(&self.payload)
    }

    /// Parses one message that fills `bytes`.
    ///
    /// A merged message is an error here: [`parse_frame`] accepts those.
    ///
    /// # Errors
    ///
    /// [`ParseError`] for anything but exactly one message.
    pub fn parse(bytes: &Bytes) -> Result<Self, ParseError> {
        Self::parse_within(bytes, bytes)
    }

    /// Parses one message that fills `bytes`, a part of `frame`.
    fn parse_within(frame: &Bytes, bytes: &[u8]) -> Result<Self, ParseError> {
        let (header, payload, rest) = split(bytes)?;
        if header.op == Op::Merged {
            return Err(ParseError::Nested);
        }
        let (subroute, rest) = split_subroute(header.flags, rest)?;
        let rest = check_checksum(header.flags, bytes, rest)?;
        match rest.len() {
            // One reference to the frame for each message, and none for intermediate slices.
            0 => Ok(Self { header, payload: frame.slice_ref(payload), subroute }),
            trailing => Err(ParseError::Trailing(trailing)),
        }
    }
}

/// Splits off the subroute at the beginning of `rest`, if the flags announce one.
fn split_subroute(flags: Flags, rest: &[u8]) -> Result<(Option<SubrouteId>, &[u8]), ParseError> {
    if !flags.contains(Flags::SUBROUTE) {
        return Ok((None, rest));
    }
    let (id, rest) =
        rest.split_first_chunk::<SUBROUTE_ID_BYTES>().ok_or(ParseError::Truncated("subroute"))?;
    Ok((Some(SubrouteId::from_bytes(*id)), rest))
}

/// Verifies the checksum at the beginning of `rest`, the tail of `bytes`, if the flags announce one
/// (P8). Returns the bytes after it.
fn check_checksum<'a>(flags: Flags, bytes: &[u8], rest: &'a [u8]) -> Result<&'a [u8], ParseError> {
    if !flags.contains(Flags::CRC) {
        return Ok(rest);
    }
    let (sum, behind) =
        rest.split_first_chunk::<CHECKSUM_BYTES>().ok_or(ParseError::Truncated("checksum"))?;
    if *sum == checksum(&bytes[..bytes.len() - rest.len()]) {
        Ok(behind)
    } else {
        Err(ParseError::Checksum)
    }
}

/// Parses the messages of one frame, which is one message or a merged one ([P3], [P20]), and appends
/// them to `messages`.
///
/// # Errors
///
/// [`ParseError`] for the first malformed message; `messages` then holds the valid ones before it.
///
/// [P3]: crate::protocol#p3
/// [P20]: crate::protocol#p20
pub fn parse_frame(frame: &Bytes, messages: &mut Vec<Message>) -> Result<(), ParseError> {
    for message in Messages::new(frame.clone())? {
        messages.push(message?);
    }
    Ok(())
}

/// An iterator over the messages of one frame. Ends after the first malformed message.
#[derive(Debug)]
pub struct Messages {
    frame: Bytes,
    /// Offset of the next message; past the end after an error.
    at: usize,
    remaining: Remaining,
}

#[derive(Debug)]
enum Remaining {
    /// The frame is one message.
    Single,
    /// The frame is a merged one, with this many messages left.
    Merged(u32),
    Done,
}

impl Messages {
    /// Starts to parse `frame`.
    ///
    /// # Errors
    ///
    /// [`ParseError`] if the frame does not begin like a message.
    pub fn new(frame: Bytes) -> Result<Self, ParseError> {
        let (header, payload, rest) = split(&frame)?;
        if header.op != Op::Merged {
            return Ok(Self { frame, at: 0, remaining: Remaining::Single });
        }
        if !payload.is_empty() {
            return Err(ParseError::Malformed("envelope: it has a payload of its own"));
        }
        let at = frame.len() - rest.len();
        Ok(Self { frame, at, remaining: Remaining::Merged(header.sequence) })
    }

    fn next_merged(&mut self) -> Result<Message, ParseError> {
        let (inner, behind) = split_bin(&self.frame[self.at..], "merged message")?;
        let message = Message::parse_within(&self.frame, inner)?;
        self.at = self.frame.len() - behind.len();
        Ok(message)
    }
}

impl Iterator for Messages {
    type Item = Result<Message, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        let message = match std::mem::replace(&mut self.remaining, Remaining::Done) {
            Remaining::Done => return None,
            Remaining::Single => Message::parse(&self.frame),
            Remaining::Merged(0) => match self.frame.len() - self.at {
                0 => return None,
                trailing => Err(ParseError::Trailing(trailing)),
            },
            Remaining::Merged(left) => {
                let message = self.next_merged();
                if message.is_ok() {
                    self.remaining = Remaining::Merged(left - 1);
                }
                message
            }
        };
        Some(message)
    }
}

/// Splits the array of seven at the beginning of `bytes` into header and payload, and returns the
/// rest.
fn split(bytes: &[u8]) -> Result<(Header, &[u8], &[u8]), ParseError> {
    let mut reader = Reader::new(bytes);
    let elements =
        decode::read_array_len(&mut reader).map_err(|_| ParseError::Malformed("array"))?;
    if elements != 7 {
        return Err(ParseError::Malformed("array: it must have seven elements"));
    }
    let mux_id = read_uint(&mut reader, "mux id")?;
    let sequence = read_uint(&mut reader, "sequence")?;
    let deadline_ms = read_uint(&mut reader, "deadline")?;
    let handler = read_uint(&mut reader, "handler")?;
    let op = Op::from_number(read_uint(&mut reader, "op")?);
    let flags = Flags::from_bits(read_uint(&mut reader, "flags")?);
    let (payload, rest) = split_bin(reader.remaining_slice(), "payload")?;
    Ok((Header { mux_id, sequence, deadline_ms, handler, op, flags }, payload, rest))
}

/// Reads a number of any width and signedness that fits `T` (P5).
fn read_uint<T>(reader: &mut Reader<'_>, field: &'static str) -> Result<T, ParseError>
where
    T: TryFrom<u64>,
{
    let number: u64 = decode::read_int(reader).map_err(|error| match error {
        decode::NumValueReadError::InvalidMarkerRead(_)
        | decode::NumValueReadError::InvalidDataRead(_) => ParseError::Truncated(field),
        _ => ParseError::Malformed(field),
    })?;
    T::try_from(number).map_err(|_| ParseError::Malformed(field))
}

/// Splits off the bin at the beginning of `bytes`.
fn split_bin<'a>(bytes: &'a [u8], field: &'static str) -> Result<(&'a [u8], &'a [u8]), ParseError> {
    let mut reader = Reader::new(bytes);
    let length = decode::read_bin_len(&mut reader).map_err(|error| match error {
        decode::ValueReadError::TypeMismatch(_) => ParseError::Malformed(field),
        _ => ParseError::Truncated(field),
    })?;
    let rest = reader.remaining_slice();
    // The length is untrusted: it only ever selects from bytes that have arrived.
    rest.split_at_checked(length as usize).ok_or(ParseError::Truncated(field))
}

/// Appends a number in its shortest form.
pub(super) fn put_uint(buffer: &mut Vec<u8>, number: u64) {
    match number {
        0..=0x7f => buffer.push(number as u8),
        0x80..=0xff => buffer.extend_from_slice(&[0xcc, number as u8]),
        0x100..=0xffff => {
            buffer.push(0xcd);
            buffer.extend_from_slice(&(number as u16).to_be_bytes());
        }
        0x1_0000..=0xffff_ffff => {
            buffer.push(0xce);
            buffer.extend_from_slice(&(number as u32).to_be_bytes());
        }
        _ => {
            buffer.push(0xcf);
            buffer.extend_from_slice(&number.to_be_bytes());
        }
    }
}

const fn uint_len(number: u64) -> usize {
    match number {
        0..=0x7f => 1,
        0x80..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// Appends the header of a bin in its shortest form. Lengths are bounded by the message limit,
/// which fits 32 bits.
pub(super) fn put_bin_header(buffer: &mut Vec<u8>, length: usize) {
    debug_assert!(u32::try_from(length).is_ok(), "a message is bounded by its limit");
    match length {
        0..=0xff => buffer.extend_from_slice(&[0xc4, length as u8]),
        0x100..=0xffff => {
            buffer.push(0xc5);
            buffer.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            buffer.push(0xc6);
            buffer.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

/// Returns the length of a bin's header.
pub(super) const fn bin_header_len(length: usize) -> usize {
    match length {
        0..=0xff => 2,
        0x100..=0xffff => 3,
        _ => 5,
    }
}
