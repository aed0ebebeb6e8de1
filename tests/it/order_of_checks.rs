//! The order in which a request with a message is judged, the same for each of the three families of messages.

use actors::id::{ConversationId, MessageId};
use serde_json::{Value, json};

use crate::attachments::{files_below, until, uploaded};
use crate::support::{Answer, Request, TestApp};

const MESSAGES: &str = "/api/v1/messages";

fn channel(text: &str) -> Value {
    json!({"channelId": "demo", "text": text})
}

/// A message of a channel that has this file.
fn with_file(file: &str) -> Value {
    json!({"channelId": "demo", "text": "see", "attachmentIds": [file]})
}

/// A question on a channel with this deadline.
fn question(text: &str) -> Value {
    json!({"channelId": "demo", "text": text, "review": {"type": "approval", "expiresAt": "2025-01-01T00:01:00Z"}})
}

fn conversation(id: &str, text: &str) -> Value {
    json!({"conversation_id": id, "content": {"content": text}})
}

/// A message of a conversation that mentions this file.
fn mentioning(id: &str, file: &str) -> Value {
    json!({"conversation_id": id, "content": {"content": "see", "attachments": [{"id": file}]}})
}

/// A message of a conversation that answers this one.
fn answering(id: &str, parent: &str, text: Value) -> Value {
    json!({"conversation_id": id, "content": {"content": text, "parent_message_id": parent}})
}

fn contact(text: &str) -> Value {
    json!({"type": "TEXT", "contactIdentifier": "a", "content": {"text": {"body": text}}})
}

fn send(app: &TestApp, key: &str, body: Value) -> Request {
    app.post(MESSAGES).idempotency_key(key).json(body)
}

/// A message of a contact on this channel.
fn send_to(app: &TestApp, channel: &str, key: &str, body: Value) -> Request {
    app.post(format!("/api/v1/channels/{channel}/messages")).idempotency_key(key).json(body)
}

/// Status and code, or `replay`.
fn told(answer: &Answer) -> String {
    let word = match answer.header("idempotent-replayed") {
        "true" => "replay",
        _ => answer.json["code"].as_str().unwrap_or_default(),
    };
    format!("{} {word}", answer.status)
}

/// Sends every request, and compares what it is told with the word beside it.
async fn judged<const N: usize>(rows: [(&str, Request, &str); N]) {
    for (what, request, expected) in rows {
        assert_eq!(told(&request.await), expected, "{what}");
    }
}

