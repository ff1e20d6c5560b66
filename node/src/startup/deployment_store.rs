//! Stores the deployment id as an item of the first pool.

use std::sync::Arc;

use tokio::sync::watch;

use iam_bootstrap::deployment::{DeploymentStore, DeploymentStoreError, DeploymentStoreFuture};
use iam_bootstrap::{IamStore, ItemPath, StoreError};

/// A store for the deployment id: one item of a pool.
pub(super) struct PoolDeploymentStore {
    pool: Arc<dyn IamStore>,
    path: ItemPath,
    store_error: Arc<watch::Sender<Option<String>>>,
}

impl PoolDeploymentStore {
    /// Reports each error of the pool to `store_error`, and clears it on success.
    pub(super) fn new(
        pool: Arc<dyn IamStore>,
        store_error: Arc<watch::Sender<Option<String>>>,
    ) -> Self {
        Self { pool, path: ItemPath::deployment(), store_error }
    }

    fn report<T>(&self, result: Result<T, StoreError>) -> Result<T, DeploymentStoreError> {
        self.store_error.send_replace(result.as_ref().err().map(ToString::to_string));
        result.map_err(|error| failed(&error))
    }
}

impl DeploymentStore for PoolDeploymentStore {
    fn load(&self) -> DeploymentStoreFuture<'_, Option<Vec<u8>>> {
        Box::pin(async {
            self.report(match self.pool.read(&self.path).await {
                Err(StoreError::NotFound { .. }) => Ok(None),
                read => read.map(Some),
            })
        })
    }

    fn save(&self, state: Vec<u8>) -> DeploymentStoreFuture<'_, ()> {
        Box::pin(async { self.report(self.pool.write(&self.path, state).await) })
    }
}

/// An uninitialised pool is a transient error: its disk may not be mounted yet. It must never be
/// treated as an empty pool.
fn failed(error: &StoreError) -> DeploymentStoreError {
    let cause = error.to_string().into();
    match error.is_transient() {
        true => DeploymentStoreError::Unavailable { cause },
        false => DeploymentStoreError::Corrupt { cause },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b63_uninitialised_pool_is_never_treated_as_empty() {
        let not_initialised = StoreError::NotInitialised { store: "disk".into() };
        assert!(matches!(failed(&not_initialised), DeploymentStoreError::Unavailable { .. }));
        let corrupt = StoreError::Corrupt { path: ItemPath::deployment(), cause: "torn".into() };
        assert!(matches!(failed(&corrupt), DeploymentStoreError::Corrupt { .. }));
    }
}
