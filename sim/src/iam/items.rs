//! Numbered items: users, policies and mappings alternate, and the content of each holds its value.

use std::error::Error;
use std::sync::Arc;

use iam_bootstrap::Snapshot;
use iam_bootstrap::model::{PolicyMapping, PolicyName, Secret, User, UserName};
use iam_bootstrap::policy::Policy;
use iam_bootstrap::record::{Content, Record};
use iam_bootstrap::snapshot::{Item, ItemKey};
use iam_bootstrap::store::{ItemKind, ItemPath};

use crate::plan::ITEMS_MAX;

fn name(item: u8) -> String {
    format!("item-{item}")
}

/// Creates the item with this number and this value.
pub(crate) fn item(item: u8, value: u32) -> Result<Item, Box<dyn Error>> {
    let marked = format!("value-{value:08}");
    Ok(match item % 3 {
        0 => Item::User(User::new(UserName::new(&name(item))?, Secret::new(&marked)?)),
        1 => {
            let document = format!(
                r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::{marked}/*"]}}]}}"#
            );
            let policy = Policy::parse(document.as_bytes())?;
            Item::Policy(PolicyName::new(&name(item))?, Arc::new(policy))
        }
        _ => {
            let mapping = PolicyMapping::new([PolicyName::new(&marked)?])?;
            Item::UserPolicies(UserName::new(&name(item))?, mapping)
        }
    })
}

/// Returns the key of the item with this number.
pub(crate) fn key(number: u8) -> Result<ItemKey, Box<dyn Error>> {
    Ok(item(number, 0)?.key())
}

/// Returns the path of the item with this number.
pub(super) fn path(item: u8) -> Result<ItemPath, Box<dyn Error>> {
    let kind = [ItemKind::User, ItemKind::Policy, ItemKind::UserPolicy][usize::from(item % 3)];
    Ok(ItemPath::new(kind, name(item))?)
}

/// Returns the number of the item at this path, if it is one of these.
pub(super) fn number(path: &ItemPath) -> Option<u8> {
    path.kind()?;
    path.name()?.strip_prefix("item-")?.parse().ok()
}

/// Returns the body of a record of it.
pub(super) fn body(number: u8, value: u32) -> Result<Vec<u8>, Box<dyn Error>> {
    Ok(match item(number, value)? {
        Item::User(user) => serde_json::to_vec(&user)?,
        Item::Policy(_, policy) => serde_json::to_vec(&*policy)?,
        Item::UserPolicies(_, mapping) => serde_json::to_vec(&mapping)?,
        _ => return Err("there are no such items".into()),
    })
}

/// Returns the value that a record puts; none for a tombstone.
pub(super) fn value(record: &Record) -> Option<u32> {
    match &record.content {
        Content::Item(body) => value_in(&String::from_utf8_lossy(body)),
        Content::Deleted => None,
    }
}

/// Returns the value in the text of an item.
fn value_in(text: &str) -> Option<u32> {
    let (_, rest) = text.split_once("value-")?;
    rest.get(..8)?.parse().ok()
}

/// Returns all items of a snapshot, in the order of their numbers.
pub(super) fn all(snapshot: &Snapshot) -> Vec<(u8, u32)> {
    (0..ITEMS_MAX).filter_map(|item| Some((item, value_of(snapshot, item)?))).collect()
}

fn value_of(snapshot: &Snapshot, item: u8) -> Option<u32> {
    let name = name(item);
    match item % 3 {
        0 => value_in(snapshot.user(&name)?.secret.expose()),
        1 => value_in(&serde_json::to_string(snapshot.policy(&name)?).ok()?),
        _ => value_in(snapshot.user_policies(&name)?.policies().first()?),
    }
}
