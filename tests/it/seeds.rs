//! The examples of the three source documents, sent verbatim.

use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

/// The names of an object's members, in the order of the answer's bytes.
pub(crate) fn names(value: &Value, bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).unwrap();
    let mut names: Vec<(usize, String)> = value
        .as_object()
        .unwrap()
        .keys()
        .map(|name| (text.find(&format!("\"{name}\":")).unwrap(), name.clone()))
        .collect();
    names.sort();
    names.into_iter().map(|(_, name)| name).collect()
}

fn is_time(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() == 24 && text.ends_with('Z') && text.as_bytes()[19] == b'.')
}

fn is_id(value: &Value, prefix: &str) -> bool {
    value.as_str().is_some_and(|text| text.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty()))
}

/// The body of the channel message's example, with real values for `<string>`.
fn channel_example() -> Value {
    json!({
        "channelId": "demo",
        "text": "Hello from agent",
        "status": "info",
        "review": {
            "type": "approval",
            "payload": {},
            "callback": {"url": "https://example.com/callback", "method": "POST", "headers": {}},
            "expiresAt": "2025-01-02T00:00:00.000Z",
            "expiresInSeconds": 3600
        },
        "metadata": {},
        "webhookUrl": "https://example.com/hook",
        "attachmentIds": []
    })
}

#[tokio::test]
async fn the_channel_example_is_created_with_the_members_of_its_answer() {
    let app = TestApp::new().await;
    let answer = app.post("/api/v1/messages").json(channel_example()).await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-ignored-fields"), "");
    assert!(!answer.header("x-request-id").is_empty() && !answer.header("traceparent").is_empty());
    let bytes = answer.bytes.clone();
    let made = answer.expect(201);
    assert_eq!(
        names(&made, &bytes),
        [
            "id",
            "channelId",
            "senderType",
            "senderId",
            "createdAt",
            "attachments",
            "text",
            "status",
            "review",
            "metadata"
        ]
    );
    assert!(is_id(&made["id"], "msg_"));
    assert!(made["senderType"] == "agent" || made["senderType"] == "user");
    assert_eq!((&made["channelId"], &made["createdAt"]), (&json!("demo"), &json!("2025-01-01T00:00:00.000Z")));
    assert_eq!((&made["attachments"], &made["metadata"]), (&json!([]), &json!({})));
    assert_eq!((&made["text"], &made["status"]), (&json!("Hello from agent"), &json!("info")));
    assert_eq!(
        made["review"],
        json!({"type": "approval", "status": "pending", "payload": {}, "expiresAt": "2025-01-01T01:00:00.000Z",
            "response": null, "feedback": null, "decidedBy": null, "completedAt": null})
    );
    assert!(!String::from_utf8(bytes).unwrap().contains("example.com"), "nothing of a callback is returned");
}

#[tokio::test]
async fn the_channel_examples_largest_number_is_refused_by_its_name() {
    let app = TestApp::new().await;
    let mut body = channel_example();
    body["review"]["expiresInSeconds"] = json!(4_503_599_627_370_495_u64);
    let faults = app.post("/api/v1/messages").json(body).await.faults();
    assert_eq!(faults, ["expiry_too_far /review/expiresInSeconds"]);
}

#[tokio::test]
async fn the_channel_example_as_it_stands_is_refused_for_every_fault() {
    let app = TestApp::new().await;
    let body = r#"{"channelId":"<string>","text":"<string>","status":"info","review":{"type":"<string>","payload":{},
        "callback":{"url":"<string>","method":"<string>","headers":{}},"expiresAt":"<string>",
        "expiresInSeconds":4503599627370495},"metadata":{},"webhookUrl":"<string>","attachmentIds":["<string>"]}"#;
    let mut faults = app.post("/api/v1/messages").body("application/json", body).await.faults();
    faults.sort();
    assert_eq!(
        faults,
        [
            "attachment_not_found /attachmentIds/0",
            "expiry_too_far /review/expiresInSeconds",
            "invalid_datetime /review/expiresAt",
            "invalid_enum /review/callback/method",
            "invalid_url /review/callback/url",
            "invalid_url /webhookUrl",
        ]
    );
}

