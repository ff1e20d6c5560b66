//! Read and write locks held by a quorum of servers.
#![forbid(unsafe_code)]

pub mod error;
pub mod limits;
pub mod proto;

pub use error::{BuildError, LockError, LockerError, Lost, NamesError};
pub use limits::Limits;
pub use proto::token::Token;
