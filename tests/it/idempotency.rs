//! One effect per idempotency key, for each of the three families of messages.

use serde_json::{Value, json};

use crate::support::{Answer, Request, TestApp};

const MESSAGES: &str = "/api/v1/messages";
const CONTACTS: &str = "/api/v1/channels/demo-api/messages";

fn channel(text: &str) -> Value {
    json!({"channelId": "demo", "text": text})
}

fn contact(identifier: &str, text: &str) -> Value {
    json!({"type": "TEXT", "contactIdentifier": identifier, "content": {"text": {"body": text}}})
}

fn conversation(id: Option<&str>, text: &str) -> Value {
    json!({"conversation_id": id, "content": {"content": text}})
}

/// A request of each API; they differ only in their words.
fn each(app: &TestApp, words: &str) -> [Request; 3] {
    [
        app.post(MESSAGES).json(channel(words)),
        app.post(CONTACTS).json(contact("a", words)),
        app.post(MESSAGES).json(conversation(None, words)),
    ]
}

#[track_caller]
fn assert_replay(again: &Answer, first: &Answer) {
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.status, first.status);
    assert_eq!(String::from_utf8_lossy(&again.bytes), String::from_utf8_lossy(&first.bytes));
}

async fn opened(app: &TestApp) -> String {
    app.post("/api/v1/conversations").json(json!({})).await.expect(201)["id"].as_str().unwrap().to_owned()
}

/// The number of messages in the channel `demo`, the contact `a`'s conversation and all other conversations.
async fn count(app: &TestApp) -> usize {
    let length = |page: Value| page["data"].as_array().unwrap().len();
    let mut count = length(app.get("/api/v1/messages?channelId=demo&limit=200").await.expect(200));
    let page = app.get("/api/v1/conversations?limit=200").await.expect(200);
    for conversation in page["data"].as_array().unwrap() {
        let path = format!("/api/v1/conversations/{}/messages?limit=200", conversation["id"].as_str().unwrap());
        count += length(app.get(path).await.expect(200));
    }
    count
}

#[tokio::test]
async fn a_retry_gets_the_first_status_and_bytes_and_has_no_effect() {
    let app = TestApp::new().await;
    for (api, first) in each(&app, "x").into_iter().enumerate() {
        let first = first.idempotency_key("k").await;
        assert!(first.status < 300 && first.header("idempotent-replayed").is_empty());
        app.clock.advance(60_000);
        for header in ["idempotency-key", "x-idempotency-key"] {
            for key in ["k", "\"k\""] {
                let retry = each(&app, "x").into_iter().nth(api).unwrap();
                assert_replay(&retry.header(header, key).await, &first);
            }
        }
    }
    assert_eq!(count(&app).await, 4);
}

#[tokio::test]
async fn a_key_in_the_body_of_a_channel_message_is_not_fingerprinted() {
    let app = TestApp::new().await;
    let mut body = channel("x");
    body["clientId"] = json!("k");
    let first = app.post(MESSAGES).json(body.clone()).await;
    assert_eq!(first.status, 201);
    assert_replay(&app.post(MESSAGES).json(body.clone()).await, &first);
    assert_replay(&app.post(MESSAGES).idempotency_key("k").json(channel("x")).await, &first);
    assert_replay(
        &app.post(MESSAGES).idempotency_key("\"k\"").header("x-idempotency-key", "k").json(body).await,
        &first,
    );
    let spaced = "{ \"text\" : \"\\u0078\",\n \"channelId\":\"demo\" }";
    let again = app.post(MESSAGES).idempotency_key("k").body("application/json", spaced).await;
    assert_replay(&again, &first);
    assert_eq!(count(&app).await, 1);
}

#[tokio::test]
async fn different_keys_in_one_request_and_keys_of_a_wrong_form_are_refused() {
    let app = TestApp::new().await;
    let mut body = channel("x");
    body["clientId"] = json!("c");
    let faults = app.post(MESSAGES).idempotency_key("a").header("x-idempotency-key", "b").json(body).await.faults();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults.iter().all(|fault| fault.starts_with("idempotency_key_conflict ")));
    let long = "k".repeat(256);
    for wrong in ["", "\"\"", "a b", &long] {
        for request in each(&app, "x") {
            let problem = request.idempotency_key(wrong).await.problem(400, "invalid_idempotency_key");
            assert_eq!(problem["errors"].as_array().unwrap().len(), 1);
        }
    }
    let wrong = app.post(CONTACTS).idempotency_key("a b").json(json!({"type": "TEXT"})).await.faults();
    assert_eq!(wrong.len(), 3, "a bad key is one fault among the others: {wrong:?}");
    for (body, shape) in [(json!({}), "unknown"), (json!({"channelId": "demo", "content": {}}), "ambiguous")] {
        let faults = app.post(MESSAGES).idempotency_key("a b").json(body).await.faults();
        assert_eq!(faults, [format!("{shape}_message_shape "), "invalid_idempotency_key /Idempotency-Key".to_owned()]);
    }
    for request in each(&app, "x") {
        assert!(request.idempotency_key(&long[..255]).await.status < 300);
    }
}

