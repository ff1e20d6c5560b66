//! Configuration that the servers of one cluster must have in common, and the difference between
//! two of them.

pub mod config;
pub mod difference;
pub mod keyed_hash;

pub use config::{ConfigCollector, SystemConfig};
pub use difference::{ConfigDifference, ConfigPart, Difference};
pub use keyed_hash::HashKey;
