//! Small promises of every family of the API: the location of a created object, faults that are reported together, and
//! bodies of requests that need none.

use serde_json::{Value, json};

use crate::support::TestApp;

const MESSAGES: &str = "/api/v1/messages";

#[tokio::test]
async fn every_created_resource_answers_with_its_location() {
    let app = TestApp::new().await;
    let agent = json!({"name": "n", "provider": "builtin"});
    for (path, body) in [
        (MESSAGES, json!({"channelId": "demo", "text": "x"})),
        ("/api/v1/channels/demo/messages", json!({"text": "x"})),
        ("/api/v1/channels", json!({"name": "n", "kind": "human"})),
        ("/api/v1/agents", agent),
        ("/api/v1/webhook-endpoints", json!({"url": "https://example.com/hook"})),
        ("/api/v1/workspaces", json!({"name": "n"})),
        ("/api/v1/conversations", json!({})),
        ("/api/v1/contacts", json!({"identifier": "someone"})),
    ] {
        for _first_and_replayed in 0..2 {
            let made = app.post(path).idempotency_key(&path.replace('/', "-")).json(body.clone()).send().await;
            let location = made.header("location").to_owned();
            let made = made.expect(201);
            assert_eq!(app.get(&location).await.expect(200)["id"], made["id"], "{path}");
        }
    }
    let key = app.post("/api/v1/api-keys").json(json!({"name": "n", "scopes": ["admin"]})).send().await;
    app.delete(key.header("location")).await.expect(204);
}

#[tokio::test]
async fn faults_found_in_the_store_are_reported_with_the_others() {
    let app = TestApp::new().await;
    let elsewhere = app.post(MESSAGES).json(json!({"content": {"content": "x"}})).await.expect(200);
    let disabled = json!({"id": "off", "name": "n", "kind": "human", "enabled": false});
    app.post("/api/v1/channels").json(disabled).await.expect(201);
    let here = app.post(MESSAGES).json(json!({"channelId": "demo", "text": "x"})).await.expect(201);
    for (body, faults) in [
        (
            json!({"channelId": "demo-api", "text": "x", "status": "?"}),
            &["channel_kind_mismatch /channelId", "invalid_enum /status"][..],
        ),
        (
            json!({"channelId": "demo", "status": "?", "iterationOf": elsewhere[0]["id"]}),
            &["invalid_enum /status", "message_not_found /iterationOf"],
        ),
        (json!({"channelId": "off", "text": "x", "iterationOf": here["id"]}), &["message_not_found /iterationOf"]),
    ] {
        let mut found = app.post(MESSAGES).json(body.clone()).await.faults();
        found.sort();
        assert_eq!(found, faults, "{body}");
    }
    app.post(MESSAGES).json(json!({"channelId": "off", "text": "x"})).await.problem(409, "channel_disabled");
    let mut contact = json!({"type": "?", "contactIdentifier": "a", "content": {"text": {"body": "x"}}});
    let found = app.post("/api/v1/channels/demo/messages").json(contact.clone()).await.faults();
    assert!(found.contains(&"channel_kind_mismatch ".to_owned()) && found.len() > 1, "{found:?}");
    contact["type"] = json!("TEXT");
    app.post("/api/v1/channels/demo/messages").json(contact).await.problem(400, "channel_kind_mismatch");
}

