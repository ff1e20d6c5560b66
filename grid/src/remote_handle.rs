//! What every handle to one remote, and every outstanding call to it, keeps alive.

use std::sync::Arc;

use crate::shared::SharedRef;
use crate::trace::Tracer;

/// Shared by all handles to one remote and by every outstanding call.
#[derive(Debug)]
pub(crate) struct RemoteHandle {
    pub(crate) shared: SharedRef,
    pub(crate) tracer: Arc<Tracer>,
    /// Shared with the manager: its last clone to be dropped ends all connections.
    pub(crate) _manager_guard: Arc<dyn ManagerGuard>,
}

/// Ends a manager's connections when the last handle to it is dropped.
pub(crate) trait ManagerGuard: Send + Sync + std::fmt::Debug {}
