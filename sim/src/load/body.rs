//! The payloads of a run: the number of the call, the number of the message, and a pattern.

use bytes::{BufMut, Bytes, BytesMut};

use crate::event::{CallId, StreamSide};

/// First bytes of every payload of the load.
const MAGIC: u32 = 0x5349_4d31;

/// Bytes before the pattern.
const HEADER_BYTES: usize = 4 + 4 + 1 + 4;

/// The identity of a message, as its payload states it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    /// Number of the call.
    pub call: CallId,
    /// The sending end.
    pub end: StreamSide,
    /// Number among the messages of this end: 0 opens a stream, is a request or responds to it.
    pub number: u32,
}

impl Body {
    /// Encodes the payload, of `bytes` bytes or of the size of the header if that is larger.
    pub fn encode(self, bytes: u32) -> Bytes {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).max(HEADER_BYTES);
        let mut buffer = BytesMut::with_capacity(bytes);
        buffer.put_u32(MAGIC);
        buffer.put_u32(self.call);
        buffer.put_u8(self.end as u8);
        buffer.put_u32(self.number);
        buffer.put_bytes(self.pattern(), bytes - HEADER_BYTES);
        buffer.freeze()
    }

    fn pattern(self) -> u8 {
        (self.call.wrapping_mul(31).wrapping_add(self.number) % 251) as u8
    }

    /// Decodes the identity that a payload states.
    ///
    /// # Errors
    ///
    /// Describes a payload that is foreign or damaged.
    pub fn decode(payload: &[u8]) -> Result<Self, String> {
        let damaged = || format!("a payload of {} bytes is not of the load", payload.len());
        let (&magic, rest) = payload.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (&call, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (&end, rest) = rest.split_first().ok_or_else(damaged)?;
        let (&number, pattern) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        if u32::from_be_bytes(magic) != MAGIC {
            return Err(damaged());
        }
        let end = if end == 0 { StreamSide::Caller } else { StreamSide::Callee };
        let body = Self { call: u32::from_be_bytes(call), end, number: u32::from_be_bytes(number) };
        // Without an early exit, so that the compiler can vectorise it.
        let expected = body.pattern();
        if pattern.iter().fold(0, |damage, byte| damage | (byte ^ expected)) != 0 {
            return Err(format!("the payload of {body:?} is damaged"));
        }
        Ok(body)
    }

    /// Checks that `payload` is this one, of the length that [`encode`](Self::encode) makes of
    /// `bytes`.
    ///
    /// # Errors
    ///
    /// Describes the difference.
    pub fn check(self, payload: &[u8], bytes: u32) -> Result<(), String> {
        let found = Self::decode(payload)?;
        let length = usize::try_from(bytes).unwrap_or(usize::MAX).max(HEADER_BYTES);
        if found != self {
            return Err(format!("{found:?} instead of {self:?}"));
        }
        if payload.len() != length {
            return Err(format!("{} bytes instead of {length}", payload.len()));
        }
        Ok(())
    }
}

/// Returns the call that a payload of the load belongs to. Reads only the header.
pub(crate) fn call_of(payload: &[u8]) -> Option<CallId> {
    let (&magic, rest) = payload.split_first_chunk::<4>()?;
    let call = rest.first_chunk::<4>()?;
    (u32::from_be_bytes(magic) == MAGIC).then(|| u32::from_be_bytes(*call))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_states_its_identity_and_damage_is_detected() {
        let body = Body { call: 7, end: StreamSide::Callee, number: 3 };
        let payload = body.encode(40);
        assert_eq!(payload.len(), 40);
        assert_eq!(Body::decode(&payload), Ok(body));
        assert_eq!(body.check(&payload, 40), Ok(()));
        assert!(body.check(&payload, 41).is_err());
        assert!(Body { number: 4, ..body }.check(&payload, 40).is_err());
        assert_eq!(call_of(&payload), Some(7));

        let mut damaged = payload.to_vec();
        damaged[30] ^= 1;
        assert!(Body::decode(&damaged).is_err());
        assert!(Body::decode(b"short").is_err());
        assert_eq!(body.encode(0).len(), HEADER_BYTES);
    }
}