#[tokio::test]
async fn the_example_of_a_text_is_answered_by_the_agent_in_the_same_call() {
    let app = TestApp::new().await;
    let body = json!({
        "content": {"text": {"body": "Hello, how can I help you?"}},
        "type": "TEXT",
        "contactIdentifier": "user@example.com",
        "contactName": "User Name"
    });
    let answer = app.post("/api/v1/channels/demo-api/messages").json(body).await;
    assert_eq!(answer.header("x-ignored-fields"), "");
    let bytes = answer.bytes.clone();
    let said = answer.expect(200);
    assert_eq!(
        names(&said, &bytes),
        ["success", "contactId", "conversationId", "messageId", "conversation", "aiMessages", "usage", "turn"]
    );
    assert_eq!(said["success"], true);
    assert!(is_id(&said["contactId"], "cont_") && is_id(&said["conversationId"], "conv_"));
    assert!(is_id(&said["messageId"], "msg_") && is_id(&said["turn"]["id"], "turn_"));
    let at = json!("2025-01-01T00:00:00.000Z");
    assert_eq!(
        said["conversation"],
        json!({"id": said["conversationId"], "status": "open", "channelId": "demo-api",
            "contactId": said["contactId"], "assignment": {"type": "AI_AGENT", "agentId": "echo"},
            "createdAt": at, "updatedAt": at, "lastMessageAt": at})
    );
    let replies = said["aiMessages"].as_array().unwrap();
    assert_eq!(replies.len(), 1);
    assert!(is_id(&replies[0]["id"], "msg_"));
    assert_eq!(
        replies[0],
        json!({"id": replies[0]["id"], "type": "TEXT",
            "content": {"text": {"body": "Hello, how can I help you?"}}, "createdAt": at})
    );
    assert_eq!(said["turn"]["status"], "completed");
    let usage = said["usage"].as_object().unwrap();
    assert!(usage["credits"].is_number() && usage["inputTokens"].is_u64() && usage["outputTokens"].is_u64());
    assert!(usage["model"].is_string());
    assert_eq!(usage.len(), 4);
}

#[tokio::test]
async fn the_call_of_the_integration_example_needs_no_name() {
    let app = TestApp::new().await;
    let body = r#"{"content":{"text":{"body":"Hello!"}},"type":"TEXT","contactIdentifier":"user@example.com"}"#;
    let said = app.post("/api/v1/channels/demo-api/messages").body("application/json", body).await.expect(200);
    let contact = app.get(format!("/api/v1/contacts/{}", said["contactId"].as_str().unwrap())).await.expect(200);
    assert_eq!((&contact["identifier"], &contact["name"]), (&json!("user@example.com"), &json!(null)));
}

#[tokio::test]
async fn the_media_examples_fail_only_where_their_file_does() {
    let app = TestApp::new().await;
    for (kind, member, content) in [
        ("IMAGE", "image", json!({"url": "https://example.com/image.jpg", "caption": "Image caption"})),
        ("AUDIO", "audio", json!({"url": "https://example.com/audio.mp3"})),
        ("VIDEO", "video", json!({"url": "https://example.com/video.mp4", "caption": "Video caption"})),
        (
            "DOCUMENT",
            "document",
            json!({"url": "https://example.com/document.pdf", "filename": "document.pdf",
                "caption": "Document description"}),
        ),
    ] {
        let body = json!({"content": {member: content}, "type": kind, "contactIdentifier": "user@example.com"});
        let answer = app.post("/api/v1/channels/demo-api/messages").json(body).await;
        assert_eq!(answer.header("x-ignored-fields"), "", "{kind}");
        assert_eq!(answer.json["success"], false, "{kind}");
        assert_eq!(answer.faults(), [format!("media_unreachable /content/{member}/url")], "{kind}");
    }
    let contacts = app.get("/api/v1/contacts").await.expect(200);
    assert_eq!(contacts["data"], json!([]), "a message that was not accepted makes no contact");
}

