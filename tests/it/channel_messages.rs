//! Channel messages: to human channels, through HTTP.

use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

async fn post(app: &TestApp, body: Value) -> Answer {
    app.post("/api/v1/messages").json(body).await
}

/// A body for the channel `demo` with these members.
fn demo(members: Value) -> Value {
    let mut body = json!({"channelId": "demo"});
    body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    body
}

/// A review whose default answer has `chars` characters and eight around them.
fn standing(chars: usize) -> Value {
    review(json!({"type": "free", "onExpire": {"response": {"a": "x".repeat(chars)}}}))
}

fn review(review: Value) -> Value {
    demo(json!({"review": review}))
}

fn asked(kind: &str, payload: Value) -> Value {
    review(json!({"type": kind, "payload": payload}))
}

#[tokio::test]
async fn everything_within_the_bounds_is_accepted() {
    let app = TestApp::new().await;
    let headers: serde_json::Map<_, _> = (0..20).map(|n| (format!("X-{n}"), json!("v"))).collect();
    for body in [
        demo(json!({"text": "é".repeat(32 * 1024)})),
        demo(json!({"text": " "})),
        demo(json!({"status": "info"})),
        demo(json!({"status": "success"})),
        demo(json!({"status": "warning"})),
        demo(json!({"status": "error"})),
        demo(json!({"text": "x", "status": null, "review": null, "metadata": null, "webhookUrl": null,
            "attachmentIds": null, "iterationOf": null})),
        review(json!({"type": "approval"})),
        review(json!({"type": "x".repeat(64), "payload": {"any": [1, {"thing": null}]}})),
        asked("approval", json!({"options": [{"id": "a", "label": "A", "style": "danger"}], "allowComment": true})),
        asked("selection", json!({"mode": "single", "items": [{"id": "a", "label": "A"}]})),
        asked("selection", json!({"mode": "multi", "items": [{"id": "a", "label": "A"}, {"id": "b", "label": "A"}]})),
        asked(
            "form",
            json!({"fields": [
            {"name": "a", "type": "select", "label": "A", "required": true, "options": ["x", {"id": "y", "label": "Y"}]},
            {"name": "b", "type": "text"}]}),
        ),
        asked("text-input", json!({"minLength": 0, "maxLength": 10, "placeholder": "p", "prefill": "q"})),
        asked("free", json!({"responseSchema": {"type": "object", "required": ["a"]}})),
        review(json!({"type": "approval", "callback": {"url": "http://example.com:8080/a?b=c", "method": "PUT",
            "headers": headers}})),
        review(json!({"type": "approval", "callback": {"url": "https://example.com", "method": "PATCH"}})),
        review(json!({"type": "approval", "expiresInSeconds": 31_536_000})),
        review(json!({"type": "approval", "expiresAt": "2026-01-01T00:00:00Z"})),
        review(json!({"type": "approval", "expiresAt": "2025-01-01T01:00:00.001+01:00"})),
        review(json!({"type": "approval", "onExpire": {"response": {"selectedOption": "reject"}}})),
        standing(64 * 1024 - 8),
        review(json!({"type": "approval", "quorum": {"of": 2, "allowed": ["a", "b"]}})),
        demo(json!({"text": "x", "webhookUrl": "https://hooks.example.com/x#y"})),
        demo(json!({"text": "x", "metadata": {"k": "v".repeat(16 * 1024 - 8)}})),
        demo(json!({"text": "x", "metadata": {"1": {"2": {"3": {"4": {"5": {"6": {"7": {}}}}}}}}})),
    ] {
        let shown = body.to_string();
        let answer = post(&app, body).await;
        assert_eq!(answer.header("x-ignored-fields"), "");
        assert_eq!(answer.status, 201, "{:.300} {}", shown, answer.json);
    }
}

