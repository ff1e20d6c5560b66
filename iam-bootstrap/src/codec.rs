//! Encodes and decodes items: an item is stored as JSON at a path derived from its kind and name. A
//! record is applied to a snapshot as a change.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::limits::{EXPIRED_RETENTION, ITEM_BYTES_MAX, TOMBSTONE_RETENTION};
use crate::model::{AccessKey, GroupName, NameError, PolicyName, UserName};
use crate::policy::Policy;
use crate::record::{Content, Record, Version};
use crate::snapshot::{Item, ItemKey, SnapshotBuilder};
use crate::store::{ItemKind, ItemPath, StoreError};

/// Returns the path of an item.
pub(crate) fn path_of(key: &ItemKey) -> ItemPath {
    let kind = match key {
        ItemKey::User(_) => ItemKind::User,
        ItemKey::Group(_) => ItemKind::Group,
        ItemKey::ServiceAccount(_) => ItemKind::ServiceAccount,
        ItemKey::Temporary(_) => ItemKind::Temporary,
        ItemKey::Policy(_) => ItemKind::Policy,
        ItemKey::UserPolicies(_) => ItemKind::UserPolicy,
        ItemKey::GroupPolicies(_) => ItemKind::GroupPolicy,
    };
    ItemPath::of_name(kind, key.name())
}

/// Returns the key of the item at a path; `None` for paths that are not IAM items.
pub(crate) fn key_of(path: &ItemPath) -> Option<Result<ItemKey, StoreError>> {
    let (kind, name) = (path.kind()?, path.name()?);
    let key = match kind {
        ItemKind::User => UserName::new(&name).map(ItemKey::User),
        ItemKind::Group => GroupName::new(&name).map(ItemKey::Group),
        ItemKind::ServiceAccount => AccessKey::new(&name).map(ItemKey::ServiceAccount),
        ItemKind::Temporary => AccessKey::new(&name).map(ItemKey::Temporary),
        ItemKind::Policy => PolicyName::new(&name).map(ItemKey::Policy),
        ItemKind::UserPolicy => UserName::new(&name).map(ItemKey::UserPolicies),
        ItemKind::GroupPolicy => GroupName::new(&name).map(ItemKey::GroupPolicies),
    };
    Some(key.map_err(|error: NameError| corrupt(path, &error.to_string())))
}

/// Encodes an item as JSON.
///
/// # Errors
///
/// [`StoreError::TooLarge`].
pub(crate) fn encode(item: &Item) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    match item {
        Item::User(user) => json(item, user),
        Item::Group(group) => json(item, group),
        Item::ServiceAccount(account) => json(item, account),
        Item::Temporary(credential) => json(item, credential),
        Item::Policy(_, policy) => json(item, &**policy),
        Item::UserPolicies(_, mapping) | Item::GroupPolicies(_, mapping) => json(item, mapping),
    }
}

fn json(item: &Item, value: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let path = path_of(&item.key());
    let mut bytes = Zeroizing::new(Vec::with_capacity(512));
    serde_json::to_writer(&mut *bytes, value)
        .map_err(|error| corrupt(&path, &error.to_string()))?;
    match bytes.len() {
        length if length > BODY_BYTES_MAX => {
            let bytes = u64::try_from(length).unwrap_or(u64::MAX);
            Err(StoreError::TooLarge { path, bytes, max: BODY_BYTES_MAX })
        }
        _ => Ok(bytes),
    }
}

/// Largest JSON that leaves room for the record's header and the seal.
const BODY_BYTES_MAX: usize = ITEM_BYTES_MAX - 1024;

/// Decodes the JSON of the item at `path`.
///
/// # Errors
///
/// [`StoreError::Corrupt`], also if it is the item of another path.
pub(crate) fn decode(path: &ItemPath, key: &ItemKey, body: &[u8]) -> Result<Item, StoreError> {
    let item = match key {
        ItemKey::User(_) => Item::User(from_json(path, body)?),
        ItemKey::Group(_) => Item::Group(from_json(path, body)?),
        ItemKey::ServiceAccount(_) => Item::ServiceAccount(from_json(path, body)?),
        ItemKey::Temporary(_) => Item::Temporary(from_json(path, body)?),
        ItemKey::Policy(name) => {
            let policy = Policy::parse(body).map_err(|error| corrupt(path, &error.to_string()))?;
            Item::Policy(name.clone(), Arc::new(policy))
        }
        ItemKey::UserPolicies(name) => Item::UserPolicies(name.clone(), from_json(path, body)?),
        ItemKey::GroupPolicies(name) => Item::GroupPolicies(name.clone(), from_json(path, body)?),
    };
    match item.key() == *key {
        true => Ok(item),
        false => Err(corrupt(path, &format!("it holds {}", item.key()))),
    }
}

/// Effect of a record on a snapshot.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Inserts or replaces the item.
    Put(Item),
    /// Removes the item.
    Delete(ItemKey),
}

impl Change {
    /// Converts a record to a change; `None` if its path is not an IAM item.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`].
    pub(crate) fn from_record(
        path: &ItemPath,
        record: &Record,
    ) -> Result<Option<Self>, StoreError> {
        let Some(key) = key_of(path) else { return Ok(None) };
        let key = key?;
        Ok(Some(match &record.content {
            Content::Item(body) => Self::Put(decode(path, &key, body)?),
            Content::Deleted => Self::Delete(key),
        }))
    }

    /// Returns whether the item is past its retention: an old tombstone, or a credential that
    /// expired long ago. Each server computes this independently, with the same result.
    pub(crate) fn is_collectable(&self, version: Version, wall_micros: u64) -> bool {
        let (since_micros, kept) = match self {
            Self::Delete(_) => (version.micros, TOMBSTONE_RETENTION),
            Self::Put(Item::Temporary(credential)) => {
                let millis = u64::try_from(credential.expires_at.get()).unwrap_or(0);
                (millis.saturating_mul(1_000), EXPIRED_RETENTION)
            }
            Self::Put(_) => return false,
        };
        let kept = u64::try_from(kept.as_micros()).unwrap_or(u64::MAX);
        since_micros.saturating_add(kept) < wall_micros
    }

    /// Applies the change to a snapshot.
    pub(crate) fn apply(self, snapshot: &mut SnapshotBuilder) {
        match self {
            Self::Put(item) => snapshot.put(item),
            Self::Delete(key) => snapshot.remove(&key),
        };
    }
}

fn from_json<T: DeserializeOwned>(path: &ItemPath, body: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(body).map_err(|error| corrupt(path, &error.to_string()))
}

fn corrupt(path: &ItemPath, cause: &str) -> StoreError {
    StoreError::Corrupt { path: path.clone(), cause: cause.into() }
}
