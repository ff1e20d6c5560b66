//! The deployment's id is kept as an item of the first pool.

use std::sync::Arc;

use tokio::sync::watch;

use iam_bootstrap::deployment::{DeploymentStore, DeploymentStoreError, Pending};
use iam_bootstrap::{IamStore, ItemPath, StoreError};

/// One item of a pool.
pub(super) struct InPool {
    pool: Arc<dyn IamStore>,
    path: ItemPath,
    trouble: Arc<watch::Sender<Option<String>>>,
}

impl InPool {
    /// What the pool fails with is said to `trouble`, until it does not.
    pub(super) fn new(
        pool: Arc<dyn IamStore>,
        trouble: Arc<watch::Sender<Option<String>>>,
    ) -> Self {
        Self { pool, path: ItemPath::deployment(), trouble }
    }

    fn told<T>(&self, done: Result<T, StoreError>) -> Result<T, DeploymentStoreError> {
        self.trouble.send_replace(done.as_ref().err().map(ToString::to_string));
        done.map_err(|error| failed(&error))
    }
}

impl DeploymentStore for InPool {
    fn load(&self) -> Pending<'_, Option<Vec<u8>>> {
        Box::pin(async {
            self.told(match self.pool.read(&self.path).await {
                Err(StoreError::NotFound { .. }) => Ok(None),
                read => read.map(Some),
            })
        })
    }

    fn save(&self, state: Vec<u8>) -> Pending<'_, ()> {
        Box::pin(async { self.told(self.pool.write(&self.path, state).await) })
    }
}

/// A pool that is not initialised has promised nothing *here*, but its disk may come yet: to be tried
/// again, and never taken for "nothing is kept".
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
    fn b63_a_pool_that_is_not_there_yet_is_never_taken_for_one_that_keeps_nothing() {
        let not_initialised = StoreError::NotInitialised { store: "disk".into() };
        assert!(matches!(failed(&not_initialised), DeploymentStoreError::Unavailable { .. }));
        let corrupt = StoreError::Corrupt { path: ItemPath::deployment(), why: "torn".into() };
        assert!(matches!(failed(&corrupt), DeploymentStoreError::Corrupt { .. }));
    }
}
