//! The service accepts what a shape of the document accepts.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tertulia::http::paging::MAX_LIMIT;
use tertulia::openapi::KEY_HOURS;
use tertulia::problem::MAX_FAULTS;
use tertulia::wire::bounds::MAX_NAME_CHARS;
use tertulia::wire::channel_message::review::{MAX_ALLOWED, MAX_CALLBACK_HEADERS, MAX_QUORUM};
use tertulia::wire::channel_message::{MAX_ATTACHMENTS, MAX_KEY_CHARS, MAX_TEXT_BYTES};
use tertulia::wire::contact_message::content::{MAX_BODY_BYTES, MAX_CAPTION_CHARS};
use tertulia::wire::conversation_message::MAX_BATCH;
use tertulia::wire::conversation_message::item::{MAX_CONTENT_BYTES, MAX_TAG_CHARS, MAX_TAGS, MAX_TAGS_RECEIVED};
use tertulia::wire::filename::MAX_FILENAME_CHARS;

use super::{assert_valid, component, document, operations, validator};
use crate::support::TestApp;

#[tokio::test]
async fn bounds_in_the_document_are_those_of_the_checks() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let at = |path: &str| {
        let found = document.pointer(&format!("/components/{path}"));
        found.and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} is no number")) as usize
    };
    for (path, bound) in [
        ("schemas/ChannelMessage/properties/text/maxLength", MAX_TEXT_BYTES),
        ("schemas/ChannelMessage/properties/attachmentIds/maxItems", MAX_ATTACHMENTS),
        ("schemas/ChannelMessage/properties/clientId/maxLength", MAX_KEY_CHARS),
        ("schemas/ChannelMessage/properties/channelId/minLength", 1),
        ("schemas/ReviewRequest/properties/type/maxLength", 64),
        ("schemas/ReviewCallback/properties/headers/maxProperties", MAX_CALLBACK_HEADERS),
        ("schemas/ReviewQuorum/properties/of/maximum", MAX_QUORUM as usize),
        ("schemas/ReviewQuorum/properties/allowed/maxItems", MAX_ALLOWED),
        ("schemas/Tool/properties/headers/maxProperties", MAX_CALLBACK_HEADERS),
        ("schemas/MemoryQuestion/properties/contactId/maxLength", MAX_NAME_CHARS),
        ("schemas/MemoryQuestion/properties/ownerId/maxLength", MAX_NAME_CHARS),
        ("schemas/ConversationMessage/properties/content/oneOf/1/maxItems", MAX_BATCH),
        ("schemas/ConversationMessage/properties/content/oneOf/1/minItems", 1),
        ("schemas/MessageContent/properties/content/maxLength", MAX_CONTENT_BYTES),
        ("schemas/MessageContent/properties/tags/maxItems", MAX_TAGS_RECEIVED),
        ("schemas/ContactText/properties/contactName/maxLength", MAX_NAME_CHARS),
        ("schemas/ContactText/properties/content/properties/text/properties/body/maxLength", MAX_BODY_BYTES),
        ("schemas/ContactImage/properties/content/properties/image/properties/caption/maxLength", MAX_CAPTION_CHARS),
        (
            "schemas/ContactDocument/properties/content/properties/document/properties/filename/maxLength",
            MAX_FILENAME_CHARS,
        ),
        ("schemas/Problem/properties/errors/maxItems", MAX_FAULTS),
        ("parameters/Limit/schema/maximum", MAX_LIMIT),
        ("parameters/IdempotencyKey/schema/maxLength", MAX_KEY_CHARS),
    ] {
        assert_eq!(at(path), bound, "{path}");
    }
    for (name, required) in [
        ("ChannelMessage", json!(["channelId"])),
        ("ReviewRequest", json!(["type"])),
        ("ConversationMessage", json!(["content"])),
        ("ContactText", json!(["type", "contactIdentifier", "content"])),
        ("ChannelNew", json!(["name", "kind"])),
        ("AgentNew", json!(["name", "provider"])),
        ("ApiKeyNew", json!(["name", "scopes"])),
        ("WorkspaceNew", json!(["name"])),
        ("TurnNew", json!(["agentId"])),
    ] {
        assert_eq!(document["components"]["schemas"][name]["required"], required, "{name}");
    }
    let key = document["components"]["parameters"]["IdempotencyKey"]["description"].as_str().unwrap();
    assert!(key.contains(&format!("{KEY_HOURS} hours")) && KEY_HOURS == 48, "{key}");
}

