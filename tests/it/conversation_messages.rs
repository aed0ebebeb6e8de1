//! Conversation messages and the conversations themselves, through HTTP.

use actors::id::MessageId;
use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

async fn post(app: &TestApp, body: Value) -> Answer {
    app.post("/api/v1/messages").json(body).await
}

fn item(members: Value) -> Value {
    let mut content = json!({"content": "x"});
    content.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    json!({"content": content})
}

async fn opened(app: &TestApp) -> String {
    let made = app.post("/api/v1/conversations").json(json!({})).await.expect(201);
    made["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn everything_within_the_bounds_is_accepted() {
    let app = TestApp::new().await;
    let tags: Vec<_> = (0..32).map(|n| format!("{n:064}")).collect();
    let hundred: Vec<_> = (0..100).map(|n| json!({"content": n.to_string()})).collect();
    for body in [
        item(json!({"content": "x".repeat(256 * 1024)})),
        item(json!({"content": "", "tool_calls": [{"id": "c"}]})),
        item(json!({"content": "", "attachments": [{"url": "x"}]})),
        item(json!({"content": null, "tool_calls": [{}]})),
        item(json!({"sender_id": "é".repeat(255)})),
        item(json!({"created_at": "2025-01-01T00:05:00.000Z"})),
        item(json!({"created_at": "1970-01-01T00:00:00+00:00"})),
        item(json!({"role": "user"})),
        item(json!({"role": "assistant"})),
        item(json!({"role": "system"})),
        item(json!({"role": "tool"})),
        item(json!({"role": "developer"})),
        item(json!({"role": "z".repeat(32)})),
        item(json!({"message_type": "é".repeat(64)})),
        item(json!({"tool_calls": []})),
        item(json!({"tool_calls": [{}, {"function": {"name": "f"}}], "role": "user"})),
        item(json!({"tags": tags})),
        item(json!({"tags": []})),
        item(json!({"meta_data": {"k": "v".repeat(16 * 1024 - 8)}})),
        item(json!({"attachments": [{"any": "thing"}]})),
        item(json!({"sender_id": null, "created_at": null, "role": null, "message_type": null, "tool_calls": null,
            "parent_message_id": null, "tags": null, "meta_data": null, "attachments": null})),
        json!({"content": hundred}),
        json!({"content": [{"content": "x"}], "enable_memories": true}),
    ] {
        let answer = post(&app, body.clone()).await;
        assert_eq!(answer.header("x-ignored-fields"), "");
        assert_eq!(answer.status, 200, "{:.300} {:.300}", body.to_string(), answer.json.to_string());
    }
}

#[tokio::test]
async fn every_fault_has_its_code_and_its_place() {
    let app = TestApp::new().await;
    let many: Vec<_> = (0..101).map(|_| json!({"content": "x"})).collect();
    let tags: Vec<_> = (0..33).map(|n| n.to_string()).collect();
    for (body, fault) in [
        (json!({"content": []}), "empty_batch /content"),
        (json!({"content": many}), "batch_too_large /content"),
        (json!({"content": [{"content": "x"}, 5]}), "invalid_type /content/1"),
        (json!({"content": {}}), "required /content/content"),
        (item(json!({"content": ""})), "required /content/content"),
        (item(json!({"content": null})), "required /content/content"),
        (item(json!({"content": "", "tool_calls": []})), "required /content/content"),
        (item(json!({"content": 5})), "invalid_type /content/content"),
        (item(json!({"content": "x".repeat(256 * 1024 + 1)})), "too_long /content/content"),
        (item(json!({"sender_id": "é".repeat(256)})), "too_long /content/sender_id"),
        (item(json!({"created_at": "yesterday"})), "invalid_datetime /content/created_at"),
        (item(json!({"created_at": "2025-01-01T00:05:00.001Z"})), "invalid_datetime /content/created_at"),
        (item(json!({"role": "User"})), "invalid_role /content/role"),
        (item(json!({"role": ""})), "invalid_role /content/role"),
        (item(json!({"role": "z".repeat(33)})), "invalid_role /content/role"),
        (item(json!({"message_type": "é".repeat(65)})), "too_long /content/message_type"),
        (item(json!({"tool_calls": {}})), "invalid_type /content/tool_calls"),
        (item(json!({"tool_calls": ["f"]})), "invalid_type /content/tool_calls/0"),
        (item(json!({"parent_message_id": "msg_nothing"})), "parent_not_found /content/parent_message_id"),
        (item(json!({"parent_message_id": "#0"})), "parent_not_found /content/parent_message_id"),
        (item(json!({"tags": tags})), "too_many /content/tags"),
        (item(json!({"tags": ["é".repeat(65)]})), "too_long /content/tags/0"),
        (item(json!({"tags": "a"})), "invalid_type /content/tags"),
        (item(json!({"meta_data": []})), "invalid_type /content/meta_data"),
        (item(json!({"meta_data": {"k": "v".repeat(16 * 1024 - 7)}})), "too_large /content/meta_data"),
        (item(json!({"attachments": ["x"]})), "invalid_type /content/attachments/0"),
        (item(json!({"attachments": [{"id": "att_1"}]})), "attachment_not_found /content/attachments/0/id"),
        (json!({"content": {"content": "x"}, "enable_memories": "yes"}), "invalid_type /enable_memories"),
        (json!({"content": {"content": "x"}, "conversation_id": 5}), "invalid_type /conversation_id"),
        (
            json!({"content": [{"content": "x"}, {"content": "x"}, {"content": "x"}, {"content": "x", "role": "!"}]}),
            "invalid_role /content/3/role",
        ),
        (
            json!({"content": [{"content": "x", "parent_message_id": "#1"}, {"content": "x"}]}),
            "parent_not_found /content/0/parent_message_id",
        ),
        (
            json!({"content": [{"content": "x"}, {"content": "x", "parent_message_id": "#00"}]}),
            "parent_not_found /content/1/parent_message_id",
        ),
        (
            json!({"content": [{"content": "x"}, {"content": "x", "parent_message_id": "#1"}]}),
            "parent_not_found /content/1/parent_message_id",
        ),
    ] {
        let answer = post(&app, body.clone()).await;
        assert_eq!(answer.status, 400, "{:.300} {:.300}", body.to_string(), answer.json.to_string());
        assert_eq!(answer.faults(), [fault], "{:.300}", body.to_string());
    }
    assert_eq!(app.get("/api/v1/conversations").await.expect(200)["data"], json!([]), "nothing was stored");
}

#[tokio::test]
async fn all_faults_of_a_batch_come_at_once() {
    let app = TestApp::new().await;
    let body = json!({"content": [{"content": "", "role": "X"}, {"content": "ok", "tags": [""]}, 1],
        "enable_memories": 1});
    let mut faults = post(&app, body).await.faults();
    faults.sort();
    let expected = [
        "invalid_role /content/0/role",
        "invalid_type /content/2",
        "invalid_type /enable_memories",
        "required /content/0/content",
        "too_short /content/1/tags/0",
    ];
    assert_eq!(faults, expected);
}

#[tokio::test]
async fn a_batch_is_one_answer_in_its_own_order_with_its_own_parents() {
    let app = TestApp::new().await;
    let batch = json!({"content": [
        {"content": "ok", "created_at": "2024-12-31T00:00:00Z"},
        {"content": "ok", "created_at": "2020-01-01T00:00:00Z", "parent_message_id": "#0"},
        {"content": "ok", "parent_message_id": "#0"}, {"content": "ok", "parent_message_id": "#2"}]});
    let made = post(&app, batch).await.expect(200);
    let ids: Vec<_> = made.as_array().unwrap().iter().map(|m| m["id"].clone()).collect();
    assert_eq!(ids.len(), 4);
    let parents: Vec<_> = made.as_array().unwrap().iter().map(|m| m["parent_message_id"].clone()).collect();
    assert_eq!(parents, [json!(null), ids[0].clone(), ids[0].clone(), ids[2].clone()]);
    let path = format!("/api/v1/conversations/{}/messages", made[0]["conversation_id"].as_str().unwrap());
    let listed = app.get(path).await.expect(200);
    assert_eq!(listed["data"], made, "equal messages stay apart, and imported times do not change the order");
    assert_eq!(made[1]["created_at"], "2020-01-01T00:00:00.000Z");
}

#[tokio::test]
async fn one_bad_item_refuses_the_whole_batch() {
    let app = TestApp::new().await;
    let id = opened(&app).await;
    let foreign = post(&app, item(json!({}))).await.expect(200)[0]["id"].clone();
    let body =
        json!({"conversation_id": id, "content": [{"content": "a"}, {"content": "b", "parent_message_id": foreign}]});
    assert_eq!(post(&app, body).await.faults(), ["parent_not_found /content/1/parent_message_id"]);
    let listed = app.get(format!("/api/v1/conversations/{id}/messages")).await.expect(200);
    assert_eq!(listed["data"], json!([]));
}

#[tokio::test]
async fn tags_are_trimmed_and_unique_in_their_order() {
    let app = TestApp::new().await;
    let made = post(&app, item(json!({"tags": [" b ", "a", "b", "a", "B"]}))).await.expect(200);
    assert_eq!(made[0]["tags"], json!(["b", "a", "B"]));
}

#[tokio::test]
async fn tags_are_counted_once_equal_ones_are_merged() {
    let app = TestApp::new().await;
    let tags =
        |different: usize, given: usize| -> Vec<_> { (0..given).map(|n| format!(" {} ", n % different)).collect() };
    let made = post(&app, item(json!({"tags": tags(32, 128)}))).await.expect(200);
    assert_eq!(made[0]["tags"].as_array().unwrap().len(), 32);
    let path = format!("/api/v1/messages/{}", made[0]["id"].as_str().unwrap());
    app.patch(&path).json(json!({"tags": tags(32, 33)})).await.expect(200);
    for (different, given) in [(33, 33), (33, 40), (1, 129)] {
        let refused = post(&app, item(json!({"tags": tags(different, given)}))).await;
        assert_eq!(refused.faults(), ["too_many /content/tags"], "{different} of {given}");
    }
}

#[tokio::test]
async fn a_sender_is_the_principal_unless_it_is_named() {
    let app = TestApp::new().await;
    let principal = json!({"name": "n", "scopes": ["messages:write"], "principal": {"type": "user", "id": "ana"}});
    let key = app.key(principal).await;
    let send = |body: Value| app.post("/api/v1/messages").key(&key).json(body);
    assert_eq!(send(item(json!({}))).await.expect(200)[0]["sender_id"], "ana");
    assert_eq!(send(item(json!({"sender_id": "bob"}))).await.expect(200)[0]["sender_id"], "bob");
    for nobody in ["", " \t"] {
        let said = send(item(json!({"sender_id": nobody, "message_type": nobody}))).await.expect(200);
        assert_eq!((&said[0]["sender_id"], &said[0]["message_type"]), (&json!("ana"), &json!("text")), "{nobody:?}");
    }
}

#[tokio::test]
async fn an_assistant_without_a_name_is_the_agent_of_the_conversation() {
    let app = TestApp::new().await;
    let body = json!({"type": "TEXT", "contactIdentifier": "a", "content": {"text": {"body": "x"}}});
    let made = app.post("/api/v1/channels/demo-api/messages").json(body).await.expect(200);
    let path = format!("/api/v1/conversations/{}/messages", made["conversationId"].as_str().unwrap());
    let content = json!([
        {"content": "x", "role": "assistant"},
        {"content": "x", "role": "assistant", "sender_id": "bob"},
        {"content": "x"},
    ]);
    let said = app.post(&path).json(json!({"content": content})).await.expect(200);
    assert_eq!([&said[0]["sender_id"], &said[1]["sender_id"], &said[2]["sender_id"]], ["echo", "bob", "admin"]);
    let alone = post(&app, json!({"content": {"content": "x", "role": "assistant"}})).await.expect(200);
    assert_eq!(alone[0]["sender_id"], "admin");
}

#[tokio::test]
async fn the_checksum_is_what_a_client_computes_and_the_etag_of_the_message() {
    use sha2::{Digest, Sha256};
    let app = TestApp::new().await;
    let body = item(
        json!({"content": "é\n\"", "tool_calls": [{"b": 1.0, "a": [1e2, null]}], "attachments": [{"z": 1, "a": "\u{20ac}"}]}),
    );
    let made = post(&app, body).await.expect(200)[0].clone();
    // These names and values already are in the canonical order and form.
    let canonical = format!(
        r#"{{"attachments":[{{"a":"€","z":1}}],"content":"é\n\"","message_type":"text","parent_message_id":null,"role":"user","sender_id":{},"tool_calls":[{{"a":[100,null],"b":1}}]}}"#,
        made["sender_id"]
    );
    let hex: String = Sha256::digest(canonical).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(made["checksum"], format!("sha256:{hex}"));
    let answer = app.get(format!("/api/v1/messages/{}", made["id"].as_str().unwrap())).await;
    assert_eq!(answer.header("etag"), format!("\"sha256:{hex}\""));
    assert_eq!(answer.expect(200), made);
}

#[tokio::test]
async fn faults_are_judged_in_their_order() {
    let app = TestApp::new().await;
    let id = opened(&app).await;
    let message = post(&app, json!({"conversation_id": id, "content": {"content": "x"}})).await.expect(200);
    let foreign = post(&app, item(json!({}))).await.expect(200)[0]["id"].clone();
    let keyed = |body: Value| app.post("/api/v1/messages").idempotency_key("k").json(body);
    keyed(json!({"conversation_id": id, "content": {"content": "x"}})).await.expect(200);
    let path = format!("/api/v1/conversations/{id}");
    app.patch(&path).json(json!({"status": "closed"})).await.expect(200);
    let to = |id: &str, members: Value| {
        let mut body = item(members);
        body["conversation_id"] = json!(id);
        body
    };
    let unknown = format!("{}x", &id[..id.len() - 1]);
    for (body, status, code) in [
        (to("conv_unknown", json!({"role": "!"})), 400, "invalid_role"),
        (to("conv_unknown", json!({})), 404, "conversation_not_found"),
        (to(&unknown, json!({})), 404, "conversation_not_found"),
        (to("", json!({})), 404, "conversation_not_found"),
        (to(&id, json!({"role": "!"})), 400, "invalid_role"),
        (to(&id, json!({"parent_message_id": foreign})), 400, "parent_not_found"),
        (to(&id, json!({})), 409, "conversation_closed"),
    ] {
        let answer = post(&app, body.clone()).await;
        assert_eq!((answer.status, answer.json["code"].as_str()), (status, Some(code)), "{body}");
        answer.problem(status, code);
    }
    keyed(to(&id, json!({"content": "y"}))).await.problem(422, "idempotency_key_reused");
    let replay = keyed(json!({"conversation_id": id, "content": {"content": "x"}})).await;
    assert_eq!((replay.status, replay.header("idempotent-replayed")), (200, "true"));
    app.patch(&path).json(json!({"status": "open"})).await.expect(200);
    post(&app, to(&id, json!({"parent_message_id": message[0]["id"]}))).await.expect(200);
}

#[tokio::test]
async fn a_parent_that_does_not_exist_is_named_among_other_faults() {
    let app = TestApp::new().await;
    let id = opened(&app).await;
    let parent = post(&app, json!({"conversation_id": id, "content": {"content": "x"}})).await.expect(200);
    let parent = MessageId::parse(parent[0]["id"].as_str().unwrap()).unwrap();
    let answering = |parent: MessageId| json!({"content": "x", "parent_message_id": parent.to_string()});
    let items = [
        json!(5),
        answering(parent),
        answering(MessageId { number: 99, ..parent }),
        answering(MessageId { at: parent.at.plus(1), ..parent }),
    ];
    assert_eq!(
        post(&app, json!({"conversation_id": id, "content": items})).await.faults(),
        [
            "invalid_type /content/0",
            "parent_not_found /content/2/parent_message_id",
            "parent_not_found /content/3/parent_message_id",
        ]
    );
}

#[tokio::test]
async fn the_conversations_own_path_takes_the_same_body() {
    let app = TestApp::new().await;
    let id = opened(&app).await;
    let path = format!("/api/v1/conversations/{id}/messages");
    let made = app.post(&path).json(item(json!({}))).await.expect(200);
    assert_eq!(made[0]["conversation_id"], id.as_str());
    let mut body = item(json!({}));
    body["conversation_id"] = json!(id);
    app.post(&path).json(body.clone()).await.expect(200);
    body["conversation_id"] = json!(null);
    app.post(&path).json(body.clone()).await.expect(200);
    body["conversation_id"] = json!("conv_other");
    assert_eq!(app.post(&path).json(body).await.faults(), ["conversation_id_mismatch /conversation_id"]);
    assert_eq!(app.post(&path).json(json!({"text": "x"})).await.faults(), ["required /content"]);
    app.post("/api/v1/conversations/conv_x/messages")
        .json(item(json!({})))
        .await
        .problem(404, "conversation_not_found");
    assert_eq!(app.get(&path).await.expect(200)["data"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn unknown_members_are_named_and_with_strict_refused() {
    let app = TestApp::new().await;
    let body = json!({"content": [{"content": "x"}, {"content": "x", "lang": "en"}], "stream": true});
    let answer = post(&app, body.clone()).await;
    let mut ignored: Vec<_> = answer.header("x-ignored-fields").split(", ").collect();
    ignored.sort_unstable();
    assert_eq!(ignored, ["content.1.lang", "stream"]);
    assert_eq!(answer.status, 200);
    let mut faults = app.post("/api/v1/messages?strict=true").json(body).await.faults();
    faults.sort();
    assert_eq!(faults, ["unknown_field /content/1/lang", "unknown_field /stream"]);
}

#[tokio::test]
async fn a_conversation_is_made_read_and_changed() {
    let app = TestApp::new().await;
    assert_eq!(app.post("/api/v1/conversations").await.expect(201)["title"], Value::Null);
    let open = app.post("/api/v1/conversations").json(json!({"status": "open", "metadata": null})).await;
    assert_eq!((open.header("x-ignored-fields"), &open.json["status"]), ("", &json!("open")));
    assert_eq!(open.json["metadata"], Value::Null);
    for status in ["closed", "x"] {
        let wrong = app.post("/api/v1/conversations").json(json!({"status": status})).await;
        assert_eq!(wrong.faults(), ["invalid_enum /status"], "what begins is open");
    }
    let body = json!({"title": "T", "summary": "S", "metadata": {"a": 1.50}, "ownerId": "ana"});
    let answer = app.post("/api/v1/conversations").json(body).await;
    let location = answer.header("location").to_owned();
    let made = answer.expect(201);
    assert_eq!(location, format!("/api/v1/conversations/{}", made["id"].as_str().unwrap()));
    let at = "2025-01-01T00:00:00.000Z";
    assert_eq!(
        made,
        json!({"id": made["id"], "title": "T", "status": "open", "summary": "S", "metadata": {"a": 1.5},
            "ownerId": "ana", "channelId": null, "contactId": null, "forkedFrom": null, "createdAt": at, "updatedAt": at,
            "lastMessageAt": null, "messageCount": 0})
    );
    assert_eq!(app.get(&location).await.expect(200), made);
    app.clock.advance(1_000);
    let posted = app.post(format!("{location}/messages")).json(item(json!({}))).await.expect(200);
    assert_eq!(posted[0]["owner_id"], "ana");
    let change = json!({"title": null, "metadata": null, "status": "closed"});
    let patched = app.patch(&location).json(change).await.expect(200);
    assert_eq!(
        (&patched["title"], &patched["metadata"], &patched["status"], &patched["summary"]),
        (&json!(null), &json!(null), &json!("closed"), &json!("S"))
    );
    assert_eq!((&patched["messageCount"], &patched["lastMessageAt"]), (&json!(1), &json!("2025-01-01T00:00:01.000Z")));
    assert_eq!(app.get(&location).await.expect(200), patched);
    let mut faults =
        app.patch(&location).json(json!({"status": "paused", "title": "é".repeat(256), "metadata": []})).await.faults();
    faults.sort();
    assert_eq!(faults, ["invalid_enum /status", "invalid_type /metadata", "too_long /title"]);
    for path in ["/api/v1/conversations/conv_x", "/api/v1/conversations/x"] {
        app.get(path).await.problem(404, "conversation_not_found");
        app.patch(path).json(json!({})).await.problem(404, "conversation_not_found");
    }
}
