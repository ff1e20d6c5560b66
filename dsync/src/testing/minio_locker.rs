//! A MinIO locker on the lock grid.

use std::sync::{Arc, Weak};
use std::time::Duration;

use grid::sync::Mutex;
use grid::{HandlerError, Manager, RegisterError};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::sleep;

use super::minio_table::MinioTable;
use super::minio_wire::{MinioArgs, MinioOperation, MinioResponse};
use super::{MinioTiming, now};

/// A locker that behaves like MinIO's. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MinioLocker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    table: Mutex<MinioTable>,
    rng: Mutex<SmallRng>,
    timing: MinioTiming,
}

impl MinioLocker {
    /// Creates a locker without grants.
    pub fn new(timing: MinioTiming, seed: u64) -> Self {
        let rng = Mutex::new(SmallRng::seed_from_u64(seed));
        Self(Arc::new(Inner { table: Mutex::default(), rng, timing }))
    }

    /// Registers MinIO's handlers, and starts the sweeps. To be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`RegisterError`] if the manager has such handlers already.
    pub fn register(&self, manager: &Manager) -> Result<(), RegisterError> {
        for operation in MinioOperation::ALL {
            let locker = self.clone();
            operation.handler().register(manager, move |_context, args| {
                let locker = locker.clone();
                async move { locker.execute(operation, args).await.map_err(HandlerError::from) }
            })?;
        }
        tokio::spawn(sweep(Arc::downgrade(&self.0), self.0.timing.expiry));
        Ok(())
    }

    /// Executes a request in a task of its own: concurrently with all others, and to its end.
    ///
    /// # Errors
    ///
    /// The text of a panic.
    pub async fn execute(
        &self,
        operation: MinioOperation,
        args: MinioArgs,
    ) -> Result<MinioResponse, String> {
        let inner = Arc::clone(&self.0);
        let delay = inner.rng.lock().random_range(Duration::ZERO..=inner.timing.dispatch);
        let executing = tokio::spawn(async move {
            sleep(delay).await;
            inner.table.lock().execute(operation, &args, now())
        });
        executing.await.map_err(|error| error.to_string())?
    }

    /// Returns the number of entries in the table.
    pub fn grants(&self) -> usize {
        self.0.table.lock().len()
    }
}

/// Sweeps until the locker is dropped.
async fn sweep(locker: Weak<Inner>, expiry: Duration) {
    loop {
        sleep(expiry).await;
        let Some(locker) = locker.upgrade() else { return };
        locker.table.lock().sweep(now(), expiry);
    }
}
