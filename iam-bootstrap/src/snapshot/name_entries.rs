//! Everything known under one name of a user or a group, in one entry: a decision needs all of it,
//! and separate maps would cost a cache miss each.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::entry::HashedItem;
use crate::model::{Group, GroupName, PolicyMapping, User};

/// Everything known under the name of a user. Parts may have arrived before the user, or stay after
/// it is deleted.
#[derive(Debug, Clone, Default)]
pub(super) struct UserEntry {
    pub(super) user: Option<HashedItem<User>>,
    pub(super) policies: Option<HashedItem<PolicyMapping>>,
    /// The groups that have this member; `None` if there are none.
    pub(super) groups: Option<Arc<BTreeSet<GroupName>>>,
}

/// Everything known under the name of a group.
#[derive(Debug, Clone, Default)]
pub(super) struct GroupEntry {
    pub(super) group: Option<HashedItem<Group>>,
    pub(super) policies: Option<HashedItem<PolicyMapping>>,
}

/// An entry that is removed from its map when it becomes empty.
pub(super) trait PruneWhenEmpty: Clone + Default {
    fn is_empty(&self) -> bool;
}

impl PruneWhenEmpty for UserEntry {
    fn is_empty(&self) -> bool {
        self.user.is_none() && self.policies.is_none() && self.groups.is_none()
    }
}

impl PruneWhenEmpty for GroupEntry {
    fn is_empty(&self) -> bool {
        self.group.is_none() && self.policies.is_none()
    }
}

impl UserEntry {
    pub(super) fn join(&mut self, group: &GroupName) {
        let groups = self.groups.get_or_insert_default();
        Arc::make_mut(groups).insert(group.clone());
    }

    pub(super) fn leave(&mut self, group: &GroupName) {
        let Some(groups) = &mut self.groups else { return };
        Arc::make_mut(groups).remove(group);
        if groups.is_empty() {
            self.groups = None;
        }
    }
}
