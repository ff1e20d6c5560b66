//! Worlds in which the code that ships is held to what it promises, and replays exactly from a
//! seed.
//!
//! - [`world::World`] is a cluster of nodes on a simulated network and simulated time. A storage server
//!   writes scenarios of its own with it: [`world::Software`] puts its handlers on every node,
//!   [`World::spawn`](world::World::spawn) runs something on one, verbs make trouble and let time pass.
//! - [`plan::Plan`] is a run as data, [`event::Event`] what happened in it. [`swarm`] and [`scenarios`]
//!   make plans from seeds; [`run`] runs one and holds it to [`invariants`]; [`coverage`] counts what was
//!   reached; [`sweep`] runs many.
//! - [`shrink`] makes a failing plan small, [`corpus`] keeps it, [`report`] shows a run.
//! - [`pair`] is another, smaller world: two pure machines and a wire, for property tests.
//!
//! Nothing here is for production. How it works is in ARCHITECTURE.md, how it is used in the
//! crate's README.

pub mod bounds;
pub mod corpus;
pub mod coverage;
pub mod event;
mod guard;
pub mod history;
pub mod iam;
pub mod invariants;
pub mod load;
pub mod lock;
pub mod metrics;
pub mod pair;
pub mod plan;
pub mod recorder;
pub mod report;
pub mod run;
pub mod scenarios;
pub mod shrink;
pub mod swarm;
pub mod sweep;
pub mod world;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// So do those of the workspace's. Here, because of all libraries only this one has all others at
/// hand.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct WorkspaceReadme;
