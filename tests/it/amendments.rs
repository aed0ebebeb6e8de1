//! Changes of a message, its review and its revisions, and their log, through HTTP.

use actors::channel::conversation_of;
use actors::workspace::address_of;
use futures_util::future::join_all;
use http::Method;
use serde_json::json;

use crate::support::TestApp;

/// A message on the human channel, and its id.
async fn message(app: &TestApp, body: serde_json::Value) -> String {
    let answer = app.post("/api/v1/messages").json(body).await;
    assert!(answer.status < 300, "{}", answer.json);
    let message = answer.json.get(0).unwrap_or(&answer.json);
    message["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_edit_needs_the_message_that_was_seen_and_shows_at_once() {
    let app = TestApp::new().await;
    let id = message(&app, json!({"channelId": "demo", "text": "one"})).await;
    let path = format!("/api/v1/messages/{id}");
    let etag = app.get(&path).await.header("etag").to_owned();
    let read = async |tag: &str| app.get(&path).header("if-none-match", tag).await;
    for tag in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_owned()] {
        let known = read(&tag).await;
        assert_eq!((known.status, known.bytes.len(), known.header("etag")), (304, 0, etag.as_str()), "{tag}");
    }
    let edited = app.patch(&path).header("if-match", &etag).json(json!({"text": "two"})).await.expect(200);
    assert_eq!((&edited["text"], &edited["id"]), (&json!("two"), &json!(id)));
    assert!(edited["updatedAt"].is_string());
    let stale = app.patch(&path).header("if-match", &etag).json(json!({"text": "three"})).await;
    stale.problem(412, "precondition_failed");
    let now = app.get(&path).await;
    assert_eq!(read(now.header("etag")).await.status, 304, "the edited message has a tag too");
    assert_eq!(now.expect(200)["text"], "two");
    assert_eq!(read(&etag).await.status, 200);
}

#[tokio::test]
async fn tags_that_a_channel_message_was_given_are_shown() {
    let app = TestApp::new().await;
    let id = message(&app, json!({"channelId": "demo", "text": "one"})).await;
    let path = format!("/api/v1/messages/{id}");
    assert_eq!(app.get(&path).await.expect(200).get("tags"), None);
    for (tags, shown) in [(json!(["b", "a"]), Some(json!(["b", "a"]))), (json!(null), None)] {
        let edited = app.patch(&path).json(json!({"tags": tags})).await.expect(200);
        assert_eq!(edited.get("tags"), shown.as_ref());
        assert_eq!(app.get(&path).await.expect(200), edited);
    }
}

#[tokio::test]
async fn a_second_edit_with_a_stale_etag_is_refused() {
    let app = TestApp::new().await;
    let id = message(&app, json!({"channelId": "demo", "text": "one", "metadata": {"a": 0}})).await;
    let path = format!("/api/v1/messages/{id}");
    for change in [
        json!({"metadata": {"a": 1}}),
        json!({"tags": ["x"]}),
        json!({"metadata": {"a": 2}}),
        json!({"text": "two"}),
        json!({"text": "one"}),
        json!({"metadata": {"a": 1}}),
    ] {
        app.clock.advance(1);
        let seen = app.get(&path).await.header("etag").to_owned();
        let edit = async || app.patch(&path).header("if-match", &seen).json(change.clone()).await;
        let first = edit().await;
        assert_eq!(first.status, 200);
        assert_ne!(first.header("etag"), seen);
        edit().await.problem(412, "precondition_failed");
        app.delete(&path).header("if-match", &seen).await.problem(412, "precondition_failed");
        assert_eq!(app.get(&path).header("if-none-match", first.header("etag")).await.status, 304);
        assert_eq!(app.get(&path).header("if-none-match", &seen).await.status, 200);
    }
}

#[tokio::test]
async fn changes_of_any_version_succeed_however_many_are_made_at_once() {
    let app = TestApp::new().await;
    let message = format!("/api/v1/messages/{}", message(&app, json!({"channelId": "demo", "text": "one"})).await);
    let conversation = app.post("/api/v1/conversations").json(json!({"title": "one"})).await.expect(201);
    let conversation = format!("/api/v1/conversations/{}", conversation["id"].as_str().unwrap());
    for (path, member) in [(&message, "text"), (&conversation, "title")] {
        let edit = |n: u32| app.patch(path).header("if-match", "*").json(json!({member: n.to_string()})).send();
        for answer in join_all((0..16).map(edit)).await {
            assert_eq!(answer.status, 200, "{}", answer.json);
        }
    }
}