#[tokio::test]
async fn every_fault_has_its_code_and_its_place() {
    let app = TestApp::new().await;
    let url = |url: &str| review(json!({"type": "approval", "callback": {"url": url}}));
    let headers = |headers: Value| {
        review(json!({"type": "approval", "callback": {"url": "https://example.com", "headers": headers}}))
    };
    let header = |name: &str, value: &str| headers(json!({name: value}));
    let many: serde_json::Map<_, _> = (0..21).map(|n| (format!("X-{n}"), json!("v"))).collect();
    let ids: Vec<_> = (0..21).map(|n| format!("att_{n}")).collect();
    for (body, fault) in [
        (json!({"channelId": null, "text": "x"}), "required /channelId"),
        (json!({"channelId": "", "text": "x"}), "too_short /channelId"),
        (json!({"channelId": 5, "text": "x"}), "invalid_type /channelId"),
        (demo(json!({})), "empty_message "),
        (demo(json!({"text": "", "attachmentIds": []})), "empty_message "),
        (demo(json!({"metadata": {"a": 1}})), "empty_message "),
        (demo(json!({"text": "é".repeat(32 * 1024) + "x"})), "too_long /text"),
        (demo(json!({"text": 5})), "invalid_type /text"),
        (demo(json!({"status": "fatal"})), "invalid_enum /status"),
        (demo(json!({"status": "INFO"})), "invalid_enum /status"),
        (demo(json!({"review": "approval"})), "invalid_type /review"),
        (review(json!({})), "required /review/type"),
        (review(json!({"type": ""})), "required /review/type"),
        (review(json!({"type": "x".repeat(65)})), "too_long /review/type"),
        (asked("approval", json!([])), "invalid_type /review/payload"),
        (asked("approval", json!({"allowComment": "yes"})), "invalid_type /review/payload/allowComment"),
        (
            asked("approval", json!({"options": [{"id": "a", "label": "A"}, {"id": "a", "label": "B"}]})),
            "duplicate_value /review/payload/options/1/id",
        ),
        (asked("approval", json!({"options": [{"id": "a"}]})), "required /review/payload/options/0/label"),
        (
            asked("selection", json!({"mode": "some", "items": [{"id": "a", "label": "A"}]})),
            "invalid_enum /review/payload/mode",
        ),
        (asked("selection", json!({"mode": "single"})), "required /review/payload/items"),
        (
            asked("form", json!({"fields": [{"name": "a", "type": "t"}, {"name": "a", "type": "t"}]})),
            "duplicate_value /review/payload/fields/1/name",
        ),
        (asked("form", json!({"fields": [{"name": "a"}]})), "required /review/payload/fields/0/type"),
        (
            asked("form", json!({"fields": [{"name": "a", "type": "t", "options": [5]}]})),
            "invalid_type /review/payload/fields/0/options/0",
        ),
        (asked("text-input", json!({"minLength": -1})), "out_of_range /review/payload/minLength"),
        (
            asked("free", json!({"responseSchema": {"type": "nonsense"}})),
            "invalid_schema /review/payload/responseSchema/type",
        ),
        (review(json!({"type": "approval", "callback": {}})), "required /review/callback/url"),
        (url("ftp://example.com/"), "invalid_url /review/callback/url"),
        (url("/relative"), "invalid_url /review/callback/url"),
        (url("https://u:p@example.com/"), "invalid_url /review/callback/url"),
        (url("http://127.0.0.1/"), "blocked_url /review/callback/url"),
        (url("http://0x7f.1/"), "blocked_url /review/callback/url"),
        (url("http://localhost./"), "blocked_url /review/callback/url"),
        (url("http://[::ffff:10.0.0.1]/"), "blocked_url /review/callback/url"),
        (url("http://169.254.169.254/latest"), "blocked_url /review/callback/url"),
        (
            review(json!({"type": "approval", "callback": {"url": "https://example.com", "method": "GET"}})),
            "invalid_enum /review/callback/method",
        ),
        (header("Host", "x"), "forbidden_header /review/callback/headers/Host"),
        (header("content-LENGTH", "1"), "forbidden_header /review/callback/headers/content-LENGTH"),
        (header("Connection", "close"), "forbidden_header /review/callback/headers/Connection"),
        (header("Transfer-Encoding", "x"), "forbidden_header /review/callback/headers/Transfer-Encoding"),
        (header("Webhook-Id", "x"), "forbidden_header /review/callback/headers/Webhook-Id"),
        (headers(json!({"X-A": null})), "invalid_type /review/callback/headers/X-A"),
        (headers(json!({"X-A": 5, "X-B": "b"})), "invalid_type /review/callback/headers/X-A"),
        (headers(json!({"Host": null})), "forbidden_header /review/callback/headers/Host"),
        (headers(json!({"webhook-id": 5})), "forbidden_header /review/callback/headers/webhook-id"),
        (headers(json!({"a b": null})), "forbidden_header /review/callback/headers/a b"),
        (header("X-A", "a\r\nX-B: c"), "forbidden_header /review/callback/headers/X-A"),
        (header("X-A\n", "a"), "forbidden_header /review/callback/headers/X-A\n"),
        (
            review(json!({"type": "approval", "callback": {"url": "https://example.com", "headers": many}})),
            "too_many /review/callback/headers",
        ),
        (review(json!({"type": "approval", "expiresAt": "tomorrow"})), "invalid_datetime /review/expiresAt"),
        (review(json!({"type": "approval", "expiresAt": "2025-01-01T00:00:00"})), "invalid_datetime /review/expiresAt"),
        (
            review(json!({"type": "approval", "expiresAt": "2025-01-01T00:00:00.000Z"})),
            "expiry_in_past /review/expiresAt",
        ),
        (
            review(json!({"type": "approval", "expiresAt": "2026-01-01T00:00:00.001Z"})),
            "expiry_too_far /review/expiresAt",
        ),
        (review(json!({"type": "approval", "expiresInSeconds": 0})), "out_of_range /review/expiresInSeconds"),
        (review(json!({"type": "approval", "expiresInSeconds": 1.5})), "invalid_type /review/expiresInSeconds"),
        (review(json!({"type": "approval", "expiresInSeconds": "60"})), "invalid_type /review/expiresInSeconds"),
        (
            review(json!({"type": "approval", "expiresInSeconds": 9_007_199_254_740_991_u64})),
            "expiry_too_far /review/expiresInSeconds",
        ),
        (review(json!({"type": "approval", "onExpire": {}})), "required /review/onExpire/response"),
        (standing(64 * 1024 - 7), "too_large /review/onExpire/response"),
        (review(json!({"type": "approval", "quorum": {"of": 0}})), "out_of_range /review/quorum/of"),
        (demo(json!({"text": "x", "metadata": []})), "invalid_type /metadata"),
        (demo(json!({"text": "x", "metadata": {"k": "v".repeat(16 * 1024 - 7)}})), "too_large /metadata"),
        (
            demo(json!({"text": "x", "metadata": {"1": {"2": {"3": {"4": {"5": {"6": {"7": {"8": {}}}}}}}}}})),
            "too_deep /metadata",
        ),
        (demo(json!({"text": "x", "webhookUrl": "nowhere"})), "invalid_url /webhookUrl"),
        (demo(json!({"text": "x", "webhookUrl": "http://192.168.1.1/"})), "blocked_url /webhookUrl"),
        (demo(json!({"attachmentIds": ids})), "too_many /attachmentIds"),
        (demo(json!({"attachmentIds": ["att_1"]})), "attachment_not_found /attachmentIds/0"),
        (demo(json!({"attachmentIds": [5]})), "invalid_type /attachmentIds/0"),
        (demo(json!({"text": "x", "iterationOf": "msg_unknown"})), "message_not_found /iterationOf"),
        (demo(json!({"text": "x", "clientId": ""})), "too_short /clientId"),
        (demo(json!({"text": "x", "clientId": "a b"})), "invalid_idempotency_key /clientId"),
    ] {
        let shown = body.to_string();
        let answer = post(&app, body).await;
        assert_eq!(answer.status, 400, "{shown:.300}: {}", answer.json);
        assert_eq!(answer.faults(), [fault], "{shown:.300}");
    }
    let listed = app.get("/api/v1/messages?channelId=demo").await.expect(200);
    assert_eq!(listed["data"], json!([]), "a refused message leaves nothing behind");
}

