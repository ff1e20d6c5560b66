//! Users, policies and mappings in a plan: their store, and one change of one item.

use serde::{Deserialize, Serialize};

use super::{Node, WAIT_MS_MAX};

/// The store of a cluster's users, policies and mappings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IamPlan {
    /// Pools of each node.
    pub pools: u8,
    /// Number of items that all nodes have in their pools at the start of the run: those with the
    /// lowest numbers, spread over the pools in turn.
    pub seeded: u8,
    /// Longest time between two reconciliations with a peer, in milliseconds.
    pub refresh_ms: u32,
    /// Duration of each operation of a pool, in milliseconds.
    pub store_ms: u32,
}

/// A change of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangePlan {
    /// The node that makes it.
    pub on: Node,
    /// Number of the item: users, policies and mappings alternate.
    pub item: u8,
    /// The operation on the item.
    pub change: ItemChange,
}

/// An operation on an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ItemChange {
    /// Puts it, with the number of the call as its value.
    Put,
    /// Deletes it.
    Delete,
}

/// Maximum number of pools of one node.
pub(super) const POOLS_MAX: u8 = 3;

/// Maximum number of items of a plan.
pub const ITEMS_MAX: u8 = 64;

/// With a slower pool, most of a run would be waiting.
const STORE_MS_MAX: u32 = 1_000;

impl IamPlan {
    pub(super) fn check(&self) -> Result<(), String> {
        let Self { pools, seeded, refresh_ms, store_ms } = self;
        if !(1..=POOLS_MAX).contains(pools) {
            return Err(format!("pools must be 1 to {POOLS_MAX}, not {pools}"));
        }
        if *seeded > ITEMS_MAX {
            return Err(format!("seeded must be at most {ITEMS_MAX}"));
        }
        if !(1..=WAIT_MS_MAX).contains(refresh_ms) || *store_ms > STORE_MS_MAX {
            return Err(format!(
                "refresh_ms must be 1 to {WAIT_MS_MAX}, and store_ms at most {STORE_MS_MAX}"
            ));
        }
        Ok(())
    }
}

impl ChangePlan {
    pub(super) fn check(&self, nodes: u8) -> Result<(), String> {
        if self.on.0 >= nodes || self.item >= ITEMS_MAX {
            return Err(format!("{} cannot change item {}", self.on, self.item));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_iam_plan_is_refused() {
        type Change = fn(&mut IamPlan);
        let iam = || IamPlan { pools: 2, seeded: 9, refresh_ms: 5_000, store_ms: 5 };
        assert_eq!(iam().check(), Ok(()));
        let cases: [(Change, &str); 4] = [
            (|plan| plan.pools = 0, "pools"),
            (|plan| plan.seeded = ITEMS_MAX + 1, "seeded"),
            (|plan| plan.refresh_ms = 0, "refresh_ms"),
            (|plan| plan.store_ms = 5_000, "store_ms"),
        ];
        for (change, expected) in cases {
            let mut plan = iam();
            change(&mut plan);
            let error = plan.check().expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
        let change = ChangePlan { on: Node(2), item: 0, change: ItemChange::Put };
        assert_eq!(change.check(3), Ok(()));
        assert!(
            change.check(2).is_err() && ChangePlan { item: ITEMS_MAX, ..change }.check(3).is_err()
        );
    }
}
