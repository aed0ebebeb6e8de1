//! Many messages of one contact at once, and agents that keep failing.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::{Answer, TestApp};

const PATH: &str = "/api/v1/channels/demo-api/messages";

async fn send(app: &TestApp, identifier: &str, key: &str) -> Answer {
    let body = json!({"type": "TEXT", "contactIdentifier": identifier, "content": {"text": {"body": key}}});
    app.post(PATH).idempotency_key(key).json(body).await
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

/// Messages at once, some of which must be refused; together with their replies they fit one page of a list.
const MORE: usize = actors::limits::QUEUED_TURNS + 20;

#[tokio::test(start_paused = true)]
async fn a_message_past_the_backlog_is_refused_before_it_is_stored() {
    let app = TestApp::new().await;
    app.echo(json!({"builtin": {"latencyMs": 100}})).await;
    let mut open: Vec<_> = (0..MORE).map(|n| format!("k{n}")).collect();
    let mut refused = 0;
    while !open.is_empty() {
        let answers = join_all(open.iter().map(|key| send(&app, "c", key))).await;
        let mut again = Vec::new();
        for (key, answer) in open.into_iter().zip(answers) {
            match answer.status {
                200 => {}
                429 => {
                    assert_eq!(answer.json["code"], "conversation_backlog");
                    assert!(!answer.header("retry-after").is_empty());
                    again.push(key);
                }
                status => panic!("{status} {}", answer.json),
            }
        }
        refused += again.len();
        open = again;
    }
    assert!(refused > 0, "there is a bound");
    let said = history(&app).await;
    for role in ["user", "assistant"] {
        let mut of: Vec<_> = said.iter().filter(|text| text.starts_with(role)).collect();
        of.sort();
        of.dedup();
        assert_eq!(of.len(), MORE, "{role}");
    }
    assert_eq!(said.len(), 2 * MORE);
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