#[tokio::test]
async fn another_body_under_a_used_key_is_refused_and_has_no_effect() {
    let app = TestApp::new().await;
    for request in each(&app, "x") {
        assert!(request.idempotency_key("k").await.status < 300);
    }
    let before = count(&app).await;
    for request in each(&app, "y") {
        request.idempotency_key("k").await.problem(422, "idempotency_key_reused");
    }
    let path = "/api/v1/channels/demo/messages";
    app.post(path).idempotency_key("k").json(channel("x")).await.problem(422, "idempotency_key_reused");
    assert_eq!(count(&app).await, before);
}

#[tokio::test]
async fn a_refused_request_does_not_burn_its_key() {
    let app = TestApp::new().await;
    let send = |path: &str, body: Value| app.post(path).idempotency_key("k").json(body);
    assert_eq!(send(MESSAGES, json!({"channelId": "demo"})).await.status, 400);
    assert_eq!(send(MESSAGES, json!({"channelId": "none", "text": "x"})).await.status, 404);
    app.patch("/api/v1/channels/demo").json(json!({"enabled": false})).await.expect(200);
    assert_eq!(send(MESSAGES, channel("y")).await.status, 409);
    app.patch("/api/v1/channels/demo").json(json!({"enabled": true})).await.expect(200);
    assert_eq!(send(MESSAGES, channel("x")).await.status, 201);

    assert_eq!(send(CONTACTS, json!({"type": "TEXT", "contactIdentifier": "a"})).await.status, 400);
    let media =
        json!({"type": "IMAGE", "contactIdentifier": "a", "content": {"image": {"url": "https://invalid.example/"}}});
    assert_eq!(send(CONTACTS, media).await.status, 400);
    assert_eq!(send(CONTACTS, contact("a", "x")).await.status, 200);

    let id = opened(&app).await;
    let path = format!("/api/v1/conversations/{id}");
    assert_eq!(send(MESSAGES, conversation(Some(&id), "")).await.status, 400);
    app.patch(&path).json(json!({"status": "closed"})).await.expect(200);
    assert_eq!(send(MESSAGES, conversation(Some(&id), "y")).await.status, 409);
    app.patch(&path).json(json!({"status": "open"})).await.expect(200);
    assert_eq!(send(MESSAGES, conversation(Some(&id), "x")).await.status, 200);
}

#[tokio::test]
async fn a_key_belongs_to_one_channel_contact_or_conversation() {
    let app = TestApp::new().await;
    app.post("/api/v1/channels").json(json!({"id": "h2", "name": "h", "kind": "human"})).await.expect(201);
    app.post("/api/v1/channels")
        .json(json!({"id": "a2", "name": "a", "kind": "api", "agentId": "echo"}))
        .await
        .expect(201);
    let one = opened(&app).await;
    let two = opened(&app).await;
    let mut answers = Vec::new();
    for (path, body) in [
        (MESSAGES, channel("x")),
        (MESSAGES, json!({"channelId": "h2", "text": "x"})),
        (CONTACTS, contact("a", "x")),
        (CONTACTS, contact("b", "x")),
        ("/api/v1/channels/a2/messages", contact("a", "x")),
        (MESSAGES, conversation(Some(&one), "x")),
        (MESSAGES, conversation(Some(&two), "x")),
        (MESSAGES, conversation(None, "x")),
    ] {
        let answer = app.post(path).idempotency_key("k").json(body.clone()).await;
        assert!(
            answer.status < 300 && answer.header("idempotent-replayed").is_empty(),
            "{path} {body} {}",
            answer.json
        );
        let again = app.post(path).idempotency_key("k").json(body).await;
        assert_replay(&again, &answer);
        answers.push(String::from_utf8(answer.bytes).unwrap());
    }
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 8);
}

