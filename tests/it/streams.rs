//! Live streams of event logs: the same events as in the lists, each once, wherever a reader reconnects.

use axum::body::{Body, Bytes};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::support::live::OPENING;
use crate::support::{TestApp, ids};

mod endings;
mod history;

async fn post(app: &TestApp, text: &str) -> Value {
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": text})).await.expect(201)
}

/// The channel's log, from its list.
async fn log(app: &TestApp, query: &str) -> Vec<Value> {
    let page = app.get(format!("/api/v1/channels/demo/events?limit=200{query}")).await.expect(200);
    page["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_stream_tells_what_the_list_shows_with_the_sequence_as_its_id() {
    let app = TestApp::new().await;
    for text in ["one", "two", "three"] {
        post(&app, text).await;
    }
    let listed = log(&app, "").await;
    let mut live = app.get("/api/v1/channels/demo/events?after=0").follow().await;
    for event in &listed {
        let told = live.next().await;
        assert_eq!((&told.data, told.event.as_deref()), (event, event["type"].as_str()));
        assert_eq!(told.id, Some(event["sequence"].to_string()));
    }
    post(&app, "four").await;
    let told = live.next().await;
    assert_eq!(told.data["data"]["text"], "four");
    assert_eq!(told.data, log(&app, "").await[listed.len()], "also what happens from now on");
}

#[tokio::test]
async fn a_reader_that_comes_back_goes_on_where_it_was_and_misses_nothing() {
    let app = TestApp::new().await;
    let path = "/api/v1/channels/demo/events";
    post(&app, "before").await;
    let mut live = app.get(path).follow().await;
    post(&app, "one").await;
    let last = live.next().await;
    assert_eq!(last.data["data"]["text"], "one", "without a position a stream begins at the live end");
    drop(live);
    for text in ["two", "three"] {
        post(&app, text).await;
    }
    let last = last.id.unwrap();
    // A browser reconnects with the header; the query is from its first request.
    for (query, header) in [("?after=0", Some(last.as_str())), (&*format!("?after={last}"), None)] {
        let request = app.get(format!("{path}{query}"));
        let request = if let Some(header) = header { request.header("last-event-id", header) } else { request };
        let mut live = request.follow().await;
        for text in ["two", "three"] {
            assert_eq!(live.next().await.data["data"]["text"], text);
        }
    }
    for wrong in ["x", "-1", "+1", "1.5", "99999999999999999999999", "é1"] {
        let live = |query: &str| app.get(format!("{path}{query}")).header("accept", "text/event-stream");
        let query = format!("?after={}", wrong.replace('+', "%2B").replace('é', "%C3%A9"));
        let by_header = || live("").header("last-event-id", wrong);
        let by_query = || live(&query);
        for media_type in [by_header().media_type().await, by_query().media_type().await] {
            assert_eq!(media_type, "application/problem+json", "{wrong}");
        }
        assert_eq!(by_header().await.faults(), ["invalid_type /Last-Event-ID"], "{wrong}");
        assert_eq!(by_query().await.faults(), ["invalid_type /after"], "{wrong}");
        let by_both = live(&query).header("last-event-id", wrong).await;
        assert_eq!(by_both.faults(), ["invalid_type /Last-Event-ID", "invalid_type /after"], "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_in_which_nothing_happens_is_kept_alive_by_comments() {
    let app = TestApp::new().await;
    post(&app, "one").await;
    let mut live = app.get("/api/v1/channels/demo/events").follow().await;
    let begun = tokio::time::Instant::now();
    for n in 1..=3 {
        let told = live.told().await.unwrap();
        assert_eq!((told.event, told.id), (None, None));
        assert_eq!(begun.elapsed().as_secs(), 15 * n);
    }
    post(&app, "two").await;
    assert_eq!(live.next().await.data["data"]["text"], "two");
}

#[tokio::test]
async fn a_log_is_sent_in_the_media_type_with_the_highest_weight() {
    let app = TestApp::new().await;
    let path = "/api/v1/channels/demo/events";
    for (accept, form) in [
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream;q=0.5, */*;q=0.5", "text/event-stream"),
        ("application/json;q=0.5, text/event-stream;q=0.9", "text/event-stream"),
        ("application/json;q=0.9, text/event-stream;q=0.5", "application/json"),
        ("text/event-stream;q=0", "application/json"),
        ("*/*", "application/json"),
    ] {
        assert_eq!(app.get(path).header("accept", accept).media_type().await, form, "{accept}");
    }
}

#[tokio::test]
async fn a_stream_tells_long_messages_although_their_pages_are_short() {
    let app = TestApp::new().await;
    let made = app.post("/api/v1/conversations").json(json!({})).await.expect(201);
    let conversation = made["id"].as_str().unwrap();
    let long = "x".repeat(250_000);
    for n in 0..40 {
        let content = json!({"content": format!("{n} {long}")});
        let body = json!({"conversation_id": conversation, "content": content});
        app.post("/api/v1/messages").json(body).await.expect(200);
    }
    for list in ["messages?order=asc&", "messages?order=desc&", "events?order=asc&", "events?order=desc&"] {
        let mut cursor = String::new();
        let mut seen = Vec::new();
        let mut pages = 0;
        loop {
            let path = format!("/api/v1/conversations/{conversation}/{list}limit=100{cursor}");
            let page = app.get(path).await;
            assert!(page.bytes.len() < 10_000_000, "{list} {}", page.bytes.len());
            let page = page.expect(200);
            seen.extend(ids(&page));
            pages += 1;
            match page["nextCursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        seen.sort_unstable();
        seen.dedup();
        assert!(pages == 2 && seen.len() >= 40, "{list}: {pages} pages, {}", seen.len());
    }
    let mut live = app.get(format!("/api/v1/conversations/{conversation}/events?after=0")).follow().await;
    for n in 0..40 {
        let told = live.up_to("message.created").await;
        assert!(told.last().unwrap().data.to_string().contains(&format!("\"{n} x")), "{n}");
    }
}

/// The events of a conversation, each of which must name this conversation, and this channel.
async fn of(app: &TestApp, conversation: &Value, channel: &Value) -> Vec<Value> {
    let path = format!("/api/v1/conversations/{}/events?limit=200", conversation.as_str().unwrap());
    let events = app.get(&path).await.expect(200)["data"].as_array().unwrap().clone();
    for event in &events {
        assert_eq!((&event["data"]["conversationId"], &event["data"]["channelId"]), (conversation, channel), "{event}");
    }
    let mut live = app.get(format!("{path}&after=0")).follow().await;
    for event in &events {
        assert_eq!(live.next().await.data, *event, "live too");
    }
    events.iter().map(|event| event["type"].clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn every_event_names_its_conversation_and_channel() {
    let app = TestApp::new().await;
    // A human channel, with a reader that was connected before any message.
    let mut early = app.get("/api/v1/channels/demo/events").follow().await;
    let review = json!({"channelId": "demo", "text": "?", "review": {"type": "approval", "payload": {}}});
    let asked = app.post("/api/v1/messages").json(review).await.expect(201);
    let path = format!("/api/v1/messages/{}", asked["id"].as_str().unwrap());
    app.post(format!("{path}/ack")).json(json!({"status": "read"})).await.expect(200);
    app.post(format!("/api/v1/reviews/{}/cancel", asked["id"].as_str().unwrap())).await.expect(200);
    app.patch(&path).json(json!({"text": "!"})).await.expect(200);
    app.delete(&path).await.expect(204);
    let told = early.up_to("message.deleted").await;
    let conversation = told[0].data["data"]["conversationId"].clone();
    assert!(conversation.as_str().unwrap().starts_with("conv_"), "{told:?}");
    let listed = log(&app, "").await;
    assert_eq!(told.iter().map(|told| told.data.clone()).collect::<Vec<_>>(), listed);
    let kinds = of(&app, &conversation, &json!("demo")).await;
    assert_eq!(kinds.len(), 7, "{kinds:?}");
    // An api channel, with a turn.
    let said = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "I live in Porto"}},
        "enableMemories": true});
    let said = app.post("/api/v1/channels/demo-api/messages").json(said).await.expect(200);
    let conversation = &said["conversationId"];
    let path = format!("/api/v1/conversations/{}", conversation.as_str().unwrap());
    let mut live = app.get(format!("{path}/events?after=0")).follow().await;
    live.up_to("memory.created").await;
    app.patch(&path).json(json!({"title": "t", "status": "closed"})).await.expect(200);
    let kinds = of(&app, conversation, &json!("demo-api")).await;
    for kind in ["turn.started", "turn.completed", "memory.created", "conversation.updated", "conversation.closed"] {
        assert!(kinds.contains(&json!(kind)), "{kind} {kinds:?}");
    }
    // No channel; the message keeps its own member names.
    let said = app.post("/api/v1/messages").json(json!({"content": {"content": "Hello"}})).await.expect(200);
    of(&app, &said[0]["conversation_id"], &Value::Null).await;
    let path = format!("/api/v1/conversations/{}/events", said[0]["conversation_id"].as_str().unwrap());
    let mut shown = app.get(path).await.expect(200)["data"][1]["data"].clone();
    for (name, own) in [("conversationId", "conversation_id"), ("messageId", "id")] {
        assert_eq!(shown.as_object_mut().unwrap().remove(name), Some(said[0][own].clone()));
    }
    assert_eq!(shown, said[0]);
}

#[tokio::test]
async fn a_reader_that_reads_late_gets_everything_in_order() {
    let app = TestApp::new().await;
    post(&app, "begin").await;
    let mut live = app.get("/api/v1/channels/demo/events").follow().await;
    // More events than are kept for a subscriber.
    let count = actors::limits::SUBSCRIBER_EVENTS + 50;
    for n in 0..count {
        post(&app, &n.to_string()).await;
    }
    for n in 0..count {
        assert_eq!(live.next().await.data["data"]["text"], n.to_string());
    }
}

#[tokio::test]
async fn receipts_reviews_and_changes_are_published_as_they_happen() {
    let app = TestApp::new().await;
    let review = json!({"channelId": "demo", "text": "?", "review": {"type": "approval", "payload": {}}});
    let asked = app.post("/api/v1/messages").json(review).await.expect(201);
    let id = asked["id"].as_str().unwrap();
    let mut live = app.get("/api/v1/channels/demo/events").follow().await;
    let path = format!("/api/v1/messages/{id}");
    for status in ["delivered", "read", "read"] {
        app.post(format!("{path}/ack")).json(json!({"status": status})).await.expect(200);
    }
    let response = json!({"response": {"selectedOption": "approve"}});
    app.post(format!("/api/v1/reviews/{id}/respond")).json(response).await.expect(200);
    app.patch(&path).json(json!({"text": "!"})).await.expect(200);
    app.delete(&path).await.expect(204);
    let told = live.up_to("message.deleted").await;
    let kinds: Vec<&str> = told.iter().filter_map(|told| told.event.as_deref()).collect();
    assert_eq!(kinds, ["message.delivered", "message.read", "review.completed", "message.updated", "message.deleted"]);
    assert!(told.iter().all(|told| told.data["data"]["messageId"] == id), "{told:?}");
    let sequences: Vec<u64> = told.iter().map(|told| told.data["sequence"].as_u64().unwrap()).collect();
    assert!(sequences.is_sorted_by(|before, after| before + 1 == *after), "{sequences:?}");
}

/// A message with a review that is decided, and the review then.
async fn decided(app: &TestApp) -> (Value, Value) {
    let review = json!({"type": "rating", "payload": {"words": "of the question"}});
    let asked = json!({"channelId": "demo", "text": "?", "review": review});
    let asked = app.post("/api/v1/messages").json(asked).await.expect(201);
    let path = format!("/api/v1/reviews/{}/respond", asked["id"].as_str().unwrap());
    let answer = json!({"response": {"stars": 5}, "feedback": "fine"});
    let decided = app.post(path).json(answer).await.expect(200);
    (asked, decided)
}

#[tokio::test]
async fn an_event_of_a_message_has_its_id_by_both_names() {
    let app = TestApp::new().await;
    let (asked, _) = decided(&app).await;
    app.patch(format!("/api/v1/messages/{}", asked["id"].as_str().unwrap()))
        .json(json!({"text": "!"}))
        .await
        .expect(200);
    let told = log(&app, "").await.split_off(1);
    let kinds: Vec<_> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["message.created", "review.requested", "review.completed", "message.updated"]);
    for data in told.iter().map(|event| &event["data"]) {
        assert_eq!((&data["id"], &data["messageId"]), (&asked["id"], &asked["id"]), "{data}");
    }
    let said = app.post("/api/v1/messages").json(json!({"content": {"content": "Hello"}})).await.expect(200);
    let events = format!("/api/v1/conversations/{}/events", said[0]["conversation_id"].as_str().unwrap());
    let events = app.get(events).await.expect(200);
    let data = &events["data"][1]["data"];
    assert_eq!((&data["id"], &data["messageId"]), (&said[0]["id"], &said[0]["id"]), "{data}");
}

#[tokio::test]
async fn an_event_of_a_review_shows_all_of_it_but_payload_and_votes() {
    let app = TestApp::new().await;
    let (asked, decided) = decided(&app).await;
    let told = log(&app, "").await.split_off(2);
    for (event, shown) in told.iter().zip([&asked["review"], &decided]) {
        for member in ["type", "status", "expiresAt", "response", "feedback", "decidedBy", "completedAt"] {
            assert_eq!(event["data"].get(member), shown.get(member), "{member} of {event}");
        }
        assert_eq!((event["data"].get("payload"), event["data"].get("votes")), (None, None), "{event}");
    }
    assert_eq!(told.len(), 2);
}

#[tokio::test]
async fn a_conversation_and_its_channel_tell_the_same_events() {
    let app = TestApp::new().await;
    post(&app, "one").await;
    let created = log(&app, "").await.remove(0);
    let conversation = created["data"]["conversationId"].as_str().unwrap();
    let mut of_channel = app.get("/api/v1/channels/demo/events?after=0").follow().await;
    let mut of_conversation = app.get(format!("/api/v1/conversations/{conversation}/events?after=0")).follow().await;
    for _ in 0..2 {
        let one = of_channel.next().await;
        let other = of_conversation.next().await;
        assert_eq!(one, other);
    }
    app.get("/api/v1/channels/demo-api/events").await.problem(400, "channel_kind_mismatch");
    app.get("/api/v1/channels/nowhere/events").await.problem(404, "channel_not_found");
}

async fn frame(reader: &mut Body) -> Bytes {
    reader.frame().await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test]
async fn an_event_is_written_once_for_all_who_follow() {
    let app = TestApp::new().await;
    post(&app, "before").await;
    let follow = || app.get("/api/v1/channels/demo/events").header("accept", "text/event-stream").open();
    let mut readers = [follow().await, follow().await, follow().await];
    for reader in &mut readers {
        assert_eq!(frame(reader).await, OPENING);
    }
    // After the first event no reader has to catch up.
    for text in ["one", "two"] {
        post(&app, text).await;
        let mut told: Vec<Bytes> = Vec::new();
        for reader in &mut readers {
            told.push(frame(reader).await);
        }
        assert!(told[0].ends_with(b"\n\n") && told.iter().all(|bytes| *bytes == told[0]), "{told:?}");
        if text == "two" {
            assert!(told.iter().all(|bytes| bytes.as_ptr() == told[0].as_ptr()), "the same bytes in memory");
        }
    }
}

#[tokio::test]
async fn requests_that_last_leave_connections_to_those_that_do_not() {
    let app = TestApp::with_env(&[("TERTULIA_MAX_CONNECTIONS", "4")]).await;
    let slow = json!({"builtin": {"behaviour": "echo", "latencyMs": 60_000}});
    app.echo(slow).await;
    let asked = json!({"channelId": "demo", "review": {"type": "approval", "payload": {}}});
    let asked = app.post("/api/v1/messages").json(asked).await.expect(201);
    let path = "/api/v1/channels/demo/events";
    let readers = [app.get(path).follow().await, app.get(path).follow().await];
    let refused = app.get(path).header("accept", "text/event-stream").await;
    assert_eq!(refused.header("retry-after"), "1");
    refused.problem(503, "overloaded");
    // A request that would have waited is answered with the current state.
    let said = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "hi"}}});
    let accepted = app.post("/api/v1/channels/demo-api/messages").json(said).await.expect(202);
    assert_eq!(accepted["turn"]["status"], "running");
    let pending = app.get(format!("/api/v1/reviews/{}/wait?timeout=55", asked["id"].as_str().unwrap())).await;
    assert_eq!(pending.expect(200)["status"], "pending");
    post(&app, "anything else goes on").await;
    drop(readers);
    app.get(path).follow().await;
}

/// It may hold half of the permits, and one more for what does not divide.
#[tokio::test]
async fn the_streams_of_one_workspace_leave_some_to_others() {
    let app = TestApp::with_env(&[("TERTULIA_MAX_CONNECTIONS", "4")]).await;
    let key = app.workspace("other").await;
    let channel = json!({"id": "theirs", "name": "t", "kind": "human"});
    app.post("/api/v1/channels").key(&key).json(channel).await.expect(201);
    let path = "/api/v1/channels/demo/events";
    let _readers = [app.get(path).follow().await, app.get(path).follow().await];
    let stream = |path: &str| app.get(path).header("accept", "text/event-stream");
    assert_eq!(stream(path).media_type().await, "application/problem+json");
    let theirs = "/api/v1/channels/theirs/events";
    let _theirs = app.get(theirs).key(&key).follow().await;
    assert_eq!(stream(theirs).key(&key).media_type().await, "application/problem+json");
}
