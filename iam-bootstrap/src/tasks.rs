//! The background tasks of one replica: all of them end with its shutdown.

use std::sync::Arc;

use crate::shutdown::Shutdown;

/// Spawns tasks, and ends them. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks(Arc<Shutdown>);

impl Tasks {
    /// Spawns a task that ends with [`Tasks::shut_down`]. Must be called inside a tokio runtime.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shutdown = Arc::clone(&self.0);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = shutdown.wait() => {}
                () = task => {}
            }
        });
    }

    /// Ends all tasks, also those that are spawned later.
    pub(crate) fn shut_down(&self) {
        self.0.begin();
    }

    /// Resolves when the shutdown has begun.
    pub(crate) async fn wait_shut_down(&self) {
        self.0.wait().await;
    }
}
