//! The pools of a server: sealed stores in directories.

use std::path::PathBuf;
use std::sync::Arc;

use grid::Env;
use iam_bootstrap::store::sealed::{Keys, RootSecretError};
use iam_bootstrap::{IamStore, StoreError};

use crate::secret::SecretBytes;

/// Why the pools cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolError {
    #[error("cannot initialise a pool: {0}")]
    Initialise(#[from] StoreError),
    #[error(transparent)]
    Secret(#[from] RootSecretError),
    #[cfg(not(unix))]
    #[error("directories are supported on Unix only: omit data")]
    Unsupported,
}

/// Opens a sealed store for each directory. With `initialise`, missing stores are created now;
/// otherwise IAM waits for them.
#[cfg(unix)]
pub(crate) async fn directories(
    roots: &[PathBuf],
    initialise: bool,
    secret: &SecretBytes,
    env: &Env,
) -> Result<Vec<Arc<dyn IamStore>>, PoolError> {
    use iam_bootstrap::Sealed;
    use iam_bootstrap::store::DirectoryStore;

    let mut pools: Vec<Arc<dyn IamStore>> = Vec::new();
    for root in roots {
        let store = DirectoryStore::new(root);
        if initialise {
            store.initialise().await?;
        }
        pools.push(Arc::new(Sealed::new(store, Keys::new(secret.expose())?, env)));
    }
    Ok(pools)
}

/// Directories are supported on Unix only.
#[cfg(not(unix))]
pub(crate) async fn directories(
    roots: &[PathBuf],
    _initialise: bool,
    _secret: &SecretBytes,
    _env: &Env,
) -> Result<Vec<Arc<dyn IamStore>>, PoolError> {
    match roots.is_empty() {
        true => Ok(Vec::new()),
        false => Err(PoolError::Unsupported),
    }
}
