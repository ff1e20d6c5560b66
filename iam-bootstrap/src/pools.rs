//! The pools in which one server keeps its items, by their index. Operations have a timeout.

use std::sync::Arc;

use zeroize::Zeroizing;

use crate::record::Record;
use crate::store::{IamStore, ItemPath, StoreError, with_store_timeout};

/// All pools of one server, in the order of their precedence. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pools(Arc<[Arc<dyn IamStore>]>);

impl Pools {
    /// Creates the pools; there is at least one.
    pub(crate) fn new(pools: Vec<Arc<dyn IamStore>>) -> Self {
        debug_assert!(!pools.is_empty(), "a replica has a pool");
        Self(pools.into())
    }

    /// Returns all pools.
    pub(crate) fn all(&self) -> &[Arc<dyn IamStore>] {
        &self.0
    }

    /// Reads the record of an item.
    ///
    /// # Errors
    ///
    /// Those of [`IamStore::read`], and of [`Record::decode`].
    pub(crate) async fn read(&self, pool: usize, path: &ItemPath) -> Result<Record, StoreError> {
        let pool = self.get(pool, path)?;
        let bytes = Zeroizing::new(with_store_timeout(pool, pool.read(path)).await?);
        Record::decode(path, &bytes)
    }

    /// Writes the record of an item.
    ///
    /// # Errors
    ///
    /// Those of [`IamStore::write`].
    pub(crate) async fn write(
        &self,
        pool: usize,
        path: &ItemPath,
        record: &Record,
    ) -> Result<(), StoreError> {
        let pool = self.get(pool, path)?;
        with_store_timeout(pool, pool.write(path, record.encode())).await
    }

    /// Deletes an item with its record. An item that does not exist is no error.
    ///
    /// # Errors
    ///
    /// Those of [`IamStore::delete`].
    pub(crate) async fn delete(&self, pool: usize, path: &ItemPath) -> Result<(), StoreError> {
        let pool = self.get(pool, path)?;
        match with_store_timeout(pool, pool.delete(path)).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn get(&self, pool: usize, path: &ItemPath) -> Result<&dyn IamStore, StoreError> {
        let found = self.0.get(pool).map(|pool| &**pool);
        debug_assert!(found.is_some(), "pool is {pool}, and there are {}", self.0.len());
        found.ok_or_else(|| StoreError::NotFound { path: path.clone() })
    }
}
