//! Requests that last: event streams, and waits for what agents and people do.
//!
//! Each holds its connection. Were all connections held so, nothing else would be accepted any more, and a slow agent
//! would keep plain messages waiting; so a part of them is left to what is answered at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of requests that last.
#[derive(Clone, Debug)]
pub(crate) struct Lasting(Arc<Semaphore>);

/// Held while a request lasts.
pub(crate) type Place = OwnedSemaphorePermit;

impl Lasting {
    /// Three quarters of so many connections.
    pub(crate) fn of(connections: usize) -> Self {
        Self(Arc::new(Semaphore::new((connections - connections / 4).min(Semaphore::MAX_PERMITS))))
    }

    /// A place, if there is one: else the request does not last.
    pub(crate) fn enter(&self) -> Option<Place> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}