/// A change of anything beside its words counts too.
#[tokio::test]
async fn a_changed_message_is_sent_again_to_a_client_that_has_it() {
    let app = TestApp::new().await;
    let asked = json!({"channelId": "demo", "text": "?", "review": {"type": "approval"}});
    for (method, what, body) in [
        (Method::POST, "/ack", json!({"status": "read"})),
        (Method::POST, "/respond", json!({"response": {"selectedOption": "approve"}})),
    ] {
        let id = message(&app, asked.clone()).await;
        let path = format!("/api/v1/messages/{id}");
        let etag = app.get(&path).await.header("etag").to_owned();
        assert_eq!(app.get(&path).header("if-none-match", &etag).await.status, 304);
        let of = if what == "/respond" { "reviews" } else { "messages" };
        app.request(method, format!("/api/v1/{of}/{id}{what}")).json(body).await.expect(200);
        let again = app.get(&path).header("if-none-match", &etag).await;
        assert_eq!((again.status, again.header("etag")), (200, etag.as_str()), "{what}");
    }
    let id = message(&app, asked).await;
    let path = format!("/api/v1/messages/{id}");
    let etag = app.get(&path).await.header("etag").to_owned();
    app.clock.advance(25 * 60 * 60 * 1_000);
    let expired = app.get(&path).header("if-none-match", &etag).await.expect(200);
    assert_eq!(expired["review"]["status"], "expired", "so does time");
}

#[tokio::test]
async fn a_deleted_message_keeps_its_place_and_loses_its_words() {
    let app = TestApp::new().await;
    let id = message(&app, json!({"channelId": "demo", "text": "secret", "review": {"type": "approval"}})).await;
    app.delete(format!("/api/v1/messages/{id}")).await.expect(204);
    let shown = app.get("/api/v1/messages?channelId=demo").await.expect(200);
    assert_eq!(shown["data"][0]["id"], json!(id));
    assert!(!shown.to_string().contains("secret"));
    let review = app.get(format!("/api/v1/reviews/{id}")).await.expect(200);
    assert_eq!(review["status"], "cancelled");
    let events = app.get("/api/v1/channels/demo/events").await.expect(200);
    assert!(!events.to_string().contains("secret"), "nor does the log show them");
    let demo = conversation_of(address_of("default"), "demo", 0);
    assert!(!app.stored(demo).await.contains("secret"), "nor does the store have them");
    app.patch(format!("/api/v1/messages/{id}")).json(json!({"text": "x"})).await.problem(409, "message_deleted");
    app.delete(format!("/api/v1/messages/{id}")).await.expect(204);
}

#[tokio::test]
async fn review_answers_are_deleted_with_their_message() {
    let app = TestApp::new().await;
    let review = json!({"type": "text-input", "quorum": {"of": 2}});
    let voted = message(&app, json!({"channelId": "demo", "text": "?", "review": review})).await;
    let decided = message(&app, json!({"channelId": "demo", "text": "?", "review": {"type": "text-input"}})).await;
    let answer = json!({"response": {"text": "secret answer"}, "feedback": "secret feedback"});
    let respond = async |id: &str| {
        let path = format!("/api/v1/reviews/{id}/respond");
        app.post(path).json(answer.clone()).idempotency_key(id).await.expect(200)
    };
    let demo = conversation_of(address_of("default"), "demo", 0);
    for id in [&voted, &decided] {
        assert!(respond(id).await.to_string().contains("secret"));
        assert!(app.stored(demo).await.contains("secret"));
        app.delete(format!("/api/v1/messages/{id}")).await.expect(204);
        assert!(!app.stored(demo).await.contains("secret"), "neither the log nor a row has it");
        let events = app.get("/api/v1/channels/demo/events").await.expect(200);
        assert!(!events.to_string().contains("secret"), "{events}");
        assert!(!respond(id).await.to_string().contains("secret"), "nor does a retry of the answer show it");
    }
}

