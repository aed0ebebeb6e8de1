//! A contact's message while a turn runs, with a slow agent and Tokio's clock paused.

use actors::turns::Crowded;
use actors::workspace::address_of;
use serde_json::{Value, json};

use crate::support::live::OPENING;
use crate::support::{Answer, TestApp};

const PATH: &str = "/api/v1/channels/demo-api/messages";

async fn busy(policy: &str) -> TestApp {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 10_000}})).await;
    app.patch("/api/v1/channels/demo-api").json(json!({"busyPolicy": policy})).await.expect(200);
    app
}

async fn send(app: &TestApp, words: &str, prefer: &str) -> Answer {
    let body = json!({"type": "TEXT", "contactIdentifier": "a", "content": {"text": {"body": words}}});
    app.post(PATH).idempotency_key(words).header("prefer", prefer).json(body).await
}

/// Sends `one`, `two` and `three` without waiting, then asks for each answer; returns status, replies and turn.
async fn three(app: &TestApp) -> Vec<(u16, Vec<String>, String, String)> {
    for words in ["one", "two", "three"] {
        assert_eq!(send(app, words, "wait=0").await.status, 202);
    }
    let mut out = Vec::new();
    for words in ["one", "two", "three"] {
        let answer = send(app, words, "wait=100").await;
        let shown = |m: &Value| m["content"]["text"]["body"].as_str().unwrap().to_owned();
        let replies = answer.json["aiMessages"].as_array().unwrap().iter().map(shown).collect();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let turn = &answer.json["turn"];
        out.push((answer.status, replies, text(&turn["status"]), text(&turn["id"])));
    }
    out
}

