//! Swarm testing: faults, load and limits are drawn from the seed (see [`crate::swarm`]).
//!
//! The expectation is that of any run: the invariants. Coverage of rare situations is counted over
//! a set of runs (see [`crate::coverage`]).

use super::Scenario;
use crate::swarm;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "swarm",
    about: "faults, load, limits and fault points, all drawn from the seed",
    plan: |seed| swarm::plan(seed, None),
    expect: |_, _| Ok(()),
};

/// Locks, with all faults of holders and lockers.
pub(super) const LOCKS: Scenario = Scenario {
    name: "locks",
    about: "locks, faults, paused processes and wrong clocks, all drawn from the seed",
    plan: swarm::plan_with_locks,
    expect: |_, _| Ok(()),
};

/// Contended locks, whose waiters are served in order.
pub(super) const FAIR: Scenario = Scenario {
    name: "fair",
    about: "contended locks with long and short holds, and a few faults, drawn from the seed",
    plan: swarm::plan_with_contention,
    expect: |_, _| Ok(()),
};

/// Locks of servers that restart with different lists of lockers.
pub(super) const LISTS: Scenario = Scenario {
    name: "lists",
    about: "servers restart with different lists of lockers, all drawn from the seed",
    plan: swarm::plan_with_lists,
    expect: |_, _| Ok(()),
};

/// MinIO servers among ours.
pub(super) const MIXED: Scenario = Scenario {
    name: "mixed",
    about: "MinIO servers among ours, with slow and failing links, all drawn from the seed",
    plan: swarm::plan_with_minio,
    expect: |_, _| Ok(()),
};

/// Users, policies and mappings, with all faults of nodes and pools.
pub(super) const IAM: Scenario = Scenario {
    name: "iam",
    about: "IAM items change, with faults and late pools, all drawn from the seed",
    plan: swarm::plan_with_iam,
    expect: |_, _| Ok(()),
};

/// As the swarm, with all classes of faults in every run.
pub(super) const EVERYTHING: Scenario = Scenario {
    name: "everything",
    about: "as swarm, with every class of fault and every fault point in each run",
    plan: swarm::plan_with_everything,
    expect: |_, _| Ok(()),
};
