//! Agents that call tools: people are asked through a human channel, and the turn continues with their answer.

use std::time::Duration;

use serde_json::{Value, json};

use crate::models::say;
use crate::support::{Answer, TestApp};

const PATH: &str = "/api/v1/channels/demo-api/messages";

/// Gives the agent of `demo-api` this script.
async fn script(app: &TestApp, script: Value) {
    let body = json!({"builtin": {"behaviour": "scripted", "script": script}});
    app.echo(body).await;
}

/// A script line that asks the people of `demo` to approve.
fn asks(reply: Value, arguments: Value) -> Value {
    json!({"match": "ship", "reply": reply, "toolCall": {"name": "request_review", "arguments": arguments}})
}

fn approval() -> Value {
    json!({"channelId": "demo", "text": "Ship it?", "type": "approval", "expiresInSeconds": 600})
}

/// A turn, once `is` accepts it.
async fn turn(app: &TestApp, id: &str, is: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..500 {
        let turn = app.get(format!("/api/v1/turns/{id}")).await.expect(200);
        if is(&turn) {
            return turn;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the turn {id} does not come so far: {}", app.get(format!("/api/v1/turns/{id}")).await.json)
}

fn status(wanted: &'static str) -> impl Fn(&Value) -> bool {
    move |turn| turn["status"] == wanted
}

/// The conversation's messages, as role and content.
async fn messages(app: &TestApp, turn: &Value) -> Vec<Value> {
    let path = format!("/api/v1/conversations/{}/messages", turn["conversationId"].as_str().unwrap());
    app.get(path).await.expect(200)["data"].as_array().unwrap().clone()
}

fn roles(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["role"].as_str().unwrap()).collect()
}

/// Starts a turn that asks people; returns the waiting turn and the review's id.
async fn waiting(app: &TestApp) -> (Value, String) {
    let early = say(app, "please ship", "wait=0").await.expect(202);
    let waits = turn(app, early["turn"]["id"].as_str().unwrap(), status("awaiting_review")).await;
    let review = waits["waitsFor"][0]["reviewId"].as_str().unwrap().to_owned();
    (waits, review)
}

async fn respond(app: &TestApp, review: &str, option: &str) -> Answer {
    let body = json!({"response": {"selectedOption": option}, "feedback": "fine"});
    app.post(format!("/api/v1/reviews/{review}/respond")).json(body).await
}

#[tokio::test(start_paused = true)]
async fn a_turn_waits_for_people_and_goes_on_with_their_answer() {
    let app = TestApp::new().await;
    script(&app, json!([asks(json!(["Shipped."]), approval())])).await;
    let (waits, review) = waiting(&app).await;
    assert_eq!((&waits["waitsFor"][0]["channelId"], &waits["attempt"]), (&json!("demo"), &json!(1)));
    assert_eq!(waits["waitsFor"][0]["expiresAt"], "2025-01-01T00:10:00.000Z");
    let again = say(&app, "please ship", "wait=0").await.expect(202);
    assert_eq!(again["turn"], json!({"id": waits["id"], "status": "awaiting_review"}));
    let asked = app.get(format!("/api/v1/reviews/{review}")).await.expect(200);
    assert_eq!((&asked["status"], &asked["type"]), (&json!("pending"), &json!("approval")));
    let message = app.get(format!("/api/v1/messages/{review}")).await.expect(200);
    assert_eq!(
        (&message["text"], &message["senderType"], &message["senderId"]),
        (&json!("Ship it?"), &json!("agent"), &json!("demo"))
    );
    respond(&app, &review, "approve").await.expect(200);
    let ended = say(&app, "please ship", "wait=100").await.expect(200);
    assert_eq!(ended["aiMessages"][0]["content"]["text"]["body"], "Shipped.");
    let over = turn(&app, waits["id"].as_str().unwrap(), status("completed")).await;
    assert_eq!((&over["waitsFor"], &over["attempt"]), (&json!([]), &json!(2)));
    let messages = messages(&app, &over).await;
    assert_eq!(roles(&messages), ["user", "assistant", "tool", "assistant"]);
    let call = &messages[1]["tool_calls"][0];
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("request_review")));
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, approval());
    assert_eq!(messages[2]["meta_data"], json!({"tool_call_id": call["id"]}));
    let result: Value = serde_json::from_str(messages[2]["content"].as_str().unwrap()).unwrap();
    assert_eq!(
        result,
        json!({"status": "completed", "response": {"selectedOption": "approve"}, "feedback": "fine",
            "decidedBy": "admin", "completedAt": "2025-01-01T00:00:00.000Z"})
    );
}

