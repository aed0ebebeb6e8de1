//! Agents whose model is behind an endpoint, over real sockets: the endpoint misbehaves in every way it can. Each
//! failure has its reason, keeps the message, and makes nothing hang or grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::origin::{Heard, Origin, Part, bare, ok};
use crate::support::until::until;
use crate::support::{Answer, TestApp};

mod faults;
mod real;
mod streams;
mod tools;

pub(crate) const PATH: &str = "/api/v1/channels/demo-api/messages";

/// An answer whose only choice says `words`.
pub(crate) fn completion(words: &str) -> Value {
    json!({"model": "small-2025", "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14},
        "choices": [{"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"}]})
}

/// An answer whose only choice calls a tool.
pub(crate) fn calling(name: &str, arguments: &Value) -> Value {
    let function = json!({"name": name, "arguments": arguments.to_string()});
    json!({"model": "small-2025", "usage": {"prompt_tokens": 5, "completion_tokens": 2},
        "choices": [{"message": {"role": "assistant", "content": null,
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}, "finish_reason": "tool_calls"}]})
}

pub(crate) fn whole(answer: &Value) -> Vec<Part> {
    ok("application/json", answer.to_string().as_bytes())
}

/// A chunk of a stream that says `words`.
pub(super) fn piece(words: &str) -> Value {
    json!({"model": "small-2025", "choices": [{"index": 0, "delta": {"content": words}, "finish_reason": null}]})
}

/// A stream's body with these events, and the end that the protocol requires.
pub(super) fn stream(events: &[Value]) -> String {
    let end = [
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
        json!({"model": "small-2025", "choices": [], "usage": {"prompt_tokens": 21, "completion_tokens": 6}}),
    ];
    let events: String = events.iter().chain(&end).map(|event| format!("data: {event}\n\n")).collect();
    format!("{events}data: [DONE]\n\n")
}

/// The head of a stream that ends with its connection.
pub(super) fn stream_head() -> Part {
    Part::Bytes(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n".to_vec())
}

/// A stream whose body arrives in these pieces.
pub(super) fn streamed(pieces: impl IntoIterator<Item = Vec<u8>>) -> Vec<Part> {
    let pieces = pieces.into_iter().map(Part::Bytes);
    std::iter::once(stream_head()).chain(pieces).chain([Part::Close]).collect()
}

/// Configures the agent of `demo-api` to use this endpoint.
pub(super) async fn ask_at(app: &TestApp, base_url: &str, settings: Value) {
    let mut body = json!({"provider": "openai", "model": "small", "baseUrl": base_url});
    body.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    app.echo(body).await;
}

/// A server with an agent whose endpoint gives this answer.
pub(super) async fn asking(
    settings: Value,
    answer: impl Fn(&Heard) -> Vec<Part> + Send + Sync + 'static,
) -> (Arc<TestApp>, Origin) {
    let app = TestApp::with_models().await;
    let origin = Origin::serve(answer).await;
    ask_at(&app, &origin.url("/v1"), settings).await;
    (Arc::new(app), origin)
}

/// An endpoint's answers, one for each request; the last one is repeated.
pub(super) fn in_turn(answers: Vec<Vec<Part>>) -> impl Fn(&Heard) -> Vec<Part> + Send + Sync + 'static {
    let asked = AtomicUsize::new(0);
    move |_| answers[asked.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1)].clone()
}

pub(super) async fn say(app: &TestApp, words: &str, prefer: &str) -> Answer {
    let body = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": words}}});
    app.post(PATH).idempotency_key(&words.replace(' ', "-")).header("prefer", prefer).json(body).await
}

/// The bodies of the requests that an endpoint received.
pub(super) fn asked(origin: &Origin) -> Vec<Value> {
    origin.requests().iter().map(|heard| serde_json::from_slice(&heard.body).unwrap()).collect()
}

pub(super) fn refusing(status: u16, headers: &str) -> Vec<Part> {
    bare(status, headers)
}
