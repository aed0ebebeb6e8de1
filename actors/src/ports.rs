//! Ports: traits by which the domain uses models, tools, files and the network.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::agent::{Models, NoModels};
use crate::memories::recall::Embeddings;
use crate::outbox::{Deliverer, NoDeliverer};
use crate::store::Cause;
use crate::tool::{NoTools, Tools};
use crate::trace::Traces;

/// The outside of a node. What is not given is not there, and says so when it is asked.
#[derive(Clone)]
pub struct Ports {
    /// The way to models.
    pub models: Arc<dyn Models>,
    /// What agents call.
    pub tools: Arc<dyn Tools>,
    /// The way to receivers of events.
    pub deliverer: Arc<dyn Deliverer>,
    /// The way to a model that says what texts mean; `None`: memories are found by their words alone.
    pub embeddings: Option<Arc<dyn Embeddings>>,
    /// Where spans go.
    pub traces: Traces,
    /// Where the bytes of files are.
    pub files: Arc<dyn Files>,
}

/// Where the bytes of files are. The domain only takes them away; they are written and read at the door.
pub trait Files: Send + Sync + 'static {
    /// Takes away everything in a folder (see [`folder`](crate::attachment::folder)) `except` for one storage key.
    /// Nothing there is no error.
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

/// Models and nothing else.
impl<M: Models> From<Arc<M>> for Ports {
    fn from(models: Arc<M>) -> Self {
        Self { models, ..Self::default() }
    }
}

/// Models and nothing else.
impl From<Arc<dyn Models>> for Ports {
    fn from(models: Arc<dyn Models>) -> Self {
        Self { models, ..Self::default() }
    }
}
