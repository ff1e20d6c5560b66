//! A store whose items nobody reads who has only its disk.
//!
//! Each item is encrypted and authenticated with XChaCha20-Poly1305, under a key that HKDF-SHA-256 makes
//! of the root secret. The item's path is authenticated with it, so that one item cannot be put in place
//! of another; that an *older version of the same item* is put back is not noticed here.
//!
//! ```text
//!   "IAMS" │ format 1 │ key id, 8 bytes │ nonce, 24 bytes │ ciphertext, and 16 bytes that seal it
//!   └──────────── authenticated, with the path ──────────┘
//! ```
//!
//! The key id is made from the secret in another way than the key, and tells a wrong key from a damaged
//! item. Whoever reads the disk can try secrets against it, as against any item: a root secret that can
//! be guessed protects nothing.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use rand::CryptoRng;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{IamStore, Item, ItemPath, Kind, Listing, Pending, StoreError, check_size};
use crate::limits::{
    ITEM_BYTES_MAX, ITEMS_PER_READ, KEY_ID_BYTES, OLDER_KEYS_MAX, OPENED_PER_TURN,
    ROOT_SECRET_BYTES_MIN, SEAL_BYTES,
};

const MAGIC: [u8; 4] = *b"IAMS";
const FORMAT: u8 = 1;
const NONCE_BYTES: usize = 24;
const HEADER_BYTES: usize = MAGIC.len() + 1 + KEY_ID_BYTES;

/// Why a secret cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// It is too short.
    #[error("a root secret must have at least {min} bytes, not {bytes}")]
    TooShort {
        /// How long it is.
        bytes: usize,
        /// [`ROOT_SECRET_BYTES_MIN`].
        min: usize,
    },
    /// There are too many older ones.
    #[error("there may be {max} older root secrets")]
    TooMany {
        /// [`OLDER_KEYS_MAX`].
        max: usize,
    },
}

/// What items are sealed with, and what those may be sealed with that were written before the root
/// secret was changed. Keys are wiped from memory when it is dropped.
pub struct Keys {
    current: Key,
    older: Vec<Key>,
}

struct Key {
    id: [u8; KEY_ID_BYTES],
    cipher: XChaCha20Poly1305,
}

impl Keys {
    /// A key made from the root secret.
    ///
    /// # Errors
    ///
    /// [`SecretError::TooShort`].
    pub fn new(root_secret: &[u8]) -> Result<Self, SecretError> {
        Ok(Self { current: Key::new(root_secret)?, older: Vec::new() })
    }

    /// Items that were sealed with this secret can be opened too.
    ///
    /// # Errors
    ///
    /// [`SecretError`].
    pub fn older(mut self, root_secret: &[u8]) -> Result<Self, SecretError> {
        if self.older.len() == OLDER_KEYS_MAX {
            return Err(SecretError::TooMany { max: OLDER_KEYS_MAX });
        }
        self.older.push(Key::new(root_secret)?);
        Ok(self)
    }

    fn of_id(&self, id: &[u8]) -> Option<&Key> {
        std::iter::once(&self.current).chain(&self.older).find(|key| key.id == id)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let older: Vec<_> = self.older.iter().map(|key| hex(&key.id)).collect();
        f.debug_struct("Keys")
            .field("current", &hex(&self.current.id))
            .field("older", &older)
            .finish()
    }
}

impl Key {
    fn new(root_secret: &[u8]) -> Result<Self, SecretError> {
        if root_secret.len() < ROOT_SECRET_BYTES_MIN {
            let bytes = root_secret.len();
            return Err(SecretError::TooShort { bytes, min: ROOT_SECRET_BYTES_MIN });
        }
        let mut key = Zeroizing::new([0; 32]);
        let mut id = [0; KEY_ID_BYTES];
        derive(root_secret, b"iam-bootstrap sealed items, key, 1", &mut *key);
        derive(root_secret, b"iam-bootstrap sealed items, key id, 1", &mut id);
        Ok(Self { id, cipher: XChaCha20Poly1305::new((&*key).into()) })
    }
}

