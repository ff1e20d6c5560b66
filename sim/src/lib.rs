//! A deterministic simulator: runs the production code in a simulated cluster, checks its promises,
//! and replays every run exactly from a seed.
//!
//! - [`world::World`] is a cluster of nodes on a simulated network and simulated time. A storage
//!   server writes custom scenarios with it: [`world::Software`] puts its handlers on every node,
//!   [`World::spawn`](world::World::spawn) runs a task on one, and other methods inject faults and
//!   advance time.
//! - [`plan::Plan`] is a run as data, [`fault::Fault`] a fault of it, [`event::Event`] an event of
//!   its trace. [`swarm`] and [`scenarios`] make plans from seeds; [`run`] runs one and checks [`invariants`]; [`coverage`]
//!   counts the points that were reached; [`sweep`] runs many.
//! - [`shrink`] makes a failing plan small, [`corpus`] keeps it, [`report`] shows a run.
//! - [`pair`] is a smaller simulation: two pure state machines and a wire, for property tests.
//!
//! Nothing here is for production. ARCHITECTURE.md explains how it works, the crate's README how to
//! use it.

pub mod bounds;
mod clock;
pub mod corpus;
pub mod coverage;
mod draw;
pub mod event;
pub mod fault;
mod gate;
mod guard;
mod host;
pub mod iam;
pub mod invariants;
pub mod linearizability;
pub mod load;
pub mod lock;
pub mod metrics;
mod node;
pub mod pair;
pub mod plan;
pub mod recorder;
pub mod report;
#[doc = include_str!("../../grid/RULES.md")]
#[doc = include_str!("../../dsync/RULES.md")]
#[doc = include_str!("../../iam-bootstrap/RULES.md")]
#[doc = include_str!("../../resource-metrics/RULES.md")]
pub mod rules {}
pub mod run;
pub mod scenarios;
pub mod shrink;
pub mod software;
pub mod swarm;
pub mod sweep;
pub mod world;

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
