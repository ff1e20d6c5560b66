//! Hash tables keyed by a seed: names come from users, who must not be able to choose their
//! buckets.

use std::hash::{BuildHasher, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Hash map keyed by a secret of this process.
#[expect(clippy::disallowed_types, reason = "its hasher takes the key as a parameter")]
pub(super) type KeyedMap<K, V> = std::collections::HashMap<K, V, Key>;

/// Key of the hash tables of one locker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key(u64);

impl Key {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns the hash of a name.
    pub(super) fn hash_of(self, name: &str) -> u64 {
        xxh3_64_with_seed(name.as_bytes(), self.0)
    }
}

impl BuildHasher for Key {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher(self.0)
    }
}

/// Chains the parts of a key.
#[derive(Debug)]
pub(super) struct KeyedHasher(u64);

impl Hasher for KeyedHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    // The terminator of a string: keys that are one string do not need it hashed.
    fn write_u8(&mut self, byte: u8) {
        self.0 = self.0.rotate_left(8) ^ u64::from(byte);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
