//! A real model: the one whose base URL is in `TERTULIA_TEST_MODEL_URL` (its name in `TERTULIA_TEST_MODEL`), or else a
//! small one that the test bed fetches and starts.

use super::*;

/// A model's address and name, and the handle that keeps it running.
async fn model() -> (String, String, Option<bed::Model>) {
    let name = std::env::var("TERTULIA_TEST_MODEL").unwrap_or_else(|_| "small".to_owned());
    if let Ok(url) = std::env::var("TERTULIA_TEST_MODEL_URL") {
        return (url, name, None);
    }
    let started = tokio::task::spawn_blocking(bed::Model::start).await.unwrap();
    let model = started.unwrap_or_else(|why| panic!("there is no model: {why}"));
    (model.base_url().to_owned(), name, Some(model))
}

#[tokio::test]
#[ignore = "fetches a model the first time"]
async fn a_real_model_answers_a_contact_and_streams_its_reply() {
    let (url, model, _held) = model().await;
    let app = TestApp::with_models().await;
    let settings = json!({"model": model, "systemPrompt": "Answer in one short sentence.", "maxOutputTokens": 48,
        "temperature": 0, "timeoutSeconds": 110});
    ask_at(&app, &url, settings).await;
    let first = say(&app, "What is the capital of France?", "wait=115").await.expect(200);
    let path = format!("/api/v1/conversations/{}/events", first["conversationId"].as_str().unwrap());
    let mut live = app.get(format!("{path}?deltas=true")).follow().await;
    let second = say(&app, "And of Italy?", "wait=115").await.expect(200);
    for answer in [&first, &second] {
        let words = answer["aiMessages"][0]["content"]["text"]["body"].as_str().unwrap();
        crate::support::setting::say(&format!("the model says: {words}; usage {}", answer["usage"]));
        assert!(!words.trim().is_empty());
        let usage = &answer["usage"];
        assert!(usage["inputTokens"].as_u64() > Some(5) && usage["outputTokens"].as_u64() > Some(0), "{usage}");
    }
    let told = live.up_to("turn.completed").await;
    let pieces = told.iter().filter(|told| told.event.as_deref() == Some("turn.delta"));
    let heard: String = pieces.map(|piece| piece.data["data"]["text"].as_str().unwrap()).collect();
    assert_eq!(second["aiMessages"][0]["content"]["text"]["body"], heard, "the pieces are the reply");
}
