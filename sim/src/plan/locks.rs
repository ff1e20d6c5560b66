//! Locks in a plan: the lock service of the cluster, and one lock that a node requests.

use serde::{Deserialize, Serialize};

use super::{Node, WAIT_MS_MAX};

/// The lock service of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocksPlan {
    /// Duration of a lease after its last refresh, in milliseconds.
    pub lease_ms: u32,
    /// Time between two refreshes, in milliseconds.
    pub refresh_ms: u32,
    /// The nodes that are lockers, each once and in order: at every node, unless `flags` says
    /// otherwise, and at all nodes once all faults are healed.
    pub lockers: Vec<Node>,
    /// Other flags that processes have before all faults are healed, in order of time. With any,
    /// processes verify their peers before they use locks.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub flags: Vec<FlagsPlan>,
    /// The nodes that are MinIO servers, each once and in order: their lockers know neither leases
    /// nor tokens, and their holders keep one id over all attempts.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub minio: Vec<Node>,
}

/// The flags with which a node's processes start from some time on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlagsPlan {
    /// The node.
    pub node: Node,
    /// The time from which its processes start with these flags, in milliseconds. A running
    /// process keeps its flags: only a restart changes them.
    pub from_ms: u64,
    /// The list of lockers, each once and in order.
    pub lockers: Vec<Node>,
    /// Number of its build, which may differ between servers.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub build: u8,
    /// Number of its root user, which must not differ between servers.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub root_user: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u8) -> bool {
    *number == 0
}

/// A lock that a node requests, and the behaviour of its holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockPlan {
    /// The node that requests it.
    pub on: Node,
    /// Numbers of the resources to lock, each once and in order.
    pub resources: Vec<u8>,
    /// Whether the lock is exclusive; a read lock excludes writers only.
    pub write: bool,
    /// How long to wait for the lock, in milliseconds.
    pub timeout_ms: u32,
    /// How long to hold the lock, in milliseconds.
    pub hold_ms: u32,
    /// Time between two operations on the protected store while the lock is held, in milliseconds;
    /// 0 if the holder does not use the store.
    pub pace_ms: u32,
    /// Latency of a message to the store, in milliseconds.
    pub store_ms: u32,
    /// How the holder ends the lock.
    pub ending: PlannedLockEnd,
    /// Time after which the attempt is cancelled by dropping it, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cancel_after_ms: Option<u32>,
}

/// An operator forces the locks of a resource open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForcePlan {
    /// The node on which the operator acts.
    pub on: Node,
    /// The resource.
    pub resource: u8,
}

/// How a holder ends its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlannedLockEnd {
    /// It unlocks, and waits until that is acknowledged.
    Unlock,
    /// It drops the guard.
    Drop,
    /// It holds the lock until it loses it, or until all faults are healed.
    HoldUntilLost,
}

/// Maximum number of resources of a plan.
pub const RESOURCES_MAX: u8 = 32;

/// Returns the name of a resource, as the lockers know it.
pub fn resource_name(resource: u8) -> String {
    format!("r{resource}")
}

/// A shorter lease would expire on an intact network, because of the duration of a refresh and the
/// margin for clock drift.
const LEASE_MS_MIN: u32 = 3_000;

impl LocksPlan {
    /// Creates the plan of a cluster in which all nodes have the same list of lockers.
    pub fn new(lease_ms: u32, refresh_ms: u32, lockers: Vec<Node>) -> Self {
        Self { lease_ms, refresh_ms, lockers, flags: Vec::new(), minio: Vec::new() }
    }

    /// Returns the flags of a process of `node` that starts at `now_ms`, before all faults are
    /// healed; `None` if it has those of the plan.
    pub(crate) fn flags_at(&self, node: Node, now_ms: u64) -> Option<&FlagsPlan> {
        self.flags.iter().rev().find(|flags| flags.node == node && flags.from_ms <= now_ms)
    }

    /// Returns whether a process of `node` that started at `now_ms` has flags that differ from
    /// those of the plan, so that it has to restart before the cluster can recover.
    pub(crate) fn has_other_flags(&self, node: Node, now_ms: u64) -> bool {
        self.flags_at(node, now_ms).is_some_and(|flags| {
            flags.lockers != self.lockers || flags.build != 0 || flags.root_user != 0
        })
    }

    /// Removes a node, for a smaller plan.
    pub(crate) fn remove_node(&mut self, removed: Node) {
        self.flags.retain(|flags| flags.node != removed);
        self.minio.retain(|node| *node != removed);
        let flags = self.flags.iter_mut().map(|flags| &mut flags.lockers);
        for lockers in flags.chain([&mut self.lockers]) {
            lockers.retain(|node| *node != removed);
            if lockers.is_empty() {
                lockers.push(Node(0));
            }
        }
    }

