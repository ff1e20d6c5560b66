//! Startup and identity management of a storage server. A server verifies that its peers run the
//! same configuration, agrees with them on a deployment id, loads users and policies, and keeps
//! them replicated.
//!
//! Three parts, each usable by itself, in the order in which a server needs them; [`Bootstrap`] runs
//! them in that order, and opens the locks of the server in between:
//!
//! - [`verify`]: checks that at least half of the peers run with a configuration that works together
//!   with this server's ([`SystemConfig`]).
//! - [`deployment`]: one id for the cluster, decided once, readable at any time.
//! - [`Iam`]: users, groups, accounts and policies ([`model`], [`policy`]) as one immutable
//!   [`Snapshot`] that makes access decisions; loaded from pools ([`store`]), changed on any
//!   server, replicated to all.
//!
//! # Guarantees
//!
//! - A change that has returned is durable and visible on this server; [`ChangeOutcome::peers`]
//!   says which other servers applied it.
//! - A peer that missed a change applies it when it reconnects, or after
//!   [`REFRESH_INTERVAL`](limits::REFRESH_INTERVAL) at the latest. Of two changes of one item the
//!   later one wins on every server. A deleted item does not come back.
//! - A snapshot is complete: it never contains a part of a load in progress.
//!
//! Assumptions: the servers' wall clocks are less than [`CLOCK_SKEW_MAX`](limits::CLOCK_SKEW_MAX)
//! apart; otherwise changes are refused until they are. Between concurrent changes the later clock
//! wins. A server that was away for longer than
//! [`TOMBSTONE_RETENTION`](limits::TOMBSTONE_RETENTION) joins with empty pools. All servers have
//! one root secret.
//!
//! Not guaranteed: that two servers apply a change at the same moment; that a partitioned server
//! refuses a user who was deleted elsewhere; any protection against a holder of the root secret.
//!
//! # Example
//!
//! ```
//! use grid::{Auth, Manager};
//! use iam_bootstrap::model::{Secret, User, UserName, UtcMillis};
//! use iam_bootstrap::policy::Context;
//! use iam_bootstrap::store::sealed::Keys;
//! use iam_bootstrap::{Iam, Item, MemoryStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A cluster of one server. A larger one lists all names, and the manager serves a listener.
//! let manager = Manager::builder("http://127.0.0.1:9000")
//!     .servers(["http://127.0.0.1:9000"])
//!     .auth(Auth::shared_secret(b"the shared secret")?)
//!     .build()?;
//! let keys = Keys::new(b"the root secret of all servers")?;
//! let iam = Iam::builder(&manager, UserName::new("root")?, keys)
//!     .pool(MemoryStore::new("pool 1"))
//!     .build()?;
//! manager.start()?;
//! iam.start();
//! iam.ready().await?;
//!
//! let alice = User::new(UserName::new("alice")?, Secret::new("correct horse")?);
//! iam.put(Item::User(alice)).await?;
//! let snapshot = iam.snapshot().ok_or("not ready")?;
//! let context = Context::new(UtcMillis::new(1_763_000_000_000));
//! let decision = snapshot.is_allowed("alice", "s3:GetObject", "arn:aws:s3:::photos/a.jpg",
//! &context); assert_eq!(decision.to_string(), "denied: no statement of user alice allows it");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod deployment;
pub mod format;
pub mod iam;
pub mod limits;
pub mod load;
pub mod model;
pub mod policy;
pub mod record;
pub mod replica;
#[doc = include_str!("../RULES.md")]
pub mod rules {}
pub mod snapshot;
pub mod store;
pub mod system;
pub mod verify;
pub mod wire;

mod broadcast;
mod change;
mod codec;
mod derive;
mod peers;
mod pools;
mod reconcile;
mod record_sealer;
mod retry;
mod serve;
mod shutdown;
mod startup;
mod state;
mod tasks;
mod time;
mod writer;

pub use bootstrap::{Bootstrap, BootstrapBuilder, BootstrapError, BootstrapStatus, ClusterLocks};
pub use iam::{BuildError, ChangeError, ChangeOutcome, Iam, IamBuilder, Phase, ReadyError};
pub use snapshot::{Decision, Item, ItemKey, Snapshot, SnapshotBuilder};
pub use store::{IamStore, ItemKind, ItemPath, MemoryStore, PathError, Sealed, StoreError};
pub use system::{ConfigDifference, HashKey, SystemConfig};

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
