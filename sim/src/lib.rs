//! Worlds in which grid's machines run without sockets, tasks or clocks, and are held to what they
//! promise.
//!
//! What can happen in a world is plain data, so that whoever has ideas about what should happen can
//! say so: a property test, a fuzzer, a simulator with a seed, a file with an old failure. Nothing
//! here is for production.

pub mod event;
pub mod pair;
pub mod plan;
