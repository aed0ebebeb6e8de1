//! Models that are not part of this program: endpoints that speak the chat-completions protocol.
//!
//! A call is one bounded exchange: one connection, one answer read up to a limit, one second try where a first one
//! failed in a way that passes. Nothing that the endpoint says reaches a client but the reply itself; failures name the
//! status and no more. The endpoint's address is an operator's setting and may be private, so it is not guarded as the
//! URLs are that users give.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use actors::agent::{Completion, Models, Prompt};
use actors::clock::Entropy;
use actors::conversation::Usage;
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{HeaderValue, StatusCode, header};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use tokio::time::{Instant, sleep, timeout_at};

use self::fault::{Fault, Refused};
use self::request::Call;
use self::retry::Retries;
use crate::http::trace::{TRACEPARENT, TraceContext};

mod answer;
mod endpoint;
mod fault;
mod request;
pub(crate) mod retry;
#[cfg(test)]
mod tests;

/// Resolving, connecting and the TLS handshake together; a model thinks long, but a socket opens soon or never.
const CONNECT: Duration = Duration::from_secs(5);
/// An answer's body: a reply of the longest kind, a few times over for its envelope and escapes.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Unused connections are closed after this long, before the usual servers close them under a request.
const IDLE: Duration = Duration::from_secs(4);

/// The HTTP client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum OpenAiError {
    /// The cryptography provider cannot do any TLS version.
    #[error("TLS cannot be configured: {0}")]
    Tls(#[from] rustls::Error),
    /// The client refused its settings.
    #[error("the HTTP client cannot be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// Calls of chat-completions endpoints, over connections that are kept for the next call.
pub struct OpenAi {
    client: Client,
    entropy: Entropy,
    retries: Retries,
    answer_bytes: usize,
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi").finish_non_exhaustive()
    }
}

impl OpenAi {
    /// A client that trusts the platform's root certificates; span ids of its calls are drawn from `entropy`.
    ///
    /// Where the platform has no root certificates, `https` endpoints fail as `connect_failed` and `http` ones work.
    ///
    /// # Errors
    /// When TLS or the client cannot be configured.
    pub fn new(entropy: Entropy) -> Result<Self, OpenAiError> {
        let client = Client::builder()
            .tls_backend_preconfigured(crate::tls::client()?)
            // With one call a connection, a call that is dropped takes its socket with it, and the endpoint stops
            // working on an answer that nobody reads.
            .http1_only()
            .connect_timeout(CONNECT)
            .pool_idle_timeout(IDLE)
            .redirect(Policy::none())
            // An environment variable must not decide who reads the conversations.
            .no_proxy()
            // One policy, the one here.
            .retry(reqwest::retry::never())
            .user_agent(crate::USER_AGENT)
            .build()?;
        Ok(Self { client, entropy, retries: Retries::default(), answer_bytes: ANSWER_BYTES })
    }

    /// Asks within `within`, trying a second time where [`Retries`] says so.
    async fn ask(&self, prompt: &Prompt, within: Duration) -> Result<(String, Usage), Fault> {
        let deadline = Instant::now() + within;
        let call = Call::of(prompt)?;
        let body = timeout_at(deadline, async {
            let refused = match self.attempt(&call, prompt).await {
                Ok(body) => return Ok(body),
                Err(refused) => refused,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(pause) = self.retries.pause(&refused, left) else { return Err(refused.fault) };
            tracing::debug!(agent = %prompt.agent.id, code = refused.fault.code(), ?pause, "a model is asked again");
            sleep(pause).await;
            self.attempt(&call, prompt).await.map_err(|refused| refused.fault)
        });
        let body = body.await.unwrap_or(Err(Fault::Timeout))?;
        answer::read(&body, prompt)
    }

    /// One exchange, up to the bytes of a successful answer.
    async fn attempt(&self, call: &Call, prompt: &Prompt) -> Result<Bytes, Refused> {
        let mut request = self
            .client
            .post(call.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json")
            .body(call.body.clone());
        if let Some(authorization) = &call.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        if let Some(traceparent) = self.traceparent(prompt) {
            request = request.header(TRACEPARENT, traceparent);
        }
        let response = request.send().await.map_err(unsent)?;
        accept(&response)?;
        Ok(read(response, self.answer_bytes).await?)
    }

    /// The prompt's trace with a span for this exchange.
    fn traceparent(&self, prompt: &Prompt) -> Option<HeaderValue> {
        let trace = prompt.trace?;
        let mut span_id = [0; 8];
        span_id.copy_from_slice(&self.entropy.draw()[..8]);
        let call =
            TraceContext { trace_id: trace.trace_id, span_id, parent_span_id: Some(trace.span_id), flags: trace.flags };
        Some(call.traceparent())
    }
}

impl Models for OpenAi {
    fn complete(&self, prompt: Prompt) -> BoxFuture<'_, Completion> {
        Box::pin(async move {
            let within = Duration::from_secs(u64::from(prompt.agent.timeout_seconds));
            match self.ask(&prompt, within).await {
                Ok((reply, usage)) => Ok((vec![reply], usage)),
                Err(fault) => {
                    tracing::warn!(agent = %prompt.agent.id, code = fault.code(), detail = %fault, "a model call failed");
                    Err(fault.into())
                }
            }
        })
    }
}

/// Why no answer came. The cause goes to the log: it is this machine's word, not the endpoint's.
fn unsent(error: reqwest::Error) -> Fault {
    let error = error.without_url();
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    let speaks_otherwise = causes.any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse));
    let cause = std::iter::successors(error.source(), |&cause| cause.source()).last().map(ToString::to_string);
    tracing::debug!(%error, cause, "a model's endpoint gave no answer");
    if speaks_otherwise { Fault::InvalidReply("is not HTTP") } else { Fault::Connect }
}

/// Whether the answer's head promises a reply.
fn accept(response: &Response) -> Result<(), Refused> {
    let status = response.status();
    let fault = match status {
        _ if status.is_success() => return is_json(response).then_some(()).ok_or(Fault::NotJson.into()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Fault::Unauthorized(status),
        StatusCode::TOO_MANY_REQUESTS => Fault::RateLimited,
        _ if status.is_redirection() => Fault::Redirect(status),
        _ if status.is_client_error() => Fault::BadRequest(status),
        _ if status.is_server_error() => Fault::Upstream(status),
        _ => Fault::InvalidReply("has a status that this protocol does not know"),
    };
    Err(Refused { fault, retry_after: retry::retry_after(response.headers()) })
}

fn is_json(response: &Response) -> bool {
    let value = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.map(|value| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    essence.is_some_and(|essence| {
        essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
    })
}

/// The body, counted while it comes: what a header says of its length is not believed.
async fn read(mut response: Response, at_most: usize) -> Result<Bytes, Fault> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > at_most => return Err(Fault::TooLarge(at_most)),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body.freeze()),
            Err(_) => return Err(Fault::InvalidReply("broke off")),
        }
    }
}