#[tokio::test]
async fn a_revision_is_part_of_one_chain_whichever_message_is_asked() {
    let app = TestApp::new().await;
    let first = message(&app, json!({"channelId": "demo", "text": "1", "review": {"type": "approval"}})).await;
    let second = message(&app, json!({"channelId": "demo", "text": "2", "iterationOf": first})).await;
    let third = message(&app, json!({"channelId": "demo", "text": "3", "iterationOf": second})).await;
    for id in [&first, &second, &third] {
        let chain = app.get(format!("/api/v1/messages/{id}/iterations")).await.expect(200);
        let texts: Vec<_> = chain["data"].as_array().unwrap().iter().map(|one| one["text"].clone()).collect();
        assert_eq!(texts, ["1", "2", "3"]);
    }
    let review = app.get(format!("/api/v1/reviews/{first}")).await.expect(200);
    assert_eq!(review["status"], "cancelled");
}

/// The second and the third message revise the first one, the fourth revises the second.
#[tokio::test]
async fn two_revisions_of_one_message_are_in_its_chain_whichever_is_asked() {
    let app = TestApp::new().await;
    let mut ids = vec![message(&app, json!({"channelId": "demo", "text": "1"})).await];
    for revised in [0, 0, 1] {
        let body = json!({"channelId": "demo", "text": "again", "iterationOf": ids[revised]});
        ids.push(message(&app, body).await);
    }
    let newest_first: Vec<_> = ids.iter().rev().cloned().collect();
    for deleted in [None, Some(1), Some(2)] {
        if let Some(deleted) = deleted {
            app.delete(format!("/api/v1/messages/{}", ids[deleted])).await.expect(204);
        }
        for id in &ids {
            let chain = format!("/api/v1/messages/{id}/iterations?limit=2");
            assert_eq!(app.ids(&chain).await, ids, "{id}, {deleted:?}");
            assert_eq!(app.ids(format!("{chain}&order=desc")).await, newest_first, "{id}, {deleted:?}");
        }
    }
}

#[tokio::test]
async fn a_message_is_delivered_and_read_once() {
    let app = TestApp::new().await;
    let id = message(&app, json!({"channelId": "demo", "text": "x"})).await;
    let path = format!("/api/v1/messages/{id}/ack");
    let delivered = app.post(&path).json(json!({"status": "delivered"})).await.expect(200);
    let again = app.post(&path).json(json!({"status": "delivered"})).await.expect(200);
    assert_eq!(delivered["deliveredAt"], again["deliveredAt"]);
    assert!(app.post(&path).json(json!({"status": "read"})).await.expect(200)["readAt"].is_string());
    app.post(&path).json(json!({"status": "lost"})).await.problem(400, "invalid_enum");
    let events = app.get("/api/v1/channels/demo/events").await.expect(200);
    let types: Vec<_> = events["data"].as_array().unwrap().iter().map(|one| one["type"].clone()).collect();
    assert_eq!(types, ["conversation.created", "message.created", "message.delivered", "message.read"]);
}

#[tokio::test]
async fn a_read_message_counts_as_delivered() {
    let app = TestApp::new().await;
    let id = message(&app, json!({"channelId": "demo", "text": "x"})).await;
    let path = format!("/api/v1/messages/{id}/ack");
    let read = app.post(&path).json(json!({"status": "read"})).await.expect(200);
    assert!(read["readAt"].is_string());
    assert_eq!(read["deliveredAt"], read["readAt"]);
    let late = app.post(&path).json(json!({"status": "delivered"})).await.expect(200);
    assert_eq!(late, read, "who comes too late with that changes nothing");
}

