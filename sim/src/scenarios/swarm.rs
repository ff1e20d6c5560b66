//! Everything at once, or nearly nothing: see [`crate::swarm`].
//!
//! What is expected here is what is expected anywhere: the invariants. Which rare situations were
//! reached is counted over a set of runs (see [`crate::coverage`]).

use super::Scenario;
use crate::swarm;

/// See the module.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "swarm",
    about: "faults, load, limits and rare events, all drawn from the seed",
    plan: |seed| swarm::plan(seed, None),
    expect: |_, _| Ok(()),
};

/// Locks, with all that may happen to those who hold them and those who grant them.
pub(super) const LOCKS: Scenario = Scenario {
    name: "locks",
    about: "locks, faults, stopped processes and wrong clocks, all drawn from the seed",
    plan: swarm::plan_with_locks,
    expect: |_, _| Ok(()),
};

/// Users, policies and mappings, with all that may happen to nodes and their pools.
pub(super) const IAM: Scenario = Scenario {
    name: "iam",
    about: "users, policies and mappings change, with faults and late pools, all drawn from the seed",
    plan: swarm::plan_with_iam,
    expect: |_, _| Ok(()),
};

/// Likewise, with all kinds of trouble in every run.
pub(super) const EVERYTHING: Scenario = Scenario {
    name: "everything",
    about: "as swarm, with every kind of fault and every rare event in each run",
    plan: swarm::plan_with_everything,
    expect: |_, _| Ok(()),
};