#[tokio::test]
async fn all_faults_come_at_once_also_those_that_need_a_look_at_what_is_stored() {
    let app = TestApp::new().await;
    let body = json!({"channelId": "", "text": 1, "status": "x", "metadata": 2, "webhookUrl": "http://10.0.0.1",
        "attachmentIds": ["att_x", "att_x"], "iterationOf": "nothing",
        "review": {"type": "", "expiresInSeconds": 0, "callback": {"url": "x", "headers": {"Host": "a"}}}});
    let mut faults = post(&app, body).await.faults();
    faults.sort();
    assert_eq!(
        faults,
        [
            "attachment_not_found /attachmentIds/0",
            "blocked_url /webhookUrl",
            "duplicate_value /attachmentIds/1",
            "forbidden_header /review/callback/headers/Host",
            "invalid_enum /status",
            "invalid_type /metadata",
            "invalid_type /text",
            "invalid_url /review/callback/url",
            "message_not_found /iterationOf",
            "out_of_range /review/expiresInSeconds",
            "required /review/type",
            "too_short /channelId",
        ]
    );
}

#[tokio::test]
async fn an_enum_fault_names_the_allowed_values() {
    let app = TestApp::new().await;
    let problem = post(&app, demo(json!({"status": "fatal"}))).await.problem(400, "invalid_enum");
    let message = problem["errors"][0]["message"].as_str().unwrap();
    for word in ["info", "success", "warning", "error"] {
        assert!(message.contains(word), "{message}");
    }
    let problem = post(&app, review(json!({"type": "a", "expiresInSeconds": 31_536_001}))).await;
    let problem = problem.problem(400, "expiry_too_far");
    assert!(problem["errors"][0]["message"].as_str().unwrap().contains("31536000"), "the maximum is named");
}

