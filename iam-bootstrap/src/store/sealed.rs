//! A store that encrypts its items: access to the disk alone does not reveal them.
//!
//! Each item is encrypted and authenticated with XChaCha20-Poly1305, under a key that HKDF-SHA-256
//! derives from the root secret. The item's path is authenticated with it, so an item cannot be
//! moved to the path of another. A rollback to an *older version of the same item* is not detected
//! here.
//!
//! ```text
//!   "IAMS" │ format 1 │ key id, 8 bytes │ nonce, 24 bytes │ ciphertext │ tag, 16 bytes
//!   └──────────── authenticated, with the path ──────────┘
//! ```
//!
//! The key id is derived from the secret independently of the key, and distinguishes a wrong key
//! from a damaged item. An attacker with the disk can test guesses of the secret against it, as
//! against any item: a root secret that can be guessed protects nothing.

use std::fmt;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use data_encoding::HEXLOWER;
use grid::env::Env;
use grid::sync::Mutex;
use rand::Rng;
use rand::rngs::StdRng;
use zeroize::Zeroizing;

use super::{IamStore, ItemKind, ItemPath, Listing, ReadItem, StoreError, StoreFuture, check_size};
use crate::derive::derive;
use crate::limits::{
    ITEM_BYTES_MAX, ITEMS_PER_READ, KEY_ID_BYTES, OLDER_KEYS_MAX, OPENED_PER_YIELD,
    ROOT_SECRET_BYTES_MIN, SEAL_BYTES,
};

const MAGIC: [u8; 4] = *b"IAMS";
const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 24;
const HEADER_BYTES: usize = MAGIC.len() + 1 + KEY_ID_BYTES;

/// Error of an unusable root secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RootSecretError {
    /// The secret is too short.
    #[error("a root secret must have at least {min} bytes, not {bytes}")]
    TooShort {
        /// Length of the secret in bytes.
        bytes: usize,
        /// [`ROOT_SECRET_BYTES_MIN`].
        min: usize,
    },
    /// There are too many older secrets.
    #[error("at most {max} older root secrets are allowed")]
    TooMany {
        /// [`OLDER_KEYS_MAX`].
        max: usize,
    },
}

/// The key that seals items, and the older keys that may still open items from before a change of
/// the root secret. Keys are wiped from memory when dropped.
pub struct Keys {
    current: SealKey,
    older: Vec<SealKey>,
}

struct SealKey {
    id: [u8; KEY_ID_BYTES],
    cipher: XChaCha20Poly1305,
}

impl Keys {
    /// Derives the key from the root secret.
    ///
    /// # Errors
    ///
    /// [`RootSecretError::TooShort`].
    pub fn new(root_secret: &[u8]) -> Result<Self, RootSecretError> {
        Ok(Self { current: SealKey::new(root_secret)?, older: Vec::new() })
    }

    /// Adds an older root secret, whose items can still be opened.
    ///
    /// # Errors
    ///
    /// [`RootSecretError`].
    pub fn with_older(mut self, root_secret: &[u8]) -> Result<Self, RootSecretError> {
        if self.older.len() == OLDER_KEYS_MAX {
            return Err(RootSecretError::TooMany { max: OLDER_KEYS_MAX });
        }
        self.older.push(SealKey::new(root_secret)?);
        Ok(self)
    }

    fn by_id(&self, id: &[u8]) -> Option<&SealKey> {
        std::iter::once(&self.current).chain(&self.older).find(|key| key.id == id)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let older: Vec<_> = self.older.iter().map(|key| HEXLOWER.encode(&key.id)).collect();
        f.debug_struct("Keys")
            .field("current", &HEXLOWER.encode(&self.current.id))
            .field("older", &older)
            .finish()
    }
}

impl SealKey {
    fn new(root_secret: &[u8]) -> Result<Self, RootSecretError> {
        if root_secret.len() < ROOT_SECRET_BYTES_MIN {
            let bytes = root_secret.len();
            return Err(RootSecretError::TooShort { bytes, min: ROOT_SECRET_BYTES_MIN });
        }
        let mut key = Zeroizing::new([0; 32]);
        let mut id = [0; KEY_ID_BYTES];
        derive(root_secret, b"iam-bootstrap sealed items, key, 1", &mut *key);
        derive(root_secret, b"iam-bootstrap sealed items, key id, 1", &mut id);
        Ok(Self { id, cipher: XChaCha20Poly1305::new((&*key).into()) })
    }
}

