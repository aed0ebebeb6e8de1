//! Receivers that ask for a delay, hang, move to an inside address, or are deleted meanwhile.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{DELIVERIES, ENDPOINTS, LOOPBACK, Receiver, all, attempts, endpoint, once, once_so, retry, soon};
use crate::support::TestApp;
use crate::support::dns::Dns;
use crate::support::origin::{Origin, Part, bare};

async fn post(app: &TestApp, text: &str) {
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": text})).await.expect(201);
}

async fn tried(app: &TestApp, times: usize) -> Value {
    once_so(app, "pending", 1, |all| attempts(&all[0]) == times).await.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_asks_for_time_in_seconds_or_until_a_date_gets_it() {
    let app = TestApp::with_env(LOOPBACK).await;
    // Each with the twentieth that may be added to it.
    for (asks, next, latest) in [
        ("Retry-After: 100\r\n", "2025-01-01T00:01:40.000Z", "2025-01-01T00:01:45.000Z"),
        ("Retry-After: 2\r\n", "2025-01-01T00:00:02.000Z", "2025-01-01T00:00:02.100Z"),
        ("Retry-After: Wed, 01 Jan 2025 00:05:00 GMT\r\n", "2025-01-01T00:05:00.000Z", "2025-01-01T00:05:10.000Z"),
        (
            "Date: Wed, 21 Oct 2015 07:28:00 GMT\r\nRetry-After: Wed, 21 Oct 2015 07:29:00 GMT\r\n",
            "2025-01-01T00:01:00.000Z",
            "2025-01-01T00:01:03.000Z",
        ),
    ] {
        let origin = Origin::serve(move |_| bare(429, asks)).await;
        let made = endpoint(&app, json!({"url": origin.url("/"), "events": ["message.created"]})).await;
        post(&app, "a").await;
        let waits = tried(&app, 1).await;
        let at = waits["nextAttemptAt"].as_str().unwrap();
        assert!((next..latest).contains(&at) && waits["attempts"][0]["statusCode"] == 429, "{asks} {waits}");
        // Other changes of the endpoint do not bring the attempt forward; only a request does.
        let path = format!("{ENDPOINTS}/{}", made["id"].as_str().unwrap());
        app.patch(&path).json(json!({"events": ["message.*"]})).await.expect(200);
        post(&app, "b").await;
        once(&app, "pending", 2).await;
        assert_eq!(origin.requests().len(), 1);
        app.delete(&path).await.expect(204);
        once(&app, "pending", 0).await;
    }
}

/// Also where its receiver had asked for time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_fails_while_its_endpoint_is_disabled() {
    let app = TestApp::with_env(LOOPBACK).await;
    let asked = AtomicUsize::new(0);
    let receiver = Origin::serve(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => bare(503, "Retry-After: 100\r\n"),
        _ => bare(204, ""),
    });
    let receiver = receiver.await;
    let made = endpoint(&app, json!({"url": receiver.url("/"), "events": ["message.created"]})).await;
    let path = format!("{ENDPOINTS}/{}", made["id"].as_str().unwrap());
    post(&app, "before").await;
    tried(&app, 1).await;
    app.patch(&path).json(json!({"enabled": false})).await.expect(200);
    // More than the clocks of two nodes may differ.
    app.clock.advance(30_000);
    post(&app, "while it was off").await;
    app.clock.advance(30_000);
    app.patch(&path).json(json!({"enabled": true})).await.expect(200);
    post(&app, "on again").await;
    // The requested delay, with the twentieth that may be added.
    app.clock.advance(45_001);
    once(&app, "delivered", 1).await;
    once(&app, "pending", 0).await;
    // An event that was never for the endpoint may be among them, if it is between two that were.
    let failed = all(&app, "status=failed", 200).await;
    let error = |one: &Value| one["attempts"].as_array().unwrap().last().unwrap()["error"].clone();
    assert!(!failed.is_empty() && failed.iter().all(|one| error(one) == "endpoint_disabled"), "{failed:?}");
    assert_eq!(attempts(&failed[0]), 2, "the first is the one that was tried: {failed:?}");
    let heard: Vec<Value> =
        receiver.requests().iter().map(|heard| serde_json::from_slice(&heard.body).unwrap()).collect();
    let mut texts: Vec<_> = heard.iter().map(|event| event["data"]["text"].as_str().unwrap()).collect();
    // A request in flight when the clock was moved was taken for lost and sent again.
    texts.dedup();
    assert_eq!(texts, ["before", "on again"]);
    retry(&app, &failed[0]).await;
    once(&app, "delivered", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_inside_at_the_second_attempt_leads_nowhere() {
    let receiver = Origin::serve(|_| {
        let mut answer = bare(500, "Connection: close\r\n");
        answer.push(Part::Close);
        answer
    });
    let receiver = receiver.await;
    let inside = Origin::canary(Ipv4Addr::new(127, 0, 0, 2).into()).await;
    let asked = AtomicUsize::new(0);
    // Each lookup asks for both families.
    let dns = Dns::serve(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => vec![Ipv4Addr::LOCALHOST.into()],
        _ => vec![Ipv4Addr::new(127, 0, 0, 2).into()],
    });
    let dns = dns.await.address.to_string();
    let env = [("TERTULIA_EGRESS_ALLOW", "127.0.0.1/32"), ("TERTULIA_EGRESS_DNS", dns.as_str())];
    let app = TestApp::with_env(&env).await;
    // The inside address need not listen at this port; only the address matters.
    let url = format!("http://hooks.example.com:{}/", receiver.address.port());
    endpoint(&app, json!({"url": url, "events": ["message.created"]})).await;
    post(&app, "a").await;
    let waits = tried(&app, 1).await;
    assert_eq!(waits["attempts"][0]["statusCode"], 500);
    retry(&app, &waits).await;
    let waits = tried(&app, 2).await;
    assert_eq!(waits["attempts"][1]["error"], "blocked_url");
    assert_eq!((waits["attempts"][1]["statusCode"].clone(), inside.connections()), (Value::Null, 0));
    assert_eq!(receiver.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_is_deleted_takes_all_that_waits_with_it() {
    let app = TestApp::with_env(LOOPBACK).await;
    let well = Receiver::new(200).await;
    let hangs = Origin::serve(|_| vec![Part::Silence]).await;
    let made = endpoint(&app, json!({"url": hangs.url("/"), "events": ["message.created"]})).await;
    for text in ["a", "b", "c"] {
        post(&app, text).await;
    }
    let begun = async {
        while hangs.requests().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon("the first is being sent", begun).await;
    let pending = once(&app, "pending", 3).await;
    app.delete(format!("{ENDPOINTS}/{}", made["id"].as_str().unwrap())).await.expect(204);
    once(&app, "pending", 0).await;
    for delivery in &pending {
        let path = format!("{DELIVERIES}/{}", delivery["id"].as_str().unwrap());
        app.get(&path).await.problem(404, "delivery_not_found");
        app.post(format!("{path}/retry")).await.problem(404, "delivery_not_found");
    }
    // Other endpoints still get events, and no other receiver gets the deleted one's.
    endpoint(&app, json!({"url": well.origin.url("/"), "events": ["message.created"]})).await;
    app.clock.advance(1);
    post(&app, "d").await;
    well.heard(1).await;
    once(&app, "delivered", 1).await;
    assert_eq!((all(&app, "", 10).await.len(), hangs.requests().len()), (1, 1));
}

/// It can be retried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tried_delivery_is_kept_though_its_receiver_wants_it_no_more() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(500).await;
    let made = endpoint(&app, json!({"url": receiver.origin.url("/"), "events": ["message.created"]})).await;
    post(&app, "a").await;
    let waits = tried(&app, 1).await;
    let path = format!("{ENDPOINTS}/{}", made["id"].as_str().unwrap());
    app.patch(&path).json(json!({"events": ["review.*"]})).await.expect(200);
    let failed = once(&app, "failed", 1).await.remove(0);
    assert_eq!((&failed["id"], &failed["attempts"][1]["error"]), (&waits["id"], &json!("unsubscribed")));
    assert_eq!(failed["url"], waits["url"]);
    receiver.answer(200);
    retry(&app, &failed).await;
    once(&app, "delivered", 1).await;
    // The same for a channel's URL, once its retry is due.
    receiver.answer(500);
    app.patch("/api/v1/channels/demo").json(json!({"webhookUrl": receiver.origin.url("/channel")})).await.expect(200);
    post(&app, "b").await;
    let waits = tried(&app, 1).await;
    app.patch("/api/v1/channels/demo").json(json!({"webhookUrl": null})).await.expect(200);
    let pending = once(&app, "pending", 1).await.remove(0);
    assert_eq!((&pending["id"], &pending["url"]), (&waits["id"], &waits["url"]));
    app.clock.advance(6_001);
    let failed = once(&app, "failed", 1).await.remove(0);
    assert_eq!((&failed["id"], &failed["attempts"][1]["error"]), (&waits["id"], &json!("receiver_deleted")));
    assert_eq!(failed["url"], waits["url"], "where it went at last");
    retry(&app, &failed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_with_an_idempotency_key_happens_once_and_is_answered_the_same() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(500).await;
    endpoint(&app, json!({"url": receiver.origin.url("/"), "events": ["message.created"]})).await;
    post(&app, "a").await;
    let path = format!("{DELIVERIES}/{}/retry", tried(&app, 1).await["id"].as_str().unwrap());
    let first = app.post(&path).idempotency_key("one").await;
    assert_eq!((first.status, first.json["status"].as_str()), (202, Some("pending")));
    receiver.heard(2).await;
    tried(&app, 2).await;
    let again = app.post(&path).idempotency_key("one").await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"));
    assert_eq!(String::from_utf8_lossy(&again.bytes), String::from_utf8_lossy(&first.bytes));
    assert_eq!(receiver.origin.requests().len(), 2, "it had its effect");
    app.post("/api/v1/conversations")
        .idempotency_key("one")
        .json(json!({}))
        .await
        .problem(422, "idempotency_key_reused");
    app.post(&path).idempotency_key(&"x".repeat(256)).await.expect(400);
    receiver.answer(200);
    app.post(&path).idempotency_key("two").await.expect(202);
    once(&app, "delivered", 1).await;
    app.post(&path).idempotency_key("three").await.expect(202);
    receiver.heard(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_channel_receives_no_events_of_the_deleted_one() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(200).await;
    let channel =
        |path: &str| json!({"id": "room", "name": "room", "kind": "human", "webhookUrl": receiver.origin.url(path)});
    app.post("/api/v1/channels").json(channel("/old")).await.expect(201);
    let asked = json!({"channelId": "room", "text": "Now?", "webhookUrl": receiver.origin.url("/message"),
        "review": {"type": "approval", "expiresInSeconds": 60}});
    app.post("/api/v1/messages").json(asked).await.expect(201);
    once(&app, "delivered", 5).await;
    app.delete("/api/v1/channels/room").await.expect(204);
    app.post("/api/v1/channels").json(channel("/new")).await.expect(201);
    endpoint(&app, json!({"url": receiver.origin.url("/room"), "channelId": "room"})).await;
    endpoint(&app, json!({"url": receiver.origin.url("/all"), "events": ["review.expired"]})).await;
    app.clock.advance(61_000);
    let heard = receiver.heard(6).await;
    assert_eq!(heard[5].path(), "/all", "the review has expired all the same");
    let failed = once(&app, "failed", 1).await.remove(0);
    assert_eq!((&failed["receiver"], &failed["attempts"][0]["error"]), (&json!("message"), &json!("channel_deleted")));
    assert_eq!(receiver.origin.requests().len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_api_channel_receives_only_events_of_its_own() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(200).await;
    let channel = |path: &str| {
        let url = receiver.origin.url(path);
        json!({"id": "shop", "name": "shop", "kind": "api", "agentId": "echo", "webhookUrl": url})
    };
    let say = || {
        let body = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "hello"}}});
        app.post("/api/v1/channels/shop/messages").json(body)
    };
    app.post("/api/v1/channels").json(channel("/old")).await.expect(201);
    let before = say().await.expect(200);
    let told = once(&app, "delivered", 5).await.len();
    app.delete("/api/v1/channels/shop").await.expect(204);
    app.post("/api/v1/channels").json(channel("/new")).await.expect(201);
    endpoint(&app, json!({"url": receiver.origin.url("/shop"), "channelId": "shop"})).await;
    let path = format!("/api/v1/conversations/{}/messages", before["conversationId"].as_str().unwrap());
    app.post(path).json(json!({"content": {"content": "said where the channel is gone"}})).await.expect(200);
    let after = say().await.expect(200);
    assert_ne!(before["conversationId"], after["conversationId"]);
    assert_eq!(after["conversation"]["channelId"], "shop");
    let heard = receiver.heard(told + 10).await;
    let of = |path: &str| heard.iter().filter(|heard| heard.path() == path).count();
    assert_eq!((of("/old"), of("/new"), of("/shop")), (told, 5, 5));
    for heard in heard.iter().filter(|heard| heard.path() != "/old") {
        assert!(!String::from_utf8_lossy(&heard.body).contains("is gone"));
    }
}