    pub(super) fn check(&self, nodes: u8) -> Result<(), String> {
        let Self { lease_ms, refresh_ms, lockers, flags, minio } = self;
        if !(LEASE_MS_MIN..=WAIT_MS_MAX).contains(lease_ms) {
            return Err(format!("lease_ms must be {LEASE_MS_MIN} to {WAIT_MS_MAX}"));
        }
        if *refresh_ms == 0 || *refresh_ms > lease_ms / 4 {
            return Err("refresh_ms must be at most a quarter of lease_ms".to_owned());
        }
        let lists = flags.iter().map(|flags| &flags.lockers).chain([lockers]);
        if lists.clone().any(|list| list.is_empty() || !is_strictly_sorted(list)) {
            return Err("lockers must be at least one, each once and in order".to_owned());
        }
        if !flags.is_sorted_by_key(|flags| flags.from_ms) {
            return Err("flags must be in order of time".to_owned());
        }
        if !is_strictly_sorted(minio) || !(flags.is_empty() || minio.is_empty()) {
            return Err("minio must be in order, and without flags".to_owned());
        }
        let mut named = lists.flatten().chain(minio).chain(flags.iter().map(|flags| &flags.node));
        match named.find(|node| node.0 >= nodes) {
            Some(node) => Err(format!("there is no {node}")),
            None => Ok(()),
        }
    }
}

impl ForcePlan {
    pub(super) fn check(&self, nodes: u8) -> Result<(), String> {
        if self.on.0 >= nodes || self.resource >= RESOURCES_MAX {
            return Err(format!("{} cannot force r{} open", self.on, self.resource));
        }
        Ok(())
    }
}

impl LockPlan {
    pub(super) fn check(&self, nodes: u8) -> Result<(), String> {
        if self.on.0 >= nodes {
            return Err(format!("there is no {}", self.on));
        }
        if self.resources.is_empty() || !is_strictly_sorted(&self.resources) {
            return Err("resources must be at least one, each once and in order".to_owned());
        }
        if self.resources.iter().any(|resource| *resource >= RESOURCES_MAX) {
            return Err(format!("resources must be below {RESOURCES_MAX}"));
        }
        let waits = [self.timeout_ms, self.hold_ms, self.pace_ms, self.store_ms];
        if waits.into_iter().chain(self.cancel_after_ms).any(|ms| ms > WAIT_MS_MAX) {
            return Err(format!("no time of a lock may be longer than {WAIT_MS_MAX} ms"));
        }
        Ok(())
    }

    /// Returns the longest time that it may last, unless it is held until lost.
    pub(crate) fn longest_ms(&self) -> u64 {
        // An operation may be in flight at the end: two steps, each to the store and back.
        let waits = [self.timeout_ms, self.hold_ms, 4 * self.store_ms];
        waits.into_iter().map(u64::from).sum()
    }
}

fn is_strictly_sorted<T: Ord>(list: &[T]) -> bool {
    list.is_sorted_by(|one, next| one < next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> LockPlan {
        LockPlan {
            on: Node(1),
            resources: vec![0, 3],
            write: true,
            timeout_ms: 1_000,
            hold_ms: 1_000,
            pace_ms: 0,
            store_ms: 0,
            ending: PlannedLockEnd::Unlock,
            cancel_after_ms: None,
        }
    }

    #[test]
    fn invalid_lock_plan_is_refused() {
        type Change = fn(&mut LockPlan);
        assert_eq!(lock().check(2), Ok(()));
        let cases: [(Change, &str); 5] = [
            (|plan| plan.on = Node(2), "there is no node-2"),
            (|plan| plan.resources = vec![], "at least one"),
            (|plan| plan.resources = vec![3, 3], "each once"),
            (|plan| plan.resources = vec![RESOURCES_MAX], "below 32"),
            (|plan| plan.cancel_after_ms = Some(u32::MAX), "longer than"),
        ];
        for (change, expected) in cases {
            let mut plan = lock();
            change(&mut plan);
            let error = plan.check(2).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn invalid_locks_plan_is_refused() {
        type Change = fn(&mut LocksPlan);
        let locks = || LocksPlan::new(12_000, 2_000, vec![Node(0), Node(2)]);
        let flags =
            |node, from_ms, lockers| FlagsPlan { node, from_ms, lockers, build: 0, root_user: 0 };
        assert_eq!(locks().check(3), Ok(()));
        let cases: [(Change, &str); 8] = [
            (|plan| plan.minio = vec![Node(3)], "there is no node-3"),
            (|plan| plan.minio = vec![Node(1), Node(1)], "minio must be"),
            (|plan| plan.flags[0].lockers.clear(), "at least one"),
            (|plan| plan.flags[1].from_ms = 0, "flags must be in order"),
            (|plan| plan.lease_ms = 10, "lease_ms"),
            (|plan| plan.refresh_ms = 4_000, "quarter of lease_ms"),
            (|plan| plan.lockers = vec![Node(2), Node(0)], "in order"),
            (|plan| plan.lockers = vec![Node(3)], "there is no node-3"),
        ];
        let with_flags = || {
            let mut plan = locks();
            plan.flags = vec![flags(Node(1), 5, vec![Node(1)]), flags(Node(1), 9, vec![Node(0)])];
            plan
        };
        let at = |at_ms| with_flags().flags_at(Node(1), at_ms).map(|flags| flags.lockers.clone());
        assert_eq!(
            [4, 5, 8, 9].map(at),
            [None, Some(vec![Node(1)]), Some(vec![Node(1)]), Some(vec![Node(0)])]
        );
        assert!(with_flags().has_other_flags(Node(1), 5));
        assert!(!with_flags().has_other_flags(Node(0), 5));
        for (change, expected) in cases {
            let mut plan = locks();
            if expected.contains("flags") || expected == "at least one" {
                plan = with_flags();
            }
            change(&mut plan);
            let error = plan.check(3).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}
