//! A cluster that starts, agrees on its configuration, and knows its users.
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
mod retry;
mod serve;
mod tell;
mod writer;

pub use iam::{BuildError, ChangeError, Changed, Iam, IamBuilder, Phase};
pub use snapshot::{Decision, Snapshot, SnapshotBuilder};
pub use store::{
    IamStore, Item, ItemPath, Kind, Listing, MemoryStore, PathError, Sealed, StoreError,
};
pub use system::{ConfigDifference, Salt, SystemConfig};

/// Microseconds since 1970.
pub(crate) fn wall_micros(clock: &dyn grid::time::Clock) -> u64 {
    u64::try_from(clock.wall().unix_nanos() / 1_000).unwrap_or(0)
}
