//! Read and write locks held by a quorum of servers, as leases with fencing tokens.
//!
//! Each server of a cluster has a [`Dsync`] on its own [`grid::Manager`]; some or all of them are
//! *lockers*. A [`DRWMutex`] is acquired when a quorum of lockers has granted it, and held as long
//! as its [`Guard`] says so. There is no coordinator, and no state on disk.
//!
//! # Guarantees
//!
//! - **Exclusion.** At no instant do a writer and another holder of the same resource both see
//!   [`Guard::is_held`]. That holds under partitions, one-way cuts, slow links, any number of
//!   crashes and restarts of lockers and holders, and clock rate errors of up to 1 %.
//! - **Fencing.** A writer's [`Token`] is greater than that of every earlier grant of its
//!   resources, a reader's greater than that of every earlier writer. A store that refuses lower
//!   tokens is safe from holders that could not know that they lost their lock.
//! - **Expiry.** The locks of a dead holder are free after at most one lease. A grant that comes
//!   late, or after the attempt was cancelled, is released.
//! - **Fairness.** A call of `lock` has one ticket. Once it is queued at a write quorum of lockers
//!   and no older conflicting one is, only attempts of that moment come first.
//!
//! # Assumptions
//!
//! - A monotonic clock that keeps running while its process runs or is stopped. On Linux it also
//!   counts the time that the machine sleeps ([`LeaseClock`]). A virtual machine that its host
//!   suspends together with all clocks still sees [`Guard::is_held`] when it resumes: that is what
//!   tokens are for.
//! - Timers that are late by less than [`limits::SCHEDULING_MARGIN`], for [`Guard::lost`] alone;
//!   [`Guard::is_held`] needs none.
//! - For tokens: at least a lease passes between two moments at which so many lockers restart that
//!   no quorum keeps its state. The lockers' clock skew plus any backward clock step in that time
//!   is less than a lease.
//! - No two processes run under the name of one server, and all servers know the same servers. Lists
//!   of lockers may differ, and change from one process of a server to the next: locks are granted
//!   and taken only by the list that most servers are known to have.
//!
//! # Not guaranteed
//!
//! - Availability while fewer lockers than a quorum can be reached, or within a lease of a locker's
//!   restart while some server cannot report its leases.
//! - Exact order among waiters that miss their notifications.
//! - Anything for a holder that checks neither `is_held` nor the token.
//! - Exclusion from MinIO holders, which do not stop when a refresh fails; tokens of locks whose
//!   quorum needs MinIO lockers ([`Guard::token`] is `None` then).
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use dsync::{DRWMutex, Dsync, LockOptions};
//! use grid::{Auth, LOCK_GRID_PATH, Manager};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A cluster of one server. With more, list all names, and let the manager serve a listener.
//! let manager = Manager::builder("http://127.0.0.1:9000")
//!     .servers(["http://127.0.0.1:9000"])
//!     .auth(Auth::shared_secret(b"what all servers know")?)
//!     .path(LOCK_GRID_PATH)
//!     .build()?;
//! let dsync = Dsync::builder(&manager).build()?;
//! manager.start()?;
//! dsync.start();
//! // Nothing to verify here; see `Dsync::open`.
//! dsync.open();
//!
//! let mutex = DRWMutex::new(&dsync, ["photos/a.jpg"]);
//! let first = mutex.lock(LockOptions::default().source("example")).await?;
//! assert!(first.is_held());
//! let options = LockOptions::default().timeout(Duration::from_millis(50));
//! assert!(mutex.read_lock(options).await.is_err(), "it is locked for writing");
//!
//! let token = first.token();
//! first.unlock();
//! let second = mutex.lock(LockOptions::default()).await?;
//! assert!(second.token() > token);
//! # Ok(())
//! # }
//! ```
//!
//! # Overview
//!
//! [`proto`] is the protocol as state machines without I/O: [`proto::hold::Hold`] is one lock at its
//! holder, [`proto::table::Table`] one locker. The other modules drive them. [`limits`] has every
//! limit; ARCHITECTURE.md explains the design.
#![forbid(unsafe_code)]

pub mod admin;
pub mod error;
pub mod limits;
pub mod locker;
pub mod proto;
#[doc = include_str!("../RULES.md")]
pub mod rules {}
pub mod stats;
#[cfg(feature = "testing")]
pub mod testing;
pub mod wire;

mod admission;
mod batcher;
mod clock;
mod driver;
mod dsync;
mod guard;
mod list_queries;
mod live_locks;
mod local;
mod lock;
mod loss_log;
mod mutex;
mod operation;
mod peers;
mod quorum_check;
mod recovery;
mod remote;
mod tasks;
mod validity;

pub use admin::{ForceReport, Listing, LockInfo};
pub use clock::LeaseClock;
pub use dsync::{Dsync, DsyncBuilder};
pub use error::{
    AttemptStats, BuildError, LockError, LockerError, LossReason, NotReadyReason, ResourcesError,
    UnlockReport,
};
pub use guard::{Guard, Unlocking};
pub use limits::Limits;
pub use local::LocalLocker;
pub use locker::Locker;
pub use mutex::{DRWMutex, LockOptions};
pub use proto::hold::WaitMode;
pub use proto::quorum::LockKind;
pub use proto::table::{ForceTarget, GrantInfo, WaiterInfo};
pub use proto::token::Token;
pub use proto::waiters::TicketState;
pub use remote::RemoteLocker;
pub use stats::{LockerStats, Stats, WaitStats};

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
