//! JSON: parses a body into a message and renders a message as an answer.

use std::hint::black_box;

use actors::id::MessageId;
use actors::message::{Message, Overlay};
use http::StatusCode;
use tertulia::http::answer;
use tertulia::json::Object;
use tertulia::json::report::Report;
use tertulia::wire::conversation_message::ConversationPost;
use tertulia::wire::conversation_message::view::conversation_view;
use tertulia::wire::{Rules, fingerprint as wire, shape};

use super::{CONVERSATION, NOW, Once, WORDS, content, conversation};
use crate::Error;

/// The body of an append.
fn body() -> String {
    format!(
        r#"{{"content":{{"content":"{WORDS}","role":"user","sender_id":"customer-17"}},"conversation_id":"{}"}}"#,
        conversation()
    )
}

/// Splits a body, chooses its shape, and reads every member.
pub(super) fn read() -> Result<Once, Error> {
    let body = body();
    Ok(Box::new(move || {
        let Ok(object) = Object::parse(black_box(body.as_bytes())) else { unreachable!("the body is JSON") };
        black_box(shape::choose(&object, None).is_ok());
        let mut report = Report::new(false);
        let rules = Rules { now: NOW, allow: &|_| false };
        black_box(ConversationPost::read(object, None, rules, &mut report));
        assert!(report.faults.is_empty(), "the body is without fault");
    }))
}

/// Hashes a request, so that a retry is recognized.
pub(super) fn fingerprint() -> Result<Once, Error> {
    let body: &'static str = body().leak();
    let object = Object::parse(body.as_bytes()).map_err(|problem| problem.detail)?;
    Ok(Box::new(move || {
        black_box(wire::fingerprint("POST", "/api/v1/messages", black_box(&object)));
    }))
}

/// Renders an accepted message as an answer with its checksum.
pub(super) fn render() -> Result<Once, Error> {
    let message = Message {
        id: MessageId::new(NOW, CONVERSATION, 2),
        conversation: conversation(),
        owner: None,
        parent: None,
        turn: None,
        content: content(),
    };
    let overlay = Overlay::default();
    Ok(Box::new(move || {
        let views = [conversation_view("default", black_box(&message), &overlay)];
        black_box(answer::json(StatusCode::OK, &views));
    }))
}
