//! Receivers with one URL: each of them can verify the one request that the URL gets.

use serde_json::{Value, json};
use tertulia::webhooks::sign;

use super::{ENDPOINTS, LOOPBACK, Receiver, assert_documented, body, endpoint};
use crate::support::TestApp;
use crate::support::origin::Heard;

/// The signature header that these secrets produce for a request.
fn signed(heard: &Heard, secrets: &[&Value]) -> String {
    let id = heard.header("webhook-id");
    let at = heard.header("webhook-timestamp").parse().unwrap();
    let one = |secret: &&Value| sign(secret.as_str().unwrap(), id, at, &heard.body).unwrap();
    secrets.iter().map(one).collect::<Vec<_>>().join(" ")
}

async fn rotated(app: &TestApp, path: &str, member: &str) -> Value {
    app.post(format!("{path}/rotate-secret")).await.expect(200)[member].clone()
}

/// It is signed for each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_for_many_receivers_at_one_url_is_sent_once() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(200).await;
    let url = receiver.origin.url("/");
    let channel = "/api/v1/channels/demo";
    let old = rotated(&app, channel, "webhookSecret").await;
    let new = rotated(&app, channel, "webhookSecret").await;
    let made = endpoint(&app, json!({"url": url, "events": ["message.*", "review.*"], "format": "cloudevents"})).await;
    let own = &made["secret"];
    // Only this message names the URL; the channel does not.
    let asked = json!({"channelId": "demo", "text": "Deploy?", "webhookUrl": url, "review": {"type": "approval",
        "callback": {"url": url, "headers": {"X-Run": "7"}}}});
    let asked = app.post("/api/v1/messages").json(asked).await.expect(201);
    let id = asked["id"].as_str().unwrap();
    app.post(format!("/api/v1/messages/{id}/ack")).json(json!({"status": "read"})).await.expect(200);
    let answer = json!({"response": {"selectedOption": "approve"}});
    app.post(format!("/api/v1/reviews/{id}/respond")).json(answer).await.expect(200);
    let kinds = ["message.created", "review.requested", "message.read", "review.completed"];
    let heard = receiver.heard(kinds.len()).await;
    for (heard, kind) in heard.iter().zip(kinds) {
        assert_eq!(body(heard)["type"], kind, "in the form that the endpoint asks for");
        let signatures = heard.header("webhook-signature");
        let all: Vec<&str> = signatures.split(' ').collect();
        assert_eq!(all[..2].join(" "), signed(heard, &[own, &new]), "{kind}");
        assert!(all.contains(&signed(heard, &[&old]).as_str()), "{kind}: a replaced secret signs for its 24 hours");
        assert_documented(&app, heard, "application/cloudevents+json").await;
    }
    assert_eq!(heard[3].header("x-run"), "7");
    // The channel's secret does not sign events of a message without a URL.
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "b"})).await.expect(201);
    let heard = receiver.heard(5).await.remove(4);
    assert_eq!(heard.header("webhook-signature"), signed(&heard, &[own]));
    // Once the channel has the URL too, its secret signs.
    app.patch(channel).json(json!({"webhookUrl": url})).await.expect(200);
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "c"})).await.expect(201);
    let heard = receiver.heard(6).await.remove(5);
    let signatures = heard.header("webhook-signature").to_owned();
    assert!(signatures.starts_with(&signed(&heard, &[own, &new])), "{signatures}");
    assert_eq!(receiver.origin.requests().len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_with_one_url_sign_with_at_most_the_documented_secrets() {
    let app = TestApp::with_env(LOOPBACK).await;
    let receiver = Receiver::new(200).await;
    let mut made = Vec::new();
    for _ in 0..9 {
        app.clock.advance(1);
        made.push(endpoint(&app, json!({"url": receiver.origin.url("/"), "events": ["message.created"]})).await);
    }
    let [first, second] = [&made[0], &made[1]].map(|made| format!("{ENDPOINTS}/{}", made["id"].as_str().unwrap()));
    let of_first = rotated(&app, &first, "secret").await;
    let of_second = rotated(&app, &second, "secret").await;
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "a"})).await.expect(201);
    let heard = receiver.heard(1).await.remove(0);
    // The current ones of eight receivers leave no room for replaced ones.
    let others = made[2..8].iter().map(|made| &made["secret"]);
    let all: Vec<&Value> = [&of_first, &of_second].into_iter().chain(others).collect();
    assert_eq!(heard.header("webhook-signature"), signed(&heard, &all));
    assert_documented(&app, &heard, "application/json").await;
}