#[tokio::test(start_paused = true)]
async fn a_long_wait_ends_in_a_reply_only_if_its_key_is_still_known() {
    let app = TestApp::new().await;
    script(&app, json!([asks(json!(["Shipped."]), approval())])).await;
    let key = app.post("/api/v1/api-keys").json(json!({"name": "k", "scopes": ["messages:write"]})).await.expect(201);
    let body = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "please ship"}}});
    let waiting = app.post(PATH).header("prefer", "wait=100").key(key["key"].as_str().unwrap()).json(body).send();
    let revoking = async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        app.delete(format!("/api/v1/api-keys/{}", key["id"].as_str().unwrap())).await.expect(204);
    };
    let (answer, ()) = tokio::join!(waiting, revoking);
    answer.problem(401, "unauthenticated");
}

#[tokio::test(start_paused = true)]
async fn the_outcome_of_a_review_chooses_the_agents_reply() {
    for (option, words) in [("approve", "On its way."), ("reject", "Not today.")] {
        let app = TestApp::new().await;
        let yes = json!({"match": "\"approve\"", "reply": ["On its way."]});
        let no = json!({"match": "\"reject\"", "reply": ["Not today."]});
        script(&app, json!([asks(json!([]), approval()), yes, no])).await;
        let (_, review) = waiting(&app).await;
        respond(&app, &review, option).await.expect(200);
        let ended = say(&app, "please ship", "wait=100").await.expect(200);
        assert_eq!(ended["aiMessages"][0]["content"]["text"]["body"], words);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_survives_the_process() {
    let app = TestApp::new().await;
    script(&app, json!([asks(json!(["Shipped."]), approval())])).await;
    let (waits, review) = waiting(&app).await;
    let next = TestApp::start(app.store.clone(), &[]).await;
    respond(&next, &review, "approve").await.expect(200);
    let over = turn(&next, waits["id"].as_str().unwrap(), status("completed")).await;
    assert_eq!(over["aiMessages"][0]["content"]["text"]["body"], "Shipped.");
}

#[tokio::test(start_paused = true)]
async fn a_review_that_expires_or_is_taken_back_is_an_answer_too() {
    let app = TestApp::new().await;
    script(&app, json!([asks(json!([]), approval())])).await;
    let (waits, _) = waiting(&app).await;
    app.clock.advance(601_000);
    let over = turn(&app, waits["id"].as_str().unwrap(), status("completed")).await;
    let words = over["aiMessages"][0]["content"]["text"]["body"].as_str().unwrap();
    assert!(words.contains(r#""status":"expired""#), "{words}");

    let app = TestApp::new().await;
    script(&app, json!([asks(json!([]), approval())])).await;
    let (waits, review) = waiting(&app).await;
    let agent = json!({"name": "bot", "scopes": ["messages:write"], "principal": {"type": "agent", "id": "bot"}});
    let key = app.key(agent).await;
    app.post(format!("/api/v1/reviews/{review}/cancel")).key(&key).json(json!({})).await.expect(200);
    let over = turn(&app, waits["id"].as_str().unwrap(), status("completed")).await;
    let words = over["aiMessages"][0]["content"]["text"]["body"].as_str().unwrap();
    assert!(words.contains(r#""status":"cancelled""#), "{words}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_turn_takes_its_question_back_and_leaves_no_half_call() {
    let app = TestApp::new().await;
    script(&app, json!([asks(json!(["Shipped."]), approval())])).await;
    let (waits, review) = waiting(&app).await;
    let path = format!("/api/v1/turns/{}/cancel", waits["id"].as_str().unwrap());
    let cancelled = app.post(path).json(json!({})).await.expect(200);
    assert_eq!((&cancelled["status"], &cancelled["waitsFor"]), (&json!("cancelled"), &json!([])));
    let messages = messages(&app, &waits).await;
    assert_eq!(roles(&messages), ["user", "assistant", "tool"]);
    assert!(messages[2]["content"].as_str().unwrap().contains("turn_ended"));
    let mut state = Value::Null;
    for _ in 0..100 {
        state = app.get(format!("/api/v1/reviews/{review}")).await.expect(200)["status"].clone();
        if state == "cancelled" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(state, "cancelled");
    respond(&app, &review, "approve").await.problem(409, "review_already_completed");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_interrupts_ends_the_wait() {
    let app = TestApp::new().await;
    app.patch("/api/v1/channels/demo-api").json(json!({"busyPolicy": "interrupt"})).await.expect(200);
    script(&app, json!([asks(json!(["Shipped."]), approval())])).await;
    let (waits, _) = waiting(&app).await;
    let answer = say(&app, "never mind", "wait=100").await.expect(200);
    assert_eq!(answer["aiMessages"][0]["content"]["text"]["body"], "never mind");
    assert_eq!(turn(&app, waits["id"].as_str().unwrap(), |_| true).await["status"], "cancelled");
    assert_eq!(roles(&messages(&app, &waits).await), ["user", "assistant", "user", "tool", "assistant"]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_be_made_is_answered_with_what_is_wrong() {
    let call = |name: &str, arguments: Value| json!({"match": "ship", "reply": [], "toolCall": {"name": name, "arguments": arguments}});
    let review = |change: &dyn Fn(&mut Value)| {
        let mut arguments = approval();
        change(&mut arguments);
        call("request_review", arguments)
    };
    for (line, expected) in [
        (review(&|a| a["channelId"] = json!("nowhere")), vec!["channel_not_found"]),
        (review(&|a| a["channelId"] = json!("demo-api")), vec!["channel_kind_mismatch"]),
        (review(&|a| a["type"] = json!("selection")), vec!["invalid_arguments", "/payload", "required"]),
        (review(&|a| a["expiresInSeconds"] = json!(0)), vec!["invalid_arguments", "/expiresInSeconds", "out_of_range"]),
        (call("request_review", json!({})), vec!["/channelId", "/type"]),
        (call("search_memories", json!({})), vec!["invalid_arguments", "/query"]),
        (call("search_memories", json!({"query": "name"})), vec![r#"{"memories":[]}"#]),
        (call("launch", json!({})), vec!["unknown_tool"]),
    ] {
        let app = TestApp::new().await;
        script(&app, json!([line])).await;
        let ended = say(&app, "please ship", "wait=100").await.expect(200);
        let words = ended["aiMessages"][0]["content"]["text"]["body"].as_str().unwrap();
        assert!(expected.iter().all(|part| words.contains(part)), "{line}: {words}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_stops_calling_is_stopped() {
    let app = TestApp::new().await;
    let line = |on: &str| json!({"match": on, "reply": [], "toolCall": {"name": "search_memories", "arguments": {"query": "x"}}});
    script(&app, json!([line("ship"), line("memories")])).await;
    let problem = say(&app, "please ship", "wait=100").await.problem(500, "agent_failed");
    assert_eq!(problem["reason"], "too_many_tool_rounds");
    let turn = turn(&app, problem["turnId"].as_str().unwrap(), status("failed")).await;
    let messages = messages(&app, &turn).await;
    assert_eq!(messages.len(), 1 + 2 * 16, "every call has its result");
}

#[tokio::test(start_paused = true)]
async fn model_usage_is_counted_by_day_and_agent() {
    let app = TestApp::new().await;
    app.echo(json!({"inputPrice": 0.5, "outputPrice": 3})).await;
    let first = say(&app, "four", "wait=100").await.expect(200);
    assert_eq!(first["usage"], json!({"credits": 0.004, "inputTokens": 1, "outputTokens": 1, "model": "builtin"}));
    say(&app, "four", "wait=100").await.expect(200);
    app.clock.advance(24 * 60 * 60 * 1000);
    say(&app, "more", "wait=100").await.expect(200);
    let usage = app.get("/api/v1/usage").await.expect(200);
    let days: Vec<_> = usage["data"].as_array().unwrap().iter().map(|day| day["date"].as_str().unwrap()).collect();
    assert_eq!(days, ["2025-01-01", "2025-01-02"]);
    let day = &usage["data"][0];
    assert_eq!(
        *day,
        json!({"date": "2025-01-01", "turns": 1, "modelCalls": 1, "inputTokens": 1, "outputTokens": 1, "credits": 0.004,
            "agents": [{"agentId": "echo", "turns": 1, "modelCalls": 1, "inputTokens": 1, "outputTokens": 1,
                "credits": 0.004}]}),
        "a replay is not charged again"
    );
    assert_eq!((&usage["total"]["turns"], &usage["from"]), (&json!(2), &json!("2024-12-04")));
    let one = app.get("/api/v1/usage?from=2025-01-01&to=2025-01-01").await.expect(200);
    assert_eq!((one["data"].as_array().unwrap().len(), &one["total"]["turns"]), (1, &json!(1)));
    let key = app.workspace("other").await;
    assert_eq!(
        app.get("/api/v1/usage").key(&key).await.expect(200)["data"],
        json!([]),
        "another workspace's is its own"
    );
    assert_eq!(app.get("/api/v1/usage?from=x").await.faults(), ["invalid_datetime /from"]);
}
