//! A cluster that starts, agrees, and knows its users.
//!
//! [`model`] is what is known, [`policy`] says what may be done, and a [`Snapshot`] is all of it at
//! one moment, ready to decide.
#![forbid(unsafe_code)]

pub mod limits;
pub mod model;
pub mod policy;
pub mod snapshot;

pub use snapshot::{Decision, Snapshot, SnapshotBuilder};
