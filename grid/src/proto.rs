//! The protocol as pure state machines.
//!
//! Bytes, messages, calls and *now* come in; frames, events and the next deadline come out. There
//! is no socket, clock, lock, task or random source inside. The machines can be run by a property
//! test, a fuzzer or a model, and replay exactly.
//!
//! Public for code that drives the machines itself: the simulator, fuzzers, other I/O layers.
//! Before 1.0 the interface may change with each minor version.
//!
//! - [`message`]: the bytes of one message, and of a merged one
//! - [`subroute`]: selection among several handlers of one id
//! - [`handshake`]: dial direction, and acceptance of a dial
//! - [`connection`]: an open connection: messages, timeouts and calls in; frames and events out

pub mod connection;
pub mod handshake;
pub mod message;
pub mod subroute;

mod counter;
mod credit;
mod deadlines;
mod end;
mod event;
mod inbound;
mod outbound;
mod outbox;
mod payload;
mod ping;
mod queue;
mod sequence;
mod stream;

pub use outbox::Transmit;