async fn roles(app: &TestApp) -> Vec<String> {
    let list = app.get("/api/v1/conversations").await.expect(200);
    let id = list["data"][0]["id"].as_str().unwrap();
    let page = app.get(format!("/api/v1/conversations/{id}/messages")).await.expect(200);
    page["data"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn with_queue_each_message_gets_its_own_turn_in_order() {
    let app = busy("queue").await;
    let answers = three(&app).await;
    for ((status, replies, turn, _), words) in answers.iter().zip(["one", "two", "three"]) {
        assert_eq!((*status, replies.as_slice(), turn.as_str()), (200, &[words.to_owned()][..], "completed"));
    }
    assert_ne!(answers[0].3, answers[1].3);
    assert_eq!(roles(&app).await, ["user", "user", "user", "assistant", "assistant", "assistant"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_deleted_before_its_turn_begins_costs_nothing() {
    let app = busy("queue").await;
    send(&app, "one", "wait=0").await.expect(202);
    let second = send(&app, "two", "wait=0").await.expect(202);
    app.delete(format!("/api/v1/messages/{}", second["messageId"].as_str().unwrap())).await.expect(204);
    let answer = send(&app, "two", "wait=100").await.expect(200);
    assert_eq!((&answer["aiMessages"], &answer["turn"]["status"]), (&json!([]), &json!("completed")));
    assert_eq!((&answer["usage"]["credits"], &answer["usage"]["inputTokens"]), (&json!(0.0), &json!(0)));
    assert_eq!(send(&app, "one", "wait=100").await.expect(200)["aiMessages"].as_array().unwrap().len(), 1);
    assert_eq!(roles(&app).await, ["user", "user", "assistant"]);
}

#[tokio::test(start_paused = true)]
async fn a_superseded_message_is_answered_once_its_successor_is_deleted() {
    let app = busy("latest").await;
    for words in ["one", "two"] {
        send(&app, words, "wait=0").await.expect(202);
    }
    let third = send(&app, "three", "wait=0").await.expect(202);
    app.delete(format!("/api/v1/messages/{}", third["messageId"].as_str().unwrap())).await.expect(204);
    let answer = send(&app, "three", "wait=100").await.expect(200);
    assert_eq!(answer["turn"]["status"], "completed");
    assert_eq!(roles(&app).await, ["user", "user", "user", "assistant", "assistant"]);
    assert_eq!(answer["aiMessages"][0]["content"]["text"]["body"], "two", "nobody else answers it");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_ended_in_a_closed_conversation_shows_so_on_every_retry() {
    let app = busy("queue").await;
    let early = send(&app, "one", "wait=0").await.expect(202);
    assert_eq!(early["conversation"]["status"], "open");
    let path = format!("/api/v1/conversations/{}", early["conversationId"].as_str().unwrap());
    app.patch(&path).json(json!({"status": "closed"})).await.expect(200);
    assert_eq!(send(&app, "one", "wait=0").await.expect(202)["conversation"]["status"], "closed");
    let answer = send(&app, "one", "wait=100").await;
    assert_eq!(answer.json["conversation"]["status"], "closed");
    app.patch(&path).json(json!({"status": "open"})).await.expect(200);
    assert_eq!(send(&app, "one", "wait=100").await.bytes, answer.bytes);
}

#[tokio::test(start_paused = true)]
async fn with_merge_those_that_wait_are_answered_together() {
    let app = busy("merge").await;
    let answers = three(&app).await;
    assert_eq!(answers[0].1, ["one"]);
    assert_eq!(answers[1].3, answers[2].3, "both have the same turn");
    assert_eq!((&answers[1].1, answers[1].0), (&answers[2].1, 200));
    assert!(answers[1].1.concat().contains("two") && answers[1].1.concat().contains("three"), "{answers:?}");
    assert_eq!(roles(&app).await, ["user", "user", "user", "assistant", "assistant"]);
}

#[tokio::test(start_paused = true)]
async fn with_latest_only_the_newest_that_waits_gets_a_turn() {
    let app = busy("latest").await;
    let answers = three(&app).await;
    let shown: Vec<_> =
        answers.iter().map(|(status, replies, turn, _)| (*status, replies.concat(), turn.as_str())).collect();
    assert_eq!(
        shown,
        [(200, "one".into(), "completed"), (200, String::new(), "cancelled"), (200, "three".into(), "completed")]
    );
}

#[tokio::test(start_paused = true)]
async fn with_interrupt_the_newest_ends_the_running_turn() {
    let app = busy("interrupt").await;
    let answers = three(&app).await;
    let shown: Vec<_> =
        answers.iter().map(|(status, replies, turn, _)| (*status, replies.concat(), turn.as_str())).collect();
    assert_eq!(
        shown,
        [(200, String::new(), "cancelled"), (200, String::new(), "cancelled"), (200, "three".into(), "completed")]
    );
    assert_eq!(roles(&app).await, ["user", "user", "user", "assistant"]);
}

#[tokio::test(start_paused = true)]
async fn a_message_refused_while_a_turn_runs_does_not_burn_its_key() {
    let app = busy("reject").await;
    assert_eq!(send(&app, "one", "wait=0").await.status, 202);
    let refused = send(&app, "two", "wait=0").await;
    assert_eq!(refused.json["success"], false);
    refused.problem(409, "turn_in_progress");
    assert_eq!(send(&app, "one", "wait=100").await.status, 200);
    assert_eq!(send(&app, "two", "wait=100").await.status, 200);
    assert_eq!(roles(&app).await, ["user", "assistant", "user", "assistant"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_turn_ends_at_once_and_its_waiting_client_is_answered() {
    let app = busy("queue").await;
    let early = send(&app, "one", "wait=0").await.expect(202);
    let path = format!("/api/v1/turns/{}", early["turn"]["id"].as_str().unwrap());
    let begun = tokio::time::Instant::now();
    let (waiting, cancelled) = tokio::join!(send(&app, "one", "wait=100"), app.post(format!("{path}/cancel")).send());
    assert_eq!(cancelled.expect(200)["status"], "cancelled");
    assert_eq!(waiting.expect(200)["turn"]["status"], "cancelled");
    assert!(begun.elapsed().as_secs() < 2);
    app.post(format!("{path}/cancel")).await.problem(409, "turn_over");
    assert_eq!(roles(&app).await, ["user"]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_may_be_asked_to_answer_any_conversation() {
    let app = busy("queue").await;
    let body = json!({"content": [{"content": "hello"}, {"content": "there"}]});
    let made = app.post("/api/v1/messages").json(body).await.expect(200);
    let path = format!("/api/v1/conversations/{}/turns", made[0]["conversation_id"].as_str().unwrap());
    let start = || app.post(&path).idempotency_key("k").json(json!({"agentId": "echo"}));
    let started = start().await;
    let location = started.header("location").to_owned();
    let turn = started.expect(202);
    assert_eq!(
        (&turn["status"], location),
        (&json!("running"), format!("/api/v1/turns/{}", turn["id"].as_str().unwrap()))
    );
    let again = start().await;
    assert_eq!((again.status, again.header("idempotent-replayed"), &again.json["id"]), (202, "", &turn["id"]));
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    let ended = app.get(format!("/api/v1/turns/{}", turn["id"].as_str().unwrap())).await.expect(200);
    assert_eq!((&ended["status"], ended["aiMessages"].as_array().unwrap().len()), (&json!("completed"), 1));
    assert_eq!(app.post(&path).json(json!({})).await.faults(), ["required /agentId"]);
    assert_eq!(app.post(&path).json(json!({"agentId": "nobody"})).await.faults(), ["agent_not_found /agentId"]);
    let unknown = "/api/v1/conversations/conv_x/turns";
    app.post(unknown).json(json!({"agentId": "echo"})).await.problem(404, "conversation_not_found");
    for path in ["/api/v1/turns/turn_x", "/api/v1/turns/x"] {
        app.get(path).await.problem(404, "turn_not_found");
        app.post(format!("{path}/cancel")).await.problem(404, "turn_not_found");
    }
}

/// What was begun before is told all the same.
#[tokio::test(start_paused = true)]
async fn no_turn_begins_where_too_many_are_alive() {
    let app = busy("queue").await;
    let fail = json!({"name": "no", "provider": "builtin", "builtin": {"behaviour": "echo", "failEvery": 1}});
    let agent = app.post("/api/v1/agents").json(fail).await.expect(201)["id"].as_str().unwrap().to_owned();
    let channel = json!({"id": "failing", "name": "f", "kind": "api", "agentId": agent});
    app.post("/api/v1/channels").json(channel).await.expect(201);
    let ask = || {
        let body = json!({"type": "TEXT", "contactIdentifier": "c", "content": {"text": {"body": "hi"}}});
        app.post("/api/v1/channels/failing/messages").idempotency_key("asked").json(body)
    };
    ask().await.problem(500, "agent_failed");
    let made = app.post("/api/v1/messages").json(json!({"content": {"content": "hello"}})).await.expect(200);
    let path = format!("/api/v1/conversations/{}/turns", made[0]["conversation_id"].as_str().unwrap());
    let start = |key: &str| app.post(&path).idempotency_key(key).json(json!({"agentId": "echo"}));
    let begun = start("begun").await.expect(202);
    app.app.node().crowd(Crowded::Node, address_of("default"), "echo");
    start("another").await.problem(503, "overloaded");
    send(&app, "one", "wait=0").await.problem(503, "overloaded");
    ask().await.problem(503, "overloaded");
    assert_eq!(start("begun").await.json["id"], begun["id"]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_of_which_too_many_turns_are_alive_takes_no_more_and_others_do() {
    let app = busy("queue").await;
    let other = json!({"id": "other", "name": "o", "provider": "builtin", "builtin": {"behaviour": "echo"}});
    app.post("/api/v1/agents").json(other).await.expect(201);
    let made = app.post("/api/v1/messages").json(json!({"content": {"content": "hello"}})).await.expect(200);
    let path = format!("/api/v1/conversations/{}/turns", made[0]["conversation_id"].as_str().unwrap());
    let start = |agent: &str| app.post(&path).idempotency_key(agent).json(json!({"agentId": agent}));
    let begun = start("echo").await.expect(202);
    app.app.node().crowd(Crowded::Agent, address_of("default"), "echo");
    let refused = send(&app, "one", "wait=0").await;
    assert_eq!(refused.header("retry-after"), "5");
    refused.problem(429, "agent_backlog");
    let another = app.post(&path).idempotency_key("another").json(json!({"agentId": "echo"})).await;
    another.problem(429, "agent_backlog");
    assert_eq!(start("echo").await.json["id"], begun["id"], "what was begun is told");
    start("other").await.expect(202);
    app.patch("/api/v1/channels/demo-api").json(json!({"agentId": "other"})).await.expect(200);
    send(&app, "one", "wait=0").await.expect(202);
}

#[tokio::test(start_paused = true)]
async fn a_workspace_with_too_many_turns_gets_429_and_others_go_on() {
    let app = busy("queue").await;
    app.post("/api/v1/workspaces").json(json!({"id": "other", "name": "o"})).await.expect(201);
    let open = |workspace: &'static str| app.post("/api/v1/messages").header("x-workspace-id", workspace);
    let start = async |workspace: &'static str| {
        let made = open(workspace).json(json!({"content": {"content": "hello"}})).await.expect(200);
        let path = format!("/api/v1/conversations/{}/turns", made[0]["conversation_id"].as_str().unwrap());
        app.post(path).header("x-workspace-id", workspace).json(json!({"agentId": "echo"})).await
    };
    let agent = json!({"id": "echo", "name": "e", "provider": "builtin", "builtin": {"behaviour": "echo"}});
    app.post("/api/v1/agents").header("x-workspace-id", "other").json(agent).await.expect(201);
    app.app.node().crowd(Crowded::Workspace, address_of("default"), "echo");
    let refused = start("default").await;
    assert_eq!(refused.header("retry-after"), "5");
    refused.problem(429, "rate_limited");
    send(&app, "one", "wait=0").await.problem(429, "rate_limited");
    start("other").await.expect(202);
}

#[tokio::test(start_paused = true)]
async fn a_retry_for_a_queued_turn_returns_that_turn() {
    let app = busy("merge").await;
    assert_eq!(send(&app, "one", "wait=0").await.status, 202);
    let list = app.get("/api/v1/conversations").await.expect(200);
    let path = format!("/api/v1/conversations/{}/turns", list["data"][0]["id"].as_str().unwrap());
    let start = |key: &str| app.post(&path).idempotency_key(key).json(json!({"agentId": "echo"}));
    let first = start("a").await;
    let second = start("b").await;
    assert_eq!((first.status, second.status), (202, 202));
    assert_ne!(first.json["id"], second.json["id"]);
    // The message joins the turn that waits last, which now answers more messages.
    assert_eq!(send(&app, "two", "wait=0").await.status, 202);
    for (key, before) in [("a", &first), ("b", &second)] {
        let again = start(key).await;
        assert_eq!(
            (again.status, again.header("idempotent-replayed"), &again.json["id"]),
            (202, "", &before.json["id"])
        );
        assert_eq!(again.json, app.get(before.header("location")).await.expect(200), "the turn as it is now");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_at_shutdown_gets_the_location_of_its_turn() {
    let app = busy("queue").await;
    app.app.leave();
    let begun = tokio::time::Instant::now();
    let answer = send(&app, "one", "wait=100").await;
    assert!(begun.elapsed().as_secs() < 8, "within what a stopping server gives its requests");
    let location = answer.header("location").to_owned();
    assert_eq!(answer.expect(202)["turn"]["status"], "running");
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    assert_eq!(app.get(location).await.expect(200)["status"], "completed");
}

#[tokio::test]
async fn a_stream_behind_the_last_sequence_there_can_be_is_no_fault() {
    let app = TestApp::new().await;
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "x"})).await.expect(201);
    let path = format!("/api/v1/channels/demo/events?after={}", u64::MAX);
    app.app.leave();
    let answer = app.get(path).header("accept", "text/event-stream").await;
    assert_eq!((answer.status, answer.bytes.as_slice()), (200, OPENING.as_bytes()));
}