#[tokio::test]
async fn the_service_refuses_every_body_that_the_document_refuses() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let long = "x".repeat(MAX_TEXT_BYTES + 1);
    let owner = "x".repeat(MAX_NAME_CHARS + 1);
    let headers: BTreeMap<_, _> = (0..=MAX_CALLBACK_HEADERS).map(|n| (format!("x-{n}"), "y")).collect();
    let tool = |tool: Value| json!({"name": "x", "provider": "builtin", "tools": [tool]});
    let model =
        |key: &str| json!({"name": "x", "provider": "openai", "model": "m", "baseUrl": "http://m/", "apiKey": key});
    let agreed = json!({"channelId": "demo", "review": {"type": "x", "quorum": {"allowed": []}}});
    for (path, schema, body) in [
        ("/api/v1/messages", "ChannelMessage", json!({"channelId": "demo", "text": long})),
        ("/api/v1/messages", "ChannelMessage", json!({"channelId": "demo", "status": "loud"})),
        ("/api/v1/messages", "ChannelMessage", json!({"channelId": "", "text": "x"})),
        ("/api/v1/messages", "ChannelMessage", json!({"channelId": "demo", "review": {}})),
        ("/api/v1/messages", "ChannelMessage", json!({"channelId": "demo", "text": "x", "clientId": "a b"})),
        (
            "/api/v1/agents",
            "AgentNew",
            json!({"name": "x", "provider": "builtin", "builtin": {"script": [{"match": "a"}]}}),
        ),
        ("/api/v1/messages", "ChannelMessage", json!({"channelId": "demo", "attachmentIds": ["a", "a"]})),
        ("/api/v1/messages", "ChannelMessage", agreed),
        ("/api/v1/agents", "AgentNew", model("a b")),
        ("/api/v1/agents", "AgentNew", tool(json!({"name": "a b"}))),
        ("/api/v1/agents", "AgentNew", tool(json!({"function": {"name": "a b"}}))),
        ("/api/v1/agents", "AgentNew", tool(json!({"name": "a", "headers": headers}))),
        ("/api/v1/memories/search", "MemoryQuestion", json!({"query": "x", "ownerId": owner})),
        (
            "/api/v1/webhook-endpoints",
            "WebhookEndpointNew",
            json!({"url": "https://example.com/", "events": ["other.*"]}),
        ),
        ("/api/v1/messages", "ConversationMessage", json!({"content": []})),
        ("/api/v1/messages", "ConversationMessage", json!({"content": vec![json!({"content": "x"}); MAX_BATCH + 1]})),
        ("/api/v1/messages", "ConversationMessage", json!({"content": {"content": "x", "role": "X"}})),
        ("/api/v1/channels/demo-api/messages", "ContactMessage", json!({"type": "TEXT", "content": {}})),
        (
            "/api/v1/channels/demo-api/messages",
            "ContactMessage",
            json!({"type": "TEXT", "contactIdentifier": "a", "content": {"image": {"url": "https://example.com/a"}}}),
        ),
        ("/api/v1/channels", "ChannelNew", json!({"name": "x", "kind": "other"})),
        ("/api/v1/agents", "AgentNew", json!({"name": "x", "provider": "builtin", "temperature": 3})),
        ("/api/v1/api-keys", "ApiKeyNew", json!({"name": "x", "scopes": []})),
        ("/api/v1/workspaces", "WorkspaceNew", json!({"id": "a b", "name": "x"})),
    ] {
        assert!(!validator(&document, &component(schema)).is_valid(&body), "{schema} accepts {body}");
        app.post(path).json(body).await.expect(400);
    }
}

