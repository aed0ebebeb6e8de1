//! The list of deliveries, while deliveries move from one part of it to another.

use serde_json::json;

use super::{DELIVERIES, LOOPBACK, Receiver, endpoint};
use crate::support::origin::{Origin, Part};
use crate::support::{Kind, TestApp, TestStore, ids};

/// A server whose lists show commits at once. On a CQL server they follow a moment later.
async fn listing() -> TestApp {
    let kind = if Kind::chosen() == Kind::Cql { Kind::Memory } else { Kind::chosen() };
    TestApp::start(TestStore::of(kind).await, LOOPBACK).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoints_delivery_is_on_its_first_page_however_many_wait() {
    let app = listing().await;
    let receiver = Receiver::new(500).await;
    let hangs = Origin::serve(|_| vec![Part::Silence]).await;
    endpoint(&app, json!({"url": hangs.url("/"), "events": ["message.created"]})).await;
    app.clock.advance(10);
    let wanted = json!({"url": receiver.origin.url("/"), "events": ["message.created"], "channelId": "demo"});
    let wanted = endpoint(&app, wanted).await;
    let of_it = format!("{DELIVERIES}?endpointId={}&limit=5", wanted["id"].as_str().unwrap());
    app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "a"})).await.expect(201);
    for _ in 0..1_100 {
        app.post("/api/v1/messages").json(json!({"content": {"content": "b"}})).await.expect(200);
    }
    for query in ["", "&status=pending", "&order=desc", "&status=pending&order=desc"] {
        let page = app.get(format!("{of_it}{query}")).await.expect(200);
        assert_eq!((page["data"].as_array().unwrap().len(), &page["hasMore"]), (1, &json!(false)), "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_is_listed_and_found_at_every_moment_of_its_way() {
    let app = listing().await;
    let receiver = Receiver::new(200).await;
    let to = endpoint(&app, json!({"url": receiver.origin.url("/"), "events": ["message.created"]})).await;
    let of_endpoint = format!("{DELIVERIES}?endpointId={}&limit=200", to["id"].as_str().unwrap());
    for sent in 1..=60 {
        // Some deliveries wait on the lane of their receiver, as do those behind them.
        receiver.answer(if sent % 4 == 0 { 500 } else { 200 });
        app.post("/api/v1/messages").json(json!({"content": {"content": "a"}})).await.expect(200);
        app.clock.advance(10_000);
        let mut newest = String::new();
        for order in ["asc", "desc"].repeat(4) {
            let all = ids(&app.get(format!("{DELIVERIES}?limit=200&order={order}")).await.expect(200));
            assert_eq!(all.len(), sent, "{order}, of all endpoints");
            let shown = ids(&app.get(format!("{of_endpoint}&order={order}")).await.expect(200));
            assert_eq!(shown.len(), sent, "{order}");
            newest = shown.into_iter().max().unwrap();
            let one = app.get(format!("{DELIVERIES}/{newest}")).await.expect(200);
            let of_event = format!("{DELIVERIES}?order={order}&eventId={}", one["eventId"].as_str().unwrap());
            assert_eq!(ids(&app.get(of_event).await.expect(200)), [newest.clone()], "{order}");
        }
        assert!(!newest.is_empty());
    }
}