#[tokio::test]
async fn the_first_decision_of_a_review_stands_and_is_announced() {
    let app = TestApp::new().await;
    let id = message(&app, json!({"channelId": "demo", "text": "?", "review": {"type": "approval"}})).await;
    let path = format!("/api/v1/reviews/{id}");
    let wrong = app.post(format!("{path}/respond")).json(json!({"response": {"selectedOption": "maybe"}})).await;
    wrong.problem(400, "invalid_response");
    let decision = json!({"response": {"selectedOption": "approve"}, "feedback": "fine"});
    let waiting = app.get(format!("{path}/wait?timeout=20"));
    let deciding = app.post(format!("{path}/respond")).json(decision.clone()).idempotency_key("k");
    let (waited, decided) = tokio::join!(async { waiting.await }, async { deciding.await });
    let waited = waited.expect(200);
    let decided = decided.expect(200);
    for shown in [&waited, &decided] {
        assert_eq!((&shown["status"], &shown["feedback"]), (&json!("completed"), &json!("fine")));
    }
    let replay = app.post(format!("{path}/respond")).json(decision).idempotency_key("k").await.expect(200);
    assert_eq!(replay, decided);
    let late = app.post(format!("{path}/respond")).json(json!({"response": {"selectedOption": "reject"}})).await;
    let late = late.problem(409, "review_already_completed");
    assert_eq!(late["review"]["response"], json!({"selectedOption": "approve"}));
    app.post(format!("{path}/cancel")).await.problem(409, "review_already_completed");
    assert_eq!(app.get("/api/v1/reviews?status=pending").await.expect(200)["data"], json!([]));
    assert_eq!(app.get("/api/v1/reviews?channelId=demo").await.expect(200)["data"][0]["id"], json!(id));
    app.get(format!("{path}/wait?timeout=56")).await.problem(400, "out_of_range");
}

#[tokio::test]
async fn events_have_gapless_sequences_and_pages_of_them_add_up() {
    let app = TestApp::new().await;
    for text in ["a", "b", "c"] {
        message(&app, json!({"channelId": "demo", "text": text, "review": {"type": "approval"}})).await;
    }
    let all = app.get("/api/v1/channels/demo/events?limit=200").await.expect(200);
    let sequences: Vec<u64> =
        all["data"].as_array().unwrap().iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=7).collect::<Vec<_>>());
    let after = app.get("/api/v1/channels/demo/events?after=5").await.expect(200);
    assert_eq!(after["data"].as_array().unwrap().len(), 2);
    let first = app.get("/api/v1/channels/demo/events?limit=3").await.expect(200);
    let cursor = first["nextCursor"].as_str().unwrap();
    let next = app.get(format!("/api/v1/channels/demo/events?limit=3&cursor={cursor}")).await.expect(200);
    assert_eq!(next["data"][0], all["data"][3]);
}

#[tokio::test]
async fn a_deletion_that_names_what_it_saw_spares_a_message_that_was_edited_since() {
    let app = TestApp::new().await;
    let id = message(&app, json!({"channelId": "demo", "text": "one"})).await;
    let path = format!("/api/v1/messages/{id}");
    let etag = app.get(&path).await.header("etag").to_owned();
    app.patch(&path).json(json!({"text": "two"})).await.expect(200);
    app.delete(&path).header("if-match", &etag).await.problem(412, "precondition_failed");
    assert_eq!(app.get(&path).await.expect(200)["text"], "two");
    let etag = app.get(&path).await.header("etag").to_owned();
    app.delete(&path).header("if-match", &etag).await.expect(204);
}

#[tokio::test]
async fn a_repeated_receipt_shows_the_message_as_it_was_then() {
    let app = TestApp::new().await;
    let id = message(&app, json!({"channelId": "demo", "text": "one"})).await;
    let path = format!("/api/v1/messages/{id}");
    app.patch(&path).json(json!({"text": "two"})).await.expect(200);
    let receipt =
        || app.post(format!("{path}/ack")).idempotency_key("receipt").json(json!({"status": "delivered"})).send();
    let first = receipt().await;
    assert_eq!((first.status, &first.json["text"]), (200, &json!("two")));
    app.post(format!("{path}/ack")).json(json!({"status": "read"})).await.expect(200);
    app.patch(&path).json(json!({"text": "three"})).await.expect(200);
    let again = receipt().await;
    assert_eq!((again.header("idempotent-replayed"), &again.bytes), ("true", &first.bytes));
}

