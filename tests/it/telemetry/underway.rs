//! `GET /admin/tasks`: work that does not progress, and what it waits for.

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tertulia::metrics::{self, Sources};
use tower::ServiceExt;

use actors::trace::Traces;

use crate::models::PATH;
use crate::support::TestApp;
use crate::support::origin::{Origin, Part};
use crate::support::until::{seen, until};

async fn tasks(test: &TestApp) -> (u16, Value) {
    let router = metrics::router(Sources { app: test.app.clone(), spans: None });
    let response = router.oneshot(Request::get("/admin/tasks").body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap())
}

fn named<'a>(listed: &'a Value, name: &str) -> &'a Value {
    let mut found = listed["tasks"].as_array().unwrap().iter().filter(|task| task["name"] == name);
    let (Some(one), None) = (found.next(), found.next()) else { panic!("one {name}: {listed:#}") };
    one
}

#[tokio::test]
async fn a_stuck_request_is_listed_with_the_stages_it_waits_for() {
    let model = Origin::serve(|_| vec![Part::Silence]).await;
    let test = TestApp::with_models_and(Traces::default().listed(Some(Default::default()))).await;
    let agent = json!({"provider": "openai", "model": "small", "baseUrl": model.url("/v1")});
    test.echo(agent).await;
    let message = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "the secret word"}}});
    let asked = tokio::spawn(test.post(PATH).header("x-request-id", "mine").json(message).send());
    until(|| !model.requests().is_empty()).await;

    let (status, listed) = tasks(&test).await;
    assert_eq!(status, 200);
    assert_eq!(listed["underway"], listed["tasks"].as_array().unwrap().len());
    let request = named(&listed, "POST /api/v1/channels/{channelId}/messages");
    let turn = named(&listed, "invoke_agent echo");
    let chat = named(&listed, "chat small");
    assert_eq!(request["attributes"]["tertulia.request.id"], "mine");
    assert_eq!(chat["parentSpanId"], turn["spanId"]);
    assert!(chat["attributes"]["gen_ai.request.model"] == "small" && chat["millis"].is_u64(), "{chat:#}");
    for task in [turn, chat] {
        assert_eq!(task["traceId"], request["traceId"]);
    }
    let ages: Vec<_> = [request, turn, chat].iter().map(|task| task["millis"].as_u64().unwrap()).collect();
    assert!(ages.is_sorted_by(|older, younger| older >= younger), "{ages:?}");
    assert!(!listed.to_string().contains("secret"), "what is said stands nowhere in it: {listed:#}");

    let id = turn["attributes"]["tertulia.turn.id"].as_str().unwrap();
    test.post(format!("/api/v1/turns/{id}/cancel")).json(json!({})).await.expect(200);
    asked.await.unwrap();
    seen(async || (tasks(&test).await.1["underway"] == 0).then_some(())).await;
}

#[tokio::test]
async fn without_the_setting_there_is_no_list_and_the_answer_says_how_to_get_one() {
    let (status, problem) = tasks(&TestApp::new().await).await;
    assert_eq!((status, &problem["code"]), (501, &json!("not_implemented")));
    assert!(problem["detail"].as_str().unwrap().contains("TERTULIA_TASK_LIST=true"), "{problem}");
}