/// Which key an item was sealed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum KeyAge {
    /// The one that seals items now.
    Current,
    /// One from before a change of the root secret.
    Older,
}

/// An opened item.
pub(crate) struct Opened {
    /// Its bytes, which may hold secrets.
    pub(crate) plain: Vec<u8>,
    /// The key that it was sealed with.
    pub(crate) age: KeyAge,
}

/// Seals and opens items.
pub(crate) struct Sealer {
    keys: Keys,
    /// Generator of nonces. Locked to draw one, never longer.
    rng: Mutex<StdRng>,
}

impl Sealer {
    /// Creates a sealer; see [`Sealed::new`] for the requirements on `env`.
    pub(crate) fn new(keys: Keys, env: &Env) -> Self {
        Self { keys, rng: Mutex::new(env.fork_secure()) }
    }

    /// Seals an item for storage or for the wire.
    pub(crate) fn seal(&self, path: &ItemPath, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        check_size(path, plain, ITEM_BYTES_MAX - SEAL_BYTES)?;
        let mut nonce = [0; NONCE_BYTES];
        self.rng.lock().fill_bytes(&mut nonce);
        let mut sealed = Vec::with_capacity(plain.len() + SEAL_BYTES);
        sealed.extend_from_slice(&MAGIC);
        sealed.push(FORMAT);
        sealed.extend_from_slice(&self.keys.current.id);
        let aad = [sealed.as_slice(), path.as_str().as_bytes()].concat();
        sealed.extend_from_slice(&nonce);
        let payload = Payload { msg: plain, aad: &aad };
        let ciphertext = self.keys.current.cipher.encrypt(&XNonce::from(nonce), payload);
        let too_large = |_| self.cannot_seal(path, plain);
        sealed.append(&mut ciphertext.map_err(too_large)?);
        Ok(sealed)
    }

    /// The cipher fails only on inputs far beyond the size limit.
    fn cannot_seal(&self, path: &ItemPath, plain: &[u8]) -> StoreError {
        let bytes = u64::try_from(plain.len()).unwrap_or(u64::MAX);
        StoreError::TooLarge { path: path.clone(), bytes, max: ITEM_BYTES_MAX - SEAL_BYTES }
    }

    /// Opens a sealed item.
    pub(crate) fn open(&self, path: &ItemPath, sealed: &[u8]) -> Result<Opened, StoreError> {
        let corrupt = |cause: &str| StoreError::Corrupt { path: path.clone(), cause: cause.into() };
        let Some((header, rest)) = sealed.split_at_checked(HEADER_BYTES) else {
            return Err(corrupt("it is too short to be sealed"));
        };
        let (magic, rest_of_header) = header.split_at(MAGIC.len());
        let (format, id) = rest_of_header.split_at(1);
        if magic != MAGIC {
            return Err(corrupt("it does not begin as a sealed item"));
        }
        if format != [FORMAT] {
            let found = u32::from(format.first().copied().unwrap_or_default());
            let what = path.as_str().into();
            return Err(StoreError::Unsupported { what, found, max: u32::from(FORMAT) });
        }
        let Some(key) = self.keys.by_id(id) else {
            return Err(StoreError::WrongKey {
                path: path.clone(),
                key: HEXLOWER.encode(id).into(),
            });
        };
        let Some((nonce, ciphertext)) = rest.split_first_chunk::<NONCE_BYTES>() else {
            return Err(corrupt("it is too short to be sealed"));
        };
        let aad = [header, path.as_str().as_bytes()].concat();
        let payload = Payload { msg: ciphertext, aad: &aad };
        let plain = key.cipher.decrypt(&XNonce::from(*nonce), payload);
        let plain = plain.map_err(|_| {
            corrupt("its seal is broken: it was damaged, or moved from another path")
        })?;
        let age = if id == self.keys.current.id { KeyAge::Current } else { KeyAge::Older };
        Ok(Opened { plain, age })
    }
}

