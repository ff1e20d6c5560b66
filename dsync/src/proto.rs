//! What lockers and holders decide: pure state machines, without a clock, a socket, a lock or a task.
//!
//! ```text
//!   Hold (one lock, at its holder)                      Table (one locker)
//!     poll_transmit ──── Lock, Refresh, Unlock, Wait ────► lock, refresh, unlock, wait
//!     handle_answer ◄──── granted, refused, … ──────────── their answers
//!     handle_timeout, poll_timeout                         handle_timeout, poll_timeout
//! ```
//!
//! Time and randomness are handed in, so that both run in property tests with any network between
//! them (`tests/exclusion.rs`), and in a simulated cluster (the crate `sim`).

pub mod hold;
pub mod names;
pub mod quorum;
pub mod table;
pub mod token;
pub mod waiters;

mod keyed;
mod tombstones;
