//! What a record of an item holds: the item as JSON, at the path that its kind and name make; and what
//! that does to a snapshot.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::limits::{DELETION_KEPT, EXPIRED_KEPT, ITEM_BYTES_MAX};
use crate::model::{AccessKey, GroupName, NameError, PolicyName, UserName};
use crate::policy::Policy;
use crate::record::{Content, Record, Version};
use crate::snapshot::{Item, ItemKey, SnapshotBuilder};
use crate::store::{ItemPath, Kind, StoreError};

/// Where an item is kept.
pub(crate) fn path_of(key: &ItemKey) -> ItemPath {
    let kind = match key {
        ItemKey::User(_) => Kind::User,
        ItemKey::Group(_) => Kind::Group,
        ItemKey::ServiceAccount(_) => Kind::ServiceAccount,
        ItemKey::Temporary(_) => Kind::Temporary,
        ItemKey::Policy(_) => Kind::Policy,
        ItemKey::UserPolicies(_) => Kind::UserPolicy,
        ItemKey::GroupPolicies(_) => Kind::GroupPolicy,
    };
    ItemPath::of_name(kind, key.name())
}

/// What is kept at a path; `None` for the items that are no user's.
pub(crate) fn key_of(path: &ItemPath) -> Option<Result<ItemKey, StoreError>> {
    let (kind, name) = (path.kind()?, path.name()?);
    let key = match kind {
        Kind::User => UserName::new(&name).map(ItemKey::User),
        Kind::Group => GroupName::new(&name).map(ItemKey::Group),
        Kind::ServiceAccount => AccessKey::new(&name).map(ItemKey::ServiceAccount),
        Kind::Temporary => AccessKey::new(&name).map(ItemKey::Temporary),
        Kind::Policy => PolicyName::new(&name).map(ItemKey::Policy),
        Kind::UserPolicy => UserName::new(&name).map(ItemKey::UserPolicies),
        Kind::GroupPolicy => GroupName::new(&name).map(ItemKey::GroupPolicies),
    };
    Some(key.map_err(|error: NameError| corrupt(path, &error.to_string())))
}

/// The item's JSON.
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

/// What leaves room in a store for the record's header and a seal.
const BODY_BYTES_MAX: usize = ITEM_BYTES_MAX - 1024;

/// The item that is kept at `path` as this JSON.
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

/// What a record does to a snapshot.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// The item is this from now on.
    Put(Item),
    /// The item is gone.
    Delete(ItemKey),
}

impl Change {
    /// What a record does; `None` if its path is no user's item.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`].
    pub(crate) fn of(path: &ItemPath, record: &Record) -> Result<Option<Self>, StoreError> {
        let Some(key) = key_of(path) else { return Ok(None) };
        let key = key?;
        Ok(Some(match &record.content {
            Content::Item(body) => Self::Put(decode(path, &key, body)?),
            Content::Deleted => Self::Delete(key),
        }))
    }

    /// Whether it is so long over that nobody needs to know of it: a deletion that all have seen, a
    /// credential that expired. All servers come to that by themselves.
    pub(crate) fn is_over(&self, version: Version, wall_micros: u64) -> bool {
        let (since_micros, kept) = match self {
            Self::Delete(_) => (version.micros, DELETION_KEPT),
            Self::Put(Item::Temporary(credential)) => {
                let millis = u64::try_from(credential.expires_at.get()).unwrap_or(0);
                (millis.saturating_mul(1_000), EXPIRED_KEPT)
            }
            Self::Put(_) => return false,
        };
        let kept = u64::try_from(kept.as_micros()).unwrap_or(u64::MAX);
        since_micros.saturating_add(kept) < wall_micros
    }

    /// Makes it.
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

fn corrupt(path: &ItemPath, why: &str) -> StoreError {
    StoreError::Corrupt { path: path.clone(), why: why.into() }
}
