//! Events as receivers get them, over real sockets, and the API's view of their deliveries.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tertulia::webhooks::sign;
use tokio::time::timeout;

use crate::openapi::{assert_valid, document};
use crate::support::origin::{Heard, Origin, Part, bare};
use crate::support::{ADMIN_KEY, TestApp};

mod kills;
mod lists;
mod others;
mod sharing;
mod trouble;
mod verifiers;

const LOOPBACK: &[(&str, &str)] = &[("TERTULIA_EGRESS_ALLOW", "127.0.0.0/8")];
const ENDPOINTS: &str = "/api/v1/webhook-endpoints";
const DELIVERIES: &str = "/api/v1/webhook-deliveries";

/// The time after which a test reports what did not happen. The machine may be busy.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(90);

/// Waits for something that must happen; fails with its name if it does not.
async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match timeout(DELIVERY_TIMEOUT, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {DELIVERY_TIMEOUT:?}"),
    }
}

/// A receiver that answers with one status, until the test changes it.
struct Receiver {
    origin: Origin,
    status: Arc<AtomicU16>,
}

impl Receiver {
    async fn new(status: u16) -> Self {
        let status = Arc::new(AtomicU16::new(status));
        let answered = Arc::clone(&status);
        let origin = Origin::serve(move |_| match answered.load(Ordering::SeqCst) {
            302 => bare(302, "Location: /elsewhere\r\n"),
            503 => bare(503, "Retry-After: 100\r\n"),
            // The connection is closed without an answer.
            0 => vec![Part::Close],
            status => bare(status, ""),
        });
        Self { origin: origin.await, status }
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// The requests, once there are so many.
    async fn heard(&self, count: usize) -> Vec<Heard> {
        let all = async {
            while self.origin.requests().len() < count {
                tokio::task::yield_now().await;
            }
        };
        soon(&format!("{count} requests"), all).await;
        self.origin.requests()
    }
}

fn body(heard: &Heard) -> Value {
    serde_json::from_slice(&heard.body).unwrap()
}

/// Checks that a request is as documented for this media type.
async fn assert_documented(app: &TestApp, heard: &Heard, media: &str) {
    let document = document(app).await;
    let body = body(heard);
    let said = &document["webhooks"][body["type"].as_str().unwrap()]["post"];
    assert_valid(&document, &said["requestBody"]["content"][media]["schema"], &body, media);
    for header in said["parameters"].as_array().unwrap() {
        let name = header["name"].as_str().unwrap();
        let sent = heard.header(name);
        let sent = sent.parse().map_or_else(|_| json!(sent), |number: u64| json!(number));
        assert_valid(&document, &header["schema"], &sent, name);
    }
}

async fn endpoint(app: &TestApp, body: Value) -> Value {
    app.post(ENDPOINTS).json(body).await.expect(201)
}

/// All entries of a list, in pages of this size.
async fn all(app: &TestApp, query: &str, limit: usize) -> Vec<Value> {
    let pages = app.pages(format!("{DELIVERIES}?{query}&limit={limit}")).await;
    let data = |page: &Value| page["data"].as_array().unwrap().clone();
    assert!(pages.iter().all(|page| data(page).len() <= limit));
    pages.iter().flat_map(data).collect()
}

/// The deliveries with this status, once there are so many and `stand_so` accepts them.
async fn once_so(app: &TestApp, status: &str, count: usize, stand_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let all = async {
        loop {
            let data = all(app, &format!("status={status}"), 200).await;
            if data.len() == count && stand_so(&data) {
                return data;
            }
            tokio::task::yield_now().await;
        }
    };
    soon(&format!("{count} deliveries that are {status}"), all).await
}

/// The deliveries with this status, once there are so many.
async fn once(app: &TestApp, status: &str, count: usize) -> Vec<Value> {
    once_so(app, status, count, |_| true).await
}

fn attempts(delivery: &Value) -> usize {
    delivery["attempts"].as_array().unwrap().len()
}

async fn retry(app: &TestApp, delivery: &Value) -> Value {
    app.post(format!("{DELIVERIES}/{}/retry", delivery["id"].as_str().unwrap())).await.expect(202)
}

/// With both secrets while one is replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_sent_as_the_lists_show_it_and_signed() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(204).await;
    let made = endpoint(&app, json!({"url": receiver.origin.url("/hook?a=1"), "events": ["message.*"]})).await;
    let old = made["secret"].as_str().unwrap();
    let text = json!({"channelId": "demo", "text": "Grüße"});
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
    let posted = app.post("/api/v1/messages").header("traceparent", traceparent).json(text.clone()).await.expect(201);
    let first = receiver.heard(1).await.remove(0);
    let events = app.get("/api/v1/channels/demo/events").await.expect(200)["data"].clone();
    let event = events.as_array().unwrap().iter().find(|event| event["type"] == "message.created").unwrap();
    assert_eq!(first.line, "POST /hook?a=1 HTTP/1.1");
    assert_eq!(
        body(&first),
        json!({"type": event["type"], "timestamp": event["timestamp"], "data": event["data"]}),
        "the same as in the event log"
    );
    assert_eq!(body(&first)["data"]["id"], posted["id"]);
    assert_eq!(first.header("content-type"), "application/json");
    assert_eq!(first.header("webhook-id"), event["id"].as_str().unwrap());
    let now = 1_735_689_600;
    assert_eq!(first.header("webhook-timestamp"), now.to_string());
    let signed = |secret: &str, heard: &Heard| sign(secret, heard.header("webhook-id"), now, &heard.body).unwrap();
    assert_eq!(first.header("webhook-signature"), signed(old, &first));
    assert!(first.header("traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{}", first.head);
    assert!(first.header("user-agent").starts_with("tertulia/"));
    let id = made["id"].as_str().unwrap();
    let rotated = app.post(format!("{ENDPOINTS}/{id}/rotate-secret")).await.expect(200);
    let new = rotated["secret"].as_str().unwrap();
    app.post("/api/v1/messages").json(text).await.expect(201);
    let second = receiver.heard(2).await.remove(1);
    let both = format!("{} {}", signed(new, &second), signed(old, &second));
    assert_eq!(second.header("webhook-signature"), both);
    assert_ne!(second.header("traceparent"), "", "a trace of its own where the request had none");
    app.clock.advance(60 * 60 * 1_000);
    app.post(format!("{ENDPOINTS}/{id}/rotate-secret")).await.expect(200);
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "Grüße"})).await.expect(201);
    let third = receiver.heard(3).await.remove(2);
    let signed = |secret: &str| sign(secret, third.header("webhook-id"), now + 3_600, &third.body).unwrap();
    let signatures: Vec<&str> = third.header("webhook-signature").split(' ').collect();
    assert_eq!(signatures[1..], [signed(new), signed(old)], "each for its 24 hours");
    for heard in [first, second] {
        assert_documented(&app, &heard, "application/json").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_has_no_more_signatures_than_is_documented() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(204).await;
    let made = endpoint(&app, json!({"url": receiver.origin.url("/"), "events": ["message.*"]})).await;
    let mut secrets = vec![made["secret"].clone()];
    for _ in 0..5 {
        let rotated = app.post(format!("{ENDPOINTS}/{}/rotate-secret", made["id"].as_str().unwrap())).await.expect(200);
        secrets.insert(0, rotated["secret"].clone());
    }
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "Grüße"})).await.expect(201);
    let heard = receiver.heard(1).await.remove(0);
    let id = heard.header("webhook-id");
    let at = heard.header("webhook-timestamp").parse().unwrap();
    let newest = secrets.iter().take(5).map(|secret| sign(secret.as_str().unwrap(), id, at, &heard.body).unwrap());
    assert_eq!(heard.header("webhook-signature").split(' ').collect::<Vec<_>>(), newest.collect::<Vec<_>>());
    assert_documented(&app, &heard, "application/json").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloudevents_are_sent_in_structured_mode() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(200).await;
    endpoint(&app, json!({"url": receiver.origin.url("/"), "format": "cloudevents"})).await;
    let said = app.post("/api/v1/messages").json(json!({"content": {"content": "Hello"}})).await.expect(200);
    let heard = receiver.heard(2).await;
    assert_eq!(heard[1].header("content-type"), "application/cloudevents+json");
    let events = app.get(format!("/api/v1/conversations/{}/events", said[0]["conversation_id"].as_str().unwrap()));
    let event = events.await.expect(200)["data"][1].clone();
    assert_eq!(
        body(&heard[1]),
        json!({"specversion": "1.0", "id": event["id"], "type": "message.created", "time": event["timestamp"],
            "source": format!("/api/v1/conversations/{}", said[0]["conversation_id"].as_str().unwrap()),
            "subject": said[0]["id"], "datacontenttype": "application/json", "sequence": "2", "data": event["data"]})
    );
    assert!(heard[1].header("webhook-signature").starts_with("v1,"), "signed all the same");
    // Events of the conversation itself have the conversation as their subject.
    let conversation = said[0]["conversation_id"].as_str().unwrap();
    let path = format!("/api/v1/conversations/{conversation}");
    app.patch(path).json(json!({"title": "t", "status": "closed"})).await.expect(200);
    let heard = receiver.heard(4).await;
    for (n, kind) in [(0, "conversation.created"), (2, "conversation.updated"), (3, "conversation.closed")] {
        let body = body(&heard[n]);
        let told = (&body["type"], &body["subject"], &body["data"]["conversationId"]);
        assert_eq!(told, (&json!(kind), &json!(conversation), &json!(conversation)));
    }
    for heard in &heard {
        assert_documented(&app, heard, "application/cloudevents+json").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_review_tells_its_callback_its_message_its_channel_and_who_subscribed() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(200).await;
    let url = |path: &str| receiver.origin.url(path);
    app.patch("/api/v1/channels/demo").json(json!({"webhookUrl": url("/channel")})).await.expect(200);
    endpoint(&app, json!({"url": url("/endpoint"), "events": ["review.completed"], "channelId": "demo"})).await;
    endpoint(&app, json!({"url": url("/elsewhere"), "channelId": "demo-api"})).await;
    let asked = json!({"channelId": "demo", "text": "Deploy?", "webhookUrl": url("/message"), "review": {
        "type": "approval",
        "callback": {"url": url("/callback"), "method": "PATCH", "headers": {"X-Run": "Run-7", "Authorization": "B x"}},
    }});
    let asked = app.post("/api/v1/messages").json(asked).await.expect(201);
    let path = format!("/api/v1/reviews/{}/respond", asked["id"].as_str().unwrap());
    app.post(path).json(json!({"response": {"selectedOption": "approve"}})).await.expect(200);
    let heard = receiver.heard(4 + 3 + 1 + 1).await;
    let of = |path: &str| heard.iter().filter(|heard| heard.path() == path).collect::<Vec<_>>();
    let kinds = |path: &str| of(path).iter().map(|heard| body(heard)["type"].clone()).collect::<Vec<_>>();
    let all = ["conversation.created", "message.created", "review.requested", "review.completed"];
    assert_eq!(kinds("/channel"), all);
    assert_eq!(kinds("/message"), &all[1..]);
    assert_eq!(kinds("/endpoint"), &all[3..]);
    assert_eq!(kinds("/callback"), &all[3..]);
    assert_eq!(kinds("/elsewhere"), [""; 0]);
    let callback = of("/callback")[0];
    assert!(callback.line.starts_with("PATCH "), "{}", callback.line);
    assert_eq!((callback.header("x-run"), callback.header("authorization")), ("Run-7", "B x"));
    assert_eq!(body(callback)["data"]["response"], json!({"selectedOption": "approve"}));
    let ids: BTreeSet<_> =
        heard.iter().map(|heard| (body(heard)["type"].to_string(), heard.header("webhook-id"))).collect();
    assert_eq!(ids.len(), 4, "an event has one id for all: {ids:?}");
    let ended = once(&app, "delivered", 9).await;
    let receivers: BTreeSet<_> = ended.iter().map(|delivery| delivery["receiver"].as_str().unwrap()).collect();
    assert_eq!(receivers, BTreeSet::from(["callback", "channel", "endpoint", "message"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_2xx_is_success_and_every_attempt_is_listed() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(500).await;
    let made = endpoint(&app, json!({"url": receiver.origin.url("/"), "events": ["message.created"]})).await;
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "a"})).await.expect(201);
    for (tried, answer) in (1..).zip([302, 0, 503, 404, 200]) {
        let waits = once_so(&app, "pending", 1, |all| attempts(&all[0]) == tried).await.remove(0);
        assert_eq!(waits["endpointId"], made["id"]);
        assert_eq!((&waits["status"], &waits["eventType"]), (&json!("pending"), &json!("message.created")));
        assert!(waits["nextAttemptAt"].is_string());
        receiver.answer(answer);
        retry(&app, &waits).await;
    }
    let done = once(&app, "delivered", 1).await.remove(0);
    let attempts = done["attempts"].as_array().unwrap();
    let told: Vec<_> =
        attempts.iter().map(|attempt| (attempt["statusCode"].clone(), attempt["error"].clone())).collect();
    assert_eq!(
        told,
        [
            (json!(500), json!("unexpected_status")),
            (json!(302), json!("unexpected_redirect")),
            (Value::Null, json!("broken_answer")),
            (json!(503), json!("unexpected_status")),
            (json!(404), json!("unexpected_status")),
            (json!(200), Value::Null),
        ]
    );
    assert!(attempts.iter().all(|attempt| attempt["at"].is_string() && attempt["durationMs"].is_u64()));
    assert_eq!(done["nextAttemptAt"], Value::Null);
    assert!(receiver.origin.requests().iter().all(|heard| heard.path() == "/"), "no redirect is followed");
    let path = format!("{DELIVERIES}/{}", done["id"].as_str().unwrap());
    assert_eq!(app.get(&path).await.expect(200), done);
    let other = app.workspace("other").await;
    app.get(&path).key(&other).await.problem(404, "delivery_not_found");
    app.post(format!("{path}/retry")).key(&other).await.problem(404, "delivery_not_found");
    assert_eq!(app.get(DELIVERIES).key(&other).await.expect(200)["data"], json!([]));
    let again = app.post(format!("{path}/retry")).await.expect(202);
    assert_eq!((&again["id"], &again["status"]), (&done["id"], &json!("pending")));
    let heard = receiver.heard(7).await;
    assert_eq!(heard[6].header("webhook-id"), heard[0].header("webhook-id"));
    let again = once(&app, "delivered", 1).await.remove(0);
    assert_eq!(again["attempts"].as_array().unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_of_a_deleted_endpoint_stays_as_it_was_on_a_retry() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(200).await;
    let made = endpoint(&app, json!({"url": receiver.origin.url("/"), "events": ["message.created"]})).await;
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "a"})).await.expect(201);
    let done = once(&app, "delivered", 1).await.remove(0);
    let path = format!("{DELIVERIES}/{}", done["id"].as_str().unwrap());
    let retry = |key: &str| app.post(format!("{path}/retry")).idempotency_key(key);
    let asked = retry("k").await.expect(202);
    let done = once_so(&app, "delivered", 1, |all| attempts(&all[0]) == 2).await.remove(0);
    app.delete(format!("{ENDPOINTS}/{}", made["id"].as_str().unwrap())).await.expect(204);
    retry("other").await.problem(409, "endpoint_deleted");
    assert_eq!(app.get(&path).await.expect(200), done);
    assert_eq!(retry("k").await.expect(202), asked, "what was answered before is answered again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_used_elsewhere_is_refused_before_an_endpoint_that_is_gone() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(200).await;
    let made = endpoint(&app, json!({"url": receiver.origin.url("/"), "events": ["message.created"]})).await;
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "a"})).await.expect(201);
    let done = once(&app, "delivered", 1).await.remove(0);
    app.delete(format!("{ENDPOINTS}/{}", made["id"].as_str().unwrap())).await.expect(204);
    let channel = json!({"name": "c", "kind": "human"});
    let used = || app.post("/api/v1/channels").idempotency_key("used").json(channel.clone()).send();
    assert_eq!(used().await.status, 201);
    let retry =
        |key: &str| app.post(format!("{DELIVERIES}/{}/retry", done["id"].as_str().unwrap())).idempotency_key(key);
    retry("used").await.problem(422, "idempotency_key_reused");
    retry("free").await.problem(409, "endpoint_deleted");
    assert_eq!(used().await.header("idempotent-replayed"), "true");
    // A refused request leaves its key unused.
    app.post("/api/v1/channels").idempotency_key("free").json(channel.clone()).await.expect(201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_request_is_answered_as_before_also_after_others() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(500).await;
    endpoint(&app, json!({"url": receiver.origin.url("/"), "events": ["message.created"]})).await;
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "a"})).await.expect(201);
    let mut answers = Vec::new();
    let waits = once_so(&app, "pending", 1, |all| attempts(&all[0]) == 1).await.remove(0);
    let retry = |key: usize| {
        app.post(format!("{DELIVERIES}/{}/retry", waits["id"].as_str().unwrap())).idempotency_key(&format!("k{key}"))
    };
    for key in 0..4 {
        answers.push(retry(key).await);
        once_so(&app, "pending", 1, |all| attempts(&all[0]) == key + 2).await;
    }
    receiver.answer(200);
    answers.push(retry(4).await);
    once(&app, "delivered", 1).await;
    for (key, first) in answers.iter().enumerate() {
        assert_eq!((first.status, first.json["attempts"].as_array().unwrap().len()), (202, key + 1));
        let again = retry(key).await;
        assert_eq!((again.header("idempotent-replayed"), &again.bytes), ("true", &first.bytes), "k{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_answers_410_is_disabled_until_it_is_enabled() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(410).await;
    let made = endpoint(&app, json!({"url": receiver.origin.url("/"), "events": ["message.created"]})).await;
    let path = format!("{ENDPOINTS}/{}", made["id"].as_str().unwrap());
    let post = async |text: &str| {
        app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": text})).await.expect(201);
    };
    post("a").await;
    let failed = once(&app, "failed", 1).await.remove(0);
    assert_eq!(failed["attempts"][0]["statusCode"], 410);
    let of_event = format!("status=failed&eventId={}", failed["eventId"].as_str().unwrap());
    assert_eq!(all(&app, &of_event, 1).await, std::slice::from_ref(&failed));
    let off = app.get(&path).await.expect(200);
    assert_eq!((&off["enabled"], &off["disabledReason"]), (&json!(false), &json!("gone")));
    post("b").await;
    receiver.answer(200);
    app.clock.advance(1_000);
    let on = app.patch(&path).json(json!({"enabled": true})).await.expect(200);
    assert_eq!((&on["enabled"], &on["disabledReason"]), (&json!(true), &Value::Null));
    post("c").await;
    let heard = receiver.heard(2).await;
    assert_eq!(body(&heard[1])["data"]["text"], "c", "what came meanwhile is not sent");
    // A failed delivery can be sent again.
    retry(&app, &failed).await;
    assert_eq!(body(&receiver.heard(3).await[2])["data"]["text"], "a");
    once(&app, "delivered", 2).await;
    app.delete(&path).await.expect(204);
    post("d").await;
    assert_eq!(all(&app, "status=pending", 10).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_are_listed_in_pages_by_status_endpoint_and_event_both_ways() {
    let app = TestApp::with_env(LOOPBACK).await;
    let good = Receiver::new(200).await;
    let bad = Receiver::new(500).await;
    let [one, two] =
        [&good, &bad].map(|receiver| json!({"url": receiver.origin.url("/"), "events": ["message.created"]}));
    let one = endpoint(&app, one).await;
    let two = endpoint(&app, two).await;
    // Too few failures to trip the second endpoint's breaker.
    for n in 0..8 {
        app.clock.advance(10);
        let body = json!({"content": [{"content": format!("{n}")}, {"content": "again"}]});
        app.post("/api/v1/messages").json(body).await.expect(200);
    }
    once(&app, "delivered", 16).await;
    // Of the two deliveries of each conversation the first is tried.
    let tried = async {
        loop {
            let everything = all(&app, "", 200).await;
            let waits = |delivery: &&Value| delivery["status"] == "pending" && delivery["attempts"] == json!([]);
            if everything.len() == 32 && everything.iter().filter(waits).count() == 8 {
                return everything;
            }
            tokio::task::yield_now().await;
        }
    };
    let everything = soon("the first of each two is tried", tried).await;
    let ids = |data: &[Value]| data.iter().map(|delivery| delivery["id"].clone()).collect::<Vec<_>>();
    let distinct: BTreeSet<_> = everything.iter().map(|delivery| delivery["id"].as_str().unwrap()).collect();
    assert_eq!(distinct.len(), 32);
    let event = everything[3]["eventId"].as_str().unwrap();
    let of_event = all(&app, &format!("eventId={event}"), 200).await;
    assert!(of_event.iter().all(|delivery| delivery["eventId"] == event && everything.contains(delivery)));
    for (query, count) in [
        ("", 32),
        (&format!("eventId={event}"), 2),
        (&format!("eventId={event}&status=pending"), 1),
        (&format!("eventId={event}&status=delivered"), 1),
        (&format!("eventId={event}&status=failed"), 0),
        (&format!("eventId={event}&endpointId={}", one["id"].as_str().unwrap()), 1),
        (&format!("eventId={event}&endpointId={}", two["id"].as_str().unwrap()), 1),
        (&format!("eventId={event}&endpointId=wh_nothing"), 0),
        ("eventId=evt_nothing", 0),
        ("eventId=evt_0000000000000000000000000000000000", 0),
        ("status=delivered", 16),
        ("status=pending", 16),
        ("status=failed", 0),
        (&format!("endpointId={}", one["id"].as_str().unwrap()), 16),
        (&format!("endpointId={}", two["id"].as_str().unwrap()), 16),
        (&format!("endpointId={}&status=pending", two["id"].as_str().unwrap()), 16),
        (&format!("endpointId={}&status=pending", one["id"].as_str().unwrap()), 0),
        ("endpointId=wh_nothing", 0),
    ] {
        let expected = all(&app, query, 200).await;
        assert_eq!(expected.len(), count, "{query}");
        for limit in [1, 5, 16] {
            assert_eq!(ids(&all(&app, query, limit).await), ids(&expected), "{query} by {limit}");
            let mut backwards = ids(&all(&app, &format!("{query}&order=desc"), limit).await);
            backwards.reverse();
            assert_eq!(backwards, ids(&expected), "{query} backwards by {limit}");
        }
    }
    for delivery in &everything {
        let id = delivery["id"].as_str().unwrap();
        assert_eq!(&app.get(format!("{DELIVERIES}/{id}")).await.expect(200), delivery);
    }
    app.get(format!("{DELIVERIES}?status=lost")).await.faults();
    let first = app.get(format!("{DELIVERIES}?eventId={event}&limit=1")).await.expect(200);
    let other = format!("{DELIVERIES}?limit=1&cursor={}", first["nextCursor"].as_str().unwrap());
    app.get(other).await.problem(400, "invalid_cursor");
    let foreign = app.workspace("other").await;
    let theirs = app.get(format!("{DELIVERIES}?eventId={event}")).key(&foreign).await.expect(200);
    assert_eq!(theirs["data"], json!([]), "what is of another workspace is as what is not there");
    let reader = app.key_with(&["messages:read", "messages:write", "reviews:respond"]).await;
    app.get(DELIVERIES).key(&reader).await.problem(403, "insufficient_scope");
    app.get(DELIVERIES).key(ADMIN_KEY).await.expect(200);
    app.get(format!("{DELIVERIES}/del_x")).await.problem(404, "delivery_not_found");
}