fn conversation_example() -> Value {
    json!({
        "content": {
            "content": "<string>",
            "sender_id": "<string>",
            "created_at": "2023-11-07T05:31:56Z",
            "role": "user",
            "message_type": "text",
            "tool_calls": [{}],
            "tags": ["<string>"],
            "meta_data": {},
            "attachments": [{}]
        },
        "enable_memories": false
    })
}

const CONVERSATION_NAMES: [&str; 17] = [
    "conversation_id",
    "sender_id",
    "content",
    "workspace_id",
    "created_at",
    "updated_at",
    "id",
    "role",
    "tool_calls",
    "message_type",
    "tags",
    "checksum",
    "attachments",
    "parent_message_id",
    "meta_data",
    "sent_at",
    "owner_id",
];

/// The only message in an answer of the conversation API, and the order of its members.
fn only(answer: Answer) -> (Value, Vec<String>) {
    let bytes = answer.bytes.clone();
    let all = answer.expect(200);
    assert_eq!(all.as_array().unwrap().len(), 1);
    let names = names(&all[0], &bytes);
    (all[0].clone(), names)
}

#[tokio::test]
async fn the_example_of_a_conversation_message_is_answered_as_an_array_of_one() {
    let app = TestApp::new().await;
    let (parent, _) = only(app.post("/api/v1/messages").json(conversation_example()).await);
    let mut body = conversation_example();
    body["content"]["parent_message_id"] = parent["id"].clone();
    body["conversation_id"] = parent["conversation_id"].clone();
    let answer = app.post("/api/v1/messages").header("x-workspace-id", "null").json(body).await;
    assert_eq!(answer.header("x-ignored-fields"), "");
    let (message, order) = only(answer);
    assert_eq!(order.len(), CONVERSATION_NAMES.len());
    assert_eq!(order, CONVERSATION_NAMES);
    assert!(is_id(&message["id"], "msg_") && is_id(&message["conversation_id"], "conv_"));
    assert!(message["checksum"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(
        message,
        json!({"conversation_id": parent["conversation_id"], "sender_id": "<string>", "content": "<string>",
            "workspace_id": "default", "created_at": "2023-11-07T05:31:56.000Z", "updated_at": null,
            "id": message["id"], "role": "user", "tool_calls": [{}], "message_type": "text", "tags": ["<string>"],
            "checksum": message["checksum"], "attachments": [{}], "parent_message_id": parent["id"],
            "meta_data": {}, "sent_at": "2023-11-07T05:31:56.000Z", "owner_id": null})
    );
}

#[tokio::test]
async fn the_shortest_conversation_message_has_every_default() {
    let app = TestApp::new().await;
    let body = json!({"content": {"content": "hi"}, "conversation_id": null, "enable_memories": null});
    let (message, order) = only(app.post("/api/v1/messages").json(body).await);
    assert_eq!(order, CONVERSATION_NAMES);
    let conversation = message["conversation_id"].as_str().unwrap();
    let sender = message["sender_id"].as_str().unwrap();
    assert!(!sender.is_empty() && is_time(&message["created_at"]));
    assert_eq!(
        message,
        json!({"conversation_id": conversation, "sender_id": sender, "content": "hi", "workspace_id": "default",
            "created_at": "2025-01-01T00:00:00.000Z", "updated_at": null, "id": message["id"], "role": "user",
            "tool_calls": null, "message_type": "text", "tags": null, "checksum": message["checksum"],
            "attachments": null, "parent_message_id": null, "meta_data": {},
            "sent_at": "2025-01-01T00:00:00.000Z", "owner_id": null})
    );
}

#[tokio::test]
async fn the_conversation_example_as_it_stands_names_nothing_that_exists() {
    let app = TestApp::new().await;
    let mut body = conversation_example();
    body["conversation_id"] = json!("<string>");
    app.post("/api/v1/messages").json(body.clone()).await.problem(404, "conversation_not_found");
    body["content"]["parent_message_id"] = json!("<string>");
    let faults = app.post("/api/v1/messages").json(body).await.faults();
    assert_eq!(faults, ["parent_not_found /content/parent_message_id"]);
}
