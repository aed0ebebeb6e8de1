//! Contact messages: to api channels, through HTTP. Tokio's clock is paused, so a slow agent costs a test no time; a
//! test moves the clock where it needs to.

use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

mod reopened;

const PATH: &str = "/api/v1/channels/demo-api/messages";

fn text(words: &str) -> Value {
    json!({"type": "TEXT", "contactIdentifier": "a@example.com", "content": {"text": {"body": words}}})
}

fn with(name: &str, value: Value) -> Value {
    let mut body = text("x");
    body[name] = value;
    body
}

fn media(kind: &str, member: &str, content: Value) -> Value {
    json!({"type": kind, "contactIdentifier": "a", "content": {member: content}})
}

async fn post(app: &TestApp, body: Value) -> Answer {
    app.post(PATH).json(body).await
}

fn said(answer: &Value) -> Vec<&str> {
    answer["aiMessages"].as_array().unwrap().iter().map(|m| m["content"]["text"]["body"].as_str().unwrap()).collect()
}

/// The messages of a conversation as `role: text`.
async fn history(app: &TestApp, conversation: &Value) -> Vec<String> {
    let path = format!("/api/v1/conversations/{}/messages", conversation.as_str().unwrap());
    let page = app.get(path).await.expect(200);
    let shown = |m: &Value| format!("{}: {}", m["role"].as_str().unwrap(), m["content"].as_str().unwrap());
    page["data"].as_array().unwrap().iter().map(shown).collect()
}

async fn set_status(app: &TestApp, conversation: &Value, status: &str) {
    let path = format!("/api/v1/conversations/{}", conversation.as_str().unwrap());
    app.patch(path).json(json!({"status": status})).await.expect(200);
}

#[tokio::test]
async fn a_conversation_began_when_it_did_in_every_answer() {
    let app = TestApp::new().await;
    let write = |n: usize, text: &str| {
        let body = json!({"type": "TEXT", "contactIdentifier": format!("c{n}"), "content": {"text": {"body": text}}});
        app.post("/api/v1/channels/demo-api/messages").json(body).send()
    };
    let mut began = Vec::new();
    for n in 0..20 {
        let conversation = write(n, "first").await.expect(200)["conversation"].clone();
        assert_eq!(conversation["createdAt"], "2025-01-01T00:00:00.000Z", "no time has gone by");
        began.push(conversation["id"].as_str().unwrap().to_owned());
    }
    app.clock.advance(5_000);
    for (n, id) in began.iter().enumerate() {
        let conversation = write(n, "second").await.expect(200)["conversation"].clone();
        let read = app.get(format!("/api/v1/conversations/{id}")).await.expect(200);
        for shown in [&conversation, &read] {
            assert_eq!(shown["createdAt"], "2025-01-01T00:00:00.000Z");
        }
    }
}

#[tokio::test]
async fn every_fault_has_its_code_pointer_and_success_false() {
    let app = TestApp::new().await;
    let url = |url: &str| media("IMAGE", "image", json!({"url": url}));
    for (body, faults) in [
        (json!({}), vec!["required /content", "required /contactIdentifier", "required /type"]),
        (with("type", json!("text")), vec!["invalid_enum /type"]),
        (with("type", json!(null)), vec!["required /type"]),
        (with("contactIdentifier", json!(" \t ")), vec!["required /contactIdentifier"]),
        (with("contactIdentifier", json!("é".repeat(256))), vec!["too_long /contactIdentifier"]),
        (with("contactIdentifier", json!(5)), vec!["invalid_type /contactIdentifier"]),
        (with("contactName", json!("é".repeat(256))), vec!["too_long /contactName"]),
        (with("content", json!("x")), vec!["invalid_type /content"]),
        (with("content", json!({})), vec!["content_type_mismatch /content"]),
        (with("content", json!({"text": null})), vec!["content_type_mismatch /content"]),
        (with("content", json!({"text": "x"})), vec!["invalid_type /content/text"]),
        (with("content", json!({"text": {}})), vec!["required /content/text/body"]),
        (with("content", json!({"text": {"body": " \n\u{a0}"}})), vec!["required /content/text/body"]),
        (with("content", json!({"text": {"body": ""}})), vec!["required /content/text/body"]),
        (with("content", json!({"text": {"body": "x".repeat(65_537)}})), vec!["too_long /content/text/body"]),
        (with("type", json!("IMAGE")), vec!["content_type_mismatch /content/text"]),
        (
            with("content", json!({"text": {"body": "x"}, "image": {"url": "https://example.com/a"}})),
            vec!["content_type_mismatch /content/image"],
        ),
        (media("IMAGE", "image", json!({})), vec!["required /content/image/url"]),
        (url("example.com/a.jpg"), vec!["invalid_url /content/image/url"]),
        (url("data:image/png;base64,AA"), vec!["invalid_url /content/image/url"]),
        (url("http://127.0.0.1/a"), vec!["blocked_url /content/image/url"]),
        (url("http://[::1]/a"), vec!["blocked_url /content/image/url"]),
        (url("http://2130706433/a"), vec!["blocked_url /content/image/url"]),
        (
            media("VIDEO", "video", json!({"url": "https://example.com/v", "caption": "é".repeat(1_025)})),
            vec!["too_long /content/video/caption"],
        ),
        (
            media("DOCUMENT", "document", json!({"url": "https://example.com/d", "filename": "x".repeat(256)})),
            vec!["too_long /content/document/filename"],
        ),
    ] {
        let answer = post(&app, body.clone()).await;
        assert_eq!(answer.json["success"], false, "{body:.200}");
        let mut found = answer.faults();
        found.sort();
        let mut faults = faults;
        faults.sort_unstable();
        assert_eq!(found, faults, "{body:.200}");
    }
    assert_eq!(app.get("/api/v1/contacts").await.expect(200)["data"], json!([]), "nothing was stored");
}

