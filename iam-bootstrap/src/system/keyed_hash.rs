//! Keyed hashes of values: comparable between servers, but not readable.
//!
//! A hash is HMAC-SHA-256 under a key derived from the cluster's shared secret. The same value has
//! the same hash on every server. A reader of hashes in a log or on the wire cannot look them up in
//! a dictionary: that needs the key. A holder of the cluster's secret can test guesses, but could
//! read the values from any server anyway. The value's name is hashed with it, so equal values of
//! two names have different hashes.

use std::fmt;

use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::derive::derive;

/// Bytes of a hash that are shown: enough to avoid collisions by chance, short enough to compare by
/// eye.
const SHOWN_BYTES: usize = 12;

/// The key of a cluster's hashes. Wiped from memory when dropped.
pub struct HashKey {
    key: Zeroizing<[u8; 32]>,
}

impl HashKey {
    /// Derives the key of the cluster whose servers share this secret.
    pub fn from_shared_secret(shared_secret: &[u8]) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        derive(shared_secret, b"iam-bootstrap configuration, salt, 1", &mut *key);
        Self { key }
    }

    /// Returns the hash of a value and its name, in hexadecimal digits.
    pub fn hash(&self, name: &str, value: &str) -> String {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&*self.key) else { return String::new() };
        let length = u64::try_from(name.len()).unwrap_or(u64::MAX);
        mac.update(&length.to_be_bytes());
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
        let hash = mac.finalize().into_bytes();
        HEXLOWER.encode(hash.get(..SHOWN_BYTES).unwrap_or_default())
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashKey").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b60_hashes_are_comparable_within_one_cluster_only() {
        let (ours, theirs) = (
            HashKey::from_shared_secret(b"shared secret"),
            HashKey::from_shared_secret(b"shared secret"),
        );
        assert_eq!(ours.hash("NODE_KEY", "hunter2"), theirs.hash("NODE_KEY", "hunter2"));
        assert_ne!(ours.hash("NODE_KEY", "hunter2"), ours.hash("NODE_KEY", "hunter3"));
        assert_ne!(ours.hash("NODE_KEY", "hunter2"), ours.hash("NODE_KE", "Yhunter2"));
        assert_ne!(
            ours.hash("A", "x"),
            HashKey::from_shared_secret(b"another secret").hash("A", "x")
        );
        assert_eq!(ours.hash("A", "x").len(), 2 * SHOWN_BYTES);
        assert_eq!(format!("{ours:?}"), "HashKey { .. }");
    }
}