fn id(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_request_of_every_family_is_judged_in_one_order() {
    let app = TestApp::new().await;
    let app = &app;
    let c = id(&app.post("/api/v1/conversations").json(json!({})).await.expect(201)["id"]);
    let had = uploaded(app, "had").await;
    let mentioned = uploaded(app, "mentioned").await;
    judged([
        ("a message", send(app, "k", channel("x")), "201 "),
        ("a question", send(app, "q", question("x")), "201 "),
        ("a message", send(app, "k", conversation(&c, "x")), "200 "),
        ("a message", send_to(app, "demo-api", "k", contact("x")), "200 "),
    ])
    .await;
    let having = send(app, "f", with_file(&had)).await.expect(201)["id"].clone();
    let mention = send(app, "f", mentioning(&c, &mentioned)).await.expect(200)[0]["id"].clone();

    let nowhere = c.replace(&c[c.len() - 4..], "0000");
    judged([
        // Step 3 comes before 4 and 6.
        ("a fault, no channel", send(app, "k", json!({"channelId": "none", "text": 5})), "400 invalid_type"),
        (
            "a fault, no conversation",
            send(app, "k", json!({"conversation_id": nowhere, "content": {"content": 5}})),
            "400 invalid_type",
        ),
        (
            "a fault, no channel",
            send_to(app, "none", "k", json!({"type": "TEXT", "contactIdentifier": "a", "content": 5})),
            "400 invalid_type",
        ),
        ("a fault, another request's key", send(app, "k", json!({"channelId": "demo", "text": 5})), "400 invalid_type"),
        (
            "a fault, another request's key",
            send(app, "k", json!({"conversation_id": c, "content": {"content": 5}})),
            "400 invalid_type",
        ),
        (
            "a fault, another request's key",
            send_to(app, "demo-api", "k", json!({"type": "TEXT", "contactIdentifier": "a", "content": 5})),
            "400 invalid_type",
        ),
        ("no channel", send(app, "k", json!({"channelId": "none", "text": "x"})), "404 channel_not_found"),
        ("no conversation", send(app, "k", conversation(&nowhere, "x")), "404 conversation_not_found"),
        ("no channel", send_to(app, "none", "k", contact("x")), "404 channel_not_found"),
        ("another request's key", send(app, "k", channel("y")), "422 idempotency_key_reused"),
        ("another request's key", send(app, "k", conversation(&c, "y")), "422 idempotency_key_reused"),
        ("another request's key", send_to(app, "demo-api", "k", contact("y")), "422 idempotency_key_reused"),
    ])
    .await;

    for message in [having, mention] {
        app.delete(format!("{MESSAGES}/{}", id(&message))).await.expect(204);
    }
    app.clock.advance(actors::limits::LINKING_MILLIS);
    until(async || files_below(app.files.path()).is_empty().then_some(())).await;
    let two = json!({"channelId": "demo", "text": "see", "attachmentIds": [had], "status": "none"});
    judged([
        // Step 2: a file that has gone refuses no retry, and all others.
        ("a retry", send(app, "f", with_file(&had)), "201 replay"),
        ("a retry", send(app, "f", mentioning(&c, &mentioned)), "200 replay"),
        ("no file", send(app, "new", with_file(&had)), "400 attachment_not_found"),
        ("no file", send(app, "new", mentioning(&c, &mentioned)), "400 attachment_not_found"),
        ("no file, another request's key", send(app, "k", with_file(&had)), "400 attachment_not_found"),
        ("no file, another request's key", send(app, "k", mentioning(&c, &mentioned)), "400 attachment_not_found"),
        ("no file and a fault", send(app, "f", two), "400 invalid_request"),
        ("no file, no conversation", send(app, "f", mentioning(&nowhere, &mentioned)), "400 attachment_not_found"),
    ])
    .await;

    app.clock.advance(120_000);
    judged([
        // Steps 6 and 7.
        ("a retry, late", send(app, "q", question("x")), "201 replay"),
        ("late", send(app, "new", question("x")), "400 expiry_in_past"),
        ("late, another request's key", send(app, "q", question("y")), "400 expiry_in_past"),
    ])
    .await;

    for channel in ["demo", "demo-api"] {
        app.patch(format!("/api/v1/channels/{channel}")).json(json!({"enabled": false})).await.expect(200);
    }
    app.patch(format!("/api/v1/conversations/{c}")).json(json!({"status": "closed"})).await.expect(200);
    judged([
        ("a retry, disabled", send(app, "k", channel("x")), "201 replay"),
        ("a retry, closed", send(app, "k", conversation(&c, "x")), "200 replay"),
        ("a retry, disabled", send_to(app, "demo-api", "k", contact("x")), "200 replay"),
        ("another request's key, disabled", send(app, "k", channel("y")), "422 idempotency_key_reused"),
        ("another request's key, closed", send(app, "k", conversation(&c, "y")), "422 idempotency_key_reused"),
        ("another request's key, disabled", send_to(app, "demo-api", "k", contact("y")), "422 idempotency_key_reused"),
        ("a retry, late and disabled", send(app, "q", question("x")), "201 replay"),
        ("late and disabled", send(app, "new", question("x")), "400 expiry_in_past"),
        ("disabled", send(app, "new", channel("x")), "409 channel_disabled"),
        ("closed", send(app, "new", conversation(&c, "x")), "409 conversation_closed"),
        ("disabled", send_to(app, "demo-api", "new", contact("x")), "409 channel_disabled"),
    ])
    .await;
}

#[tokio::test]
async fn a_parent_is_judged_among_the_faults_of_its_request() {
    let app = TestApp::new().await;
    let app = &app;
    let c = id(&app.post("/api/v1/conversations").json(json!({})).await.expect(201)["id"]);
    let parent = id(&send(app, "k", conversation(&c, "x")).await.expect(200)[0]["id"]);
    let missing = MessageId { number: 9_999, ..MessageId::parse(&parent).unwrap() }.to_string();
    let to = |conversation: &str, parent: &str| answering(conversation, parent, json!("x"));
    let faulty = |conversation: &str, parent: &str| answering(conversation, parent, json!(5));
    judged([
        ("no parent", send(app, "new", to(&c, &missing)), "400 parent_not_found"),
        ("no parent and a fault", send(app, "new", faulty(&c, &missing)), "400 invalid_request"),
        ("no parent, another request's key", send(app, "k", to(&c, &missing)), "400 parent_not_found"),
        ("a parent, another request's key", send(app, "k", to(&c, &parent)), "422 idempotency_key_reused"),
    ])
    .await;

    // The address of the conversation, at another time.
    let other = ConversationId::parse(&c).unwrap();
    let other = ConversationId { at: other.at.plus(1), ..other }.to_string();
    judged([
        ("no conversation", send(app, "new", conversation(&other, "x")), "404 conversation_not_found"),
        (
            "no conversation, another request's key",
            send(app, "k", conversation(&other, "x")),
            "404 conversation_not_found",
        ),
        ("no conversation, no parent", send(app, "new", to(&other, &parent)), "400 parent_not_found"),
        ("both, another request's key", send(app, "k", to(&other, &parent)), "400 parent_not_found"),
    ])
    .await;

    judged([
        ("no id of a conversation", send(app, "new", conversation("conv_x", "x")), "404 conversation_not_found"),
        ("no id of a conversation, no parent", send(app, "new", to("conv_x", &parent)), "400 parent_not_found"),
        ("both, and a fault", send(app, "new", faulty("conv_x", &parent)), "400 invalid_request"),
    ])
    .await;
}
