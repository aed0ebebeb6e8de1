//! Settings of the embeddings endpoint.

use super::{Secret, Values, parse};

/// An embeddings endpoint.
#[derive(Clone, Debug)]
pub struct EmbeddingsConfig {
    /// Its URL, up to its version.
    pub url: String,
    /// The requested model.
    pub model: String,
    /// Sent as a bearer token.
    pub api_key: Option<Secret>,
}

/// `None` if an error was reported; `Some(None)`: there is none.
pub(super) fn read(values: &mut Values<'_>) -> Option<Option<EmbeddingsConfig>> {
    let url = values.read("embeddings.url", parse::endpoint);
    let model = values.read("embeddings.model", parse::name);
    let api_key = values.read("embeddings.api_key", parse::token);
    let url = url?;
    let model = model?;
    let api_key = api_key?;
    Some(url.map(|url| EmbeddingsConfig { url, model, api_key }))
}