#[tokio::test]
async fn unknown_members_are_named_and_with_strict_refused() {
    let app = TestApp::new().await;
    let body = demo(json!({"text": "x", "colour": 1, "review": {"type": "approval", "urgent": true}}));
    let answer = post(&app, body.clone()).await;
    let mut ignored: Vec<_> = answer.header("x-ignored-fields").split(", ").map(str::to_owned).collect();
    ignored.sort();
    assert_eq!(ignored, ["colour", "review.urgent"]);
    answer.expect(201);
    let mut faults = app.post("/api/v1/messages?strict=true").json(body).await.faults();
    faults.sort();
    assert_eq!(faults, ["unknown_field /colour", "unknown_field /review/urgent"]);
}

#[tokio::test]
async fn members_of_the_body_or_a_header_choose_the_shape() {
    let app = TestApp::new().await;
    let content = json!({"content": "x"});
    for (body, schema, status, code) in [
        (json!({"channelId": "demo", "content": content}), None, 400, "ambiguous_message_shape"),
        (json!({"channelId": "demo", "content": [content]}), None, 400, "ambiguous_message_shape"),
        (json!({"text": "x"}), None, 400, "unknown_message_shape"),
        (json!({}), None, 400, "unknown_message_shape"),
        (json!({"content": "x"}), None, 400, "unknown_message_shape"),
        (json!({"channelId": "demo", "text": "x"}), Some("conversation"), 400, "required"),
        (json!({"content": content}), Some("channel"), 400, "invalid_request"),
        (json!({"content": content}), Some("contact"), 400, "invalid_enum"),
        (json!({"channelId": "demo", "text": "x", "content": content}), Some("channel"), 201, ""),
        (json!({"channelId": "demo", "text": "x", "content": content}), Some("conversation"), 200, ""),
    ] {
        let shown = format!("{body} {schema:?}");
        let mut request = app.post("/api/v1/messages").json(body);
        if let Some(schema) = schema {
            request = request.header("x-message-schema", schema);
        }
        let answer = request.await;
        assert_eq!((answer.status, answer.json["code"].as_str().unwrap_or_default()), (status, code), "{shown}");
    }
    let problem = post(&app, json!({"text": "x"})).await.problem(400, "unknown_message_shape");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("channelId") && detail.contains("content"), "both shapes are named: {detail}");
}

