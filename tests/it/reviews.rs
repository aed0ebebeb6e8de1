//! Reviews: created, found, waited for, answered, voted on and cancelled.

use serde_json::{Value, json};

use crate::support::{Request, TestApp};

mod deadline;
mod inbox;
mod quorum;

const MESSAGES: &str = "/api/v1/messages";
const REVIEWS: &str = "/api/v1/reviews";
const SECOND: u64 = 1_000;

/// Creates a review on the channel `demo`; returns its path.
async fn asked(app: &TestApp, review: Value) -> String {
    let made = app.post(MESSAGES).json(json!({"channelId": "demo", "text": "?", "review": review})).await.expect(201);
    format!("{REVIEWS}/{}", made["id"].as_str().unwrap())
}

fn respond(app: &TestApp, review: &str, response: Value) -> Request {
    app.post(format!("{review}/respond")).json(json!({"response": response}))
}

/// The key of a principal who answers reviews.
async fn responder(app: &TestApp, name: &str) -> String {
    let principal = json!({"type": "user", "id": name});
    app.key(json!({"name": name, "scopes": ["reviews:respond", "messages:read"], "principal": principal})).await
}

/// The ids of the reviews that a query finds.
async fn ids(app: &TestApp, query: &str) -> Vec<String> {
    app.ids(format!("{REVIEWS}?{query}")).await
}

#[tokio::test]
async fn an_answer_is_compared_with_what_was_asked() {
    let app = TestApp::new().await;
    let choices = json!([{"id": "a", "label": "A"}, {"id": "b", "label": "B"}]);
    let single = json!({"mode": "single", "items": choices});
    let multi = json!({"mode": "multi", "items": choices});
    let form = json!({"fields": [{"name": "n", "type": "number", "required": true},
        {"name": "s", "type": "select", "options": ["x", {"id": "y", "label": "Y"}]},
        {"name": "b", "type": "boolean"}, {"name": "own", "type": "colour"}]});
    let bounds = json!({"minLength": 2, "maxLength": 3});
    let own = json!({"options": [{"id": "yes", "label": "Yes"}], "allowComment": false});
    let schema = json!({"responseSchema": {"type": "object", "required": ["stars"],
        "properties": {"stars": {"type": "integer", "minimum": 1, "maximum": 5}}}});
    let also = json!({"items": choices, "responseSchema": {"properties": {"selectedIds": {"minItems": 2}}}});
    for (kind, payload, response, faults) in [
        ("approval", json!({}), json!({"selectedOption": "approve"}), &[][..]),
        ("approval", json!({}), json!({"selectedOption": "reject", "comment": "no"}), &[]),
        ("approval", json!({}), json!({"selectedOption": "reject", "comment": null}), &[]),
        ("approval", json!({}), json!({}), &["/selectedOption"]),
        ("approval", json!({}), json!({"selectedOption": "yes"}), &["/selectedOption"]),
        ("approval", json!({}), json!({"selectedOption": ["approve"]}), &["/selectedOption"]),
        ("approval", json!({}), json!({"selectedOption": "approve", "comment": 1, "x": 1}), &["/comment", "/x"]),
        ("approval", own.clone(), json!({"selectedOption": "yes"}), &[]),
        ("approval", own.clone(), json!({"selectedOption": "approve"}), &["/selectedOption"]),
        ("approval", own, json!({"selectedOption": "yes", "comment": "so"}), &["/comment"]),
        ("selection", single.clone(), json!({"selectedIds": ["a"]}), &[]),
        ("selection", single.clone(), json!({"selectedIds": []}), &["/selectedIds"]),
        ("selection", single, json!({"selectedIds": ["a", "b"]}), &["/selectedIds"]),
        ("selection", multi.clone(), json!({"selectedIds": []}), &[]),
        ("selection", multi.clone(), json!({"selectedIds": ["b", "a"]}), &[]),
        (
            "selection",
            multi.clone(),
            json!({"selectedIds": ["a", "a", "c", 5]}),
            &["/selectedIds/1", "/selectedIds/2", "/selectedIds/3"],
        ),
        ("selection", multi.clone(), json!({"selectedIds": "a"}), &["/selectedIds"]),
        ("selection", multi, json!({}), &["/selectedIds"]),
        ("form", form.clone(), json!({"n": 1.5, "s": "y", "b": false, "own": {"r": 1}}), &[]),
        ("form", form.clone(), json!({"n": 0}), &[]),
        ("form", form.clone(), json!({}), &["/n"]),
        ("form", form.clone(), json!({"n": null}), &["/n"]),
        ("form", form, json!({"n": "1", "s": "z", "b": "yes", "q": 1}), &["/b", "/n", "/q", "/s"]),
        ("text-input", bounds.clone(), json!({"text": "éé"}), &[]),
        ("text-input", bounds.clone(), json!({"text": "é"}), &["/text"]),
        ("text-input", bounds.clone(), json!({"text": "four"}), &["/text"]),
        ("text-input", bounds.clone(), json!({"text": null}), &["/text"]),
        ("text-input", bounds, json!({"text": "abc", "more": 1}), &["/more"]),
        ("text-input", json!({}), json!({"text": ""}), &[]),
        ("rating", json!({}), json!({"any": [{"thing": null}]}), &[]),
        ("rating", schema.clone(), json!({"stars": 5}), &[]),
        ("rating", schema.clone(), json!({"stars": 6}), &["/stars"]),
        ("rating", schema, json!({}), &[""]),
        ("selection", also.clone(), json!({"selectedIds": ["a", "b"]}), &[]),
        ("selection", also, json!({"selectedIds": ["a"]}), &["/selectedIds"]),
    ] {
        let shown = format!("{kind} {payload} {response}");
        let review = asked(&app, json!({"type": kind, "payload": payload})).await;
        let answer = respond(&app, &review, response.clone()).await;
        if faults.is_empty() {
            let decided = answer.expect(200);
            assert_eq!((&decided["status"], &decided["response"]), (&json!("completed"), &response), "{shown}");
        } else {
            let mut found = answer.faults();
            found.sort();
            let expected: Vec<_> = faults.iter().map(|at| format!("invalid_response /response{at}")).collect();
            assert_eq!(found, expected, "{shown}");
            assert_eq!(app.get(&review).await.expect(200)["status"], "pending", "{shown}");
        }
    }
}

