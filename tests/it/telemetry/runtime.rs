//! `GET /admin/runtime` of a server whose store is on a disk.

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tertulia::metrics::{self, Sources};
use tower::ServiceExt;

use crate::support::{Kind, TestApp, TestStore};

async fn runtime(test: &TestApp) -> Value {
    let router = metrics::router(Sources { app: test.app.clone(), spans: None });
    let response = router.oneshot(Request::get("/admin/runtime").body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status().as_u16(), 200);
    serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
}

#[tokio::test]
async fn the_runtime_shows_the_store_and_the_review_whose_time_ends_next() {
    let test = TestApp::start(TestStore::of(Kind::Embedded).await, &[]).await;
    for seconds in [90, 60] {
        let review = json!({"type": "approval", "expiresInSeconds": seconds});
        let asked = json!({"channelId": "demo", "text": "?", "review": review});
        test.post("/api/v1/messages").json(asked).await.expect(201);
    }
    let seen = runtime(&test).await;
    assert_eq!(seen["alarms"]["earliest"], "2025-01-01T00:01:00.000Z", "{seen}");
    assert!(seen["alarms"]["near"].as_u64() >= Some(1) && seen["alarms"]["overdueMillis"] == 0, "{seen}");
    assert!(seen["resident"]["conversation"].as_u64() >= Some(1), "{seen}");
    assert_eq!(seen["store"], json!({"queuedCommits": 0, "queuedBytes": 0}), "an embedded store counts what waits");
}
