//! Incremental hash of a snapshot's content.

use std::fmt;
use std::io;

use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Hash of a snapshot's items: equal if two servers have the same items.
///
/// It is the sum, modulo 2²⁵⁶, of the SHA-256 of each item. A sum does not depend on the order, and
/// an item is added or subtracted without visiting the others. Unlike the exclusive or of the
/// hashes, it does not cancel out duplicates. It detects differences between honest servers, with a
/// false negative probability of 2⁻²⁵⁶. An attacker who may choose very many items could construct
/// two sets with one sum, so the hash proves nothing about an untrusted server.
///
/// Secrets are part of the hash. A reader who knows everything else could test guesses of a weak
/// one, so the hash is for the cluster's own servers and their operators.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ContentHash(Words);

/// Hash of one item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ItemHash(Words);

/// 256 bits, least significant word first.
type Words = [u64; 4];

impl ContentHash {
    /// Returns the bytes, most significant first.
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (to, word) in bytes.chunks_exact_mut(8).zip(self.0.iter().rev()) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    pub(super) fn add(&mut self, item: ItemHash) {
        let mut carry = false;
        for (own, other) in self.0.iter_mut().zip(item.0) {
            (*own, carry) = own.carrying_add(other, carry);
        }
    }

    pub(super) fn subtract(&mut self, item: ItemHash) {
        let mut borrow = false;
        for (own, other) in self.0.iter_mut().zip(item.0) {
            (*own, borrow) = own.borrowing_sub(other, borrow);
        }
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.to_bytes()))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ItemHash {
    /// Returns the hash of an item of this kind and name. Both are delimited: no name has a zero
    /// byte.
    pub(super) fn of(kind: &str, name: &str, item: &impl Serialize) -> Self {
        let mut hasher = Sha256::new();
        for part in [kind, name] {
            hasher.update(part);
            hasher.update([0]);
        }
        // Directly into the hasher: no buffer with a secret is left behind.
        if serde_json::to_writer(HashWriter(&mut hasher), item).is_err() {
            debug_assert!(false, "items are maps with text for keys, and hashing does not fail");
        }
        let mut words = Words::default();
        for (word, bytes) in words.iter_mut().zip(hasher.finalize().as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(words)
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b61_content_hash_carries_through_all_words() {
        let mut totals = ContentHash([u64::MAX; 4]);
        totals.add(ItemHash([1, 0, 0, 0]));
        assert_eq!(totals, ContentHash::default());
        totals.subtract(ItemHash([1, 0, 0, 0]));
        assert_eq!(totals, ContentHash([u64::MAX; 4]));
        totals.subtract(ItemHash([0, u64::MAX, 0, 0]));
        assert_eq!(totals, ContentHash([u64::MAX, 0, u64::MAX, u64::MAX]));
    }

    #[test]
    fn b61_item_hash_covers_kind_and_name() {
        let hash = ItemHash::of("users", "a", &"x");
        assert_eq!(hash, ItemHash::of("users", "a", &"x"));
        for other in [
            ItemHash::of("group", "a", &"x"),
            ItemHash::of("users", "b", &"x"),
            ItemHash::of("users", "a", &"y"),
            ItemHash::of("user", "sa", &"x"),
        ] {
            assert_ne!(hash, other);
        }
    }

    #[test]
    fn b61_content_hash_is_displayed_most_significant_digit_first() {
        let hash = ContentHash([0xff, 0, 0, 1 << 60]);
        assert_eq!(hash.to_string(), format!("1{}ff", "0".repeat(61)));
    }
}
