//! External models: endpoints that speak the chat-completions protocol.
//!
//! A call is one bounded exchange: one connection, one answer read up to a limit, whole or as a stream, and one retry
//! if the first attempt failed transiently before any part of an answer arrived. Only the reply itself reaches a
//! client; failures name only the status. The endpoint's address is an operator's setting and may be private, so it is
//! not checked like users' URLs.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actors::agent::{Completion, ModelOutput, Models, Prompt};
use actors::clock::{Clock, Millis};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{StatusCode, header};
use reqwest::{Client, Response};
use tokio::time::{Instant, sleep, timeout_at};

use self::answer::Answered;
use self::fault::{Fault, Refused};
use self::request::Call;
use self::retry::Retries;
use self::stream::SilenceLimits;
use crate::bounded_body::{self, Unread};
use crate::http_client;
use crate::trace_context::{RequestTrace, TRACEPARENT};

mod answer;
pub(crate) mod attached;
mod endpoint;
mod fault;
mod lone_surrogates;
pub(crate) mod pairing;
mod request;
mod retry;
mod stream;
#[cfg(test)]
mod tests;

/// Resolving, connecting and the TLS handshake together; a model thinks long, but a socket opens soon or never.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait for a stream's first words. A model that thinks for longer is asked for whole answers (`stream: false`).
const FIRST_TOKEN_TIMEOUT: Duration = Duration::from_secs(60);
/// The time between two pieces of a stream; models pause to think, and dead connections are silent for ever.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// A whole answer's body: a reply of the longest kind, a few times over for its envelope and escapes.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Unused connections are closed after this long, before the usual servers close them under a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The HTTP client could not be created.
#[derive(Debug, thiserror::Error)]
pub enum OpenAiError {
    /// The cryptography provider cannot do any TLS version.
    #[error("cannot configure TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The client refused its settings.
    #[error("cannot create the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

/// Calls of chat-completions endpoints, over connections that are kept for the next call.
pub struct OpenAi {
    client: Client,
    clock: Arc<dyn Clock>,
    retries: Retries,
    answer_bytes: usize,
    first_token: Duration,
    stall: Duration,
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAi").finish_non_exhaustive()
    }
}

impl OpenAi {
    /// A client that trusts the platform's root certificates. A date in `Retry-After` is compared with `clock`, unless
    /// the answer has a `Date`.
    ///
    /// If the platform has no root certificates, `https` endpoints fail as `connect_failed` and `http` ones work.
    ///
    /// # Errors
    /// If TLS or the client cannot be configured.
    pub fn new(clock: Arc<dyn Clock>) -> Result<Self, OpenAiError> {
        let client = http_client::client()?
            // With one call per connection, dropping a call closes its socket, and the endpoint stops working on an
            // answer that is no longer wanted.
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()?;
        let retries = Retries::default();
        let answer_bytes = ANSWER_BYTES;
        Ok(Self { client, clock, retries, answer_bytes, first_token: FIRST_TOKEN_TIMEOUT, stall: STALL_TIMEOUT })
    }

    /// Asks within `within`, and retries once if [`Retries`] allows it.
    async fn ask(&self, prompt: &Prompt, within: Duration) -> Result<ModelOutput, Fault> {
        let deadline = Instant::now() + within;
        let call = Call::of(prompt)?;
        let answered = timeout_at(deadline, async {
            let refused = match self.attempt(&call, prompt).await {
                Ok(answered) => return Ok(answered),
                Err(refused) => refused,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(pause) = self.retries.pause(&refused, left) else { return Err(refused.fault) };
            tracing::debug!(agent = %prompt.agent.id, code = refused.fault.code(), ?pause, "a model call is retried");
            prompt.exchange.resend();
            sleep(pause).await;
            self.attempt(&call, prompt).await.map_err(|refused| refused.fault)
        });
        let answered = answered.await.unwrap_or(Err(Fault::Timeout))?;
        answer::said(answered, prompt)
    }

    /// One exchange, up to a whole answer.
    async fn attempt(&self, call: &Call, prompt: &Prompt) -> Result<Answered, Refused> {
        let accept = if call.streams { "text/event-stream, application/json" } else { "application/json" };
        let mut request = self
            .client
            .post(call.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, accept)
            .body(call.body.clone());
        if let Some(authorization) = &call.authorization {
            request = request.header(header::AUTHORIZATION, authorization.clone());
        }
        if let Some(call) = prompt.trace {
            request = request.header(TRACEPARENT, RequestTrace::from(call).traceparent());
        }
        let first = Instant::now() + self.first_token;
        let sent = request.send();
        let response = match call.streams {
            true => timeout_at(first, sent).await.map_err(|_| Refused::from(Fault::FirstToken))?,
            false => sent.await,
        };
        let response = response.map_err(unsent)?;
        match accept_head(&response, self.clock.now())? {
            // A server without streams answers whole.
            Form::Whole => Ok(answer::read(&read(response, self.answer_bytes).await?)?),
            Form::Stream => Ok(stream::read(response, prompt, SilenceLimits { first, stall: self.stall }).await?),
        }
    }
}

impl Models for OpenAi {
    fn complete(&self, prompt: Prompt) -> BoxFuture<'_, Completion> {
        Box::pin(async move {
            let within = Duration::from_secs(u64::from(prompt.agent.timeout_seconds));
            match self.ask(&prompt, within).await {
                Ok(said) => Ok(said),
                Err(fault) => {
                    let turn = prompt.deltas.turn().map(tracing::field::display);
                    let agent = prompt.agent.id.as_str();
                    tracing::warn!(agent, turn, code = fault.code(), detail = %fault, "a model call failed");
                    Err(fault.into())
                }
            }
        })
    }
}

/// Why no answer came. The cause goes to the log: it is this machine's text, not the endpoint's.
fn unsent(error: reqwest::Error) -> Fault {
    let error = error.without_url();
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    let speaks_otherwise = causes.any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse));
    let cause = http_client::root_cause(&error).map(ToString::to_string);
    tracing::debug!(%error, cause, "a model's endpoint did not answer");
    if speaks_otherwise { Fault::InvalidReply("is not HTTP") } else { Fault::Connect }
}

/// The form of an answer.
enum Form {
    Whole,
    Stream,
}

/// The form announced by the answer's head.
fn accept_head(response: &Response, now: Millis) -> Result<Form, Refused> {
    let status = response.status();
    let fault = match status {
        _ if status.is_success() => return form(response).ok_or(Fault::NotJson.into()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Fault::Unauthorized(status),
        StatusCode::TOO_MANY_REQUESTS => Fault::RateLimited,
        _ if status.is_redirection() => Fault::Redirect(status),
        _ if status.is_client_error() => Fault::BadRequest(status),
        _ if status.is_server_error() => Fault::Upstream(status),
        _ => Fault::InvalidReply("has an unknown status"),
    };
    Err(Refused { fault, retry_after: http_client::retry_after(response.headers(), Some(now)) })
}

fn form(response: &Response) -> Option<Form> {
    let value = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())?;
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"));
    match essence.as_str() {
        "text/event-stream" => Some(Form::Stream),
        _ => is_json.then_some(Form::Whole),
    }
}

/// The body of an answer.
async fn read(response: Response, at_most: usize) -> Result<Bytes, Fault> {
    bounded_body::body(response, at_most).await.map_err(|unread| match unread {
        Unread::TooLarge => Fault::TooLarge(at_most),
        Unread::Broken => Fault::InvalidReply("was interrupted"),
    })
}