#[tokio::test]
async fn a_conversation_that_a_key_opened_may_be_written_to_with_the_same_key() {
    let app = TestApp::new().await;
    let send = |body: Value| app.post(MESSAGES).idempotency_key("k").json(body);
    let opening = send(conversation(None, "x")).await;
    let id = opening.json[0]["conversation_id"].as_str().unwrap().to_owned();
    let within = send(conversation(Some(&id), "x")).await;
    assert_eq!((within.status, within.header("idempotent-replayed")), (200, ""), "{}", within.json);
    assert_replay(&send(conversation(None, "x")).await, &opening);
    assert_replay(&send(conversation(Some(&id), "x")).await, &within);
    let listed = app.get(format!("/api/v1/conversations/{id}/messages")).await.expect(200);
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
}

/// With a message and without one.
#[tokio::test]
async fn both_ways_to_open_a_conversation_share_the_workspaces_keys() {
    let app = TestApp::new().await;
    let open = |key: &str| app.post("/api/v1/conversations").idempotency_key(key).json(json!({"title": "t"}));
    let first = open("k").await;
    assert_eq!(first.status, 201);
    app.clock.advance(5_000);
    assert_replay(&open("k").await, &first);
    let message = app.post(MESSAGES).idempotency_key("k").json(conversation(None, "x")).await;
    message.problem(422, "idempotency_key_reused");
    assert_eq!(app.post(MESSAGES).idempotency_key("k2").json(conversation(None, "x")).await.status, 200);
    open("k2").await.problem(422, "idempotency_key_reused");
    assert_eq!(app.get("/api/v1/conversations").await.expect(200)["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_key_of_one_workspace_means_nothing_in_another() {
    let app = TestApp::new().await;
    let other = app.workspace("other").await;
    let send = || app.post(MESSAGES).idempotency_key("k").json(conversation(None, "x"));
    let here = send().await.expect(200);
    let there = send().key(&other).await;
    assert_eq!(there.header("idempotent-replayed"), "");
    assert_ne!(there.expect(200)[0]["conversation_id"], here[0]["conversation_id"]);
}

#[tokio::test]
async fn a_retry_is_answered_although_its_deadline_has_passed_since() {
    let app = TestApp::new().await;
    let body = json!({"channelId": "demo", "review": {"type": "approval", "expiresAt": "2025-01-01T00:01:00Z"}});
    let first = app.post(MESSAGES).idempotency_key("k").json(body.clone()).await;
    assert_eq!(first.status, 201);
    app.clock.advance(120_000);
    assert_replay(&app.post(MESSAGES).idempotency_key("k").json(body.clone()).await, &first);
    assert_eq!(
        app.post(MESSAGES).idempotency_key("new").json(body.clone()).await.faults(),
        ["expiry_in_past /review/expiresAt"]
    );
    let mut other = body;
    other["text"] = json!("y");
    assert_ne!(app.post(MESSAGES).idempotency_key("k").json(other).await.status, 201);
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_after_any_later_change() {
    let app = TestApp::new().await;
    let mut firsts = Vec::new();
    for request in each(&app, "x") {
        firsts.push(request.idempotency_key("k").await);
    }
    for request in each(&app, "z") {
        assert!(request.await.status < 300);
    }
    let contact = firsts[1].json["contactId"].as_str().unwrap();
    app.patch(format!("/api/v1/contacts/{contact}")).json(json!({"name": "N"})).await.expect(200);
    for id in [&firsts[1].json["conversationId"], &firsts[2].json[0]["conversation_id"]] {
        let change = json!({"status": "closed", "title": "t", "ownerId": "o"});
        app.patch(format!("/api/v1/conversations/{}", id.as_str().unwrap())).json(change).await.expect(200);
    }
    app.post("/api/v1/agents").json(json!({"id": "e2", "name": "e", "provider": "builtin"})).await.expect(201);
    app.patch("/api/v1/channels/demo-api").json(json!({"agentId": "e2", "enabled": false})).await.expect(200);
    app.patch("/api/v1/channels/demo").json(json!({"enabled": false})).await.expect(200);
    app.clock.advance(47 * 3_600_000);
    for (request, first) in each(&app, "x").into_iter().zip(&firsts) {
        assert_replay(&request.idempotency_key("k").await, first);
    }
}

#[tokio::test]
async fn a_key_is_forgotten_after_two_days() {
    let app = TestApp::new().await;
    let mut firsts = Vec::new();
    for request in each(&app, "x") {
        firsts.push(request.idempotency_key("k").await.json);
    }
    app.clock.advance(48 * 3_600_000);
    for (request, first) in each(&app, "x").into_iter().zip(&firsts) {
        let again = request.idempotency_key("k").await;
        assert_eq!(again.header("idempotent-replayed"), "");
        assert!(again.status < 300);
        assert_ne!(&again.json, first);
    }
    let mut conversations = Vec::new();
    for page in app.get("/api/v1/conversations").await.expect(200)["data"].as_array().unwrap() {
        conversations.push(page["messageCount"].clone());
    }
    conversations.sort_by_key(Value::to_string);
    for _ in 0..3 {
        let open = || app.post("/api/v1/conversations").idempotency_key("o").json(json!({}));
        let first = open().await;
        assert_eq!((first.status, first.header("idempotent-replayed")), (201, ""));
        assert_replay(&open().await, &first);
        app.clock.advance(48 * 3_600_000);
    }
    assert_eq!(app.get("/api/v1/conversations").await.expect(200)["data"].as_array().unwrap().len(), 6);
    assert_eq!(conversations, [1, 1, 4], "a null conversation is a new one again; the contact's goes on");
}

#[tokio::test]
async fn a_batch_is_replayed_whole() {
    let app = TestApp::new().await;
    let id = opened(&app).await;
    let items: Vec<_> = (0..100).map(|n| json!({"content": n.to_string()})).collect();
    for to in [None, Some(id.as_str())] {
        let body = json!({"conversation_id": to, "content": items});
        let send = |body: &Value| app.post(MESSAGES).idempotency_key("k").json(body.clone());
        let first = send(&body).await;
        assert_eq!((first.status, first.json.as_array().unwrap().len()), (200, 100));
        app.clock.advance(1);
        assert_replay(&send(&body).await, &first);
        let one = json!({"conversation_id": to, "content": items[0]});
        send(&one).await.problem(422, "idempotency_key_reused");
    }
    assert_eq!(count(&app).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_retries_at_once_have_one_effect_and_one_answer() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 20}})).await;
    for api in 0..3 {
        let retries = (0..64).map(|_| {
            let request = each(&app, "x").into_iter().nth(api).unwrap();
            tokio::spawn(request.idempotency_key("k").send())
        });
        let mut answers = Vec::new();
        for retry in retries.collect::<Vec<_>>() {
            answers.push(retry.await.unwrap());
        }
        for answer in &answers {
            assert_eq!(String::from_utf8_lossy(&answer.bytes), String::from_utf8_lossy(&answers[0].bytes));
            assert_eq!(answer.status, answers[0].status);
            assert!(answer.status < 300, "{}", answer.json);
        }
        let firsts = answers.iter().filter(|answer| answer.header("idempotent-replayed").is_empty()).count();
        assert_eq!(firsts, 1);
    }
    assert_eq!(count(&app).await, 4);
}

