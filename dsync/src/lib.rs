//! Read and write locks held by a quorum of servers, as leases with fencing tokens.
//!
//! Each server of a cluster has a [`Dsync`] on a [`grid::Manager`] of its own; some or all of them are
//! *lockers*. A [`DRWMutex`] is taken when a quorum of lockers has granted it, and held as long as its
//! [`Guard`] says so. No server coordinates, and none keeps anything on disk.
//!
//! # What is promised
//!
//! - **Exclusion.** No writer and anybody else both believe, at one instant, that they hold the same
//!   resource: [`Guard::is_held`] of one of them says no. That holds under partitions, cuts in one
//!   direction, slow links, crashes and restarts of lockers and holders in any number, and clocks
//!   whose rates are off by up to a hundredth each.
//! - **Fencing.** A writer's [`Token`] is greater than that of every earlier grant of its resources, a
//!   reader's greater than that of every earlier writer. A store that refuses lower tokens is safe
//!   from holders who could not know that they lost their lock.
//! - **An end.** What a dead holder held is free after at most one lease; what was granted late, or to
//!   somebody who gave up, is released.
//! - **A turn.** Who waits is served in order, roughly. A writer is not starved by readers.
//!
//! # Under which assumptions
//!
//! - A monotonic clock that does not stand still while its process runs or is stopped. On Linux it
//!   also counts the time that the machine sleeps ([`LeaseClock`]); but a virtual machine that its host
//!   suspends together with all clocks believes in its locks when it wakes up: tokens are for that.
//! - Timers that are late by less than [`limits::SCHEDULING_MARGIN`], for [`Guard::lost`] alone;
//!   [`Guard::is_held`] needs none.
//! - For tokens: where so many lockers restart that no quorum remembers, a lease has passed since that
//!   happened last, and what the lockers' wall clocks differ by and were set back by meanwhile is less
//!   than a lease in all.
//! - No two processes run under the name of one server, and all servers have the same list of lockers. (A
//!   locker refuses whoever counts another number of them.)
//!
//! # What is not promised
//!
//! - That a lock can be taken while fewer lockers than a quorum can be reached, or within a lease of
//!   the restart of a locker when some server cannot be asked what it holds.
//! - Exactness of the order among waiters; anything to whoever does not check `is_held` or the token.
//! - Exclusion from holders of existing clusters' kind, which do not give up what they cannot refresh.
//!
//! # An example
//!
//! ```
//! use std::time::Duration;
//! use dsync::{DRWMutex, Dsync, LockOptions};
//! use grid::{Auth, LOCK_GRID_PATH, Manager};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A cluster of one server: with more, all their names are given, and the manager serves a listener.
//! let manager = Manager::builder("http://127.0.0.1:9000")
//!     .servers(["http://127.0.0.1:9000"])
//!     .auth(Auth::shared_secret(b"what all servers know")?)
//!     .path(LOCK_GRID_PATH)
//!     .build()?;
//! let dsync = Dsync::builder(&manager).build()?;
//! manager.start()?;
//! dsync.start();
//!
//! let mutex = DRWMutex::new(&dsync, ["photos/a.jpg"]);
//! let first = mutex.lock(LockOptions::default().source("example")).await?;
//! assert!(first.is_held());
//! let options = LockOptions::default().timeout(Duration::from_millis(50));
//! assert!(mutex.read_lock(options).await.is_err(), "it is locked for writing");
//!
//! let token = first.token();
//! first.unlock().await;
//! let second = mutex.lock(LockOptions::default()).await?;
//! assert!(second.token() > token);
//! # Ok(())
//! # }
//! ```
//!
//! # A tour
//!
//! [`proto`] decides everything, without doing any of it: [`proto::hold::Hold`] is one lock at its
//! holder, [`proto::table::Table`] one locker. The rest does what they say. [`limits`] has every limit;
//! ARCHITECTURE.md tells why it is so.
#![forbid(unsafe_code)]

pub mod admin;
pub mod error;
pub mod limits;
pub mod locker;
pub mod proto;
pub mod stats;
pub mod wire;

mod census;
mod clock;
mod driver;
mod dsync;
mod guard;
mod local;
mod lock;
mod mutex;
mod recovery;
mod remote;
mod server;
mod validity;

pub use admin::{ForceReport, Listing, LockInfo};
pub use clock::LeaseClock;
pub use dsync::{Dsync, DsyncBuilder};
pub use error::{BuildError, LockError, LockerError, Lost, NamesError};
pub use guard::Guard;
pub use limits::Limits;
pub use local::LocalLocker;
pub use locker::Locker;
pub use mutex::{DRWMutex, LockOptions};
pub use proto::hold::Waiting;
pub use proto::quorum::Kind;
pub use proto::table::{Forced, GrantInfo, WaiterInfo};
pub use proto::token::Token;
pub use remote::RemoteLocker;
pub use stats::{LockerStats, Stats, Waits};
