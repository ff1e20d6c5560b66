//! A cluster that starts, agrees on its configuration, and knows its users.
#![forbid(unsafe_code)]

pub mod limits;
pub mod store;
pub mod system;
pub mod verify;

pub use store::{
    IamStore, Item, ItemPath, Kind, Listing, MemoryStore, PathError, Sealed, StoreError,
};
pub use system::{ConfigDifference, Salt, SystemConfig};