#[tokio::test]
async fn data_that_is_wrong_comes_before_a_key_that_was_used() {
    let app = TestApp::new().await;
    let send = |body: Value| app.post(MESSAGES).idempotency_key("used").json(body).send();
    send(json!({"channelId": "demo", "text": "x"})).await.expect(201);
    let late = json!({"type": "approval", "expiresAt": "2020-01-01T00:00:00Z"});
    send(json!({"channelId": "demo", "text": "x", "review": late})).await.problem(400, "expiry_in_past");
    send(json!({"channelId": "demo", "iterationOf": "msg_1", "text": "x"})).await.problem(400, "message_not_found");
    let file = app.post("/api/v1/attachments").body("text/plain", "x").await.expect(201);
    let with_file = json!({"channelId": "demo", "attachmentIds": [file["id"]]});
    app.post(MESSAGES).json(with_file.clone()).await.expect(201);
    app.post(MESSAGES).json(with_file.clone()).await.problem(409, "attachment_already_linked");
    send(with_file).await.problem(422, "idempotency_key_reused");
    let opened = app.post("/api/v1/conversations").json(json!({})).await.expect(201);
    let turns = format!("/api/v1/conversations/{}/turns", opened["id"].as_str().unwrap());
    let start = |agent: &str| app.post(&turns).idempotency_key("turn").json(json!({"agentId": agent})).send();
    start("echo").await.expect(202);
    start("nobody").await.problem(400, "agent_not_found");
    let other = json!({"id": "other", "name": "o", "provider": "builtin"});
    app.post("/api/v1/agents").json(other).await.expect(201);
    start("other").await.problem(422, "idempotency_key_reused");
}

#[tokio::test]
async fn a_body_that_is_not_needed_is_read_all_the_same() {
    let app = TestApp::new().await;
    let asked = json!({"channelId": "demo", "text": "?", "review": {"type": "approval"}});
    let review = app.post(MESSAGES).json(asked).await.expect(201);
    let slow = json!({"id": "slow", "name": "n", "provider": "builtin", "builtin": {"latencyMs": 600_000}});
    app.post("/api/v1/agents").json(slow).await.expect(201);
    let said = app.post(MESSAGES).json(json!({"content": {"content": "x"}})).await.expect(200);
    let turns = format!("/api/v1/conversations/{}/turns", said[0]["conversation_id"].as_str().unwrap());
    let turn = app.post(turns).json(json!({"agentId": "slow"})).await.expect(202);
    for path in [
        format!("/api/v1/reviews/{}/cancel", review["id"].as_str().unwrap()),
        format!("/api/v1/turns/{}/cancel", turn["id"].as_str().unwrap()),
    ] {
        app.post(&path).body("application/json", "{bad").await.problem(400, "malformed_json");
        app.post(format!("{path}?strict=true")).json(json!({"why": 1})).await.problem(400, "unknown_field");
        let cancelled = app.post(&path).idempotency_key(&path[8..]).json(json!({"why": 1})).send().await;
        assert_eq!((cancelled.status, cancelled.header("x-ignored-fields")), (200, "why"), "{path}");
        let other = app.post(&path).idempotency_key(&path[8..]).json(json!({"why": 2}));
        other.await.problem(422, "idempotency_key_reused");
    }
}

#[tokio::test]
async fn an_import_may_predate_clocks_and_defaults_to_the_keys_principal() {
    let app = TestApp::new().await;
    let old = json!({"content": "x", "created_at": "1969-07-20T20:17:40.5Z", "sender_id": "", "message_type": ""});
    let said = app.post(MESSAGES).json(json!({"content": old})).await.expect(200);
    let path = format!("{MESSAGES}/{}", said[0]["id"].as_str().unwrap());
    for shown in [&said[0], &app.get(path).await.expect(200)] {
        let at = json!("1969-07-20T20:17:40.500Z");
        assert_eq!((&shown["created_at"], &shown["sent_at"]), (&at, &at));
        assert_eq!((&shown["sender_id"], &shown["message_type"]), (&json!("admin"), &json!("text")));
    }
}

