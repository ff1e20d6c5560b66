//! What to do is decided here, without doing any of it.
//!
//! Pure state machines: bytes, messages, calls and *now* come in; frames, events and the next
//! deadline come out. No socket, no clock, no lock, no task, no random source of their own. They can
//! be run by a property test, a fuzzer or a model, and replay exactly.
//!
//! For those who drive the machines themselves: the simulator, fuzzers, other shells. Before 1.0 it
//! changes with each minor version.
//!
//! - [`message`]: the bytes of one message, and of a merged one
//! - [`subroute`]: which of several handlers of one id
//! - [`handshake`]: who dials, and whether a dial is taken
//! - [`connection`]: an open connection: messages, timeouts and calls in; frames and events out
//! - [`backoff`]: when to dial again

pub mod backoff;
pub mod connection;
pub mod handshake;
pub mod message;
pub mod subroute;

mod call;
mod credit;
mod deadlines;
mod event;
mod outbox;
mod payload;
mod ping;
mod queue;
mod serve;
mod stream;

pub use outbox::Transmit;
