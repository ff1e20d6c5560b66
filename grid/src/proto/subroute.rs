//! Static subroutes: several handlers of one id, distinguished by a text ([P19]).
//!
//! [P19]: crate::protocol#p19

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

/// Length of a subroute's id on the wire, in bytes.
pub const SUBROUTE_ID_BYTES: usize = 32;

/// The wire id of a handler under a subroute: the SHA-256 of the subroute's text with byte 0
/// replaced by the handler's id and byte 1 by 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubrouteId([u8; SUBROUTE_ID_BYTES]);

impl SubrouteId {
    /// Computes the id of `handler` under the subroute `text`.
    pub fn new(handler: u8, text: &str) -> Self {
        Self::from_hash(Sha256::digest(text.as_bytes()).into(), handler)
    }

    fn from_hash(mut hash: [u8; SUBROUTE_ID_BYTES], handler: u8) -> Self {
        hash[0] = handler;
        hash[1] = 0;
        Self(hash)
    }

    /// Creates an id from received bytes.
    pub const fn from_bytes(bytes: [u8; SUBROUTE_ID_BYTES]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes for the wire.
    pub const fn as_bytes(&self) -> &[u8; SUBROUTE_ID_BYTES] {
        &self.0
    }
}

impl fmt::Debug for SubrouteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0[..8] {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("…")
    }
}

/// A subroute's text with its precomputed hash. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subroute {
    text: Arc<str>,
    hash: [u8; SUBROUTE_ID_BYTES],
}

/// The error for a text that is not a valid subroute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("subroute {text:?} must be parts joined by '/', none of them empty")]
pub struct SubrouteError {
    text: String,
}

impl Subroute {
    /// Creates a subroute from its text.
    ///
    /// # Errors
    ///
    /// [`SubrouteError`] if it has an empty part.
    pub fn new(text: &str) -> Result<Self, SubrouteError> {
        if !is_valid(text) {
            return Err(SubrouteError { text: text.to_owned() });
        }
        Ok(Self { text: text.into(), hash: Sha256::digest(text.as_bytes()).into() })
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the wire id of `handler` under this subroute.
    pub fn id(&self, handler: u8) -> SubrouteId {
        SubrouteId::from_hash(self.hash, handler)
    }
}

/// Whether a text is a valid subroute: parts joined by `/`, none of them empty.
fn is_valid(text: &str) -> bool {
    text.split('/').all(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p19_the_id_is_a_hash_that_begins_with_the_handler() {
        let id = SubrouteId::new(78, "drive1");
        assert_eq!(id.as_bytes()[..4], [0x4e, 0x00, 0x17, 0x97]);
    }

    #[test]
    fn p19_a_subroute_has_no_empty_part() {
        assert!(is_valid("drive-1"));
        assert!(is_valid("drive-1/pool-0"));
        for text in ["", "/", "a/", "/a", "a//b"] {
            assert!(!is_valid(text), "{text:?}");
        }
    }
}
