//! Locks, atomics and `Arc` for all state shared between tasks.
//!
//! Re-exports std's types in production and loom's under `--cfg grid_loom`, so that loom checks the
//! code that ships and not a copy of it. `shared` uses no other synchronisation types of std or
//! tokio.

#[cfg(grid_loom)]
use loom::sync as imp;
#[cfg(not(grid_loom))]
use std::sync as imp;

pub use imp::Arc;
pub use imp::atomic;
pub use imp::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};

/// A mutex that does not poison: no user code runs under any lock of this crate, so a panic under
/// one cannot leave user data half changed.
#[derive(Debug, Default)]
pub struct Mutex<T>(imp::Mutex<T>);

impl<T> Mutex<T> {
    /// Wraps `value` in a mutex.
    pub fn new(value: T) -> Self {
        Self(imp::Mutex::new(value))
    }

    /// Acquires the lock, blocking until it is free. It is held for one batch of small messages at
    /// most (`MESSAGES_PER_LOCK`): no await, no I/O, no call of user code happens under it.
    // With LOOM_LOCATION=1, loom reports the line that waits for a lock: the caller's, not this
    // one.
    #[cfg_attr(grid_loom, track_caller)]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A reader-writer lock that does not poison, for tables that are read often and changed rarely.
/// What holds for a [`Mutex`] of this module holds for it.
#[derive(Debug, Default)]
pub struct RwLock<T>(imp::RwLock<T>);

impl<T> RwLock<T> {
    /// Wraps `value` in a lock.
    pub fn new(value: T) -> Self {
        Self(imp::RwLock::new(value))
    }

    /// Acquires the lock together with other readers, blocking until no writer holds it.
    #[cfg_attr(grid_loom, track_caller)]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Acquires the lock alone, blocking until it is free.
    #[cfg_attr(grid_loom, track_caller)]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