#[tokio::test]
async fn a_repeated_receipt_shows_the_review_as_it_stood_then() {
    let app = TestApp::new().await;
    let review = json!({"type": "approval", "expiresInSeconds": 60});
    let id = message(&app, json!({"channelId": "demo", "text": "Deploy?", "review": review})).await;
    let path = format!("/api/v1/messages/{id}");
    let receipt =
        |key: &str| app.post(format!("{path}/ack")).idempotency_key(key).json(json!({"status": "read"})).send();
    let first = receipt("before").await;
    assert_eq!((first.status, &first.json["review"]["status"]), (200, &json!("pending")));
    app.clock.advance(61_000);
    let late = receipt("after").await;
    assert_eq!((late.status, &late.json["review"]["status"]), (200, &json!("expired")));
    for (key, first) in [("before", first), ("after", late)] {
        let again = receipt(key).await;
        assert_eq!((again.header("idempotent-replayed"), &again.bytes), ("true", &first.bytes));
    }
    assert_eq!(app.get(&path).await.expect(200)["review"]["status"], "expired");
}

#[tokio::test]
async fn a_chain_of_revisions_is_a_list_like_every_other() {
    let app = TestApp::new().await;
    let mut ids = vec![message(&app, json!({"channelId": "demo", "text": "0"})).await];
    for n in 1..5 {
        let body = json!({"channelId": "demo", "text": n.to_string(), "iterationOf": ids.last()});
        ids.push(message(&app, body).await);
    }
    let chain = format!("/api/v1/messages/{}/iterations", ids[2]);
    for (order, expected) in [("asc", ids.clone()), ("desc", ids.iter().rev().cloned().collect())] {
        assert_eq!(app.ids(format!("{chain}?limit=2&order={order}")).await, expected);
    }
    assert_eq!(
        app.get(format!("{chain}?limit=0&order=x")).await.faults(),
        ["out_of_range /limit", "invalid_enum /order"]
    );
    app.get(format!("{chain}?cursor=x")).await.problem(400, "invalid_cursor");
}

#[tokio::test]
async fn field_names_of_the_messages_own_api_win_over_the_others() {
    let app = TestApp::new().await;
    let conversation = message(&app, json!({"content": {"content": "a"}})).await;
    let edit = json!({"content": "own", "text": "other", "meta_data": {"own": 1}, "metadata": {"other": 1}});
    let edited = app.patch(format!("/api/v1/messages/{conversation}")).json(edit.clone()).await;
    assert_eq!((&edited.json["content"], &edited.json["meta_data"]), (&json!("own"), &json!({"own": 1})));
    assert_eq!(edited.header("x-ignored-fields"), "metadata, text");
    let channel = message(&app, json!({"channelId": "demo", "text": "a"})).await;
    let edited = app.patch(format!("/api/v1/messages/{channel}")).json(edit).await;
    assert_eq!((&edited.json["text"], &edited.json["metadata"]), (&json!("other"), &json!({"other": 1})));
    assert_eq!(edited.header("x-ignored-fields"), "content, meta_data");
}

/// What was read has been delivered.
#[tokio::test]
async fn a_conversations_message_stays_known_although_it_was_read() {
    let app = TestApp::new().await;
    let id = message(&app, json!({"content": {"content": "a"}})).await;
    let path = format!("/api/v1/messages/{id}");
    let etag = app.get(&path).await.header("etag").to_owned();
    for status in ["read", "delivered"] {
        app.post(format!("{path}/ack")).json(json!({"status": status})).await.expect(200);
    }
    assert_eq!(app.get(&path).header("if-none-match", &etag).await.status, 304, "it shows nothing of that");
    let conversation = app.get(&path).await.expect(200)["conversation_id"].as_str().unwrap().to_owned();
    let events = app.get(format!("/api/v1/conversations/{conversation}/events")).await.expect(200);
    let types: Vec<_> = events["data"].as_array().unwrap().iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types, ["conversation.created", "message.created", "message.read"]);
}

#[tokio::test]
async fn an_empty_text_for_a_deleted_message_is_refused_because_it_is_deleted() {
    let app = TestApp::new().await;
    let call = json!({"content": {"content": "", "role": "assistant", "tool_calls": [{"id": "1"}]}});
    let made = app.post("/api/v1/messages").json(call).await.expect(200);
    let path = format!("/api/v1/messages/{}", made[0]["id"].as_str().unwrap());
    let empty = async || app.patch(&path).json(json!({"content": ""})).await;
    empty().await.expect(200);
    app.delete(&path).await.expect(204);
    empty().await.problem(409, "message_deleted");
}
