//! The directories that a server keeps things in.

use std::path::PathBuf;
use std::sync::Arc;

use iam_bootstrap::store::sealed::{Keys, SecretError};
use iam_bootstrap::{IamStore, StoreError};

use crate::secret::SecretBytes;

/// Why a server does not start with its directories.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PoolError {
    #[error("cannot initialise a pool: {0}")]
    Initialise(#[from] StoreError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[cfg(not(unix))]
    #[error("directories can be kept on Unix alone: leave data out")]
    Unsupported,
}

/// A sealed store for each directory. One that is no store is waited for later, unless `initialise`.
#[cfg(unix)]
pub(crate) async fn directories(
    roots: &[PathBuf],
    initialise: bool,
    secret: &SecretBytes,
) -> Result<Vec<Arc<dyn IamStore>>, PoolError> {
    use iam_bootstrap::Sealed;
    use iam_bootstrap::store::DirectoryStore;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    let mut pools: Vec<Arc<dyn IamStore>> = Vec::new();
    for root in roots {
        let store = DirectoryStore::new(root);
        if initialise {
            store.initialise().await?;
        }
        let rng = StdRng::from_rng(&mut rand::rng());
        pools.push(Arc::new(Sealed::new(store, Keys::new(secret.expose())?, rng)));
    }
    Ok(pools)
}

/// There are none.
#[cfg(not(unix))]
pub(crate) async fn directories(
    roots: &[PathBuf],
    _initialise: bool,
    _secret: &SecretBytes,
) -> Result<Vec<Arc<dyn IamStore>>, PoolError> {
    match roots.is_empty() {
        true => Ok(Vec::new()),
        false => Err(PoolError::Unsupported),
    }
}
