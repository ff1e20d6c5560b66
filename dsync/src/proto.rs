//! State machines of lockers and holders, without clocks, sockets, locks or tasks.
//!
//! ```text
//!   Hold (one lock, at its holder)                      Table (one locker)
//!     poll_output ────── Lock, Refresh, Unlock, Wait ────► lock, refresh, unlock, wait
//!     handle_response ◄── granted, refused, … ──────────── their responses
//!     handle_timeout, poll_timeout                         handle_timeout, poll_timeout
//! ```
//!
//! Time and randomness are parameters, so that both run in property tests with any network between
//! them (`tests/exclusion.rs`), and in a simulated cluster (the crate `sim`).

pub mod agreement;
pub mod hold;
pub mod quorum;
pub mod resources;
pub mod table;
pub mod token;
pub mod waiters;

mod keyed;
mod tombstones;
