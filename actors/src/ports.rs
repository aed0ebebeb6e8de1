//! Ports: traits by which the domain uses models, tools, files and the network.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::agent::{Models, NoModels};
use crate::memories::recall::Embeddings;
use crate::outbox::{Deliverer, NoDeliverer};
use crate::store::Cause;
use crate::tool::{NoTools, Tools};
use crate::trace::Traces;

/// The outside of a node. A missing port answers that it is missing.
#[derive(Clone)]
pub struct Ports {
    /// Calls models.
    pub models: Arc<dyn Models>,
    /// Runs the tools of agents.
    pub tools: Arc<dyn Tools>,
    /// Sends events to receivers.
    pub deliverer: Arc<dyn Deliverer>,
    /// Calls an embeddings model; `None`: memories are searched by words alone.
    pub embeddings: Option<Arc<dyn Embeddings>>,
    /// The destination of spans.
    pub traces: Traces,
    /// The store of files' bytes.
    pub files: Arc<dyn Files>,
}

/// The store of files' bytes. The domain only deletes them; the front door writes and reads them.
pub trait Files: Send + Sync + 'static {
    /// Deletes everything in a folder (see [`folder`](crate::attachment::folder)) `except` for one storage key. An
    /// empty folder is no error.
    fn clear(&self, folder: String, except: Option<String>) -> BoxFuture<'_, Result<(), Cause>>;
}

/// No storage for files: deletions are refused, because the files may be elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoFiles;

impl Files for NoFiles {
    fn clear(&self, _: String, _: Option<String>) -> BoxFuture<'_, Result<(), Cause>> {
        Box::pin(std::future::ready(Err("no place for files is configured".into())))
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            models: Arc::new(NoModels),
            tools: Arc::new(NoTools),
            deliverer: Arc::new(NoDeliverer),
            embeddings: None,
            traces: Traces::default(),
            files: Arc::new(NoFiles),
        }
    }
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// Only models.
impl<M: Models> From<Arc<M>> for Ports {
    fn from(models: Arc<M>) -> Self {
        Self { models, ..Self::default() }
    }
}

/// Only models.
impl From<Arc<dyn Models>> for Ports {
    fn from(models: Arc<dyn Models>) -> Self {
        Self { models, ..Self::default() }
    }
}
