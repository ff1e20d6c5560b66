//! What the payloads of a run hold: which call, which message of it, and a pattern.

use bytes::{BufMut, Bytes, BytesMut};

use crate::event::{CallId, StreamSide};

/// A payload that is one of ours begins with this.
const MAGIC: u32 = 0x5349_4d31;

/// Bytes before the pattern.
const HEADER_BYTES: usize = 4 + 4 + 1 + 4;

/// Which message a payload belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    /// Which call.
    pub call: CallId,
    /// Which end sends it.
    pub end: StreamSide,
    /// Its place among those of this end: 0 opens, or answers a request.
    pub number: u32,
}

impl Body {
    /// The payload, of `bytes` bytes or of as many as are needed.
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

    /// What a payload says that it is.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn decode(payload: &[u8]) -> Result<Self, String> {
        let damaged = || format!("a payload of {} bytes is none of ours", payload.len());
        let (&magic, rest) = payload.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (&call, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let (&end, rest) = rest.split_first().ok_or_else(damaged)?;
        let (&number, pattern) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        if u32::from_be_bytes(magic) != MAGIC {
            return Err(damaged());
        }
        let end = if end == 0 { StreamSide::Caller } else { StreamSide::Callee };
        let body = Self { call: u32::from_be_bytes(call), end, number: u32::from_be_bytes(number) };
        // Without a way out in between, so that the compiler can make it wide.
        let expected = body.pattern();
        if pattern.iter().fold(0, |damage, byte| damage | (byte ^ expected)) != 0 {
            return Err(format!("the payload of {body:?} is damaged"));
        }
        Ok(body)
    }

    /// Whether `payload` is this one, of the length that [`encode`](Self::encode) makes of `bytes`.
    ///
    /// # Errors
    ///
    /// What it is instead.
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

/// The call that a payload belongs to, if it is one of ours. Looks at nothing but its beginning.
pub(crate) fn call_of(payload: &[u8]) -> Option<CallId> {
    let (&magic, rest) = payload.split_first_chunk::<4>()?;
    let call = rest.first_chunk::<4>()?;
    (u32::from_be_bytes(magic) == MAGIC).then(|| u32::from_be_bytes(*call))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_which_message_it_is_and_damage_is_seen() {
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