#[tokio::test]
async fn everything_within_the_bounds_is_accepted() {
    let app = TestApp::new().await;
    for body in [
        with("contactIdentifier", json!("é".repeat(255))),
        with("contactIdentifier", json!(format!("  {}  ", "x".repeat(255)))),
        with("contactName", json!("é".repeat(255))),
        with("contactName", json!(null)),
        text(&"x".repeat(65_536)),
        text(" x "),
        json!({"type": "TEXT", "contactIdentifier": "a", "content": {"text": {"body": "x"}, "image": null}}),
    ] {
        let answer = post(&app, body.clone()).await;
        assert_eq!(answer.status, 200, "{body:.200} {}", answer.json);
    }
    assert_eq!(said(&post(&app, text(" x ")).await.expect(200)), [" x "], "a text is kept as it is");
}

#[tokio::test]
async fn unknown_members_are_named_and_with_strict_refused() {
    let app = TestApp::new().await;
    let mut body = text("x");
    body["clientId"] = json!("c");
    body["content"]["text"]["lang"] = json!("en");
    let answer = post(&app, body.clone()).await;
    assert_eq!(answer.status, 200);
    let mut ignored: Vec<_> = answer.header("x-ignored-fields").split(", ").collect();
    ignored.sort_unstable();
    assert_eq!(ignored, ["clientId", "content.text.lang"]);
    let mut faults = app.post(format!("{PATH}?strict=true")).json(body).await.faults();
    faults.sort();
    assert_eq!(faults, ["unknown_field /clientId", "unknown_field /content/text/lang"]);
}

#[tokio::test]
async fn faults_are_judged_in_order_and_every_problem_has_success_false() {
    let app = TestApp::new().await;
    let reader = app.key_with(&["messages:read"]).await;
    let unknown = "/api/v1/channels/nowhere/messages";
    let bad = with("type", json!("X"));
    let mut answers = vec![
        (401, "unauthenticated", app.post(PATH).no_key().body("text/plain", "x").await),
        (403, "insufficient_scope", app.post(PATH).key(&reader).body("text/plain", "x").await),
        (415, "unsupported_media_type", app.post(unknown).body("text/plain", "x").await),
        (413, "body_too_large", app.post(unknown).body("application/json", "x".repeat((4 << 20) + 1)).await),
        (400, "malformed_json", app.post(unknown).body("application/json", "{").await),
        (400, "invalid_enum", app.post(unknown).json(bad.clone()).await),
        (404, "channel_not_found", app.post(unknown).json(text("x")).await),
    ];
    let key = |body: Value| app.post(PATH).idempotency_key("k").json(body);
    key(text("x")).await.expect(200);
    app.patch("/api/v1/channels/demo-api").json(json!({"enabled": false})).await.expect(200);
    answers.push((400, "invalid_enum", key(bad).await));
    answers.push((422, "idempotency_key_reused", key(text("y")).await));
    answers.push((409, "channel_disabled", post(&app, text("y")).await));
    for (status, code, answer) in answers {
        assert_eq!(answer.json["success"], false, "{code}");
        answer.problem(status, code);
    }
    assert_eq!(key(text("x")).await.header("idempotent-replayed"), "true");
}