/// A review on the channel `demo`, and the path to answer it.
async fn asked(app: &TestApp) -> String {
    let body = json!({"channelId": "demo", "review": {"type": "approval"}});
    let made = app.post(MESSAGES).json(body).await.expect(201);
    format!("/api/v1/reviews/{}/respond", made["id"].as_str().unwrap())
}

#[tokio::test]
async fn every_other_post_shares_the_keys_of_the_workspace() {
    let app = TestApp::new().await;
    app.post("/api/v1/channels").json(json!({"id": "h2", "name": "h", "kind": "human"})).await.expect(201);
    let one = opened(&app).await;
    let two = opened(&app).await;
    slow_agent(&app).await;
    let approve = json!({"response": {"selectedOption": "approve"}});
    let acknowledged = app.post(MESSAGES).json(channel("x")).await.expect(201);
    let requests = [
        (MESSAGES.to_owned(), conversation(None, "x")),
        ("/api/v1/conversations".to_owned(), json!({"title": "t"})),
        ("/api/v1/channels".to_owned(), json!({"name": "c", "kind": "human"})),
        ("/api/v1/channels/h2/rotate-secret".to_owned(), json!({})),
        ("/api/v1/agents".to_owned(), json!({"name": "a", "provider": "builtin"})),
        ("/api/v1/api-keys".to_owned(), json!({"name": "k", "scopes": ["messages:read"]})),
        ("/api/v1/workspaces".to_owned(), json!({"name": "w"})),
        (format!("/api/v1/conversations/{one}/turns"), json!({"agentId": "slow"})),
        (format!("/api/v1/conversations/{two}/turns"), json!({"agentId": "slow"})),
        (format!("/api/v1/messages/{}/ack", acknowledged["id"].as_str().unwrap()), json!({"status": "read"})),
        (asked(&app).await, approve.clone()),
        (asked(&app).await, approve),
        (asked(&app).await.replace("respond", "cancel"), json!({})),
    ];
    for (n, (path, body)) in requests.iter().enumerate() {
        let key = format!("k{n}");
        let send = |path: &str, body: &Value| app.post(path).idempotency_key(&key).json(body.clone()).send();
        let first = send(path, body).await;
        assert!(first.status < 300, "{path}: {}", first.json);
        let assert_retry = |again: &Answer| match first.status {
            // It is not recorded: the turn runs.
            202 => assert_eq!((again.status, &again.json["id"]), (202, &first.json["id"])),
            _ => assert_replay(again, &first),
        };
        assert_retry(&send(path, body).await);
        for (other, body) in requests.iter().filter(|other| other.0 != *path) {
            send(other, body).await.problem(422, "idempotency_key_reused");
        }
        assert_retry(&send(path, body).await);
    }
}

