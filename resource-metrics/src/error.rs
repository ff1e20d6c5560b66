//! What can go wrong: one small enum per operation.

use grid::RegisterError;
use grid::name::NameError;

/// Why a [`ResourceMetrics`](crate::ResourceMetrics) could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A limit cannot be used.
    #[error("limit {name} must be {must}")]
    Limit {
        /// The limit's name.
        name: &'static str,
        /// What it must be.
        must: &'static str,
    },
    /// A server's address is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A server that is to be asked is unknown to the manager.
    #[error("{name} is none of the servers that the manager knows")]
    Unknown {
        /// The name that was given.
        name: String,
    },
    /// The handler's number is taken.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// Why nothing was collected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The task that collects has ended without a result, as it does when its runtime shuts down.
    #[error("collecting was aborted; is this server shutting down?")]
    Aborted,
}