#[tokio::test]
async fn each_fault_of_a_review_response_is_named() {
    let app = TestApp::new().await;
    let review = asked(&app, json!({"type": "free"})).await;
    let path = format!("{review}/respond");
    let deep = (0..200).fold(json!({}), |inner, _| json!({"a": inner}));
    for (body, faults) in [
        (json!({}), &["invalid_response /response"][..]),
        (json!({"response": null}), &["invalid_response /response"]),
        (json!({"response": []}), &["invalid_response /response"]),
        (json!({"response": "approve"}), &["invalid_response /response"]),
        (json!({"response": {"t": "x".repeat(64 * 1024)}}), &["too_large /response"]),
        (json!({"response": deep}), &["too_deep /response"]),
        (json!({"feedback": 5}), &["invalid_response /response", "invalid_type /feedback"]),
        (json!({"response": {}, "feedback": "é".repeat(8 * 1024) + "x"}), &["too_long /feedback"]),
    ] {
        let mut found = app.post(&path).json(body.clone()).await.faults();
        found.sort();
        assert_eq!(found, faults, "{:.100}", body.to_string());
    }
    let unknown = json!({"response": {}, "selectedOption": "approve"});
    assert_eq!(app.post(format!("{path}?strict=true")).json(unknown).await.faults(), ["unknown_field /selectedOption"]);
    app.post(&path).body("application/json", "{\"response\": {\"a\": 1}").await.problem(400, "malformed_json");
    app.post(&path).body("text/plain", "{\"response\": {}}").await.problem(415, "unsupported_media_type");
    app.post(&path).await.problem(415, "unsupported_media_type");
    let twice = app.post(&path).body("application/json", r#"{"response": {}, "response": {"a": 1}}"#).await;
    twice.problem(400, "duplicate_field");
    let outsider = app.key_with(&["messages:write", "messages:read"]).await;
    respond(&app, &review, json!({})).key(&outsider).await.problem(403, "insufficient_scope");
    let reader = app.key_with(&["messages:read"]).await;
    app.post(format!("{review}/cancel")).key(&reader).await.problem(403, "insufficient_scope");
    let ana = responder(&app, "ana").await;
    app.post(format!("{review}/cancel")).key(&ana).await.problem(403, "insufficient_scope");
    app.get(&review).no_key().await.problem(401, "unauthenticated");

    let plain = app.post(MESSAGES).json(json!({"channelId": "demo", "text": "x"})).await.expect(201);
    let said = app.post(MESSAGES).json(json!({"content": {"content": "x"}})).await.expect(200);
    let other = app.workspace("other").await;
    for (id, key) in [
        (plain["id"].as_str().unwrap(), None),
        (said[0]["id"].as_str().unwrap(), None),
        (review.rsplit('/').next().unwrap(), Some(other.as_str())),
        ("msg_x", None),
        ("%00", None),
        ("%F0%9F%98%80", None),
        ("x".repeat(2_000).as_str(), None),
    ] {
        let path = format!("{REVIEWS}/{id}");
        let as_whom = |request: Request| if let Some(key) = key { request.key(key) } else { request };
        for request in [
            app.get(&path),
            app.get(format!("{path}/wait?timeout=0")),
            respond(&app, &path, json!({})),
            app.post(format!("{path}/cancel")),
        ] {
            as_whom(request).await.problem(404, "review_not_found");
        }
    }
    for id in ["%ff", "%F0%9F", "%zz"] {
        app.get(format!("{REVIEWS}/{id}")).await.problem(404, "not_found");
        respond(&app, &format!("{REVIEWS}/{id}"), json!({})).await.problem(404, "not_found");
    }
    let decided = respond(&app, &review, json!({})).await.expect(200);
    assert_eq!(decided["status"], "completed", "nothing of all that was a decision");
}

#[tokio::test]
async fn a_review_shows_who_decided_when_and_with_which_feedback() {
    let app = TestApp::new().await;
    let review = asked(&app, json!({"type": "approval", "expiresInSeconds": 60})).await;
    let pending = app.get(&review).await.expect(200);
    let id = review.rsplit('/').next().unwrap();
    assert_eq!(
        pending,
        json!({"id": id, "messageId": id, "channelId": "demo", "senderType": pending["senderType"],
            "senderId": pending["senderId"], "createdAt": "2025-01-01T00:00:00.000Z", "text": "?", "type": "approval",
            "status": "pending", "payload": null, "expiresAt": "2025-01-01T00:01:00.000Z", "response": null,
            "feedback": null, "decidedBy": null, "completedAt": null})
    );
    app.clock.advance(SECOND);
    let body = json!({"response": {"selectedOption": "approve"}, "feedback": "Gut so"});
    let decided = app.post(format!("{review}/respond")).key(&responder(&app, "ana").await).json(body).await.expect(200);
    let mut expected = pending;
    expected.as_object_mut().unwrap().extend([
        ("status".to_owned(), json!("completed")),
        ("response".to_owned(), json!({"selectedOption": "approve"})),
        ("feedback".to_owned(), json!("Gut so")),
        ("decidedBy".to_owned(), json!("ana")),
        ("completedAt".to_owned(), json!("2025-01-01T00:00:01.000Z")),
    ]);
    assert_eq!(decided, expected);
    assert_eq!(app.get(&review).await.expect(200), expected);
    let message = app.get(review.replace("reviews", "messages")).await.expect(200);
    for name in ["type", "status", "response", "feedback", "decidedBy", "completedAt", "expiresAt", "payload"] {
        assert_eq!(message["review"][name], expected[name], "{name}");
    }
    app.clock.advance(120 * SECOND);
    respond(&app, &review, json!({"selectedOption": "reject"})).await.problem(409, "review_already_completed");
}

#[tokio::test]
async fn at_the_deadline_an_answer_is_too_late_even_before_the_announcement() {
    let app = TestApp::new().await;
    for (on_expire, status, decided_by, response) in [
        (Value::Null, "expired", Value::Null, Value::Null),
        (
            json!({"response": {"selectedOption": "reject"}}),
            "completed",
            json!("system"),
            json!({"selectedOption": "reject"}),
        ),
    ] {
        for late in [0, 1, 86_400_000] {
            let review =
                asked(&app, json!({"type": "approval", "expiresInSeconds": 1, "onExpire": on_expire.clone()})).await;
            let before = asked(&app, json!({"type": "approval", "expiresInSeconds": 1})).await;
            app.clock.advance(SECOND - 1);
            let in_time = respond(&app, &before, json!({"selectedOption": "approve"})).await.expect(200);
            assert_eq!(in_time["status"], "completed", "a millisecond before is in time");
            app.clock.advance(1 + late);
            let answer = respond(&app, &review, json!({"selectedOption": "approve"})).await;
            let answer = answer.problem(409, "review_expired");
            let cancelled = app.post(format!("{review}/cancel")).await.problem(409, "review_expired");
            let shown = app.get(&review).await.expect(200);
            assert_eq!((&shown["status"], &shown["decidedBy"]), (&json!(status), &decided_by));
            assert_eq!(shown["response"], response);
            assert_eq!(shown["completedAt"], shown["expiresAt"], "the deadline, whoever noticed when");
            for told in [answer, cancelled] {
                for name in ["status", "response", "feedback", "decidedBy", "completedAt"] {
                    assert_eq!(told["review"][name], shown[name], "{name}");
                }
            }
            assert_eq!(app.get(format!("{review}/wait?timeout=55")).await.expect(200), shown, "there is no wait");
            assert!(!ids(&app, "status=pending").await.contains(&shown["id"].as_str().unwrap().to_owned()));
        }
    }
}

#[tokio::test]
async fn a_good_answer_to_what_was_deleted_is_too_late_and_not_wrong() {
    let app = TestApp::new().await;
    for (review, answer) in [
        (
            json!({"type": "selection", "payload": {"mode": "single", "items": [{"id": "a", "label": "A"}]}}),
            json!({"selectedIds": ["a"]}),
        ),
        (
            json!({"type": "approval", "payload": {"options": [{"id": "q", "label": "Q"}]}}),
            json!({"selectedOption": "q"}),
        ),
        (json!({"type": "form", "payload": {"fields": [{"name": "n", "type": "text"}]}}), json!({"n": "x"})),
    ] {
        let path = asked(&app, review).await;
        let message = path.replace("/reviews/", "/messages/");
        app.delete(&message).await.expect(204);
        let late = respond(&app, &path, answer).await.problem(409, "review_already_completed");
        assert_eq!(late["review"]["status"], "cancelled");
    }
}

#[tokio::test]
async fn long_questions_make_short_pages_of_reviews_and_of_revisions() {
    let app = TestApp::new().await;
    let mut asked = Vec::new();
    let mut before = Value::Null;
    for n in 0..11 {
        let payload = json!({"n": n, "about": "x".repeat(1_000_000)});
        let body = json!({"channelId": "demo", "iterationOf": before, "review": {"type": "free", "payload": payload}});
        before = app.post(MESSAGES).json(body).await.expect(201)["id"].clone();
        asked.push(before.clone());
    }
    for list in [REVIEWS.to_owned(), format!("{MESSAGES}/{}/iterations", before.as_str().unwrap())] {
        let mut seen = Vec::new();
        let mut lengths = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = app.get(format!("{list}?limit=200&order=asc{cursor}")).await.expect(200);
            let items = page["data"].as_array().unwrap();
            lengths.push(items.len());
            seen.extend(items.iter().map(|item| item["id"].clone()));
            let Some(next) = page["nextCursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(seen, asked, "{list}");
        assert_eq!(lengths.len(), 2, "{list}: a page has about 8 MiB: {lengths:?}");
    }
}

#[tokio::test]
async fn a_review_is_taken_back_by_its_sender_only() {
    let app = TestApp::new().await;
    let writer = |name: &'static str, kind: &'static str| {
        let principal = json!({"type": kind, "id": name});
        app.key(json!({"name": name, "scopes": ["messages:write"], "principal": principal}))
    };
    let ana = writer("ana", "user").await;
    let bob = writer("bob", "user").await;
    let bot = writer("bot", "agent").await;
    // An agent sends under its channel's name; another principal of that name is not the same sender.
    let namesake = writer("demo", "user").await;
    let ask = |key: &str| {
        let body = json!({"channelId": "demo", "review": {"type": "approval"}});
        app.post(MESSAGES).key(key).json(body).send()
    };
    let pairs = [(&ana, &bob), (&bot, &ana), (&ana, &bot), (&bot, &namesake), (&namesake, &bot)];
    for (asker, stranger) in pairs {
        let path = format!("{REVIEWS}/{}", ask(asker).await.expect(201)["id"].as_str().unwrap());
        app.post(format!("{path}/cancel")).key(stranger).await.problem(403, "not_the_sender");
        // Whatever the request says.
        let nonsense = app.post(format!("{path}/cancel?strict=true")).key(stranger).body("application/json", "{");
        nonsense.await.problem(403, "not_the_sender");
        for (media, body) in [("text/plain", "{}".to_owned()), ("application/json", " ".repeat(5 << 20))] {
            let unread = app.post(format!("{path}/cancel")).body(media, body);
            unread.key(stranger).await.problem(403, "not_the_sender");
        }
        let cancelled = app.post(format!("{path}/cancel")).key(asker).await.expect(200);
        assert_eq!((&cancelled["status"], &cancelled["decidedBy"]), (&json!("cancelled"), &Value::Null));
        assert_eq!(cancelled["completedAt"], "2025-01-01T00:00:00.000Z");
        let again = app.post(format!("{path}/cancel")).key(asker).await.problem(409, "review_already_completed");
        assert_eq!(again["review"]["status"], "cancelled");
        respond(&app, &path, json!({"selectedOption": "approve"})).await.problem(409, "review_already_completed");
        assert_eq!(app.get(format!("{path}/wait")).await.expect(200), cancelled);
    }
}

#[tokio::test]
async fn a_revision_takes_the_question_before_it_back_and_only_that() {
    let app = TestApp::new().await;
    app.post("/api/v1/channels").json(json!({"id": "second", "name": "s", "kind": "human"})).await.expect(201);
    let first = asked(&app, json!({"type": "approval"})).await;
    let id = first.rsplit('/').next().unwrap();
    let revise = |channel: &str, of: &str| {
        let body = json!({"channelId": channel, "text": "2", "iterationOf": of, "review": {"type": "approval"}});
        app.post(MESSAGES).json(body).send()
    };
    assert_eq!(revise("second", id).await.faults(), ["message_not_found /iterationOf"]);
    assert_eq!(app.get(&first).await.expect(200)["status"], "pending");
    let second = revise("demo", id).await.expect(201);
    assert_eq!((&second["iterationOf"], &second["review"]["status"]), (&json!(id), &json!("pending")));
    let ended = app.get(&first).await.expect(200);
    assert_eq!((&ended["status"], &ended["decidedBy"]), (&json!("cancelled"), &Value::Null));
    respond(&app, &first, json!({"selectedOption": "approve"})).await.problem(409, "review_already_completed");
    let decided = format!("{REVIEWS}/{}", second["id"].as_str().unwrap());
    respond(&app, &decided, json!({"selectedOption": "reject"})).await.expect(200);
    revise("demo", second["id"].as_str().unwrap()).await.expect(201);
    assert_eq!(app.get(&decided).await.expect(200)["status"], "completed", "what was decided stays decided");
    let chain = app.get(format!("{MESSAGES}/{id}/iterations")).await.expect(200);
    assert_eq!(chain["data"].as_array().unwrap().len(), 3);
    let events = app.get("/api/v1/channels/demo/events?limit=200").await.expect(200);
    let told = events["data"].as_array().unwrap().iter().filter(|event| event["type"] == "review.cancelled").count();
    assert_eq!(told, 1);
}