#[tokio::test]
async fn the_document_accepts_every_body_that_the_service_accepts() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let long = format!("  {}  ", "é".repeat(MAX_NAME_CHARS));
    let tags: Vec<_> = (0..MAX_TAGS).chain(0..MAX_TAGS).map(|n| format!(" {n:0MAX_TAG_CHARS$} ")).collect();
    let tools = json!([{"name": "a"}, {"type": "function", "function": {"name": "b"}}]);
    let events = document["components"]["schemas"]["EventPattern"]["enum"].clone();
    let asking =
        |payload: Value| json!({"channelId": "demo", "text": "x", "review": {"type": "x", "payload": payload}});
    let agent = |entry: Value| json!({"name": "x", "provider": "builtin", "builtin": {"behaviour": "scripted", "script": [entry]}});
    for (path, schema, body) in [
        ("/api/v1/messages", "ConversationMessage", json!({"content": {"content": "x", "tags": tags}})),
        (
            "/api/v1/channels/demo-api/messages",
            "ContactMessage",
            json!({"type": "TEXT", "contactIdentifier": long, "content": {"text": {"body": "x"}}}),
        ),
        ("/api/v1/contacts", "ContactNew", json!({"identifier": long})),
        ("/api/v1/channels/demo/messages", "ChannelMessageOnChannel", json!({"channelId": null, "text": "x"})),
        ("/api/v1/agents", "AgentNew", json!({"name": "x", "provider": "builtin", "tools": tools})),
        ("/api/v1/webhook-endpoints", "WebhookEndpointNew", json!({"url": "https://example.com/", "events": events})),
        ("/api/v1/conversations", "ConversationNew", json!({})),
        ("/api/v1/messages", "ChannelMessage", asking(json!({"responseSchema": true}))),
        ("/api/v1/messages", "ChannelMessage", asking(json!({"responseSchema": false}))),
        ("/api/v1/messages", "ChannelMessage", json!({"channelId": "demo", "text": "x", "clientId": "~"})),
        ("/api/v1/agents", "AgentNew", agent(json!({"match": "", "reply": []}))),
        ("/api/v1/agents", "AgentNew", agent(json!({"match": "a", "toolCall": {"name": "t"}}))),
        ("/api/v1/agents", "AgentNew", agent(json!({"match": "a", "reply": null, "toolCall": {"name": "t"}}))),
        ("/api/v1/agents", "AgentNew", agent(json!({"match": "a", "reply": ["b"], "toolCall": null}))),
    ] {
        assert_valid(&document, &component(schema), &body, schema);
        let answer = app.post(path).json(body.clone()).await;
        assert!((200..300).contains(&answer.status), "{body}: {}", answer.json);
    }
}

/// A path names its parameters as the contract does.
#[tokio::test]
async fn keys_are_documented_only_where_they_count() {
    let app = TestApp::new().await;
    let document = document(&app).await;
    let sending = &document["paths"]["/api/v1/channels/{channelId}/messages"]["post"];
    assert_eq!(
        sending["parameters"].as_array().unwrap().iter().find(|one| one["in"] == "path").unwrap()["name"],
        "channelId"
    );
    for (path, method, operation) in operations(&document) {
        let keyed = operation["parameters"].to_string().contains("/IdempotencyKey");
        assert!(!keyed || method == "post", "{method} {path}: only a POST needs a key");
        if keyed {
            let conflict = &operation["responses"]["409"];
            assert!(
                conflict["headers"]["Retry-After"].is_object(),
                "{method} {path}: a duplicate is told when to come"
            );
        }
    }
    for path in ["channels/demo", "agents/echo"] {
        let renamed = app.patch(format!("/api/v1/{path}")).idempotency_key("no key").json(json!({"name": "x"})).await;
        assert_eq!(renamed.expect(200)["name"], "x", "{path}");
    }
}
