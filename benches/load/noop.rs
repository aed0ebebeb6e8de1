//! The server that does nothing (L0): it reads the body, compares the key and answers in the real form, and keeps
//! nothing. What it costs is what HTTP and JSON cost on this machine. Whoever follows a conversation there hears of
//! every append to any (L6), without a log that it could be read from again.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use benches::{Append, Appended, KEY, is_allowed};
use futures_util::stream;
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use crate::{Error, say};

// Constants of the same length as what a real server makes.
const TIME: &str = "2025-01-01T00:00:00.000Z";
const ID: &str = "msg_0123456789abcdefghjkmnpqrstvwxyz01";
const CONVERSATION: &str = "conv_0123456789abcdefghjkmnpqrs";
const CHECKSUM: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Events that a follower may be behind.
const BEHIND: usize = 1_024;

#[derive(Clone)]
struct Noop {
    key: Arc<str>,
    events: broadcast::Sender<Bytes>,
}

/// Serves until the process is ended.
pub(crate) fn run() -> Result<(), Error> {
    let key: Arc<str> = format!("Bearer {}", std::env::var(KEY)?).into();
    // As many threads as the real server has.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        say(&format!("listening on http://{}", listener.local_addr()?))?;
        let listener = listener.tap_io(|stream| {
            // A socket that cannot is slower, which the run will show.
            let _ = stream.set_nodelay(true);
        });
        let router = Router::new()
            .route("/api/v1/messages", post(append))
            .route("/api/v1/conversations/{id}/events", get(events))
            .with_state(Noop { key, events: broadcast::Sender::new(BEHIND) });
        axum::serve(listener, router).await?;
        Ok(())
    })
}

async fn append(State(noop): State<Noop>, headers: HeaderMap, body: Bytes) -> Response {
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    if !is_allowed(given, &noop.key) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Ok(Append { content, conversation_id }) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    // As the real one, it names the conversation that it would have opened.
    let conversation = conversation_id.unwrap_or_else(|| CONVERSATION.to_owned());
    let appended = Appended::new(conversation, content, ID, TIME, CHECKSUM);
    if noop.events.receiver_count() > 0
        && let Ok(data) = serde_json::to_string(&appended)
    {
        // Followers may have gone meanwhile.
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
