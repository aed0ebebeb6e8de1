//! What a node is given from outside: the domain's ways to things that are not its own, each a trait.

use std::sync::Arc;

use crate::agent::{Models, NoModels};
use crate::memories::recall::Embeddings;
use crate::trace::Traces;

/// The outside of a node. What is not given is not there, and says so when it is asked.
#[derive(Clone)]
pub struct Ports {
    /// The way to models.
    pub models: Arc<dyn Models>,
    /// The way to a model that says what texts mean; `None`: memories are found by their words alone.
    pub embeddings: Option<Arc<dyn Embeddings>>,
    /// Where spans go.
    pub traces: Traces,
}

impl Default for Ports {
    fn default() -> Self {
        Self { models: Arc::new(NoModels), embeddings: None, traces: Traces::default() }
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
