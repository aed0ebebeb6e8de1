//! Many messages of one contact at once, and agents that keep failing.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, Request, TestApp};

const PATH: &str = "/api/v1/channels/demo-api/messages";

fn message(app: &TestApp, identifier: &str, key: &str) -> Request {
    let body = json!({"type": "TEXT", "contactIdentifier": identifier, "content": {"text": {"body": key}}});
    app.post(PATH).idempotency_key(key).json(body)
}

async fn send(app: &TestApp, identifier: &str, key: &str) -> Answer {
    message(app, identifier, key).await
}

async fn send_preferring(app: &TestApp, key: &str, prefer: &str) -> Answer {
    message(app, "c", key).header("prefer", prefer).await
}

/// The messages of the only conversation, as `role text`.
async fn history(app: &TestApp) -> Vec<String> {
    let page = app.get("/api/v1/conversations").await.expect(200);
    assert_eq!(page["data"].as_array().unwrap().len(), 1, "{page}");
    let path = format!("/api/v1/conversations/{}/messages?limit=200", page["data"][0]["id"].as_str().unwrap());
    let page = app.get(path).await.expect(200);
    let shown = |m: &Value| format!("{} {}", m["role"].as_str().unwrap(), m["content"].as_str().unwrap());
    page["data"].as_array().unwrap().iter().map(shown).collect()
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_one_contact_makes_one_contact_and_one_conversation() {
    let app = TestApp::new().await;
    let keys: Vec<_> = (0..24).map(|n| format!("k{n}")).collect();
    let spellings = ["ana@example.com", "ANA@example.com", " ana@EXAMPLE.com "];
    let sends = keys.iter().enumerate().map(|(n, key)| send(&app, spellings[n % 3], key));
    for answer in join_all(sends).await {
        assert_eq!(answer.status, 200, "{}", answer.json);
    }
    let contacts = app.get("/api/v1/contacts").await.expect(200);
    assert_eq!(contacts["data"].as_array().unwrap().len(), 1);
    let mut said = history(&app).await;
    let mut expected: Vec<_> =
        keys.iter().flat_map(|key| [format!("user {key}"), format!("assistant {key}")]).collect();
    said.sort();
    expected.sort();
    assert_eq!(said, expected, "each message is there once and is answered once");
}

#[tokio::test]
async fn a_burst_of_a_thousand_messages_to_one_channel_is_taken_whole() {
    let app = TestApp::new().await;
    let body = |n: usize| json!({"channelId": "demo", "text": n.to_string()});
    let sends = (0..1_000).map(|n| app.post("/api/v1/messages").json(body(n)).send());
    for answer in join_all(sends).await {
        assert_eq!(answer.status, 201, "{}", answer.json);
    }
}

/// Messages at once, more than may wait for a turn; together with their replies they fit one page of a list.
const MORE: usize = actors::limits::QUEUED_TURNS + 36;

/// Checks that each of so many messages is there once and is answered once.
async fn assert_each_is_answered(app: &TestApp, messages: usize) {
    let said = history(app).await;
    for role in ["user", "assistant"] {
        let mut of: Vec<_> = said.iter().filter(|text| text.starts_with(role)).collect();
        of.sort();
        of.dedup();
        assert_eq!(of.len(), messages, "{role}");
    }
    assert_eq!(said.len(), 2 * messages);
}

#[tokio::test(start_paused = true)]
async fn a_message_past_the_backlog_waits_for_room_and_is_answered() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 100}})).await;
    // Some requests are sent twice: the second one has no effect, whether the first one waits or not.
    let keys: Vec<_> = (0..MORE).chain(MORE - 10..MORE).map(|n| format!("k{n}")).collect();
    let answers = join_all(keys.iter().map(|key| send(&app, "c", key))).await;
    for (key, answer) in keys.iter().zip(&answers) {
        assert_eq!(answer.status, 200, "{key}: {}", answer.json);
        assert_eq!(answer.json["aiMessages"][0]["content"]["text"]["body"], *key);
    }
    assert_each_is_answered(&app, MORE).await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_may_wait_no_longer_for_room_is_refused_unstored() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 100}})).await;
    let mut open: Vec<_> = (0..MORE - 1).map(|n| format!("k{n}")).collect();
    let at_once = ["respond-async", "wait=0"];
    for prefer in at_once.into_iter().chain(std::iter::repeat("wait=1")) {
        let sent = std::mem::take(&mut open);
        let answers = join_all(sent.iter().map(|key| send_preferring(&app, key, prefer))).await;
        for (key, answer) in sent.into_iter().zip(answers) {
            match answer.status {
                200 | 202 => {}
                429 => {
                    assert_eq!(answer.json["code"], "conversation_backlog");
                    assert!(!answer.header("retry-after").is_empty());
                    open.push(key);
                }
                status => panic!("{status} {}", answer.json),
            }
        }
        if open.is_empty() {
            assert!(!at_once.contains(&prefer), "there is a bound");
            break;
        }
    }
    assert_eq!(send(&app, "c", "last").await.status, 200);
    assert_each_is_answered(&app, MORE).await;
}

