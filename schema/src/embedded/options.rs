//! How a store in a directory is opened.

use std::fmt;
use std::sync::Arc;

use actors::clock::Clock;

use super::space::SPARE_BYTES;
use super::writer::BeforeWrite;

/// How to open an [`EmbeddedStore`](super::EmbeddedStore).
pub struct Options {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) on_fatal: OnFatal,
    pub(super) accept_loss: bool,
    pub(super) cache_bytes: u64,
    pub(super) spare_bytes: u64,
    pub(super) before_write: Option<BeforeWrite>,
}

/// Called once, with the reason, when the store can acknowledge nothing any more.
pub type OnFatal = Box<dyn Fn(String) + Send + Sync>;

impl Options {
    /// The defaults: no loss is accepted, 128 MiB of block cache.
    ///
    /// `clock` decides when idempotency keys expire. `on_fatal` is called when a write or sync failed: the data on disk
    /// is then uncertain, the store refuses everything, and the process should end with that reason.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, on_fatal: OnFatal) -> Self {
        Self {
            clock,
            on_fatal,
            accept_loss: false,
            cache_bytes: 128 * 1024 * 1024,
            spare_bytes: SPARE_BYTES,
            before_write: None,
        }
    }

    /// Opens even if acknowledged data or the HEAD file is missing, and continues from the existing data.
    #[must_use]
    pub fn accept_loss(mut self, accept: bool) -> Self {
        self.accept_loss = accept;
        self
    }

    /// How much memory the block cache may take.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// How many bytes of the disk commits leave free, in addition to what compactions need; 128 MiB by default.
    #[cfg(any(test, feature = "test-support"))]
    #[must_use]
    pub fn spare_bytes(mut self, bytes: u64) -> Self {
        self.spare_bytes = bytes;
        self
    }

    /// Calls `hook` with every batch's number before it is written; an error counts as a failed write.
    #[cfg(any(test, feature = "test-support"))]
    #[must_use]
    pub fn before_write(mut self, hook: impl Fn(u64) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        self.before_write = Some(Box::new(hook));
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("accept_loss", &self.accept_loss).finish_non_exhaustive()
    }
}