#[tokio::test]
async fn a_channel_of_the_other_kind_takes_no_message_in_either_direction() {
    let app = TestApp::new().await;
    app.post("/api/v1/channels/demo/messages").json(text("x")).await.problem(400, "channel_kind_mismatch");
    let posted = json!({"text": "x"});
    app.post(PATH).json(posted).await.problem(400, "channel_kind_mismatch");
    let posted = json!({"channelId": "demo-api", "text": "x"});
    app.post(PATH).json(posted.clone()).await.problem(400, "channel_kind_mismatch");
    app.post("/api/v1/messages").json(posted).await.problem(400, "channel_kind_mismatch");
    app.get("/api/v1/messages?channelId=demo-api").await.problem(400, "channel_kind_mismatch");
}

#[tokio::test]
async fn a_contact_is_known_by_its_identifier_whatever_its_case_and_blanks() {
    let app = TestApp::new().await;
    let named = |identifier: &str, name: &str| {
        json!({"type": "TEXT", "contactIdentifier": identifier, "contactName": name,
            "content": {"text": {"body": "x"}}})
    };
    let first = post(&app, named(" Ana@Example.COM ", "Ana")).await.expect(200);
    let again = post(&app, named("ana@example.com", "Somebody")).await.expect(200);
    assert_eq!((&first["contactId"], &first["conversationId"]), (&again["contactId"], &again["conversationId"]));
    let id = first["contactId"].as_str().unwrap();
    let contact = app.get(format!("/api/v1/contacts/{id}")).await.expect(200);
    assert_eq!((&contact["identifier"], &contact["name"]), (&json!("Ana@Example.COM"), &json!("Ana")));
    let found = app.get("/api/v1/contacts?identifier=ANA@example.com").await.expect(200);
    assert_eq!(found["data"], json!([contact]));
    let phone = post(&app, named("User-1", "")).await.expect(200);
    let other = post(&app, named("user-1", "")).await.expect(200);
    assert_ne!(phone["contactId"], other["contactId"], "what is no e-mail address keeps its case");
    app.patch(format!("/api/v1/contacts/{id}")).json(json!({"name": "A."})).await.expect(200);
    post(&app, named("ana@example.com", "B.")).await.expect(200);
    assert_eq!(app.get(format!("/api/v1/contacts/{id}")).await.expect(200)["name"], "A.");
}

