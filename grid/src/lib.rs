//! One two-way WebSocket between every pair of servers, and many small calls over it.
//!
//! A [`Manager`] keeps one connection to each server of a cluster. Both ends compute from the two
//! names which of them is the dialer, and the dialer redials whenever the connection breaks. Over a
//! [`Connection`] either server calls handlers of the other: payload in, payload or error out. Each
//! call has a deadline and is cancelled on both servers when its caller drops it. Wire-compatible
//! with MinIO's grid v1 (PROTOCOL.md).
//!
//! # A tour
//!
//! - [`Manager`] is the entry point; its example is a complete server.
//! - [`Connection`] makes calls: raw ones with [`Connection::request`], typed ones with
//!   [`SingleHandler`].
//! - [`Connection::stream`] opens a [`Stream`]: messages both ways under flow control;
//!   [`StreamHandler`] is its typed form.
//! - [`RequestContext`] describes a call to its handler.
//! - [`CallError`] is the reason why a call failed, and whether the handler may have run.
//! - [`limits`] has every limit of the crate.
//! - [`proto`] is the protocol as pure state machines, [`shared`] the lock around them, [`net`] the
//!   I/O shell that drives them. ARCHITECTURE.md gives the reasons.
//!
//! # Two servers in one process
//!
//! ```
//! # use std::time::Duration;
//! use grid::{Auth, HandlerId, Manager, Route};
//! use tokio::net::TcpListener;
//!
//! const ECHO: HandlerId = HandlerId::new(200);
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut managers = Vec::new();
//! let listeners = [TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?];
//! let mut urls = Vec::new();
//! for listener in &listeners {
//!     urls.push(format!("http://{}", listener.local_addr()?));
//! }
//! for (listener, url) in listeners.into_iter().zip(&urls) {
//!     let manager = Manager::builder(url)
//!         .servers(urls.clone())
//!         .auth(Auth::shared_secret(b"the cluster's secret")?)
//!         .build()?;
//!     manager.register(Route::new(ECHO).name("Echo"), |_context, payload| async { Ok(payload) })?;
//!     manager.start()?;
//!     tokio::spawn(manager.clone().serve(listener));
//!     managers.push(manager);
//! }
//!
//! let connection = managers[0].connection(&urls[1]).ok_or("not a server")?;
//! connection.wait_connected().await?;
//! assert_eq!(connection.request(ECHO, "hello").await?, "hello");
//! # for manager in managers { manager.shutdown(Duration::from_secs(1)).await; }
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! `net` (on by default) enables everything that needs tokio. Without it [`proto`] and [`shared`]
//! remain.
//!
//! `buggify` is for tests: it compiles in fault points, at which a test injects delays and
//! failures. Without it no fault point is compiled.

pub mod backoff;
pub mod bug;
pub mod check_schedule;
pub mod error;
pub mod limits;
pub mod log_limit;
pub mod name;
mod outcome;
pub mod proto;
#[doc = include_str!("../../PROTOCOL.md")]
pub mod protocol {}
#[doc = include_str!("../RULES.md")]
pub mod rules {}
pub mod shared;
pub mod stats;
pub mod sync;
pub mod time;

#[cfg(feature = "net")]
pub mod auth;
#[cfg(feature = "buggify")]
pub mod buggify;
#[cfg(all(feature = "net", not(feature = "buggify")))]
mod buggify;
#[cfg(feature = "net")]
pub mod connection;
#[cfg(feature = "net")]
pub mod env;
#[cfg(feature = "net")]
pub mod handler;
#[cfg(feature = "net")]
pub mod manager;
#[cfg(feature = "net")]
pub mod net;
#[cfg(feature = "net")]
mod remote_handle;
#[cfg(feature = "net")]
pub mod request;
#[cfg(feature = "net")]
pub mod route;
#[cfg(feature = "net")]
pub mod shared_bytes;
#[cfg(feature = "net")]
pub mod stream;
#[cfg(feature = "net")]
pub mod trace;
#[cfg(feature = "net")]
pub mod typed;

pub use error::{
    BuildError, CallError, HandlerError, RegisterError, SendError, StreamError, TypedCallError,
    TypedSendError, TypedStreamError,
};
pub use limits::Limits;
pub use name::Name;
pub use proto::subroute::Subroute;
pub use stats::{ConnectionState, ConnectionStats, Failure, FailureKind};

#[cfg(feature = "net")]
pub use auth::Auth;
#[cfg(feature = "net")]
pub use connection::{Connection, StateWatch};
#[cfg(feature = "net")]
pub use env::Env;
#[cfg(feature = "net")]
pub use handler::{Handler, RequestContext};
#[cfg(feature = "net")]
pub use manager::{GRID_PATH, LOCK_GRID_PATH, Manager, ManagerBuilder};
#[cfg(feature = "net")]
pub use net::accept::GridService;
#[cfg(feature = "net")]
pub use request::Request;
#[cfg(feature = "net")]
pub use route::{Execution, HandlerId, Route};
#[cfg(feature = "net")]
pub use stream::{OpenStream, Stream, StreamOutput, StreamReceiver, StreamSender};
#[cfg(feature = "net")]
pub use typed::stream::{
    NoInput, NoPayload, StreamHandler, TypedOutput, TypedReceiver, TypedSender, TypedStream,
};
#[cfg(feature = "net")]
pub use typed::{CallOptions, SingleHandler};

/// The examples of the READMEs compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../../README.md")]
struct Readme;
