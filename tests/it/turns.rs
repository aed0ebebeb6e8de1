//! Turns that are requested directly, how many run at once, and what hostile clients do with agents and turns.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::models::{asked, asking, completion, whole};
use crate::support::origin::Origin;
use crate::support::{Answer, TestApp};

async fn start(app: &TestApp, conversation: &str, agent: &str) -> Answer {
    app.post(format!("/api/v1/conversations/{conversation}/turns")).json(json!({"agentId": agent})).await
}

async fn status(app: &TestApp, turn: &Value) -> String {
    let turn = app.get(format!("/api/v1/turns/{}", turn["id"].as_str().unwrap())).await.expect(200);
    turn["status"].as_str().unwrap().to_owned()
}

/// A new conversation with one message.
async fn conversation(app: &TestApp, words: &str) -> String {
    let made = app.post("/api/v1/messages").json(json!({"content": {"content": words}})).await.expect(200);
    made[0]["conversation_id"].as_str().unwrap().to_owned()
}

/// The conversation of the channel `demo`, that of a contact on `demo-api`, and one without a channel.
async fn of_every_kind(app: &TestApp) -> Vec<String> {
    let person = json!({"name": "bob", "scopes": ["messages:write"], "principal": {"type": "user", "id": "bob"}});
    let person = app.key(person).await;
    let asked = json!({"channelId": "demo", "text": "hello people"});
    app.post("/api/v1/messages").key(&person).json(asked).await.expect(201);
    let body = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "hello agent"}}});
    app.post("/api/v1/channels/demo-api/messages").json(body).await.expect(200);
    conversation(app, "hello store").await;
    let listed = app.get("/api/v1/conversations").await.expect(200);
    // The channel's log names the conversation of a human channel.
    let log = app.get("/api/v1/channels/demo/events").await.expect(200);
    let ids = listed["data"].as_array().unwrap().iter().map(|one| &one["id"]);
    ids.chain([&log["data"][0]["data"]["conversationId"]]).map(|id| id.as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_agent_answers_a_conversation_of_every_kind_that_is_open() {
    let app = TestApp::new().await;
    let conversations = of_every_kind(&app).await;
    assert_eq!(conversations.len(), 3);
    for id in &conversations {
        let before = app.get(format!("/api/v1/conversations/{id}")).await.expect(200)["messageCount"].as_u64().unwrap();
        let turn = start(&app, id, "echo").await.expect(202);
        let mut live = app.get(format!("/api/v1/conversations/{id}/events?after=0")).follow().await;
        while live.up_to("turn.completed").await.last().unwrap().data["data"]["turnId"] != turn["id"] {}
        let over = app.get(format!("/api/v1/turns/{}", turn["id"].as_str().unwrap())).await.expect(200);
        assert_eq!((&over["status"], over["aiMessages"].as_array().unwrap().len()), (&json!("completed"), 1));
        assert!(over["usage"]["inputTokens"].as_u64().unwrap() > 0, "{over}");
        let after = app.get(format!("/api/v1/conversations/{id}")).await.expect(200)["messageCount"].as_u64();
        assert_eq!(after, Some(before + 1));
    }
    // The last one, that of the human channel, stays open.
    for id in &conversations[..2] {
        app.patch(format!("/api/v1/conversations/{id}")).json(json!({"status": "closed"})).await.expect(200);
        start(&app, id, "echo").await.problem(409, "conversation_closed");
    }
    let key = app.workspace("other").await;
    let agent = json!({"id": "echo", "name": "Echo", "provider": "builtin"});
    app.post("/api/v1/agents").key(&key).json(agent).await.expect(201);
    for id in [conversations[0].as_str(), "conv_06h0cnzhtgy91h6tqy56gqsepr"] {
        let path = format!("/api/v1/conversations/{id}/turns");
        let foreign = app.post(path).key(&key).json(json!({"agentId": "echo"})).await;
        foreign.problem(404, "conversation_not_found");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_runs_when_its_conversation_is_closed_ends_as_it_began() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 5_000}})).await;
    let id = conversation(&app, "hello").await;
    let first = start(&app, &id, "echo").await.expect(202);
    let second = start(&app, &id, "echo").await.expect(202);
    assert_eq!((&first["status"], &second["status"]), (&json!("running"), &json!("queued")));
    app.patch(format!("/api/v1/conversations/{id}")).json(json!({"status": "closed"})).await.expect(200);
    sleep(Duration::from_secs(12)).await;
    let ends = (status(&app, &first).await, status(&app, &second).await);
    assert_eq!((ends.0.as_str(), ends.1.as_str()), ("completed", "completed"));
    for turn in [&first, &second] {
        app.post(format!("/api/v1/turns/{}/cancel", turn["id"].as_str().unwrap())).await.problem(409, "turn_over");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_agent_delays_neither_other_agents_nor_plain_messages() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 10_000}, "maxConcurrentTurns": 2})).await;
    let other = json!({"id": "other", "name": "o", "provider": "builtin", "builtin": {"latencyMs": 1_000}});
    app.post("/api/v1/agents").json(other).await.expect(201);
    let mut turns = Vec::new();
    for n in 0..5 {
        let id = conversation(&app, &format!("hello {n}")).await;
        turns.push(start(&app, &id, "echo").await.expect(202));
    }
    let begun = Instant::now();
    let quick = conversation(&app, "quick").await;
    let quick_turn = start(&app, &quick, "other").await.expect(202);
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(status(&app, &quick_turn).await, "completed");
    let body = json!({"content": {"content": "plain"}, "conversation_id": quick});
    app.post("/api/v1/messages").json(body).await.expect(200);
    assert!(begun.elapsed() < Duration::from_secs(3), "plain messages wait for no turn");
    for (seconds, completed) in [(10, 2), (20, 4), (30, 5)] {
        sleep(Duration::from_millis(seconds * 1_000 + 500) - begun.elapsed()).await;
        let mut now = 0;
        for turn in &turns {
            now += usize::from(status(&app, turn).await == "completed");
        }
        assert_eq!(now, completed, "after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_waits_for_a_place_can_be_cancelled_and_takes_none() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 10_000}, "maxConcurrentTurns": 1})).await;
    let mut turns = Vec::new();
    for n in 0..3 {
        let id = conversation(&app, &format!("hello {n}")).await;
        turns.push(start(&app, &id, "echo").await.expect(202));
    }
    let path = format!("/api/v1/turns/{}/cancel", turns[1]["id"].as_str().unwrap());
    assert_eq!(app.post(path).await.expect(200)["status"], "cancelled");
    sleep(Duration::from_secs(21)).await;
    let mut ends = Vec::new();
    for turn in &turns {
        ends.push(status(&app, turn).await);
    }
    assert_eq!(ends, ["completed", "cancelled", "completed"]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_returns_the_end_of_its_turn_after_the_agent_was_deleted() {
    let app = TestApp::new().await;
    app.post("/api/v1/agents").json(json!({"id": "brief", "name": "b", "provider": "builtin"})).await.expect(201);
    let id = conversation(&app, "hello").await;
    let ask = |key: &str| {
        let request = app.post(format!("/api/v1/conversations/{id}/turns"));
        request.json(json!({"agentId": "brief"})).idempotency_key(key)
    };
    let turn = ask("once").await.expect(202);
    let mut live = app.get(format!("/api/v1/conversations/{id}/events?after=0")).follow().await;
    live.up_to("turn.completed").await;
    app.delete("/api/v1/agents/brief").await.expect(204);
    let again = ask("once").await.expect(200);
    assert_eq!((&again["id"], &again["status"]), (&turn["id"], &json!("completed")));
    ask("another").await.problem(400, "agent_not_found");
}

#[tokio::test(start_paused = true)]
async fn a_request_for_a_turn_waits_for_its_end_if_the_client_prefers_that() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 10_000}})).await;
    let ask = |id: &str, prefer: &str, key: &str| {
        let request = app.post(format!("/api/v1/conversations/{id}/turns")).idempotency_key(key);
        request.header("prefer", prefer).json(json!({"agentId": "echo"}))
    };
    for (prefer, status, applied, waited) in [
        ("wait=60", 200, "wait=60", 10),
        ("wait=999", 200, "wait=120", 10),
        ("wait=3", 202, "wait=3", 3),
        ("wait=0", 202, "", 0),
        ("respond-async, wait=60", 202, "", 0),
        ("handling=lenient", 202, "", 0),
    ] {
        let id = conversation(&app, "hello").await;
        let begun = Instant::now();
        let answer = ask(&id, prefer, &id).await;
        assert_eq!((answer.status, answer.header("preference-applied")), (status, applied), "{prefer}");
        assert_eq!(begun.elapsed().as_secs(), waited, "{prefer}");
        let turn = &answer.json;
        assert_eq!(answer.header("location"), format!("/api/v1/turns/{}", turn["id"].as_str().unwrap()));
        let replies = turn["aiMessages"].as_array().unwrap().len();
        assert_eq!((turn["status"] == "completed", replies), (status == 200, usize::from(status == 200)), "{turn}");
        // A retry waits too, and gets the same answer.
        let again = ask(&id, "wait=60", &id).await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (200, "true"), "{prefer}");
        assert_eq!(again.json["id"], turn["id"]);
        assert!(status == 202 || again.json == *turn, "{prefer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_whose_agent_is_gone_fails_with_that_reason() {
    let app = TestApp::new().await;
    let agent = json!({"id": "gone", "name": "g", "provider": "builtin", "builtin": {"latencyMs": 1_000}});
    app.post("/api/v1/agents").json(agent).await.expect(201);
    let id = conversation(&app, "hello").await;
    start(&app, &id, "gone").await.expect(202);
    let waits = start(&app, &id, "gone").await.expect(202);
    app.delete("/api/v1/agents/gone").await;
    sleep(Duration::from_secs(5)).await;
    let over = app.get(format!("/api/v1/turns/{}", waits["id"].as_str().unwrap())).await.expect(200);
    assert_eq!((&over["status"], &over["error"]["code"]), (&json!("failed"), &json!("agent_not_found")));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_that_races_with_the_end_has_one_outcome() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 5}})).await;
    for n in 0..40 {
        let id = conversation(&app, &format!("hello {n}")).await;
        let turn = start(&app, &id, "echo").await.expect(202);
        sleep(Duration::from_millis(n % 8)).await;
        let path = format!("/api/v1/turns/{}/cancel", turn["id"].as_str().unwrap());
        let cancels = join_all((0..3).map(|_| app.post(&path).send())).await;
        let cancelled = cancels.iter().filter(|answer| answer.status == 200).count();
        assert!(cancels.iter().all(|answer| answer.status == 200 || answer.json["code"] == "turn_over"));
        let over = app.get(format!("/api/v1/turns/{}", turn["id"].as_str().unwrap())).await.expect(200);
        let replies = over["aiMessages"].as_array().unwrap().len();
        match over["status"].as_str().unwrap() {
            "cancelled" => assert_eq!((cancelled, replies), (1, 0)),
            "completed" => assert_eq!((cancelled, replies), (0, 1)),
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_failed_turn_of_an_erased_conversation_is_not_tried_again() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"failEvery": 1}})).await;
    let body = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "hello"}}});
    let send = || app.post("/api/v1/channels/demo-api/messages").idempotency_key("k").json(body.clone());
    let failed = send().await.problem(500, "agent_failed");
    let contact = app.get("/api/v1/contacts?identifier=ana").await.expect(200);
    app.delete(format!("/api/v1/contacts/{}", contact["data"][0]["id"].as_str().unwrap())).await.expect(204);
    app.echo(json!({"builtin": {"failEvery": 0}})).await;
    send().await.problem(409, "conversation_erased");
    let turn = app.get(format!("/api/v1/turns/{}", failed["turnId"].as_str().unwrap())).await.expect(200);
    assert_eq!((&turn["status"], &turn["aiMessages"]), (&json!("failed"), &json!([])));
}