/// Fills a conversation: one turn runs, and as many wait as may.
async fn fill(app: &TestApp) {
    let keys: Vec<_> = (0..=actors::limits::QUEUED_TURNS).map(|n| format!("k{n}")).collect();
    for answer in join_all(keys.iter().map(|key| send_preferring(app, key, "respond-async"))).await {
        assert_eq!(answer.status, 202, "{}", answer.json);
    }
}

/// Changes the channel after two seconds.
async fn change_later(app: &TestApp, change: Value) {
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    app.patch("/api/v1/channels/demo-api").json(change).await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_takes_nothing_more_refuses_what_waits_for_room() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 10_000}})).await;
    fill(&app).await;
    let disabled = change_later(&app, json!({"enabled": false}));
    let (waiting, ()) = tokio::join!(send(&app, "c", "waits"), disabled);
    waiting.problem(409, "channel_disabled");
    assert!(!history(&app).await.contains(&"user waits".to_owned()));
}

/// The first request waits for room, so there is no turn yet that both could have.
#[tokio::test(start_paused = true)]
async fn a_duplicate_that_waits_less_long_for_room_is_told_that_the_first_waits() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 10_000}})).await;
    fill(&app).await;
    let duplicates = async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        for prefer in ["wait=1", "wait=0", "respond-async"] {
            let told = send_preferring(&app, "w", prefer).await;
            assert_eq!(told.header("retry-after"), "1", "{prefer}");
            told.problem(409, "idempotency_in_progress");
        }
        send_preferring(&app, "another", "wait=1").await.problem(429, "conversation_backlog");
    };
    let (first, ()) = tokio::join!(send_preferring(&app, "w", "wait=60"), duplicates);
    let first = first.expect(202);
    assert_eq!(send_preferring(&app, "w", "respond-async").await.expect(202)["messageId"], first["messageId"]);
}

