//! The I/O shell: dials, accepts, reads, writes and sleeps. All protocol decisions are in `proto`.
//!
//! - [`transport`]: how a remote is reached: TCP, or the application's or simulator's own
//! - `websocket`: the settings of the WebSocket layer
//! - `manager_state`: the state that all tasks of one manager share
//! - `dial`, `accept`: the dialer's and the acceptor's handshake
//! - `remote_task`: the task of one remote: connect, run, back off, repeat
//! - `driver`: the future that drives an open connection
//! - `dispatch`: runs handlers

pub mod accept;
pub mod transport;

pub(crate) mod dial;
pub(crate) mod dispatch;
pub(crate) mod driver;
pub(crate) mod manager_state;
pub(crate) mod remote_task;
pub(crate) mod websocket;