#[tokio::test]
async fn an_id_that_is_too_long_is_unknown() {
    let app = TestApp::new().await;
    let long = "x".repeat(100_000);
    let id = conversation(&app, "hello").await;
    assert_eq!(start(&app, &id, &long).await.faults(), ["agent_not_found /agentId"]);
    let channel = json!({"name": "c", "kind": "api", "agentId": long});
    assert!(!app.post("/api/v1/channels").json(channel).await.faults().is_empty());
    let message = json!({"channelId": long, "text": "hello"});
    app.post("/api/v1/messages").json(message).await.problem(404, "channel_not_found");
}

#[tokio::test]
async fn tools_that_cannot_be_are_refused_with_their_places() {
    let app = TestApp::new().await;
    let canary = Origin::canary("127.0.0.1".parse().unwrap()).await;
    let with = |member: &str, value: Value| {
        let mut tool = json!({"name": "find"});
        tool[member] = value;
        json!([tool])
    };
    let deep = (0..500).fold(json!({}), |inner, _| json!({"properties": {"p": inner}}));
    let cases = [
        (json!("find"), "invalid_type /tools"),
        (json!([7]), "invalid_type /tools/0"),
        (json!([null]), "invalid_type /tools/0"),
        (json!([[]]), "invalid_type /tools/0"),
        (json!([{}]), "required /tools/0/name"),
        (with("name", json!("")), "too_short /tools/0/name"),
        (with("name", json!("a".repeat(65))), "too_long /tools/0/name"),
        (with("name", json!("a b")), "invalid_characters /tools/0/name"),
        (json!([{"name": "a"}, {"name": "a"}]), "duplicate_value /tools/1"),
        (json!([{"function": {}}]), "required /tools/0/function/name"),
        (json!([{"function": {"name": "a"}, "name": 5}]), "invalid_type /tools/0/name"),
        (json!([{"function": {"name": "a"}, "description": []}]), "invalid_type /tools/0/description"),
        (json!([{"function": {"name": "a"}, "parameters": 7}]), "invalid_type /tools/0/parameters"),
        (json!([{"name": "a", "type": "retrieval"}]), "invalid_enum /tools/0/type"),
        (with("url", json!("file:///etc/passwd")), "invalid_url /tools/0/url"),
        (with("url", json!("javascript:alert(1)")), "invalid_url /tools/0/url"),
        (with("url", json!("https://me:pass@example.com/")), "invalid_url /tools/0/url"),
        (with("url", json!(canary.url("/"))), "blocked_url /tools/0/url"),
        (with("method", json!("TRACE")), "invalid_enum /tools/0/method"),
        (with("headers", json!({"Host": "x"})), "forbidden_header /tools/0/headers/Host"),
        (with("headers", json!({"x": "a\r\nb: c"})), "forbidden_header /tools/0/headers/x"),
        (with("parameters", json!(7)), "invalid_type /tools/0/parameters"),
        (with("parameters", json!({"type": "nothing"})), "invalid_schema /tools/0/parameters/type"),
        (with("parameters", json!({"$ref": canary.url("/schema")})), "invalid_schema /tools/0/parameters/$ref"),
        (with("parameters", json!({"pattern": "(", "type": "string"})), "invalid_schema /tools/0/parameters/pattern"),
        (with("description", json!("d".repeat(5_000))), "too_long /tools/0/description"),
        (with("parameters", json!({"description": "d".repeat(70_000)})), "too_large /tools"),
        (Value::from(vec![json!({"name": "a"}); 129]), "too_many /tools"),
    ];
    for (tools, fault) in cases {
        let answer = app.patch("/api/v1/agents/echo").json(json!({"tools": tools})).await;
        let faults = answer.faults();
        assert!(faults.iter().any(|found| found == fault), "{fault}: {faults:?}");
    }
    let slow = json!({"properties": {"q": {"pattern": "^(a+)+$"}}});
    for (parameters, status) in [(deep, 400), (json!({"$ref": "#"}), 400), (slow, 200)] {
        let answer = app.patch("/api/v1/agents/echo").json(json!({"tools": with("parameters", parameters)})).await;
        assert_eq!(answer.status, status, "{}", answer.json);
    }
    assert_eq!(canary.connections(), 0, "a schema is never fetched");
}

