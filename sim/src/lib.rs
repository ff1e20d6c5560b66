//! Worlds in which grid's machines run without sockets, tasks or clocks, and are held to what they
//! promise.
//!
//! What can happen in a world is plain data, so that whoever has ideas about what should happen can
//! say so: a property test, a fuzzer, a simulator with a seed, a file with an old failure. Nothing
//! here is for production.

pub mod bounds;
pub mod corpus;
pub mod coverage;
pub mod event;
mod guard;
pub mod invariants;
pub mod load;
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
