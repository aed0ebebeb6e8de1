//! Only so many readers of stored events and messages are at work at once, and they delay nothing else.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use actors::store::faulty::{FaultyStore, Rates};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};

use super::post;
use crate::support::TestApp;

const EVENTS: &str = "/api/v1/channels/demo/events";
const MESSAGES: &str = "/api/v1/messages?channelId=demo";

/// How many pages and parts of streams are read at once.
fn readers() -> usize {
    4 * thread::available_parallelism().map_or(1, |cores| cores.get())
}

/// Until every task waits.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

/// A server in memory whose reads of logs use up these permits.
async fn with_reads(reads: &Arc<Semaphore>) -> TestApp {
    let reads = Arc::clone(reads);
    TestApp::with_memory(|store| FaultyStore::new(store, 0, Rates::default()).hanging(reads)).await
}

/// A stream waits.
#[tokio::test(start_paused = true)]
async fn a_page_without_a_permit_in_ten_seconds_is_refused() {
    let reads = Arc::new(Semaphore::new(1_000));
    let app = with_reads(&reads).await;
    let said = post(&app, "one").await;
    let asks = json!({"channelId": "demo", "text": "may I?", "review": {"type": "approval", "payload": {}}});
    app.post("/api/v1/messages").json(asks).await.expect(201);
    let contact = app.post("/api/v1/contacts").json(json!({"identifier": "ana"})).await.expect(201);
    let contact = format!("/api/v1/contacts/{}/events", contact["id"].as_str().unwrap());
    let iterations = format!("/api/v1/messages/{}/iterations", said["id"].as_str().unwrap());
    reads.forget_permits(1_000);
    let mut pages = Vec::new();
    for _ in 0..readers() {
        pages.push(tokio::spawn(app.get(EVENTS).send()));
        settle().await;
    }
    for path in [EVENTS, MESSAGES, "/api/v1/reviews", &iterations, &contact] {
        let begun = Instant::now();
        let refused = timeout(Duration::from_secs(30), app.get(path).send()).await.expect(path);
        assert_eq!(refused.header("retry-after"), "1");
        refused.problem(503, "overloaded");
        assert_eq!(begun.elapsed().as_secs(), 10, "{path}");
    }
    // What reads nothing of the log goes on.
    post(&app, "two").await;
    let mut live = app.get(format!("{EVENTS}?after=0")).follow().await;
    assert_eq!(live.told().await.unwrap().event, None, "a comment, since it waits");

    reads.close();
    for page in pages {
        page.await.unwrap().expect(200);
    }
    assert_eq!(live.next().await.data["sequence"], 1);
}

/// The lists read the edits of one message.
#[tokio::test(start_paused = true)]
async fn long_lists_let_the_page_of_another_workspace_be_read_between_two_chunks() {
    let reads = Arc::new(Semaphore::new(1_000));
    let app = with_reads(&reads).await;
    let said = post(&app, "one").await;
    let path = format!("/api/v1/messages/{}", said["id"].as_str().unwrap());
    for n in 0..40 {
        app.patch(&path).json(json!({"text": n.to_string()})).await.expect(200);
    }
    let key = app.workspace("other").await;
    let channel = json!({"id": "theirs", "name": "t", "kind": "human"});
    app.post("/api/v1/channels").key(&key).json(channel).await.expect(201);
    app.post("/api/v1/messages").key(&key).json(json!({"channelId": "theirs", "text": "two"})).await.expect(201);
    reads.forget_permits(1_000);
    let list = || tokio::spawn(app.get(format!("{MESSAGES}&limit=1")).send());
    let lists: Vec<_> = (0..readers()).map(|_| list()).collect();
    settle().await;
    // The second chunk of each is read, and the third one hangs.
    reads.add_permits(2 * readers());
    settle().await;
    let page = tokio::spawn(app.get("/api/v1/messages?channelId=theirs").key(&key).send());
    settle().await;
    assert!(!page.is_finished());
    reads.add_permits(2 * readers());
    settle().await;
    assert!(page.is_finished() && !lists.iter().any(|list| list.is_finished()));
    reads.close();
    page.await.unwrap().expect(200);
    for list in lists {
        assert_eq!(list.await.unwrap().expect(200)["data"][0]["text"], "39");
    }
}

/// It waits for a permit, or for the store.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_behind_ends_when_the_server_stops() {
    for pages in [readers(), 0] {
        let reads = Arc::new(Semaphore::new(1_000));
        let app = with_reads(&reads).await;
        post(&app, "one").await;
        reads.forget_permits(1_000);
        let _pages: Vec<_> = (0..pages).map(|_| tokio::spawn(app.get(EVENTS).send())).collect();
        settle().await;
        let mut live = app.get(format!("{EVENTS}?after=0")).follow().await;
        let ends = tokio::spawn(async move { while live.told().await.is_some() {} });
        settle().await;
        app.app.leave();
        timeout(Duration::from_secs(1), ends).await.expect("it goes on").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_long_log_ends_when_the_server_stops() {
    let app = TestApp::new().await;
    for n in 0..100 {
        post(&app, &n.to_string()).await;
    }
    let mut live = app.get(format!("{EVENTS}?after=0")).follow().await;
    live.next().await;
    app.app.leave();
    let mut sent = 1;
    while live.told().await.is_some() {
        sent += 1;
    }
    assert!(sent < 20, "only what was read already, not {sent} events");
}

#[tokio::test(start_paused = true)]
async fn a_waiting_stream_keeps_its_place_in_the_line_while_it_sends_comments() {
    let reads = Arc::new(Semaphore::new(1_000));
    let app = with_reads(&reads).await;
    post(&app, "one").await;
    reads.forget_permits(1_000);
    let _pages: Vec<_> = (0..readers()).map(|_| tokio::spawn(app.get(EVENTS).send())).collect();
    settle().await;
    let mut first = app.get(format!("{EVENTS}?after=0")).follow().await;
    assert_eq!(first.told().await.unwrap().event, None);
    let mut second = app.get(format!("{EVENTS}?after=0")).follow().await;
    let second = tokio::spawn(async move { second.next().await });
    settle().await;
    let first = tokio::spawn(async move { first.next().await });
    settle().await;
    // One page is read, then all others, which leaves one read for a stream.
    for pages in [1, readers() - 1, 1] {
        assert!(!first.is_finished() && !second.is_finished());
        reads.add_permits(pages);
        settle().await;
    }
    assert!(first.is_finished() && !second.is_finished());
    reads.close();
    assert_eq!(second.await.unwrap().data["sequence"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_reads_keeps_no_permit() {
    let app = TestApp::new().await;
    for text in ["one", "two", "three"] {
        post(&app, text).await;
    }
    let mut slow = Vec::new();
    for _ in 0..readers() {
        let mut live = app.get(format!("{EVENTS}?after=0")).follow().await;
        live.next().await;
        slow.push(live);
    }
    for path in [EVENTS, MESSAGES] {
        app.get(path).await.expect(200);
    }
}
