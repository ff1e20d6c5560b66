//! A cluster that starts, agrees, and knows its users.
#![forbid(unsafe_code)]

pub mod deployment;
pub mod limits;