/// Bytes made from a secret for one use: different words, unrelated bytes.
pub(crate) fn derive(secret: &[u8], words: &[u8], into: &mut [u8]) {
    let expanded = Hkdf::<Sha256>::new(None, secret).expand(words, into);
    debug_assert!(expanded.is_ok(), "HKDF-SHA-256 gives up to 8,160 bytes");
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Seals items and opens them.
pub(crate) struct Sealer {
    keys: Keys,
    /// Nonces. Locked to draw one, never longer.
    rng: Mutex<Box<dyn CryptoRng + Send>>,
}

impl Sealer {
    /// See [`Sealed::new`].
    pub(crate) fn new(keys: Keys, rng: Box<dyn CryptoRng + Send>) -> Self {
        Self { keys, rng: Mutex::new(rng) }
    }

    /// What is kept, or sent, in place of an item.
    pub(crate) fn seal(&self, path: &ItemPath, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        check_size(path, plain, ITEM_BYTES_MAX - SEAL_BYTES)?;
        let mut nonce = [0; NONCE_BYTES];
        self.rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut nonce);
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

    /// The cipher refuses nothing but what is far beyond the limit.
    fn cannot_seal(&self, path: &ItemPath, plain: &[u8]) -> StoreError {
        let bytes = u64::try_from(plain.len()).unwrap_or(u64::MAX);
        StoreError::TooLarge { path: path.clone(), bytes, max: ITEM_BYTES_MAX - SEAL_BYTES }
    }

    /// What was sealed, and whether with the current key.
    pub(crate) fn open(
        &self,
        path: &ItemPath,
        sealed: &[u8],
    ) -> Result<(Vec<u8>, bool), StoreError> {
        let corrupt = |why: &str| StoreError::Corrupt { path: path.clone(), why: why.into() };
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
        let Some(key) = self.keys.of_id(id) else {
            return Err(StoreError::WrongKey { path: path.clone(), key: hex(id).into() });
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
        Ok((plain, id == self.keys.current.id))
    }
}

/// A store that keeps its items sealed in another.
///
/// Reading opens also what was sealed with an older key; writing seals with the current one.
pub struct Sealed<S> {
    store: S,
    sealer: Sealer,
}

/// What became of a store's items when they were sealed anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Items that were sealed anew.
    pub resealed: usize,
    /// Items that had the current key already.
    pub current: usize,
    /// Items that could not be opened, and are as they were.
    pub failed: Vec<StoreError>,
}

impl<S: IamStore> Sealed<S> {
    /// Keeps items sealed in `store`.
    ///
    /// `rng` gives the nonces. Two that give the same numbers must never be used with one key: outside of
    /// tests it is seeded by the operating system.
    pub fn new(store: S, keys: Keys, rng: impl CryptoRng + Send + 'static) -> Self {
        Self { store, sealer: Sealer::new(keys, Box::new(rng)) }
    }

    /// The store within.
    pub fn inner(&self) -> &S {
        &self.store
    }

    /// Seals everything anew that has an older key; after that, older secrets are not needed any more.
    ///
    /// Takes the store for itself: a write between the reading and the writing of an item would be lost.
    /// No other process may write either.
    ///
    /// # Errors
    ///
    /// The first that is not of one item; what was done until then stays.
    ///
    /// # Cancel safety
    ///
    /// Each item is sealed anew or as it was.
    pub async fn reseal(&mut self) -> Result<Resealed, StoreError> {
        let mut done = Resealed::default();
        let single = [ItemPath::format(), ItemPath::deployment()];
        self.reseal_part(&single, &mut done).await?;
        for kind in Kind::ALL {
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
        done: &mut Resealed,
    ) -> Result<(), StoreError> {
        for Item { path, bytes } in self.store.read_many(paths).await? {
            match bytes.and_then(|bytes| self.sealer.open(&path, &bytes)) {
                Ok((_, true)) => done.current += 1,
                Ok((plain, false)) => {
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

    fn read<'a>(&'a self, path: &'a ItemPath) -> Pending<'a, Vec<u8>> {
        Box::pin(async move {
            let sealed = self.store.read(path).await?;
            self.sealer.open(path, &sealed).map(|(plain, _)| plain)
        })
    }

    fn write<'a>(&'a self, path: &'a ItemPath, bytes: Vec<u8>) -> Pending<'a, ()> {
        Box::pin(async move {
            let bytes = Zeroizing::new(bytes);
            let sealed = self.sealer.seal(path, &bytes)?;
            self.store.write(path, sealed).await
        })
    }

    fn delete<'a>(&'a self, path: &'a ItemPath) -> Pending<'a, ()> {
        self.store.delete(path)
    }

    fn list(&self, kind: Kind) -> Pending<'_, Listing> {
        self.store.list(kind)
    }

    fn read_many<'a>(&'a self, paths: &'a [ItemPath]) -> Pending<'a, Vec<Item>> {
        Box::pin(async move {
            let mut items = self.store.read_many(paths).await?;
            for turn in items.chunks_mut(OPENED_PER_TURN) {
                for Item { path, bytes } in turn {
                    if let Ok(sealed) = bytes {
                        *bytes = self.sealer.open(path, sealed).map(|(plain, _)| plain);
                    }
                }
                tokio::task::yield_now().await;
            }
            Ok(items)
        })
    }
}
