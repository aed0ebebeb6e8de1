//! Events as receivers get them, over real sockets, and what the API says of their deliveries.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};
use tertulia::webhooks::sign;

use crate::origin::{Heard, Origin, Part, bare};
use crate::support::{ADMIN_KEY, TestApp};

const LOOPBACK: &[(&str, &str)] = &[("TERTULIA_EGRESS_ALLOW", "127.0.0.0/8")];
const ENDPOINTS: &str = "/api/v1/webhook-endpoints";
const DELIVERIES: &str = "/api/v1/webhook-deliveries";

/// A receiver that answers with one status, until that is changed.
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
            // The connection is closed without a word.
            0 => vec![Part::Close],
            status => bare(status, ""),
        });
        Self { origin: origin.await, status }
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    /// What has come, once that is so much.
    async fn heard(&self, count: usize) -> Vec<Heard> {
        while self.origin.requests().len() < count {
            tokio::task::yield_now().await;
        }
        self.origin.requests()
    }
}

fn header(heard: &Heard, name: &str) -> String {
    // Values keep their case only in what was sent; ids and signatures are compared through the whole head.
    let line = heard.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or_default().to_owned()
}

fn body(heard: &Heard) -> Value {
    serde_json::from_slice(&heard.body).unwrap()
}

async fn endpoint(app: &TestApp, body: Value) -> Value {
    app.post(ENDPOINTS).json(body).await.expect(201)
}

/// Everything in a list, in pages of this size.
async fn all(app: &TestApp, query: &str, limit: usize) -> Vec<Value> {
    let (mut data, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.get(format!("{DELIVERIES}?{query}&limit={limit}{cursor}")).await.expect(200);
        let items = page["data"].as_array().unwrap();
        assert!(items.len() <= limit);
        data.extend(items.iter().cloned());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return data,
        }
    }
}