#[tokio::test]
async fn null_in_an_edit_takes_away_what_a_member_holds() {
    let app = TestApp::new().await;
    let item = json!({"content": "x", "tags": ["a"], "meta_data": {"k": 1}});
    let said = app.post(MESSAGES).json(json!({"content": item})).await.expect(200);
    let path = format!("{MESSAGES}/{}", said[0]["id"].as_str().unwrap());
    let edited = app.patch(&path).json(json!({"tags": null, "meta_data": null})).await.expect(200);
    assert_eq!((&edited["tags"], &edited["meta_data"], &edited["content"]), (&Value::Null, &json!({}), &json!("x")));
    let page =
        app.get(format!("{MESSAGES}?conversationId={}&tag=a", said[0]["conversation_id"].as_str().unwrap())).await;
    assert_eq!(page.expect(200)["data"], json!([]));
    assert_eq!(app.patch(&path).json(json!({"tags": []})).await.expect(200)["tags"], json!([]));
    assert_eq!(app.patch(&path).json(json!({"tags": ["b"]})).await.expect(200)["tags"], json!(["b"]));
    assert_eq!(app.patch(&path).json(json!({"content": null})).await.faults(), ["required /content"]);
    let sent = json!({"channelId": "demo", "text": "x", "status": "info", "metadata": {"k": 1}});
    let sent = app.post(MESSAGES).json(sent).await.expect(201);
    let path = format!("{MESSAGES}/{}", sent["id"].as_str().unwrap());
    let edited = app.patch(&path).json(json!({"text": null, "metadata": null})).await.expect(200);
    assert_eq!((edited.get("text"), &edited["metadata"]), (None, &json!({})), "as of a message sent without a text");
    assert_eq!(app.get(&path).await.expect(200), edited);
    for text in ["", "y"] {
        assert_eq!(app.patch(&path).json(json!({"text": text})).await.expect(200)["text"], text);
    }
}

#[tokio::test]
async fn an_edit_that_would_leave_nothing_is_refused_at_the_member_that_was_sent() {
    let app = TestApp::new().await;
    let said = app.post(MESSAGES).json(json!({"content": {"content": "x"}})).await.expect(200);
    let path = format!("{MESSAGES}/{}", said[0]["id"].as_str().unwrap());
    for name in ["text", "content"] {
        for nothing in [json!(""), Value::Null] {
            let refused = app.patch(&path).json(json!({name: nothing})).await;
            assert_eq!(refused.faults(), [format!("required /{name}")], "{nothing}");
        }
    }
    let both = app.patch(&path).json(json!({"text": "y", "content": ""})).await;
    assert_eq!(both.faults(), ["required /content"], "the message's own name comes first");
}

#[tokio::test]
async fn an_edit_with_the_values_that_a_message_has_changes_nothing() {
    let app = TestApp::new().await;
    let call = json!({"content": {"content": "", "role": "assistant", "tool_calls": [{"id": "1"}]}});
    let labelled = json!({"content": {"content": "a", "tags": ["t"], "meta_data": {"k": 1}}});
    for (body, edits) in [
        (json!({"channelId": "demo", "status": "info"}), vec![json!({"text": null}), json!({"tags": null})]),
        (
            json!({"channelId": "demo", "text": "a", "metadata": {"k": 1}}),
            vec![json!({"text": "a"}), json!({"metadata": {"k": 1}}), json!({"text": "a", "tags": null}), json!({})],
        ),
        (labelled, vec![json!({"content": "a"}), json!({"meta_data": {"k": 1}}), json!({"tags": ["t"]})]),
        (call, vec![json!({"content": ""}), json!({"content": null}), json!({"meta_data": null, "tags": null})]),
    ] {
        let made = app.post(MESSAGES).json(body).await.json;
        let message = made.get(0).unwrap_or(&made);
        let log = match message["conversation_id"].as_str() {
            Some(conversation) => format!("/api/v1/conversations/{conversation}/events"),
            None => "/api/v1/channels/demo/events".to_owned(),
        };
        let path = format!("{MESSAGES}/{}", message["id"].as_str().unwrap());
        let before = app.get(&path).await;
        let known = app.get(&log).await.expect(200);
        for edit in edits {
            app.clock.advance(1_000);
            let edited = app.patch(&path).json(edit.clone()).await;
            assert_eq!((edited.status, edited.header("etag")), (200, before.header("etag")), "{edit}");
            assert_eq!(edited.json, before.json, "{edit}");
            assert_eq!(app.get(&path).await.expect(200), before.json, "{edit}");
            assert_eq!(app.get(&log).await.expect(200), known, "{edit}");
        }
    }
}
