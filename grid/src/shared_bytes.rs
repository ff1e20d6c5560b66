//! Byte fields that share the memory of the received frame ([B31]).
//!
//! Put `#[serde(with = "grid::shared_bytes")]` on a field of type [`bytes::Bytes`]. In a request or
//! a response of a typed handler, the field is then decoded as a slice of the received frame,
//! however large it is. Anywhere else it is copied.
//!
//! ```
//! # use bytes::Bytes;
//! # use serde::{Deserialize, Serialize};
//! #[derive(Serialize, Deserialize)]
//! struct WriteAll {
//!     path: String,
//!     #[serde(with = "grid::shared_bytes")]
//!     data: Bytes,
//! }
//! ```
//!
//! serde cannot pass a reference-counted buffer through a deserializer. A thread-local therefore
//! holds the payload while it is decoded, and a field borrowed from it is recognised by its
//! address.
//!
//! [B31]: crate::rules#b31

use std::cell::RefCell;
use std::fmt;

use bytes::Bytes;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::ser::Serializer;

thread_local! {
    /// The payload that this thread decodes now; empty outside of [`scope`].
    static PAYLOAD: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
}

/// Runs `decode`, in which byte fields share the memory of `payload`.
pub(crate) fn scope<R>(payload: &Bytes, decode: impl FnOnce() -> R) -> R {
    /// Restores the previous payload, also if decoding panics.
    struct Restore(Bytes);
    impl Drop for Restore {
        fn drop(&mut self) {
            let previous = std::mem::take(&mut self.0);
            PAYLOAD.with_borrow_mut(|current| *current = previous);
        }
    }
    let payload = payload.clone();
    let _restore = Restore(PAYLOAD.with_borrow_mut(|current| std::mem::replace(current, payload)));
    decode()
}

/// Returns `bytes` as a slice of the current payload if they lie in it, otherwise as a copy.
fn share(bytes: &[u8]) -> Bytes {
    PAYLOAD.with_borrow(|payload| {
        let (outer, inner) = (payload.as_ptr_range(), bytes.as_ptr_range());
        if outer.start <= inner.start && inner.end <= outer.end {
            payload.slice_ref(bytes)
        } else {
            Bytes::copy_from_slice(bytes)
        }
    })
}

/// Writes the field as a byte string.
///
/// # Errors
///
/// The serializer's errors.
pub fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// Reads the field, sharing the payload's memory where possible.
///
/// # Errors
///
/// The deserializer's errors, and an error if the value is no byte string.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    deserializer.deserialize_bytes(BytesVisitor)
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Bytes, E> {
        Ok(share(bytes))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(bytes.into())
    }

    /// Accepts an array of numbers: the encoding of senders without byte strings.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Bytes, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Write {
        path: String,
        #[serde(with = "super")]
        data: Bytes,
    }

    fn encoded() -> Bytes {
        let write = Write { path: "a/b".into(), data: Bytes::from(vec![7; 1 << 20]) };
        rmp_serde::to_vec_named(&write).expect("encodes").into()
    }

    fn decode(payload: &Bytes) -> Write {
        rmp_serde::from_slice(payload).expect("decodes")
    }

    fn is_slice_of(inner: &Bytes, outer: &Bytes) -> bool {
        let (inner, outer) = (inner.as_ptr_range(), outer.as_ptr_range());
        outer.start <= inner.start && inner.end <= outer.end
    }

    #[test]
    fn b31_byte_field_shares_the_payloads_memory() {
        let payload = encoded();
        let write = scope(&payload, || decode(&payload));
        assert_eq!(write.data.len(), 1 << 20);
        assert!(is_slice_of(&write.data, &payload));
    }

    #[test]
    fn b31_byte_field_is_copied_outside_of_a_scope() {
        let (payload, other) = (encoded(), encoded());
        assert!(!is_slice_of(&decode(&payload).data, &payload));
        let write = scope(&other, || decode(&payload));
        assert!(!is_slice_of(&write.data, &payload));
        assert!(!is_slice_of(&decode(&other).data, &other));
    }

    #[test]
    fn b31_panic_while_decoding_restores_the_previous_payload() {
        let payload = encoded();
        let result = std::panic::catch_unwind(|| scope(&payload, || panic!("in a user's type")));
        assert!(result.is_err());
        assert!(PAYLOAD.with_borrow(Bytes::is_empty));
    }

    #[test]
    fn b31_array_of_numbers_is_accepted_as_bytes() {
        let payload = rmp_serde::to_vec(&("p", [1_u8, 2, 3])).expect("encodes");
        let write: Write = rmp_serde::from_slice(&payload).expect("decodes");
        assert_eq!(write.data, &[1, 2, 3][..]);
    }
}
