//! The shell: it dials, accepts, reads, writes and sleeps, and decides nothing.
//!
//! - [`transport`]: how a remote is reached: TCP, or whatever the application or the simulator has
//! - [`clock`]: the real clock
//! - `websocket`: the settings of the WebSocket layer
//! - `dial`, `accept`: the two ends of a handshake
//! - `peer`: the life of one remote: connect, run, back off, again
//! - `driver`: the one task of an open connection
//! - `dispatch`: runs handlers

pub mod accept;
pub mod clock;
pub mod transport;

pub(crate) mod dial;
pub(crate) mod dispatch;
pub(crate) mod driver;
pub(crate) mod log_throttle;
pub(crate) mod remote_task;
pub(crate) mod websocket;
