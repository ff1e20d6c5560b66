//! Errors: one small enum per operation.

use grid::RegisterError;
use grid::name::NameError;

/// Why a [`ResourceMetrics`](crate::ResourceMetrics) could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A limit is out of range.
    #[error("limit {name} must be {must}")]
    Limit {
        /// Name of the limit.
        name: &'static str,
        /// Its constraint.
        must: &'static str,
    },
    /// A server's address is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A server to collect from is unknown to the manager.
    #[error("{name} is not one of the manager's servers")]
    Unknown {
        /// The name that was given.
        name: String,
    },
    /// The handler id is taken.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// Why a collection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The collecting task ended without a result, as it does when its runtime shuts down.
    #[error("collecting was aborted; is this server shutting down?")]
    Aborted,
}
