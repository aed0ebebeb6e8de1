//! Locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locking a mutex that may be poisoned.
pub trait LockUnpoisoned<T> {
    /// Locks, whether or not a thread has panicked while it held the lock. No code here that holds a lock calls
    /// anything that may panic between two writes that belong together, so the data is consistent, and one panic must
    /// not disable what all threads share. A lock is held for a few operations in memory, never across an await.
    fn lock_unpoisoned(&self) -> MutexGuard<'_, T>;
}

impl<T> LockUnpoisoned<T> for Mutex<T> {
    fn lock_unpoisoned(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
