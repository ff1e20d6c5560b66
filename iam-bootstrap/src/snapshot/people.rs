//! All that is known under one name of a user or a group, in one place: a decision wants all of it, and
//! among very many each place costs misses of the cache.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::entry::Entry;
use crate::model::{Group, GroupName, PolicyMapping, User};

/// What is known under the name of a user. Some of it may have arrived before the rest, or have stayed.
#[derive(Debug, Clone, Default)]
pub(super) struct Person {
    pub(super) user: Option<Entry<User>>,
    pub(super) policies: Option<Entry<PolicyMapping>>,
    /// The groups that say that they have this member; nothing if there is none.
    pub(super) groups: Option<Arc<BTreeSet<GroupName>>>,
}

/// What is known under the name of a group.
#[derive(Debug, Clone, Default)]
pub(super) struct Team {
    pub(super) group: Option<Entry<Group>>,
    pub(super) policies: Option<Entry<PolicyMapping>>,
}

/// What is left out when there is nothing in it.
pub(super) trait Parts: Clone + Default {
    fn is_empty(&self) -> bool;
}

impl Parts for Person {
    fn is_empty(&self) -> bool {
        self.user.is_none() && self.policies.is_none() && self.groups.is_none()
    }
}

impl Parts for Team {
    fn is_empty(&self) -> bool {
        self.group.is_none() && self.policies.is_none()
    }
}

impl Person {
    pub(super) fn join(&mut self, group: &GroupName) {
        let groups = self.groups.get_or_insert_default();
        Arc::make_mut(groups).insert(group.clone());
    }

    pub(super) fn part_from(&mut self, group: &GroupName) {
        let Some(groups) = &mut self.groups else { return };
        Arc::make_mut(groups).remove(group);
        if groups.is_empty() {
            self.groups = None;
        }
    }
}
