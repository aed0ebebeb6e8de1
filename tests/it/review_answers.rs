//! How an answer to a review is compared, and what a repeated answer returns.

use serde_json::{Value, json};

use crate::openapi::document;
use crate::support::{Answer, TestApp};

const MESSAGES: &str = "/api/v1/messages";

async fn asked(app: &TestApp, review: Value) -> String {
    let made = app.post(MESSAGES).json(json!({"channelId": "demo", "review": review})).await.expect(201);
    format!("/api/v1/reviews/{}", made["id"].as_str().unwrap())
}

fn with_schema(schema: &Value) -> Value {
    let payload = json!({"responseSchema": schema});
    json!({"channelId": "demo", "review": {"type": "rating", "payload": payload}})
}

async fn voter(app: &TestApp, name: &str) -> String {
    let principal = json!({"type": "user", "id": name});
    app.key(json!({"name": name, "scopes": ["reviews:respond"], "principal": principal})).await
}

#[tokio::test]
async fn an_absent_response_is_refused_with_the_code_of_the_document() {
    let app = TestApp::new().await;
    let review = asked(&app, json!({"type": "approval"})).await;
    let refused = app.post(format!("{review}/respond")).json(json!({})).await;
    assert_eq!(refused.faults(), ["invalid_response /response"]);
    let document = document(&app).await;
    let operation = &document["paths"]["/api/v1/reviews/{id}/respond"]["post"];
    let codes = operation["responses"]["400"]["description"].as_str().unwrap();
    assert!(codes.contains("`invalid_response`") && !codes.contains("`required`"), "{codes}");
}

#[tokio::test]
async fn a_schema_that_fans_out_by_references_is_refused() {
    let app = TestApp::new().await;
    let level = |n: usize| json!({"anyOf": vec![json!({"$ref": format!("#/$defs/d{}", n + 1)}); 8]});
    let mut defs: serde_json::Map<_, _> = (0..14).map(|n| (format!("d{n}"), level(n))).collect();
    defs.insert("d14".to_owned(), json!({"type": "string"}));
    let schema = json!({"$defs": defs, "$ref": "#/$defs/d0"});
    let refused = app.post(MESSAGES).json(with_schema(&schema)).await.faults();
    assert_eq!(refused, ["invalid_schema /review/payload/responseSchema"]);
}

/// 8^14 compiled schemas: only the compiler would decode these references.
#[tokio::test]
async fn a_schema_whose_references_are_encoded_is_refused() {
    let app = TestApp::new().await;
    let level = |n: usize| json!({"allOf": vec![json!({"$ref": format!("#/%24defs/d{}", n + 1)}); 8]});
    let mut defs: serde_json::Map<_, _> = (0..14).map(|n| (format!("d{n}"), level(n))).collect();
    defs.insert("d14".to_owned(), json!({}));
    let schema = json!({"$defs": defs, "$ref": "#/%24defs/d0", "unevaluatedProperties": false});
    let refused = app.post(MESSAGES).json(with_schema(&schema)).await;
    assert_eq!(refused.faults(), ["invalid_schema /review/payload/responseSchema/$ref"]);
    let tools = json!({"tools": [{"name": "a", "parameters": schema}]});
    let refused = app.patch("/api/v1/agents/echo").json(tools).await;
    assert_eq!(refused.faults(), ["invalid_schema /tools/0/parameters/$ref"]);
}

/// It has more than is compiled where its request is read.
#[tokio::test]
async fn a_large_schema_is_checked_like_a_small_one() {
    let app = TestApp::new().await;
    let field = |kind: &str| json!({"type": kind, "pattern": "^[a-z]+$"});
    let fields: serde_json::Map<_, _> = (0..60).map(|n| (format!("field{n}"), field("string"))).collect();
    let schema = json!({"type": "object", "properties": fields, "additionalProperties": false});
    let mut wrong = schema.clone();
    wrong["properties"]["field7"] = field("text");
    let refused = app.post(MESSAGES).json(with_schema(&wrong)).await;
    assert_eq!(refused.faults(), ["invalid_schema /review/payload/responseSchema/properties/field7/type"]);
    let tools = |parameters: &Value| json!({"tools": [{"name": "a", "parameters": parameters}]});
    let refused = app.patch("/api/v1/agents/echo").json(tools(&wrong)).await;
    assert_eq!(refused.faults(), ["invalid_schema /tools/0/parameters/properties/field7/type"]);
    app.patch("/api/v1/agents/echo").json(tools(&schema)).await.expect(200);
    let review = asked(&app, with_schema(&schema)["review"].clone()).await;
    let answer = |response: Value| app.post(format!("{review}/respond")).json(json!({"response": response}));
    let refused = answer(json!({"field1": "A", "field2": "b", "field3": 3})).await;
    assert_eq!(refused.faults(), ["invalid_response /response/field1", "invalid_response /response/field3"]);
    answer(json!({"field1": "a", "field59": "b"})).await.expect(200);
}

