//! What servers of one cluster must have in common, and how two of them differ.

pub mod config;
pub mod difference;
pub mod salted;

pub use config::{Collect, SystemConfig};
pub use difference::{ConfigDifference, Difference, Part};
pub use salted::Salt;
