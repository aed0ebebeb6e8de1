//! Which principals may answer, and how many must agree.

use super::*;

#[tokio::test]
async fn a_quorum_is_so_many_different_principals_with_one_answer() {
    let app = TestApp::new().await;
    let ana = responder(&app, "ana").await;
    let bob = responder(&app, "bob").await;
    let cid = responder(&app, "cid").await;
    let eve = responder(&app, "eve").await;
    let quorum = json!({"of": 2, "allowed": ["ana", "bob", "cid"]});
    let review = asked(&app, json!({"type": "approval", "quorum": quorum})).await;
    assert_eq!(app.get(&review).await.expect(200)["votes"], json!([]));
    let vote = |key: &str, option: &str| {
        let body = json!({"response": {"selectedOption": option}, "feedback": format!("I {option}")});
        app.post(format!("{review}/respond")).key(key).json(body).send()
    };
    vote(&eve, "approve").await.problem(403, "responder_not_allowed");
    let first = vote(&ana, "approve").await.expect(200);
    let said = json!({"principal": "ana", "response": {"selectedOption": "approve"}, "feedback": "I approve",
        "at": "2025-01-01T00:00:00.000Z"});
    assert_eq!((&first["status"], &first["votes"]), (&json!("pending"), &json!([said])));
    assert_eq!((&first["response"], &first["decidedBy"]), (&Value::Null, &Value::Null));
    vote(&ana, "approve").await.problem(409, "already_voted");
    vote(&ana, "reject").await.problem(409, "already_voted");
    let second = vote(&bob, "reject").await.expect(200);
    assert_eq!((&second["status"], second["votes"].as_array().unwrap().len()), (&json!("pending"), 2));
    assert_eq!(app.get(&review).await.expect(200)["votes"], second["votes"]);
    assert_eq!(ids(&app, "status=pending").await.len(), 1);
    let decided = vote(&cid, "approve").await.expect(200);
    assert_eq!((&decided["status"], &decided["decidedBy"]), (&json!("completed"), &json!("cid")));
    assert_eq!(decided["response"], json!({"selectedOption": "approve"}));
    assert_eq!(decided["votes"].as_array().unwrap().len(), 3);
    vote(&eve, "approve").await.problem(403, "responder_not_allowed");

    // One of the allowed people, and any two.
    let one = asked(&app, json!({"type": "free", "quorum": {"allowed": ["ana"]}})).await;
    respond(&app, &one, json!({})).key(&bob).await.problem(403, "responder_not_allowed");
    let nonsense = app.post(format!("{one}/respond")).key(&bob).body("application/json", "{");
    nonsense.await.problem(403, "responder_not_allowed");
    assert_eq!(respond(&app, &one, json!({})).key(&ana).await.expect(200)["status"], "completed");
    let any = asked(&app, json!({"type": "free", "quorum": {"of": 2}})).await;
    respond(&app, &any, json!({"a": 1.0, "b": [1]})).key(&eve).await.expect(200);
    let equal =
        app.post(format!("{any}/respond")).key(&bob).body("application/json", r#"{"response":{"b":[1], "a":1e0}}"#);
    assert_eq!(equal.await.expect(200)["status"], "completed", "equal as values, not as texts");

    // Votes without a quorum by the deadline.
    let open = asked(&app, json!({"type": "free", "quorum": {"of": 2}, "expiresInSeconds": 1})).await;
    respond(&app, &open, json!({"a": 1})).key(&ana).await.expect(200);
    app.clock.advance(SECOND);
    respond(&app, &open, json!({"a": 1})).key(&bob).await.problem(409, "review_expired");
    let ended = app.get(&open).await.expect(200);
    assert_eq!((&ended["status"], ended["votes"].as_array().unwrap().len()), (&json!("expired"), 1));
}

/// And whatever the order of their ids.
#[tokio::test]
async fn votes_for_one_decision_count_together_whatever_their_comments() {
    let app = TestApp::new().await;
    let ana = responder(&app, "ana").await;
    let bob = responder(&app, "bob").await;
    let quorum = json!({"of": 2});
    let items = json!({"mode": "multi", "items": [{"id": "x", "label": "X"}, {"id": "y", "label": "Y"}]});
    for (review, first, second) in [
        (
            json!({"type": "approval", "quorum": quorum}),
            json!({"selectedOption": "approve", "comment": "fine by me"}),
            json!({"comment": null, "selectedOption": "approve"}),
        ),
        (
            json!({"type": "selection", "payload": items, "quorum": quorum}),
            json!({"selectedIds": ["x", "y"]}),
            json!({"selectedIds": ["y", "x"]}),
        ),
    ] {
        let review = asked(&app, review).await;
        assert_eq!(respond(&app, &review, first.clone()).key(&ana).await.expect(200)["status"], "pending");
        let decided = respond(&app, &review, second.clone()).key(&bob).await.expect(200);
        assert_eq!((&decided["status"], &decided["response"]), (&json!("completed"), &second));
        assert_eq!(decided["votes"][0]["response"], first, "each vote stays as it was sent");
    }
    // In a review of another type a comment is part of the answer.
    let form = json!({"type": "free", "quorum": quorum});
    let review = asked(&app, form).await;
    respond(&app, &review, json!({"selectedOption": "a", "comment": "1"})).key(&ana).await.expect(200);
    let other = respond(&app, &review, json!({"selectedOption": "a", "comment": "2"})).key(&bob).await.expect(200);
    assert_eq!(other["status"], "pending");
}

#[tokio::test]
async fn retries_of_a_vote_that_race_it_get_the_same_bytes() {
    let app = TestApp::new().await;
    let ana = responder(&app, "ana").await;
    let bob = responder(&app, "bob").await;
    for round in 0..20 {
        let review = asked(&app, json!({"type": "approval", "quorum": {"of": 3}})).await;
        respond(&app, &review, json!({"selectedOption": "approve"})).key(&bob).await.expect(200);
        let vote = || {
            let vote = respond(&app, &review, json!({"selectedOption": "approve"})).key(&ana);
            vote.idempotency_key(&format!("k{round}")).send()
        };
        let votes = futures_util::future::join_all((0..8).map(|_| vote())).await;
        assert_eq!(votes[0].json["votes"].as_array().unwrap().len(), 2);
        assert!(votes.iter().all(|other| (other.status, &other.bytes) == (200, &votes[0].bytes)));
    }
}

#[tokio::test]
async fn allowed_responders_are_named_by_id_or_as_principals() {
    let app = TestApp::new().await;
    let ana = responder(&app, "ana").await;
    let bob = responder(&app, "bob").await;
    let eve = responder(&app, "eve").await;
    let allowed = json!(["ana", {"type": "user", "id": "bob"}]);
    let review = asked(&app, json!({"type": "approval", "quorum": {"of": 2, "allowed": allowed}})).await;
    let answer = || respond(&app, &review, json!({"selectedOption": "approve"}));
    answer().key(&eve).await.problem(403, "responder_not_allowed");
    for (media, body) in [("text/plain", "{}".to_owned()), ("application/json", " ".repeat(5 << 20))] {
        let unread = app.post(format!("{review}/respond")).body(media, body);
        unread.key(&eve).await.problem(403, "responder_not_allowed");
    }
    app.post(format!("{review}/respond")).body("text/plain", "{}").await.problem(403, "responder_not_allowed");
    assert_eq!(answer().key(&ana).await.expect(200)["status"], "pending");
    assert_eq!(answer().key(&bob).await.expect(200)["status"], "completed");
}

/// The keys of an agent and of a person with the same id.
async fn namesakes(app: &TestApp) -> (String, String) {
    let principal = json!({"type": "agent", "id": "same"});
    let agent = app.key(json!({"name": "a", "scopes": ["reviews:respond"], "principal": principal})).await;
    (agent, responder(app, "same").await)
}

/// Either type where none is named.
#[tokio::test]
async fn a_named_type_of_principal_alone_may_answer() {
    let app = TestApp::new().await;
    let (agent, user) = namesakes(&app).await;
    let an_agent = json!({"type": "agent", "id": "same"});
    let a_user = json!({"type": "user", "id": "same"});
    for (allowed, agent_may, user_may) in [
        (json!([a_user]), false, true),
        (json!([an_agent]), true, false),
        (json!([a_user, an_agent]), true, true),
        (json!(["same"]), true, true),
        (json!(["same", a_user]), true, true),
        (json!(["other", {"type": "agent", "id": "other"}]), false, false),
    ] {
        for (key, may) in [(&agent, agent_may), (&user, user_may)] {
            let review = asked(&app, json!({"type": "free", "quorum": {"allowed": allowed}})).await;
            let answer = respond(&app, &review, json!({})).key(key).await;
            if may {
                assert_eq!(answer.expect(200)["decidedBy"], "same", "{allowed}");
            } else {
                answer.problem(403, "responder_not_allowed");
            }
        }
    }
}

#[tokio::test]
async fn an_agent_and_a_person_with_one_id_have_a_vote_each() {
    let app = TestApp::new().await;
    let (agent, user) = namesakes(&app).await;
    let review = asked(&app, json!({"type": "free", "quorum": {"of": 2}})).await;
    let first = respond(&app, &review, json!({"a": 1})).key(&agent).await.expect(200);
    assert_eq!((&first["status"], &first["votes"][0]["principal"]), (&json!("pending"), &json!("same")));
    respond(&app, &review, json!({"a": 1})).key(&agent).await.problem(409, "already_voted");
    let second = respond(&app, &review, json!({"a": 1})).key(&user).await.expect(200);
    assert_eq!((&second["status"], &second["decidedBy"]), (&json!("completed"), &json!("same")));
    assert_eq!(second["votes"][1]["principal"], "same");

    // After a retry each of them sees the same as before.
    let open = asked(&app, json!({"type": "free", "quorum": {"of": 3}})).await;
    let vote = |key: &str| respond(&app, &open, json!({"a": 1})).key(key).idempotency_key(&key[..20]).send();
    for votes in [1, 2] {
        let key = [&agent, &user][votes - 1];
        let voted = vote(key).await;
        assert_eq!(voted.json["votes"].as_array().unwrap().len(), votes);
        assert_eq!(vote(key).await.bytes, voted.bytes);
    }
    assert_eq!(vote(&agent).await.json["votes"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_quorum_that_makes_no_sense_is_refused() {
    let app = TestApp::new().await;
    let user = json!({"type": "user", "id": "a"});
    for (quorum, fault) in [
        (json!(2), "invalid_type /review/quorum"),
        (json!({"of": 101}), "out_of_range /review/quorum/of"),
        (json!({"of": -1}), "out_of_range /review/quorum/of"),
        (json!({"of": "2"}), "invalid_type /review/quorum/of"),
        (json!({"of": 1.5}), "invalid_type /review/quorum/of"),
        (json!({"of": 2, "allowed": ["ana"]}), "too_few /review/quorum/allowed"),
        (json!({"of": 1, "allowed": []}), "too_few /review/quorum/allowed"),
        (json!({"of": 1, "allowed": "ana"}), "invalid_type /review/quorum/allowed"),
        (json!({"of": 1, "allowed": [5]}), "invalid_type /review/quorum/allowed/0"),
        (json!({"of": 1, "allowed": [{"type": "bot", "id": "a"}]}), "invalid_enum /review/quorum/allowed/0/type"),
        (json!({"of": 1, "allowed": [{"type": "user"}]}), "required /review/quorum/allowed/0/id"),
        (json!({"allowed": [user, {"type": "agent", "id": "a"}, user]}), "duplicate_value /review/quorum/allowed/2"),
        (json!({"of": 3, "allowed": ["a", user, {"type": "agent", "id": "a"}]}), "too_few /review/quorum/allowed"),
        (json!({"of": 1, "allowed": ["ana", "ana"]}), "duplicate_value /review/quorum/allowed/1"),
    ] {
        let body = json!({"channelId": "demo", "review": {"type": "free", "quorum": quorum}});
        assert_eq!(app.post(MESSAGES).json(body).await.faults(), [fault], "{quorum}");
    }
}