/// They would be 118 million differences, which the library lists before it shows the first.
#[tokio::test]
async fn an_answer_with_too_many_differences_is_refused_with_one_fault() {
    let app = TestApp::new().await;
    let types = json!({"allOf": vec![json!({"type": "string"}); 60]});
    let items = json!({"allOf": vec![json!({"$ref": "#/$defs/f"}); 60]});
    let schema = json!({"$defs": {"f": types}, "properties": {"a": {"items": items}}});
    let review = asked(&app, with_schema(&schema)["review"].clone()).await;
    for zeros in [200, 32_000] {
        let refused = app.post(format!("{review}/respond")).json(json!({"response": {"a": vec![0; zeros]}})).await;
        assert_eq!(refused.faults(), ["invalid_response /response"], "{zeros}");
    }
    let response = json!({"response": {"a": ["x"]}});
    app.post(format!("{review}/respond")).json(response).await.expect(200);
}

#[tokio::test]
async fn a_number_beyond_the_doubles_is_a_fault_of_the_answer() {
    let app = TestApp::new().await;
    let review = asked(&app, json!({"type": "free"})).await;
    let response = app.post(format!("{review}/respond")).body("application/json", r#"{"response":{"a":1e400}}"#).await;
    assert_eq!(response.faults(), ["invalid_response /response"]);
}

#[tokio::test]
async fn a_payload_that_no_answer_can_be_compared_with_is_refused() {
    let app = TestApp::new().await;
    let options = r#"{"options":[{"id":"yes","label":"Yes"}],"weight":1e400}"#;
    let body = format!(r#"{{"channelId":"demo","review":{{"type":"approval","payload":{options}}}}}"#);
    let refused = app.post(MESSAGES).body("application/json", body).await;
    assert_eq!(refused.faults(), ["out_of_range /review/payload"]);
}

#[tokio::test]
async fn a_repeated_vote_gets_its_first_answer_after_others_have_voted() {
    let app = TestApp::new().await;
    let review = asked(&app, json!({"type": "approval", "quorum": {"of": 2}})).await;
    let ana = voter(&app, "ana").await;
    let bob = voter(&app, "bob").await;
    let cid = voter(&app, "cid").await;
    let vote = |key: &str, option: &str| {
        let body = json!({"response": {"selectedOption": option}});
        app.post(format!("{review}/respond")).key(key).idempotency_key("vote-1").json(body)
    };
    let first = vote(&ana, "approve").await;
    assert_eq!(first.status, 200);
    let other = json!({"response": {"selectedOption": "reject"}});
    app.post(format!("{review}/respond")).key(&bob).json(other).await.expect(200);
    let again = vote(&ana, "approve").await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.bytes, first.bytes);
    // The same after a later vote has decided the review.
    let last = json!({"response": {"selectedOption": "approve"}});
    let decided = app.post(format!("{review}/respond")).key(&cid).json(last).await.expect(200);
    assert_eq!(decided["status"], "completed");
    assert_eq!(vote(&ana, "approve").await.bytes, first.bytes);
}

#[tokio::test]
async fn an_edit_cannot_empty_a_message() {
    let app = TestApp::new().await;
    let plain = app.post(MESSAGES).json(json!({"channelId": "demo", "text": "x"})).await.expect(201);
    let plain = format!("{MESSAGES}/{}", plain["id"].as_str().unwrap());
    assert_eq!(app.patch(&plain).json(json!({"text": ""})).await.faults(), ["empty_message "]);
    let status = app.post(MESSAGES).json(json!({"channelId": "demo", "text": "x", "status": "info"})).await.expect(201);
    let status = format!("{MESSAGES}/{}", status["id"].as_str().unwrap());
    app.patch(&status).json(json!({"text": ""})).await.expect(200);
    for (content, refused) in [
        (json!({"content": "x"}), true),
        (json!({"content": "x", "tool_calls": []}), true),
        (json!({"content": "x", "tool_calls": [{}]}), false),
        (json!({"content": "x", "attachments": [{"url": "a"}]}), false),
    ] {
        let made = app.post(MESSAGES).json(json!({"content": content})).await.expect(200);
        let path = format!("{MESSAGES}/{}", made[0]["id"].as_str().unwrap());
        let answer = app.patch(path).json(json!({"content": ""})).await;
        if refused {
            assert_eq!(answer.faults(), ["required /content"], "{content}");
        } else {
            answer.expect(200);
        }
    }
}

#[tokio::test]
async fn a_stream_is_only_for_those_who_ask_for_one() {
    let app = TestApp::new().await;
    for (accept, live) in [
        ("text/event-stream", true),
        ("Text/Event-Stream; q=0.5", true),
        ("application/json, text/event-stream;q=0", false),
        ("text/event-streams", false),
        ("*/*", false),
    ] {
        let path = "/api/v1/channels/demo/events";
        let media = app.get(path).header("accept", accept).media_type().await;
        assert_eq!(media == "text/event-stream", live, "{accept}: {media}");
    }
}

#[tokio::test]
async fn a_repeated_decision_shows_the_message_as_it_was_then() {
    let app = TestApp::new().await;
    for edited_before in [false, true] {
        let review = asked(&app, json!({"type": "approval"})).await;
        let message = review.replace("reviews", "messages");
        if edited_before {
            app.patch(&message).json(json!({"text": "before"})).await.expect(200);
        }
        let body = json!({"response": {"selectedOption": "approve"}});
        let key = format!("decide-{edited_before}");
        let decide = || app.post(format!("{review}/respond")).idempotency_key(&key).json(body.clone()).send();
        let first = decide().await;
        assert_eq!(first.status, 200);
        app.patch(&message).json(json!({"text": "after"})).await.expect(200);
        assert_eq!(decide().await.bytes, first.bytes);
        app.delete(&message).await.expect(204);
        let again = decide().await;
        assert_eq!(again.header("idempotent-replayed"), "true");
        let mut redacted = first.json;
        for words in ["text", "response"] {
            redacted[words] = json!(null);
        }
        assert_eq!(again.expect(200), redacted, "what was deleted comes back in no answer");
    }
}

#[tokio::test]
async fn an_answer_that_a_form_needs_is_not_empty() {
    let app = TestApp::new().await;
    let fields = json!([{"name": "why", "type": "text", "required": true}, {"name": "more", "type": "text"}]);
    let review = asked(&app, json!({"type": "form", "payload": {"fields": fields}})).await;
    let answer = |response: Value| app.post(format!("{review}/respond")).json(json!({"response": response}));
    assert_eq!(answer(json!({"why": ""})).await.faults(), ["invalid_response /response/why"]);
    answer(json!({"why": "x", "more": ""})).await.expect(200);
}

#[tokio::test]
async fn a_review_whose_payload_is_null_can_be_answered() {
    let app = TestApp::new().await;
    for (kind, payload, response) in [
        ("free", json!({"responseSchema": null}), json!({"stars": 5})),
        ("approval", json!({"options": null, "allowComment": null}), json!({"selectedOption": "approve"})),
        ("text-input", json!({"minLength": null, "maxLength": null, "responseSchema": null}), json!({"text": ""})),
    ] {
        let review = asked(&app, json!({"type": kind, "payload": payload})).await;
        let decided = app.post(format!("{review}/respond")).json(json!({"response": response})).await.expect(200);
        assert_eq!(decided["status"], "completed", "{payload}");
    }
}

/// Votes for a number, given as text.
async fn vote_for(app: &TestApp, review: &str, key: &str, number: &str) -> Answer {
    let body = format!("{{\"response\":{{\"n\":{number}}}}}");
    app.post(format!("{review}/respond")).key(key).body("application/json", body).await
}

#[tokio::test]
async fn votes_for_integers_that_no_double_tells_apart_are_votes_for_two() {
    let app = TestApp::new().await;
    let review = asked(&app, json!({"type": "free", "quorum": {"of": 2}})).await;
    let ana = voter(&app, "ana").await;
    let bob = voter(&app, "bob").await;
    let cid = voter(&app, "cid").await;
    vote_for(&app, &review, &ana, "9007199254740993").await.expect(200);
    let second = vote_for(&app, &review, &bob, "9007199254740992").await.expect(200);
    assert_eq!(second["status"], "pending");
    let decided = vote_for(&app, &review, &cid, "9007199254740993").await;
    let shown = String::from_utf8(decided.bytes.to_vec()).unwrap();
    assert_eq!(decided.expect(200)["status"], "completed");
    assert_eq!(
        shown.matches("9007199254740993").count(),
        3,
        "as it was sent, in the outcome and in both votes: {shown}"
    );
}

#[tokio::test]
async fn an_outcome_has_the_text_of_the_vote_that_decided_and_each_vote_its_own() {
    let app = TestApp::new().await;
    let review = asked(&app, json!({"type": "free", "quorum": {"of": 2}})).await;
    let ana = voter(&app, "ana").await;
    let bob = voter(&app, "bob").await;
    vote_for(&app, &review, &ana, "1.0").await.expect(200);
    let decided = vote_for(&app, &review, &bob, "1e0").await;
    let shown = String::from_utf8(decided.bytes.to_vec()).unwrap();
    assert_eq!(decided.expect(200)["status"], "completed", "equal as values, not as texts");
    let (outcome, votes) = shown.split_once("\"votes\"").unwrap();
    assert!(outcome.contains("{\"n\":1e0}") && votes.contains("{\"n\":1.0}"), "{shown}");
}
