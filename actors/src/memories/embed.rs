//! A call of the embeddings endpoint: its timeout, and its span and metrics, which never contain the texts.

use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::recall::Embeddings;
use crate::agent::chat;
use crate::metrics::{Label as _, ModelError, ModelOperation, ModelProvider};
use crate::node::Node;
use crate::trace::{SpanKind, current, names};

/// Why there are no vectors.
#[derive(Debug, thiserror::Error)]
pub(super) enum EmbedError {
    /// The timeout has passed.
    #[error("no answer in time")]
    Late,
    /// The number of vectors differs from that of the texts.
    #[error("the number of vectors differs from the number of texts")]
    Miscounted,
    /// The endpoint failed, with this text.
    #[error("{0}")]
    Failed(String),
}

impl EmbedError {
    /// The code for spans and metrics, one of a few.
    fn code(&self) -> &'static str {
        match self {
            Self::Late => "timeout",
            Self::Miscounted => "invalid_answer",
            Self::Failed(_) => "unavailable",
        }
    }
}

/// A vector for each text, in order. The call is a child of the current trace.
pub(super) async fn embed(
    node: &Node,
    embeddings: &dyn Embeddings,
    texts: Vec<String>,
    within: Duration,
) -> Result<Vec<Vec<f32>>, EmbedError> {
    let cause = current::get();
    let began = Instant::now();
    let mut span = node.span(names::EMBEDDINGS, SpanKind::Client, cause);
    if span.is_recorded() {
        chat::name(&mut span, names::EMBEDDINGS, Some(embeddings.model()));
        span.set(names::GEN_AI_PROVIDER, ModelProvider::OpenAi.value());
        span.set(names::GEN_AI_MODEL, embeddings.model().to_owned());
        if let Some(url) = embeddings.url() {
            span.asks(url);
        }
    }
    let count = texts.len();
    let call = current::within(span.context_or(cause), embeddings.embed(texts));
    let embedded = match timeout(within, call).await {
        Ok(Ok(vectors)) if vectors.len() == count => Ok(vectors),
        Ok(Ok(_)) => Err(EmbedError::Miscounted),
        Ok(Err(error)) => Err(EmbedError::Failed(error)),
        Err(_) => Err(EmbedError::Late),
    };
    let error = embedded.as_ref().err().map(EmbedError::code);
    let operation = ModelOperation::Embeddings;
    let provider = ModelProvider::OpenAi;
    let end = ModelError::of(error);
    let took = began.elapsed();
    let of = span.recorded();
    node.metrics.embeddings.of(operation).of(provider).of(end).used().observe(took, of, || node.now());
    if let Some(error) = error {
        span.fail(error);
    }
    embedded
}