/// The deliveries with this status, once there are so many.
async fn once(app: &TestApp, status: &str, count: usize) -> Vec<Value> {
    loop {
        let data = all(app, &format!("status={status}"), 200).await;
        if data.len() >= count {
            assert_eq!(data.len(), count);
            return data;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_sent_as_the_lists_show_it_signed_with_both_secrets_while_one_rotates() {
    let (app, receiver) = (TestApp::with_env(LOOPBACK).await, Receiver::new(204).await);
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
    assert_eq!(header(&first, "content-type"), "application/json");
    assert_eq!(header(&first, "webhook-id"), event["id"].as_str().unwrap());
    let now = 1_735_689_600;
    assert_eq!(header(&first, "webhook-timestamp"), now.to_string());
    let signed = |secret: &str, heard: &Heard| sign(secret, &header(heard, "webhook-id"), now, &heard.body).unwrap();
    assert_eq!(header(&first, "webhook-signature"), signed(old, &first).to_lowercase());
    assert!(header(&first, "traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{}", first.head);
    assert!(header(&first, "user-agent").starts_with("tertulia/"));
    let id = made["id"].as_str().unwrap();
    let rotated = app.post(format!("{ENDPOINTS}/{id}/rotate-secret")).await.expect(200);
    let new = rotated["secret"].as_str().unwrap();
    app.post("/api/v1/messages").json(text).await.expect(201);
    let second = receiver.heard(2).await.remove(1);
    let both = format!("{} {}", signed(new, &second), signed(old, &second));
    assert_eq!(header(&second, "webhook-signature"), both.to_lowercase());
    assert_ne!(header(&second, "traceparent"), "", "a trace of its own where the request had none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloudevents_are_sent_in_structured_mode() {
    let (app, receiver) = (TestApp::with_env(LOOPBACK).await, Receiver::new(200).await);
    endpoint(&app, json!({"url": receiver.origin.url("/"), "format": "cloudevents"})).await;
    let said = app.post("/api/v1/messages").json(json!({"content": {"content": "Hello"}})).await.expect(200);
    let heard = receiver.heard(2).await;
    assert_eq!(header(&heard[1], "content-type"), "application/cloudevents+json");
    let events = app.get(format!("/api/v1/conversations/{}/events", said[0]["conversation_id"].as_str().unwrap()));
    let event = events.await.expect(200)["data"][1].clone();
    assert_eq!(
        body(&heard[1]),
        json!({"specversion": "1.0", "id": event["id"], "type": "message.created", "time": event["timestamp"],
            "source": format!("/api/v1/conversations/{}", said[0]["conversation_id"].as_str().unwrap()),
            "subject": said[0]["id"], "datacontenttype": "application/json", "sequence": "2", "data": event["data"]})
    );
    assert!(header(&heard[1], "webhook-signature").starts_with("v1,"), "signed all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_review_tells_its_callback_its_message_its_channel_and_who_subscribed() {
    let (app, receiver) = (TestApp::with_env(LOOPBACK).await, Receiver::new(200).await);
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
    assert_eq!((header(callback, "x-run"), header(callback, "authorization")), ("run-7".into(), "b x".into()));
    assert_eq!(body(callback)["data"]["response"], json!({"selectedOption": "approve"}));
    let ids: BTreeSet<_> =
        heard.iter().map(|heard| (body(heard)["type"].to_string(), header(heard, "webhook-id"))).collect();
    assert_eq!(ids.len(), 4, "an event has one id for all: {ids:?}");
    let ended = once(&app, "delivered", 9).await;
    let receivers: BTreeSet<_> = ended.iter().map(|delivery| delivery["receiver"].as_str().unwrap()).collect();
    assert_eq!(receivers, BTreeSet::from(["callback", "channel", "endpoint", "message"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_2xx_is_success_and_every_attempt_is_told_of() {
    let (app, receiver) = (TestApp::with_env(LOOPBACK).await, Receiver::new(500).await);
    let made = endpoint(&app, json!({"url": receiver.origin.url("/"), "events": ["message.created"]})).await;
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "a"})).await.expect(201);
    let mut tried = 1;
    for answer in [302, 0, 503, 404, 200] {
        let waits = loop {
            let waits = once(&app, "pending", 1).await.remove(0);
            if waits["attempts"].as_array().unwrap().len() == tried {
                break waits;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(waits["endpointId"], made["id"]);
        assert_eq!((&waits["status"], &waits["eventType"]), (&json!("pending"), &json!("message.created")));
        assert!(waits["nextAttemptAt"].is_string());
        receiver.answer(answer);
        app.post(format!("{DELIVERIES}/{}/retry", waits["id"].as_str().unwrap())).await.expect(202);
        tried += 1;
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
    assert_eq!(header(&heard[6], "webhook-id"), header(&heard[0], "webhook-id"));
    let again = once(&app, "delivered", 1).await.remove(0);
    assert_eq!(again["attempts"].as_array().unwrap().len(), 7);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_answers_410_is_disabled_and_gets_nothing_until_it_is_enabled() {
    let (app, receiver) = (TestApp::with_env(LOOPBACK).await, Receiver::new(410).await);
    let made = endpoint(&app, json!({"url": receiver.origin.url("/"), "events": ["message.created"]})).await;
    let path = format!("{ENDPOINTS}/{}", made["id"].as_str().unwrap());
    let post = async |text: &str| {
        app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": text})).await.expect(201);
    };
    post("a").await;
    let failed = once(&app, "failed", 1).await.remove(0);
    assert_eq!(failed["attempts"][0]["statusCode"], 410);
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
    // What failed can be sent once more.
    app.post(format!("{DELIVERIES}/{}/retry", failed["id"].as_str().unwrap())).await.expect(202);
    assert_eq!(body(&receiver.heard(3).await[2])["data"]["text"], "a");
    once(&app, "delivered", 2).await;
    app.delete(&path).await.expect(204);
    post("d").await;
    assert_eq!(all(&app, "status=pending", 10).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_are_listed_in_pages_by_status_and_endpoint_both_ways() {
    let (app, good, bad) = (TestApp::with_env(LOOPBACK).await, Receiver::new(200).await, Receiver::new(500).await);
    let [one, two] =
        [&good, &bad].map(|receiver| json!({"url": receiver.origin.url("/"), "events": ["message.created"]}));
    let (one, two) = (endpoint(&app, one).await, endpoint(&app, two).await);
    for n in 0..12 {
        app.clock.advance(10);
        let body = json!({"content": [{"content": format!("{n}")}, {"content": "again"}]});
        app.post("/api/v1/messages").json(body).await.expect(200);
    }
    once(&app, "delivered", 24).await;
    let everything = loop {
        let everything = all(&app, "", 200).await;
        let waits = |delivery: &Value| delivery["status"] == "pending" && delivery["attempts"] == json!([]);
        // Of the two of each conversation the first was tried.
        if everything.len() == 48 && everything.iter().filter(|delivery| waits(delivery)).count() == 12 {
            break everything;
        }
        tokio::task::yield_now().await;
    };
    let ids = |data: &[Value]| data.iter().map(|delivery| delivery["id"].clone()).collect::<Vec<_>>();
    let distinct: BTreeSet<_> = everything.iter().map(|delivery| delivery["id"].as_str().unwrap()).collect();
    assert_eq!(distinct.len(), 48);
    for (query, count) in [
        ("", 48),
        ("status=delivered", 24),
        ("status=pending", 24),
        ("status=failed", 0),
        (&format!("endpointId={}", one["id"].as_str().unwrap()), 24),
        (&format!("endpointId={}", two["id"].as_str().unwrap()), 24),
        (&format!("endpointId={}&status=pending", two["id"].as_str().unwrap()), 24),
        (&format!("endpointId={}&status=pending", one["id"].as_str().unwrap()), 0),
        ("endpointId=wh_nothing", 0),
    ] {
        let expected = all(&app, query, 200).await;
        assert_eq!(expected.len(), count, "{query}");
        for limit in [1, 5, 24] {
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
    let reader = app.key_with(&["messages:read", "messages:write", "reviews:respond"]).await;
    app.get(DELIVERIES).key(&reader).await.problem(403, "insufficient_scope");
    app.get(DELIVERIES).key(ADMIN_KEY).await.expect(200);
    app.get(format!("{DELIVERIES}/del_x")).await.problem(404, "delivery_not_found");
}
