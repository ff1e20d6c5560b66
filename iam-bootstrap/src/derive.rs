//! Derivation of keys from the secrets of a cluster.

use hkdf::Hkdf;
use sha2::Sha256;

/// Derives key material with HKDF-SHA-256. Different `info` strings give independent output.
pub(crate) fn derive(secret: &[u8], info: &[u8], output: &mut [u8]) {
    let expanded = Hkdf::<Sha256>::new(None, secret).expand(info, output);
    debug_assert!(expanded.is_ok(), "HKDF-SHA-256 yields at most 8,160 bytes");
}