/// The message is stored after ten seconds. Another one is ahead of the duplicate in the queue, so that this one cannot
/// try again meanwhile.
#[tokio::test(start_paused = true)]
async fn a_duplicate_refused_while_it_waits_for_room_gets_the_answer_of_the_first() {
    for change in [json!({}), json!({"enabled": false})] {
        let app = TestApp::new().await;
        app.echo(json!({"builtin": {"latencyMs": 10_000}})).await;
        fill(&app).await;
        let first = send_preferring(&app, "w", "wait=11");
        let ahead = send_preferring(&app, "x", "wait=60");
        let duplicate = send_preferring(&app, "w", "wait=14");
        let changed = async {
            tokio::time::sleep(std::time::Duration::from_secs(12)).await;
            app.patch("/api/v1/channels/demo-api").json(change).await.expect(200);
        };
        let (first, _, duplicate, ()) = tokio::join!(first, ahead, duplicate, changed);
        let [first, duplicate] = [first, duplicate].map(|answer| answer.expect(202));
        assert_eq!(duplicate["messageId"], first["messageId"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_for_room_that_is_full_refuses_one_more_message_at_once() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 10_000}})).await;
    fill(&app).await;
    let keys: Vec<_> = (0..=actors::limits::WAITING_FOR_ROOM).map(|n| format!("w{n}")).collect();
    let waiting = join_all(keys.iter().map(|key| send(&app, "c", key)));
    let (answers, ()) = tokio::join!(waiting, change_later(&app, json!({"enabled": false})));
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert_eq!(refused.len(), 1, "the others have waited");
    assert_eq!(refused[0].json["code"], "conversation_backlog");
    assert!(answers.iter().all(|answer| answer.status == 429 || answer.json["code"] == "channel_disabled"));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_waited_for_room_goes_to_the_channels_agent_by_then() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 10_000}})).await;
    fill(&app).await;
    let other = json!({"id": "other", "name": "Other", "provider": "builtin", "builtin": {"behaviour": "echo"}});
    app.post("/api/v1/agents").json(other).await.expect(201);
    let changed = change_later(&app, json!({"agentId": "other"}));
    let waiting = message(&app, "c", "waits").header("prefer", "wait=120");
    let (answer, ()) = tokio::join!(waiting.send(), changed);
    let turn = answer.json["turn"]["id"].as_str().unwrap_or_default().to_owned();
    let turn = app.get(format!("/api/v1/turns/{turn}")).await.expect(200);
    assert_eq!(turn["agentId"], "other", "{}", answer.json);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_keeps_failing_may_be_tried_again_until_it_does_not() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"failEvery": 1}})).await;
    for _ in 0..12 {
        let answer = send(&app, "c", "k").await;
        assert_eq!(answer.json["success"], false);
        let problem = answer.problem(500, "agent_failed");
        assert_eq!(history(&app).await, ["user k"]);
        let turn = app.get(format!("/api/v1/turns/{}", problem["turnId"].as_str().unwrap())).await.expect(200);
        assert_eq!(turn["status"], "failed");
        assert!(turn["error"].is_object());
    }
    app.echo(json!({"builtin": {"failEvery": 0}})).await;
    assert_eq!(send(&app, "c", "k").await.status, 200);
    assert_eq!(history(&app).await, ["user k", "assistant k"]);
}

/// Sends one message many times at once; each answer says that its turn failed. Returns how often the turn was tried.
async fn attempts_of_failing_race(app: &TestApp) -> Value {
    let mut turns = Vec::new();
    for answer in join_all((0..16).map(|_| send(app, "c", "k"))).await {
        turns.push(answer.problem(500, "agent_failed")["turnId"].as_str().unwrap().to_owned());
    }
    turns.dedup();
    assert_eq!(turns.len(), 1, "{turns:?}");
    app.get(format!("/api/v1/turns/{}", turns[0])).await.expect(200)["attempt"].clone()
}

/// The agent would not fail if it were asked again.
#[tokio::test(start_paused = true)]
async fn duplicates_get_the_failure_of_the_first_and_try_its_turn_not_again() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"failEvery": 2}})).await;
    assert_eq!(send(&app, "c", "first").await.status, 200);
    assert_eq!(attempts_of_failing_race(&app).await, 1);
    assert_eq!(history(&app).await, ["user first", "assistant first", "user k"]);
    assert_eq!(send(&app, "c", "k").await.status, 200, "whoever comes later has it tried again");
}

#[tokio::test(start_paused = true)]
async fn retries_that_race_run_a_turn_that_fails_again_once() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"failEvery": 1}})).await;
    send(&app, "c", "k").await.problem(500, "agent_failed");
    assert_eq!(attempts_of_failing_race(&app).await, 2);
}

#[tokio::test(start_paused = true)]
async fn retries_of_a_failed_turn_that_race_have_one_reply() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"failEvery": 2, "latencyMs": 10}})).await;
    assert_eq!(send(&app, "c", "first").await.status, 200);
    send(&app, "c", "k").await.problem(500, "agent_failed");
    for answer in join_all((0..16).map(|_| send(&app, "c", "k"))).await {
        assert_eq!(answer.status, 200, "{}", answer.json);
    }
    assert_eq!(history(&app).await, ["user first", "assistant first", "user k", "assistant k"]);
}