#[tokio::test]
async fn one_contact_has_one_conversation_on_each_channel() {
    let app = TestApp::new().await;
    let second = json!({"id": "second", "name": "s", "kind": "api", "agentId": "echo"});
    app.post("/api/v1/channels").json(second).await.expect(201);
    let here = post(&app, text("x")).await.expect(200);
    let there = app.post("/api/v1/channels/second/messages").json(text("x")).await.expect(200);
    assert_eq!(here["contactId"], there["contactId"]);
    assert_ne!(here["conversationId"], there["conversationId"]);
    let path = format!("/api/v1/contacts/{}/conversations", here["contactId"].as_str().unwrap());
    let listed = app.get(path).await.expect(200);
    let mut ids: Vec<_> = listed["data"].as_array().unwrap().iter().map(|c| c["id"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    let mut expected = vec![here["conversationId"].clone(), there["conversationId"].clone()];
    expected.sort_by_key(Value::to_string);
    assert_eq!(ids, expected);
}

#[tokio::test(start_paused = true)]
async fn a_slow_agent_is_waited_for_as_long_as_the_client_wants() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 5_000}})).await;
    for (n, prefer) in ["wait=0", "wait=1", "respond-async", "respond-async, wait=100"].into_iter().enumerate() {
        let key = format!("k{n}");
        let send = || app.post(PATH).idempotency_key(&key).json(with("contactIdentifier", json!(prefer)));
        let begun = tokio::time::Instant::now();
        let answer = send().header("prefer", prefer).await;
        assert!(begun.elapsed().as_secs() <= u64::from(prefer == "wait=1"), "{prefer}");
        let location = answer.header("location").to_owned();
        assert_eq!(answer.header("idempotent-replayed"), "");
        let early = answer.expect(202);
        assert_eq!(location, format!("/api/v1/turns/{}", early["turn"]["id"].as_str().unwrap()));
        assert_eq!((&early["success"], &early["aiMessages"]), (&json!(true), &json!([])));
        assert_eq!(early["turn"]["status"], "running");
        let turn = app.get(&location).await.expect(200);
        assert_eq!((&turn["status"], &turn["aiMessages"]), (&json!("running"), &json!([])));
        let joined = send().await;
        let last = joined.json.clone();
        joined.expect(200);
        assert_eq!((&last["messageId"], &last["turn"]["id"]), (&early["messageId"], &early["turn"]["id"]));
        assert_eq!((said(&last), &last["turn"]["status"]), (vec!["x"], &json!("completed")));
        let turn = app.get(&location).await.expect(200);
        assert_eq!((&turn["status"], &turn["aiMessages"]), (&json!("completed"), &last["aiMessages"]));
        assert_eq!(turn["usage"], last["usage"]);
        assert_eq!(send().await.expect(200), last);
        assert_eq!(history(&app, &last["conversationId"]).await, ["user: x", "assistant: x"]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_preference_the_wait_is_a_minute_and_never_more_than_the_turn() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 59_000}})).await;
    assert_eq!(said(&post(&app, text("x")).await.expect(200)), ["x"]);
    app.echo(json!({"builtin": {"latencyMs": 61_000}})).await;
    let begun = tokio::time::Instant::now();
    let answer = app.post(PATH).idempotency_key("k").json(text("y")).await;
    assert_eq!((answer.status, begun.elapsed().as_secs()), (202, 60));
    assert_eq!(said(&app.post(PATH).idempotency_key("k").json(text("y")).await.expect(200)), ["y"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_turn_keeps_its_message_and_a_retry_tries_it_again() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"failEvery": 2}})).await;
    post(&app, text("first")).await.expect(200);
    let send = || app.post(PATH).header("x-idempotency-key", "k").json(text("second"));
    let failed = send().await;
    assert_eq!(failed.header("idempotent-replayed"), "");
    assert_eq!(failed.json["success"], false);
    failed.problem(500, "agent_failed");
    let tried = send().await;
    assert_eq!(tried.header("idempotent-replayed"), "", "no answer is told again");
    let last = tried.expect(200);
    assert_eq!((said(&last), &last["success"]), (vec!["second"], &json!(true)));
    let expected = ["user: first", "assistant: first", "user: second", "assistant: second"];
    assert_eq!(history(&app, &last["conversationId"]).await, expected);
    let replay = send().await;
    assert_eq!(replay.header("idempotent-replayed"), "true");
    assert_eq!(replay.expect(200), last);
}

#[tokio::test]
async fn a_failed_turn_is_tried_again_by_the_agent_that_the_channel_has_then() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"failEvery": 1}})).await;
    let send = || app.post(PATH).idempotency_key("k").json(text("hello"));
    send().await.problem(500, "agent_failed");
    let other = json!({"id": "other", "name": "Other", "provider": "builtin"});
    app.post("/api/v1/agents").json(other).await.expect(201);
    app.patch("/api/v1/channels/demo-api").json(json!({"agentId": "other"})).await.expect(200);
    let answer = send().await.expect(200);
    assert_eq!(said(&answer), ["hello"]);
    assert_eq!(answer["conversation"]["assignment"]["agentId"], "other");
}

#[tokio::test]
async fn a_turn_without_anything_to_repeat_replies_nothing() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"failEvery": 1}})).await;
    let send = || app.post(PATH).idempotency_key("k").json(text("hello"));
    let failed = send().await.problem(500, "agent_failed");
    app.delete(format!("/api/v1/messages/{}", failed["messageId"].as_str().unwrap())).await.expect(204);
    app.echo(json!({"builtin": {"failEvery": 0}})).await;
    let answer = send().await.expect(200);
    assert_eq!((&answer["aiMessages"], &answer["turn"]["status"]), (&json!([]), &json!("completed")));
}

