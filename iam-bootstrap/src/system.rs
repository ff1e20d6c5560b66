//! Configuration that the servers of one cluster must have in common, and the difference between
//! two of them.

pub mod config;
pub mod difference;
pub mod salted;

pub use config::{ConfigCollector, SystemConfig};
pub use difference::{ConfigDifference, ConfigPart, Difference};
pub use salted::Salt;
