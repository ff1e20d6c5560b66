//! What a storage server does between "process started" and "serving", and keeps doing: it verifies that
//! its peers run with the same, agrees with them on the deployment's id, loads who may do what, and keeps
//! that the same on every server.
//!
//! Three parts, each of use by itself, in the order in which a server needs them:
//!
//! - [`verify`]: does at least half of my peers run with what I run with ([`SystemConfig`])?
//! - [`deployment`]: one id for the cluster, decided once, read at any time.
//! - [`Iam`]: users, groups, accounts and policies ([`model`], [`policy`]) as one [`Snapshot`] that never
//!   changes and decides; loaded from pools ([`store`]), changed on any server, known on all.
//!
//! # What is promised of IAM
//!
//! - A change that has returned is kept, and known here; [`Changed::peers`] says which other servers took it.
//! - Whoever missed it takes it when it is connected again, or after
//!   [`REFRESH_INTERVAL`](limits::REFRESH_INTERVAL) at the latest. Of two changes of one item the later one
//!   counts, everywhere. What was deleted does not come back.
//! - A snapshot is a whole state: never a part of what is being loaded.
//!
//! Under which assumptions: the servers' wall clocks are less than
//! [`CLOCK_LEAD_MAX`](limits::CLOCK_LEAD_MAX) apart, or changes are refused until they are; between
//! changes that do not know of each other, the later clock wins. A server that was away for longer than
//! [`DELETION_KEPT`](limits::DELETION_KEPT) joins with empty pools. All servers have one root secret.
//!
//! What is not promised: that two servers know a change at the same moment; that a user who was deleted
//! is refused by a server that cannot be reached; anything to whoever knows the root secret.
//!
//! # An example
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
//! // A cluster of one server: with more, all their names are given, and the manager serves a listener.
//! let manager = Manager::builder("http://127.0.0.1:9000")
//!     .servers(["http://127.0.0.1:9000"])
//!     .auth(Auth::shared_secret(b"what all servers know")?)
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
//! let snapshot = iam.snapshot().ok_or("it is ready")?;
//! let context = Context::new(UtcMillis::new(1_763_000_000_000));
//! let decision = snapshot.is_allowed("alice", "s3:GetObject", "arn:aws:s3:::photos/a.jpg", &context);
//! assert_eq!(decision.to_string(), "denied: no statement of user alice allows it");
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod deployment;
pub mod format;
pub mod iam;
pub mod limits;
pub mod load;
pub mod model;
pub mod policy;
pub mod record;
pub mod replica;
pub mod snapshot;
pub mod store;
pub mod system;
pub mod verify;
pub mod wire;

mod body;
mod compare;
mod ending;
mod retry;
mod serve;
mod tell;
mod writer;

pub use iam::{BuildError, ChangeError, Changed, Iam, IamBuilder, Phase, ReadyError};
pub use snapshot::{Decision, Item, ItemKey, Snapshot, SnapshotBuilder};
pub use store::{IamStore, ItemPath, Kind, MemoryStore, PathError, Sealed, StoreError};
pub use system::{ConfigDifference, Salt, SystemConfig};

/// Microseconds since 1970.
pub(crate) fn wall_micros(clock: &dyn grid::time::Clock) -> u64 {
    u64::try_from(clock.wall().unix_nanos() / 1_000).unwrap_or(0)
}
