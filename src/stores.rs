//! Which store keeps everything, and opening it.

use std::sync::Arc;

use actors::clock::SystemClock;
use actors::store::Store;
use schema::embedded::{EmbeddedStore, OnFatal, OpenError, Options};

use crate::config::{Config, StoreKind};

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    /// The embedded store was not opened.
    #[error("the store was not opened: {0}")]
    Embedded(#[from] OpenError),
    /// This program has no CQL store.
    #[error("the store cql is not part of this program; choose --store embedded")]
    NoCql,
}

/// Opens the store that `config` names. `on_fatal` is called with the reason when it can keep nothing any more.
///
/// # Errors
/// See [`StoresError`].
pub fn open(config: &Config, on_fatal: OnFatal) -> Result<Arc<dyn Store>, StoresError> {
    match config.store {
        StoreKind::Embedded => {
            let options = Options::new(Arc::new(SystemClock), on_fatal).accept_loss(config.accept_loss);
            Ok(Arc::new(EmbeddedStore::open(&config.data_dir, options)?))
        }
        StoreKind::Cql => Err(StoresError::NoCql),
    }
}