#[tokio::test]
async fn a_pattern_that_others_never_finish_is_matched_at_once() {
    let app = TestApp::with_models().await;
    let canary = Origin::canary("127.0.0.1".parse().unwrap()).await;
    let parameters = json!({"type": "object", "properties": {"q": {"type": "string", "pattern": "^(a|a)*(a|a)*b$"}}});
    let tools = json!([{"name": "find", "url": canary.url("/"), "parameters": parameters}]);
    let arguments = json!({"q": format!("{}!", "a".repeat(60))});
    let script = json!([{"match": "go", "reply": ["went"], "toolCall": {"name": "find", "arguments": arguments}}]);
    app.echo(json!({"tools": tools, "builtin": {"behaviour": "scripted", "script": script}})).await;
    let body = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "go"}}});
    let answer = app.post("/api/v1/channels/demo-api/messages").header("prefer", "wait=100").json(body).await;
    assert_eq!(answer.expect(200)["aiMessages"][0]["content"]["text"]["body"], "went");
    assert_eq!(canary.connections(), 0, "what does not fit is not sent");
}

#[tokio::test(start_paused = true)]
async fn a_turn_shows_its_replies_as_they_are() {
    let app = TestApp::new().await;
    let body = json!({"type": "TEXT", "contactIdentifier": "c", "content": {"text": {"body": "first"}}});
    let path = "/api/v1/channels/demo-api/messages";
    let said = app.post(path).idempotency_key("k").json(body.clone()).await.expect(200);
    let reply = said["aiMessages"][0]["id"].as_str().unwrap();
    app.patch(format!("/api/v1/messages/{reply}")).json(json!({"content": "edited"})).await.expect(200);
    let turn = app.get(format!("/api/v1/turns/{}", said["turn"]["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(turn["aiMessages"][0]["content"]["text"]["body"], "edited");
    let again = app.post(path).idempotency_key("k").json(body).await.expect(200);
    assert_eq!(again, said, "a retry is told what was told first");
}

#[tokio::test(start_paused = true)]
async fn text_outside_the_models_context_costs_nothing() {
    let app = TestApp::new().await;
    let body = |text: &str| json!({"type": "TEXT", "contactIdentifier": "c", "content": {"text": {"body": text}}});
    let path = "/api/v1/channels/demo-api/messages";
    let said = app.post(path).json(body("ping")).await.expect(200);
    let messages = format!("/api/v1/conversations/{}/messages", said["conversationId"].as_str().unwrap());
    let long = "T".repeat(200_000);
    let call = json!([{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "y".repeat(8_000)}}]);
    app.post(&messages)
        .json(json!({"content": [
            {"role": "tool", "content": long},
            {"role": "assistant", "content": "", "tool_calls": call},
            {"role": "tool", "content": "found", "meta_data": {"tool_call_id": "c1"}},
        ]}))
        .await
        .expect(200);
    let tokens = app.post(path).json(body("ping")).await.expect(200)["usage"]["inputTokens"].as_u64().unwrap();
    assert!((2_000..2_100).contains(&tokens), "{tokens}");
    app.post(&messages).json(json!({"content": {"content": long}})).await.expect(200);
    let tokens = app.post(path).json(body("ping")).await.expect(200)["usage"]["inputTokens"].as_u64().unwrap();
    assert_eq!(tokens, 1, "it does not fit, nor does what is older");
}

#[tokio::test]
async fn a_model_reads_the_file_names_of_a_message_without_text() {
    let (app, origin) = asking(json!({}), |_| whole(&completion("seen"))).await;
    let plan = json!({"filename": "plan.pdf", "mime_type": "application/pdf", "size": 3});
    let content = json!([
        {"content": "", "attachments": [plan, {}]},
        {"content": "", "tool_calls": [{}]},
        {"content": "what is it?"},
    ]);
    let made = app.post("/api/v1/messages").json(json!({"content": content})).await.expect(200);
    let id = made[0]["conversation_id"].as_str().unwrap();
    start(&app, id, "echo").await.expect(202);
    let mut live = app.get(format!("/api/v1/conversations/{id}/events?after=0")).follow().await;
    live.up_to("turn.completed").await;
    let asked = &asked(&origin)[0]["messages"];
    let read: Vec<&str> = asked.as_array().unwrap().iter().filter_map(|line| line["content"].as_str()).collect();
    assert_eq!(read, ["[attached file: plan.pdf, application/pdf, 3 bytes]\n[attached file]", "what is it?"]);
}

#[tokio::test]
async fn tools_are_as_long_as_they_are_with_the_fewest_escapes() {
    let app = TestApp::new().await;
    for (escapes, status) in [(60_000, 200), (70_000, 400)] {
        let about = "\\u0061".repeat(escapes);
        let tools = format!(r#"[{{"name":"a","parameters":{{"description":"{about}"}}}}]"#);
        let body = format!("{{\"tools\":{tools}}}");
        let answer = app.patch("/api/v1/agents/echo").body("application/json", body).await;
        assert_eq!(answer.status, status, "{escapes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_a_turn_returns_the_original_replies() {
    let app = TestApp::new().await;
    let id = conversation(&app, "hello").await;
    let path = format!("/api/v1/conversations/{id}/turns");
    let ask = async || app.post(&path).idempotency_key("k").json(json!({"agentId": "echo"})).await;
    ask().await.expect(202);
    let mut live = app.get(format!("/api/v1/conversations/{id}/events?after=0")).follow().await;
    live.up_to("turn.completed").await;
    let said = ask().await.expect(200);
    let reply = said["aiMessages"][0]["id"].as_str().unwrap();
    app.patch(format!("/api/v1/messages/{reply}")).json(json!({"content": "edited"})).await.expect(200);
    assert_eq!(ask().await.expect(200), said);
    let turn = app.get(format!("/api/v1/turns/{}", said["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(turn["aiMessages"][0]["content"]["text"]["body"], "edited");
}

#[tokio::test(start_paused = true)]
async fn a_turn_answers_the_newest_message_despite_later_events() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 1_000}})).await;
    let id = conversation(&app, "hello").await;
    let newest = async || {
        let messages = app.get(format!("/api/v1/messages?conversationId={id}&order=desc&limit=1")).await.expect(200);
        messages["data"][0]["id"].clone()
    };
    let message = newest().await;
    let change = app.patch(format!("/api/v1/messages/{}", message.as_str().unwrap()));
    change.json(json!({"content": "hello there"})).await.expect(200);
    let first = start(&app, &id, "echo").await.expect(202);
    // A turn that has to wait, and a retry that finds it waiting.
    let path = format!("/api/v1/conversations/{id}/turns");
    let ask = async || app.post(&path).idempotency_key("k").json(json!({"agentId": "echo"})).await;
    let second = ask().await.expect(202);
    app.patch(format!("/api/v1/conversations/{id}")).json(json!({"title": "Hello"})).await.expect(200);
    let retry = ask().await.expect(202);
    for turn in [&first, &second, &retry] {
        assert_eq!(turn["triggerMessageId"], message);
    }
    sleep(Duration::from_secs(3)).await;
    let reply = newest().await;
    assert_ne!(reply, message);
    let third = start(&app, &id, "echo").await.expect(202);
    assert_eq!(third["triggerMessageId"], reply, "the end of a turn is no message");
}
