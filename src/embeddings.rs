//! Embeddings of texts, from an endpoint that speaks the embeddings protocol (`POST {url}/embeddings`).
//!
//! One bounded exchange without a retry: the caller has a fallback, and asks again later. The address is an operator's
//! setting and may be private. The text of a refusal is not repeated.

use std::time::Duration;

use actors::memories::recall::Embeddings;
use futures_util::future::BoxFuture;
use http::{HeaderValue, header};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};

use crate::bounded_body::{self, Unread};
use crate::config::EmbeddingsConfig;
use crate::http_client;

/// Resolving, connecting and the TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One exchange; a batch of texts takes a small model on a slow machine some seconds.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);
/// An answer's body: 64 vectors of 4,096 numbers in text, twice over.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;
/// The longest vector.
const MAX_NUMBERS: usize = 8_192;

/// The client could not be created.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddingsError {
    /// The cryptography provider cannot do any TLS version.
    #[error("cannot configure TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The client refused its settings.
    #[error("cannot create the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The URL has no path to extend.
    #[error("the embeddings URL is not usable")]
    Url,
    /// The key cannot be sent in a header.
    #[error("the embeddings API key is not a valid header value")]
    ApiKey,
}

/// Calls of one embeddings endpoint.
pub struct Endpoint {
    client: Client,
    url: Url,
    model: String,
    authorization: Option<HeaderValue>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("url", &self.url.as_str()).field("model", &self.model).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct EmbeddingsRequest<'a> {
    model: &'a str,
    input: &'a [String],
}

#[derive(Deserialize)]
struct Answered {
    data: Vec<Embedded>,
}

#[derive(Deserialize)]
struct Embedded {
    #[serde(default)]
    index: usize,
    embedding: Vec<f32>,
}

impl Endpoint {
    /// A client of the configured endpoint.
    ///
    /// # Errors
    /// If TLS or the client cannot be configured, or the settings cannot be used.
    pub fn new(config: &EmbeddingsConfig) -> Result<Self, EmbeddingsError> {
        let client =
            http_client::client()?.http1_only().connect_timeout(CONNECT_TIMEOUT).timeout(EXCHANGE_TIMEOUT).build()?;
        let mut url = Url::parse(&config.url).map_err(|_| EmbeddingsError::Url)?;
        url.path_segments_mut().map_err(|()| EmbeddingsError::Url)?.pop_if_empty().push("embeddings");
        let authorization = config.api_key.as_ref().map(|key| http_client::bearer(key.expose()));
        let authorization = authorization.transpose().map_err(|_| EmbeddingsError::ApiKey)?;
        Ok(Self { client, url, model: config.model.clone(), authorization })
    }

    async fn ask(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, String> {
        let body = serde_json::to_vec(&EmbeddingsRequest { model: &self.model, input: texts })
            .map_err(|error| error.to_string())?;
        let mut request =
            self.client.post(self.url.clone()).header(header::CONTENT_TYPE, "application/json").body(body);
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        let response = request.send().await.map_err(http_client::unanswered)?;
        if !response.status().is_success() {
            return Err(format!("the endpoint answered {}", response.status().as_u16()));
        }
        let body = bounded_body::body(response, ANSWER_BYTES).await.map_err(|unread| match unread {
            Unread::TooLarge => format!("the response is larger than {ANSWER_BYTES} bytes"),
            Unread::Broken => "the response was interrupted".to_owned(),
        })?;
        vectors(&body, texts.len())
    }
}

/// The vectors of an answer, in the order of the texts.
fn vectors(body: &[u8], texts: usize) -> Result<Vec<Vec<f32>>, String> {
    let answered: Answered = serde_json::from_slice(body).map_err(|_| "the response contains no vectors".to_owned())?;
    let mut data = answered.data;
    data.sort_by_key(|embedded| embedded.index);
    let vectors: Vec<Vec<f32>> = data.into_iter().map(|embedded| embedded.embedding).collect();
    let numbers = vectors.first().map_or(0, Vec::len);
    let fine = |vector: &Vec<f32>| vector.len() == numbers && vector.iter().all(|number| number.is_finite());
    if vectors.len() != texts || !(1..=MAX_NUMBERS).contains(&numbers) || !vectors.iter().all(fine) {
        return Err("the response's vectors are not one for each text and all of one length".to_owned());
    }
    Ok(vectors)
}

impl Embeddings for Endpoint {
    fn model(&self) -> &str {
        &self.model
    }

    fn url(&self) -> Option<&str> {
        Some(self.url.as_str())
    }

    fn embed(&self, texts: Vec<String>) -> BoxFuture<'_, Result<Vec<Vec<f32>>, String>> {
        Box::pin(async move { self.ask(&texts).await })
    }
}

#[cfg(test)]
mod tests {
    use axum::Json;
    use axum::routing::post;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Secret;

    /// An endpoint that answers with `answer` of the request.
    async fn endpoint(answer: fn(&Value) -> (u16, Value)) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let handler = async move |headers: http::HeaderMap, Json(body): Json<Value>| {
            assert_eq!(headers["authorization"], "Bearer a-key");
            assert_eq!(body["model"], "m");
            let (status, body) = answer(&body);
            (http::StatusCode::from_u16(status).unwrap(), Json(body))
        };
        let router = axum::Router::new().route("/v1/embeddings", post(handler));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let api_key = Some(Secret::new("a-key"));
        Endpoint::new(&EmbeddingsConfig { url, model: "m".to_owned(), api_key }).unwrap()
    }

    async fn embed(answer: fn(&Value) -> (u16, Value)) -> Result<Vec<Vec<f32>>, String> {
        endpoint(answer).await.embed(vec!["one".to_owned(), "two".to_owned()]).await
    }

    #[tokio::test]
    async fn vectors_come_in_the_order_of_their_texts() {
        let answer = |_: &Value| {
            (200, json!({"data": [{"index": 1, "embedding": [0.5, 2]}, {"index": 0, "embedding": [1, -1.25]}]}))
        };
        assert_eq!(embed(answer).await, Ok(vec![vec![1.0, -1.25], vec![0.5, 2.0]]));
    }

    #[tokio::test]
    async fn an_embeddings_endpoint_that_is_away_is_reported_with_the_cause() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let config = EmbeddingsConfig { url: format!("http://{address}/v1"), model: "m".to_owned(), api_key: None };
        let error = Endpoint::new(&config).unwrap().embed(vec!["one".to_owned()]).await.unwrap_err();
        assert!(error.contains("onnection refused") && !error.contains("/v1"), "{error}");
    }

    #[tokio::test]
    async fn an_invalid_embeddings_answer_is_refused_without_quoting_it() {
        for (answer, words) in [
            ((|_| (500, json!({"error": "secret"}))) as fn(&Value) -> _, "answered 500"),
            (|_| (302, json!({})), "answered 302"),
            (|_| (200, json!({"data": []})), "one for each text"),
            (|_| (200, json!({"data": [{"embedding": [1]}, {"index": 1, "embedding": [1, 2]}]})), "one for each text"),
            (|_| (200, json!({"data": [{"embedding": []}, {"index": 1, "embedding": []}]})), "one for each text"),
            (|_| (200, json!({"data": [{"embedding": ["x"]}]})), "contains no vectors"),
            (|_| (200, json!({"data": [{"embedding": [1e39]}, {"embedding": [1]}]})), "contains no vectors"),
            (|_| (200, json!("secret")), "contains no vectors"),
        ] {
            let error = embed(answer).await.unwrap_err();
            assert!(error.contains(words) && !error.contains("secret"), "{error}");
        }
    }
}