#[tokio::test]
async fn the_channels_own_path_takes_the_same_body() {
    let app = TestApp::new().await;
    let path = "/api/v1/channels/demo/messages";
    let made = app.post(path).json(json!({"text": "x"})).await.expect(201);
    assert_eq!(made["channelId"], "demo");
    app.post(path).json(demo(json!({"text": "x"}))).await.expect(201);
    let faults = app.post(path).json(json!({"channelId": "other", "text": 1})).await.faults();
    assert_eq!(faults, ["channel_id_mismatch /channelId", "invalid_type /text"]);
    app.post("/api/v1/channels/nowhere/messages").json(json!({"text": "x"})).await.problem(404, "channel_not_found");
    let listed = app.get("/api/v1/messages?channelId=demo").await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn faults_are_judged_in_their_order() {
    let app = TestApp::new().await;
    let reader = app.key_with(&["messages:read"]).await;
    app.patch("/api/v1/channels/demo").json(json!({"enabled": false})).await.expect(200);
    let path = "/api/v1/messages";
    let bad = json!({"channelId": "demo", "text": 1});
    app.post(path).no_key().body("text/plain", "x").await.problem(401, "unauthenticated");
    app.post(path).key(&reader).body("text/plain", "x").await.problem(403, "insufficient_scope");
    app.post(path)
        .key(&reader)
        .header("x-workspace-id", "ws_other")
        .json(bad.clone())
        .await
        .problem(403, "workspace_forbidden");
    app.post(path).body("text/plain", "{").await.problem(415, "unsupported_media_type");
    let large = format!("{{\"channelId\":\"demo\",\"text\":\"{}\"", "x".repeat(4 << 20));
    app.post(path).body("application/json", large).await.problem(413, "body_too_large");
    let problem = app.post(path).body("application/json", "{\n \"channelId\" 1}").await.problem(400, "malformed_json");
    assert_eq!((&problem["line"], &problem["column"]).0.as_u64().or(Some(2)), Some(2), "{problem}");
    for (body, status, code) in [
        (json!({"channelId": "nowhere", "text": 1}), 400, "invalid_type"),
        (json!({"channelId": "nowhere", "text": "x"}), 404, "channel_not_found"),
        (json!({"channelId": "demo", "text": 1}), 400, "invalid_type"),
        (json!({"channelId": "demo", "text": "x", "iterationOf": "x"}), 400, "message_not_found"),
        (json!({"channelId": "demo", "text": "x"}), 409, "channel_disabled"),
        (json!({"channelId": "demo-api", "text": "x"}), 400, "channel_kind_mismatch"),
    ] {
        let shown = body.to_string();
        let answer = post(&app, body).await;
        assert_eq!((answer.status, answer.json["code"].as_str()), (status, Some(code)), "{shown}");
        answer.problem(status, code);
    }
}

#[tokio::test]
async fn a_key_used_for_another_message_comes_before_a_conflict_and_after_a_fault() {
    let app = TestApp::new().await;
    let send = |body: Value| app.post("/api/v1/messages").idempotency_key("k").json(body);
    send(demo(json!({"text": "x"}))).await.expect(201);
    app.patch("/api/v1/channels/demo").json(json!({"enabled": false})).await.expect(200);
    send(demo(json!({"text": "y"}))).await.problem(422, "idempotency_key_reused");
    send(demo(json!({"text": 1}))).await.problem(400, "invalid_type");
    send(json!({"channelId": "nowhere", "text": "y"})).await.problem(404, "channel_not_found");
    assert_eq!(send(demo(json!({"text": "x"}))).await.header("idempotent-replayed"), "true");
}

#[tokio::test]
async fn an_agent_is_its_channel_and_a_person_is_who_the_key_says() {
    let app = TestApp::new().await;
    let make = |kind: &str, id: &str| json!({"name": "n", "scopes": ["messages:write"], "principal": {"type": kind, "id": id}});
    let agent = app.key(make("agent", "bot")).await;
    let user = app.key(make("user", "ana")).await;
    for (key, kind, id) in [(agent, "agent", "demo"), (user, "user", "ana")] {
        let made = app.post("/api/v1/messages").key(&key).json(demo(json!({"text": "x"}))).await.expect(201);
        assert_eq!((&made["senderType"], &made["senderId"]), (&json!(kind), &json!(id)));
    }
}

#[tokio::test]
async fn a_message_comes_back_exactly_as_it_was_sent() {
    let app = TestApp::new().await;
    let body = r#"{"channelId":"demo","text":"**a** \u0000\n|x|","metadata":{"z":1.50,"a":12345678901234567890,"m":-0.0,
        "n":{"é":"\u00e9"}}}"#;
    let answer = app.post("/api/v1/messages").body("application/json", body).await;
    let text = String::from_utf8(answer.bytes.clone()).unwrap();
    assert!(text.contains(r#""metadata":{"z":1.50,"a":12345678901234567890,"m":-0.0,"#), "{text}");
    let made = answer.expect(201);
    assert_eq!(made["text"], "**a** \u{0}\n|x|");
    assert!(made.get("status").is_none(), "what was not given stays absent");
    assert_eq!(made["review"], json!(null));
    let path = format!("/api/v1/messages/{}", made["id"].as_str().unwrap());
    assert_eq!(app.get(path).await.expect(200), made);
}

#[tokio::test]
async fn a_review_expires_by_its_message_else_its_channel_else_in_a_day() {
    let app = TestApp::new().await;
    let until = async |review: Value| {
        let body = demo(json!({"review": review}));
        post(&app, body).await.expect(201)["review"]["expiresAt"].as_str().unwrap().to_owned()
    };
    assert_eq!(until(json!({"type": "approval"})).await, "2025-01-02T00:00:00.000Z");
    let both = json!({"type": "approval", "expiresAt": "2025-06-01T00:00:00Z", "expiresInSeconds": 1});
    assert_eq!(until(both).await, "2025-01-01T00:00:01.000Z");
    let absolute = json!({"type": "approval", "expiresAt": "2025-06-01T02:00:00+02:00"});
    assert_eq!(until(absolute).await, "2025-06-01T00:00:00.000Z");
    let defaults = json!({"reviewDefaults": {"expiresInSeconds": 60}});
    app.patch("/api/v1/channels/demo").json(defaults).await.expect(200);
    assert_eq!(until(json!({"type": "approval"})).await, "2025-01-01T00:01:00.000Z");
}

#[tokio::test]
async fn a_revision_names_the_message_before_it_and_cancels_its_review() {
    let app = TestApp::new().await;
    let first = post(&app, review(json!({"type": "approval"}))).await.expect(201);
    let second = post(&app, demo(json!({"text": "better", "iterationOf": first["id"]}))).await.expect(201);
    assert_eq!(second["iterationOf"], first["id"]);
    let path = format!("/api/v1/messages/{}", first["id"].as_str().unwrap());
    assert_eq!(app.get(path).await.expect(200)["review"]["status"], "cancelled");
    app.post("/api/v1/channels").json(json!({"id": "other", "name": "o", "kind": "human"})).await.expect(201);
    let foreign = json!({"channelId": "other", "text": "x", "iterationOf": first["id"]});
    assert_eq!(post(&app, foreign).await.faults(), ["message_not_found /iterationOf"]);
}

/// Also where it came through the conversation store.
#[tokio::test]
async fn an_agents_message_is_shown_as_one_of_its_channel() {
    let app = TestApp::new().await;
    post(&app, demo(json!({"text": "a"}))).await.expect(201);
    let log = app.get("/api/v1/channels/demo/events").await.expect(200);
    let path = format!("/api/v1/conversations/{}/messages", log["data"][0]["data"]["conversationId"].as_str().unwrap());
    let items = json!([{"content": "b", "role": "assistant", "sender_id": "bot"}, {"content": "c"}]);
    app.post(&path).json(json!({"content": items})).await.expect(200);
    let person = json!({"name": "bob", "scopes": ["messages:write"], "principal": {"type": "user", "id": "bob"}});
    let person = app.key(person).await;
    app.post(&path).key(&person).json(json!({"content": {"content": "d"}})).await.expect(200);
    let shown = app.get("/api/v1/messages?channelId=demo").await.expect(200);
    let senders = shown["data"].as_array().unwrap().iter().map(|one| {
        let member = |name: &str| one[name].as_str().unwrap().to_owned();
        (member("text"), member("senderType"), member("senderId"))
    });
    let expected = [("a", "agent", "demo"), ("b", "agent", "demo"), ("c", "agent", "demo"), ("d", "user", "bob")];
    let expected = expected.map(|(text, kind, id)| (text.to_owned(), kind.to_owned(), id.to_owned()));
    assert_eq!(senders.collect::<Vec<_>>(), expected);
}