/// A store that keeps its items sealed in another store.
///
/// Reads also open items that were sealed with an older key; writes seal with the current one.
pub struct Sealed<S> {
    store: S,
    sealer: Sealer,
}

/// Result of [`Sealed::reseal`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResealReport {
    /// Items that were resealed with the current key.
    pub resealed: usize,
    /// Items that had the current key already.
    pub current: usize,
    /// Errors of items that could not be opened; these are unchanged.
    pub failed: Vec<StoreError>,
}

impl<S: IamStore> Sealed<S> {
    /// Keeps items sealed in `store`.
    ///
    /// The nonces are drawn from a generator that `env` seeds. Two generators with the same output
    /// must never be used with one key: outside of tests, use [`Env::system`].
    pub fn new(store: S, keys: Keys, env: &Env) -> Self {
        Self { store, sealer: Sealer::new(keys, env) }
    }

    /// Returns the underlying store.
    pub fn inner(&self) -> &S {
        &self.store
    }

    /// Reseals everything that has an older key; after that, older secrets are no longer needed.
    ///
    /// Borrows the store exclusively: a write between the read and the write of an item would be
    /// lost. No other process may write either.
    ///
    /// # Errors
    ///
    /// The first that does not concern one item alone; work done until then stays.
    ///
    /// # Cancel safety
    ///
    /// Each item is either resealed or unchanged.
    pub async fn reseal(&mut self) -> Result<ResealReport, StoreError> {
        let mut done = ResealReport::default();
        let single = [ItemPath::format(), ItemPath::deployment()];
        self.reseal_part(&single, &mut done).await?;
        for kind in ItemKind::ALL {
            let paths = self.store.list(kind).await?.paths;
            for part in paths.chunks(ITEMS_PER_READ) {
                self.reseal_part(part, &mut done).await?;
            }
        }
        Ok(done)
    }

    async fn reseal_part(
        &mut self,
        paths: &[ItemPath],
        done: &mut ResealReport,
    ) -> Result<(), StoreError> {
        for ReadItem { path, bytes } in self.store.read_many(paths).await? {
            match bytes.and_then(|bytes| self.sealer.open(&path, &bytes)) {
                Ok(Opened { age: KeyAge::Current, .. }) => done.current += 1,
                Ok(Opened { plain, age: KeyAge::Older }) => {
                    self.store.write(&path, self.sealer.seal(&path, &plain)?).await?;
                    done.resealed += 1;
                }
                Err(error) => done.failed.push(error),
            }
        }
        Ok(())
    }
}

impl<S> fmt::Debug for Sealed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("keys", &self.sealer.keys).finish_non_exhaustive()
    }
}

impl<S: IamStore> IamStore for Sealed<S> {
    fn name(&self) -> &str {
        self.store.name()
    }

    fn read<'a>(&'a self, path: &'a ItemPath) -> StoreFuture<'a, Vec<u8>> {
        Box::pin(async move {
            let sealed = self.store.read(path).await?;
            self.sealer.open(path, &sealed).map(|opened| opened.plain)
        })
    }

    fn write<'a>(&'a self, path: &'a ItemPath, bytes: Vec<u8>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let bytes = Zeroizing::new(bytes);
            let sealed = self.sealer.seal(path, &bytes)?;
            self.store.write(path, sealed).await
        })
    }

    fn delete<'a>(&'a self, path: &'a ItemPath) -> StoreFuture<'a, ()> {
        self.store.delete(path)
    }

    fn list(&self, kind: ItemKind) -> StoreFuture<'_, Listing> {
        self.store.list(kind)
    }

    fn read_many<'a>(&'a self, paths: &'a [ItemPath]) -> StoreFuture<'a, Vec<ReadItem>> {
        Box::pin(async move {
            let mut items = self.store.read_many(paths).await?;
            for turn in items.chunks_mut(OPENED_PER_YIELD) {
                for ReadItem { path, bytes } in turn {
                    if let Ok(sealed) = bytes {
                        *bytes = self.sealer.open(path, sealed).map(|opened| opened.plain);
                    }
                }
                tokio::task::yield_now().await;
            }
            Ok(items)
        })
    }
}