async fn slow_agent(app: &TestApp) {
    let slow = json!({"id": "slow", "name": "s", "provider": "builtin", "builtin": {"latencyMs": 60_000}});
    app.post("/api/v1/agents").json(slow).await.expect(201);
}

#[tokio::test]
async fn a_retry_of_a_202_returns_the_outcome() {
    let app = TestApp::new().await;
    slow_agent(&app).await;
    let conversation = opened(&app).await;
    let path = format!("/api/v1/conversations/{conversation}/turns");
    let send = |key: &str| app.post(&path).idempotency_key(key).json(json!({"agentId": "slow"})).send();
    let shown = |answer: &Answer| {
        let turn = format!("/api/v1/turns/{}", answer.json["id"].as_str().unwrap());
        assert_eq!(answer.header("location"), turn);
        turn
    };
    let first = send("k").await;
    assert_eq!((first.status, &first.json["status"]), (202, &json!("running")));
    let turn = shown(&first);
    let queued = send("q").await;
    assert_eq!((queued.status, &queued.json["status"]), (202, &json!("queued")));
    app.post(format!("{turn}/cancel")).json(json!({})).await.expect(200);
    let again = send("q").await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, ""), "a 202 is not recorded");
    assert_eq!(again.json, app.get(shown(&queued)).await.expect(200), "it is the turn as it is now");
    assert_eq!(again.json["status"], "running");
    let then = send("k").await;
    assert_eq!((then.status, shown(&then)), (200, turn.clone()));
    assert_eq!(then.json, app.get(&turn).await.expect(200));
    assert_replay(&send("k").await, &then);
}

#[tokio::test]
async fn a_refused_request_leaves_its_key_to_another_one_elsewhere() {
    let app = TestApp::new().await;
    let send = |path: &str, body: Value| app.post(path).idempotency_key("k").json(body).send();
    let one = asked(&app).await;
    let two = asked(&app).await;
    let approve = json!({"response": {"selectedOption": "approve"}});
    app.post(&one).json(approve.clone()).await.expect(200);
    send(&one, approve.clone()).await.problem(409, "review_already_completed");
    send("/api/v1/channels", json!({"id": "demo", "name": "x", "kind": "human"})).await.problem(409, "channel_exists");
    let decided = send(&two, approve.clone()).await;
    assert_eq!(decided.status, 200);
    send(&one, approve.clone()).await.problem(422, "idempotency_key_reused");
    send(MESSAGES, conversation(None, "x")).await.problem(422, "idempotency_key_reused");
    assert_replay(&send(&two, approve).await, &decided);
}

#[tokio::test]
async fn a_turn_is_cancelled_once_and_a_retry_returns_the_cancellation() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 60_000}})).await;
    let path = format!("/api/v1/conversations/{}/turns", opened(&app).await);
    let turn = app.post(path).json(json!({"agentId": "echo"})).await.expect(202);
    let cancel = || app.post(format!("/api/v1/turns/{}/cancel", turn["id"].as_str().unwrap()));
    let first = cancel().idempotency_key("k").await;
    assert_eq!((first.status, &first.json["status"]), (200, &json!("cancelled")));
    assert_replay(&cancel().idempotency_key("k").await, &first);
    cancel().idempotency_key("k2").await.problem(409, "turn_over");
}
