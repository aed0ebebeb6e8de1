//! What the API's description of POST /channels/{id}/messages promises in its prose, where no other test checks it.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::models::PATH;
use crate::support::client::{Client, Reply};
use crate::support::{ADMIN_KEY, TestApp};

fn text(identifier: &str, words: &str) -> Value {
    json!({"content": {"text": {"body": words}}, "type": "TEXT", "contactIdentifier": identifier})
}

/// The messages of a conversation as `role: text`.
async fn history(app: &TestApp, answer: &Value) -> Vec<String> {
    let path = format!("/api/v1/conversations/{}/messages", answer["conversationId"].as_str().unwrap());
    let page = app.get(path).await.expect(200);
    let shown = |m: &Value| format!("{}: {}", m["role"].as_str().unwrap(), m["content"].as_str().unwrap());
    page["data"].as_array().unwrap().iter().map(shown).collect()
}

/// The client of the integration example reads every answer as JSON, and sends its key in `X-API-Key`.
#[tokio::test]
async fn every_status_of_a_contacts_message_comes_as_json_on_one_connection() {
    let app = TestApp::new().await;
    let agent = json!({"id": "failing", "name": "f", "provider": "builtin", "builtin": {"failEvery": 1}});
    app.post("/api/v1/agents").json(agent).await.expect(201);
    let channel = json!({"id": "failing", "name": "f", "kind": "api", "agentId": "failing"});
    app.post("/api/v1/channels").json(channel).await.expect(201);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    app.listen(listener);
    let rows = [
        (ADMIN_KEY, "demo-api", text("user@example.com", "Hello!"), 200, ""),
        (ADMIN_KEY, "demo-api", json!({"type": "TEXT"}), 400, "required"),
        (ADMIN_KEY, "demo", text("user@example.com", "Hello!"), 400, "channel_kind_mismatch"),
        ("", "demo-api", text("user@example.com", "Hello!"), 401, "unauthenticated"),
        ("your_workspace_api_key", "demo-api", text("user@example.com", "Hello!"), 401, "unauthenticated"),
        (ADMIN_KEY, "channel_123", text("user@example.com", "Hello!"), 404, "channel_not_found"),
        (ADMIN_KEY, "failing", text("user@example.com", "Hello!"), 500, "agent_failed"),
    ];
    let talking = tokio::task::spawn_blocking(move || {
        // One connection for all: no refusal ends it.
        let mut client = Client::connect(&address).unwrap();
        let answers = rows.map(|(key, channel, body, status, code)| {
            let path = format!("/api/v1/channels/{channel}/messages");
            let reply = client.send_as(key, "POST", &path, None, &body.to_string()).unwrap();
            (reply, status, code)
        });
        answers.to_vec()
    });
    let told: Vec<(Reply, u16, &str)> = talking.await.unwrap();
    for (reply, status, code) in told {
        let body = reply.json();
        assert_eq!((reply.status, &body["success"]), (status, &json!(status == 200)), "{body}");
        assert_eq!(body["code"].as_str().unwrap_or_default(), code, "{body}");
    }
}

#[tokio::test]
async fn two_identifiers_of_one_person_are_two_contacts_with_two_histories() {
    let app = TestApp::new().await;
    let send = |identifier, words| app.post(PATH).json(text(identifier, words));
    let first = send("joao@example.com", "one").await.expect(200);
    let other = send("user@example.com", "two").await.expect(200);
    let again = send("joao@example.com", "three").await.expect(200);
    for name in ["contactId", "conversationId"] {
        assert_ne!(first[name], other[name], "{name}");
        assert_eq!(first[name], again[name], "{name}");
    }
    assert_eq!(history(&app, &first).await, ["user: one", "assistant: one", "user: three", "assistant: three"]);
    assert_eq!(history(&app, &other).await, ["user: two", "assistant: two"]);
}

#[tokio::test]
async fn a_contacts_conversation_is_never_handed_to_anybody_but_the_agent() {
    let app = TestApp::new().await;
    let first = app.post(PATH).json(text("ana", "one")).await.expect(200);
    assert_eq!(first["conversation"]["assignment"], json!({"type": "AI_AGENT", "agentId": "echo"}));
    let conversation = format!("/api/v1/conversations/{}", first["conversationId"].as_str().unwrap());
    let hand_off = json!({"assignment": {"type": "HUMAN", "agentId": "bob"}});
    let ignored = app.patch(&conversation).json(hand_off.clone()).await;
    assert_eq!((ignored.status, ignored.header("x-ignored-fields")), (200, "assignment"));
    let refused = app.patch(format!("{conversation}?strict=true")).json(hand_off).await;
    assert_eq!(refused.faults(), ["unknown_field /assignment"]);
    // Nor does the channel lose its agent, or the conversation by another owner.
    let channel = app.patch("/api/v1/channels/demo-api").json(json!({"agentId": null})).await;
    assert_eq!(channel.faults(), ["required /agentId"]);
    app.patch(&conversation).json(json!({"ownerId": "bob"})).await.expect(200);
    let second = app.post(PATH).json(text("ana", "two")).await.expect(200);
    assert_eq!(second["conversation"]["assignment"], first["conversation"]["assignment"]);
    assert_eq!(history(&app, &second).await, ["user: one", "assistant: one", "user: two", "assistant: two"]);
}
