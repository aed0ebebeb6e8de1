//! The no-op server (L0): it reads the body, compares the key, answers in the real form, and keeps nothing. Its cost is
//! that of HTTP and JSON on this machine. A follower of a conversation hears of every append to any conversation (L6),
//! without a log to read again. Reads and exchanges are answered with bytes that it was given beforehand for all of
//! them: an answer of the real server.

use std::sync::{Arc, OnceLock};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use benches::{Append, Appended, KEY, is_allowed, listen};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::broadcast;

use crate::{Error, say};

// Constants of the same length as the real server's values.
const TIME: &str = "2025-01-01T00:00:00.000Z";
const ID: &str = "msg_0123456789abcdefghjkmnpqrstvwxyz01";
const CONVERSATION: &str = "conv_0123456789abcdefghjkmnpqrs";
const CHECKSUM: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Events that a follower may lag behind.
const BEHIND: usize = 1_024;

#[derive(Clone)]
struct Noop {
    key: Arc<str>,
    events: broadcast::Sender<Bytes>,
    answers: Arc<Answers>,
}

/// The answers to everything but appends, once given.
#[derive(Default)]
struct Answers {
    message: OnceLock<Bytes>,
    page: OnceLock<Bytes>,
    exchange: OnceLock<Bytes>,
}

/// A contact's message.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exchange {
    r#type: String,
    contact_identifier: String,
    content: Said,
}

#[derive(Deserialize)]
struct Said {
    text: Text,
}

#[derive(Deserialize)]
struct Text {
    body: String,
}

/// Serves until the process is ended.
pub(crate) fn run() -> Result<(), Error> {
    let key: Arc<str> = format!("Bearer {}", std::env::var(KEY)?).into();
    // As many threads as the real server has.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = listen()?;
        say(&format!("listening on http://{}", listener.local_addr()?))?;
        let listener = listener.tap_io(|stream| {
            // A socket that refuses this is slower, which the run will show.
            let _ = stream.set_nodelay(true);
        });
        let router = Router::new()
            .route("/api/v1/messages", post(append))
            .route(
                "/api/v1/messages/{id}",
                get(async |State(noop): State<Noop>, headers: HeaderMap| noop.read(&headers, &noop.answers.message)),
            )
            .route(
                "/api/v1/conversations/{id}/messages",
                get(async |State(noop): State<Noop>, headers: HeaderMap| noop.read(&headers, &noop.answers.page)),
            )
            .route("/api/v1/channels/demo-api/messages", post(exchange))
            .route("/api/v1/answers/{name}", put(keep))
            .route("/api/v1/conversations/{id}/events", get(events))
            .with_state(Noop { key, events: broadcast::Sender::new(BEHIND), answers: Arc::default() });
        axum::serve(listener, router).await?;
        Ok(())
    })
}

impl Noop {
    fn allows(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
        is_allowed(given, &self.key)
    }

    /// The answer given for this, if the request has the key.
    fn read(&self, headers: &HeaderMap, kept: &OnceLock<Bytes>) -> Response {
        if self.allows(headers) { answer(kept) } else { StatusCode::UNAUTHORIZED.into_response() }
    }
}

fn answer(kept: &OnceLock<Bytes>) -> Response {
    match kept.get() {
        Some(kept) => ([(header::CONTENT_TYPE, "application/json")], kept.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Stores an answer for later requests; the first one counts.
async fn keep(State(noop): State<Noop>, Path(name): Path<String>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let kept = match name.as_str() {
        _ if !noop.allows(&headers) => return StatusCode::UNAUTHORIZED,
        "message" => &noop.answers.message,
        "page" => &noop.answers.page,
        "exchange" => &noop.answers.exchange,
        _ => return StatusCode::NOT_FOUND,
    };
    if kept.set(body).is_ok() { StatusCode::OK } else { StatusCode::CONFLICT }
}

async fn exchange(State(noop): State<Noop>, headers: HeaderMap, body: Bytes) -> Response {
    if !noop.allows(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match serde_json::from_slice::<Exchange>(&body) {
        Ok(Exchange { r#type, contact_identifier, content: Said { text } })
            if r#type == "TEXT" && !contact_identifier.is_empty() && !text.body.is_empty() =>
        {
            answer(&noop.answers.exchange)
        }
        _ => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn append(State(noop): State<Noop>, headers: HeaderMap, body: Bytes) -> Response {
    if !noop.allows(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Ok(Append { content, conversation_id }) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    // Like the real server, it names the conversation that it would have opened.
    let conversation = conversation_id.unwrap_or_else(|| CONVERSATION.to_owned());
    let appended = Appended::new(conversation, content, ID, TIME, CHECKSUM);
    if noop.events.receiver_count() > 0
        && let Ok(data) = serde_json::to_string(&appended)
    {
        // The followers may be gone by now.
        let _ = noop.events.send(format!("id: {ID}\nevent: message.created\ndata: {data}\n\n").into());
    }
    (StatusCode::CREATED, Json([appended])).into_response()
}

async fn events(State(noop): State<Noop>) -> Response {
    let follower = noop.events.subscribe();
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.recv().await;
        event.ok().map(|event| (Ok::<_, std::convert::Infallible>(event), follower))
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(events)).into_response()
}
