//! The server that does nothing (L0): it reads the body, compares the key and answers in the real form, and keeps
//! nothing. What it costs is what HTTP and JSON cost on this machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use tokio::net::TcpListener;

use crate::{Error, say};

/// The environment variable with the key; the real server's is the same.
pub(crate) const KEY: &str = "TERTULIA_BOOTSTRAP_API_KEY";

const TIME: &str = "2025-01-01T00:00:00.000Z";

#[derive(Deserialize)]
struct Append {
    content: Message,
    conversation_id: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: String,
    role: Option<String>,
    sender_id: Option<String>,
}

/// The answer's form; the values that a real server makes are constants of the same length.
#[derive(Serialize)]
struct Appended {
    conversation_id: String,
    sender_id: Option<String>,
    content: String,
    workspace_id: &'static str,
    created_at: &'static str,
    updated_at: Option<&'static str>,
    id: &'static str,
    role: Option<String>,
    tool_calls: Option<Vec<()>>,
    message_type: &'static str,
    tags: Option<Vec<()>>,
    checksum: &'static str,
    attachments: Option<Vec<()>>,
    parent_message_id: Option<&'static str>,
    meta_data: BTreeMap<(), ()>,
    sent_at: Option<&'static str>,
    owner_id: Option<&'static str>,
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
        axum::serve(listener, Router::new().route("/api/v1/messages", post(append)).with_state(key)).await?;
        Ok(())
    })
}

async fn append(State(key): State<Arc<str>>, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes()).unwrap_or_default();
    if !bool::from(given.ct_eq(key.as_bytes())) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Ok(Append { content, conversation_id }) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let appended = Appended {
        // As the real one, it names the conversation that it would have opened.
        conversation_id: conversation_id.unwrap_or_else(|| "conv_0123456789abcdefghjkmnpqrs".to_owned()),
        sender_id: content.sender_id,
        content: content.content,
        workspace_id: "default",
        created_at: TIME,
        updated_at: None,
        id: "msg_0123456789abcdefghjkmnpqrstvwxyz01",
        role: content.role,
        tool_calls: None,
        message_type: "text",
        tags: None,
        checksum: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        attachments: None,
        parent_message_id: None,
        meta_data: BTreeMap::new(),
        sent_at: None,
        owner_id: None,
    };
    (StatusCode::CREATED, Json([appended])).into_response()
}