#[tokio::test]
async fn a_reply_may_be_split_or_scripted_and_stays_in_order() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"split": 3}})).await;
    let parts = post(&app, text("one two three four five six")).await.expect(200);
    assert_eq!((said(&parts).len(), said(&parts).concat()), (3, "one two three four five six".to_owned()));
    let ids: Vec<_> = parts["aiMessages"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    let path = format!("/api/v1/conversations/{}/messages?role=assistant", parts["conversationId"].as_str().unwrap());
    let page = app.get(path).await.expect(200);
    assert_eq!(page["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    let script = json!([{"match": "PRICE", "reply": ["It is 5.", "Anything else?"]}, {"match": "p", "reply": ["no"]}]);
    app.echo(json!({"builtin": {"split": 1, "behaviour": "scripted", "script": script}})).await;
    assert_eq!(said(&post(&app, text("what price?")).await.expect(200)), ["It is 5.", "Anything else?"]);
    assert_eq!(said(&post(&app, text("hello")).await.expect(200)), ["hello"]);
    let usage = post(&app, text("abcdefgh")).await.expect(200)["usage"].clone();
    assert!(usage["inputTokens"].as_u64().unwrap() >= 2 && usage["outputTokens"] == 2, "{usage}");
}

/// Old keys still replay.
#[tokio::test]
async fn a_message_after_a_conversation_was_closed_opens_another() {
    let app = TestApp::new().await;
    let send = |key: &str| app.post(PATH).idempotency_key(key).json(text(key));
    let mut first_answers = Vec::new();
    for round in 0..7 {
        let answer = send(&format!("k{round}")).await;
        assert_eq!(answer.status, 200);
        let conversation = &answer.json["conversationId"];
        set_status(&app, conversation, "closed").await;
        assert!(first_answers.iter().all(|old: &Answer| old.json["conversationId"] != *conversation));
        first_answers.push(answer);
    }
    for (round, first) in first_answers.iter().enumerate() {
        let again = send(&format!("k{round}")).await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (200, "true"), "round {round}");
        assert_eq!(again.bytes, first.bytes, "round {round}");
    }
    let page = app.get("/api/v1/conversations").await.expect(200);
    assert_eq!(page["data"].as_array().unwrap().len(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_retry_without_patience_gets_idempotency_in_progress() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 30_000}})).await;
    let send = |prefer: &str| app.post(PATH).idempotency_key("k").header("prefer", prefer).json(text("x")).send();
    let first = tokio::spawn(send("wait=20"));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let impatient = send("wait=2").await;
    assert_eq!(impatient.header("retry-after"), "1");
    let problem = impatient.problem(409, "idempotency_in_progress");
    assert_eq!(problem["success"], json!(false));
    let asynchronous = send("respond-async").await.expect(202);
    let first = first.await.unwrap().expect(202);
    assert_eq!(first, asynchronous);
    // The first request has its answer, so a retry waits for the turn as the first one did.
    assert_eq!(send("wait=1").await.expect(202), first);
    let last = send("wait=20").await.expect(200);
    assert_eq!(said(&last), ["x"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_names_the_applied_preference() {
    let app = TestApp::new().await;
    let slow = json!({"builtin": {"behaviour": "echo", "latencyMs": 5_000}});
    app.echo(slow).await;
    let said = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "hi"}}});
    let path = "/api/v1/channels/demo-api/messages";
    for (prefer, status, applied) in [
        ("respond-async", 202, "respond-async"),
        ("respond-async, wait=9", 202, "respond-async"),
        ("wait=1", 202, "wait=1"),
        ("wait=100", 200, "wait=100"),
        ("wait=99999", 200, "wait=120"),
        ("wait=soon", 200, ""),
        ("handling=lenient", 200, ""),
    ] {
        let answer = app.post(path).header("prefer", prefer).json(said.clone()).await;
        assert_eq!((answer.status, answer.header("preference-applied")), (status, applied), "{prefer}");
        // The next request finds no turn before it.
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    }
    let retry = || app.post(path).idempotency_key("k").header("prefer", "respond-async").json(said.clone());
    assert_eq!(retry().await.header("preference-applied"), "respond-async");
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    let answer = retry().await;
    assert_eq!((answer.status, answer.header("preference-applied")), (200, ""), "nothing was left to put off");
    let failing = json!({"builtin": {"behaviour": "echo", "failEvery": 1}});
    app.echo(failing).await;
    let answer = app.post(path).header("prefer", "wait=7").json(said.clone()).await;
    assert_eq!(answer.header("preference-applied"), "wait=7");
    answer.problem(500, "agent_failed");
}
