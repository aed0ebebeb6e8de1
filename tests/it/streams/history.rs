//! Only so many readers of stored events and messages are at work at once, and they delay nothing else.

use std::sync::Arc;
use std::thread;

use actors::store::faulty::{FaultyStore, Rates};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::post;
use crate::support::{Kind, TestApp};

const EVENTS: &str = "/api/v1/channels/demo/events";
const MESSAGES: &str = "/api/v1/messages?channelId=demo";

/// How many pages and parts of streams are read at once.
fn readers() -> usize {
    4 * thread::available_parallelism().map_or(1, |cores| cores.get())
}

/// A stream waits.
#[tokio::test(start_paused = true)]
async fn a_page_without_a_permit_in_ten_seconds_is_refused() {
    if Kind::chosen() != Kind::Memory {
        // There are more permits on a store of several servers, and the order is certain only in memory.
        return;
    }
    let reads = Arc::new(Semaphore::new(1_000));
    let held = Arc::clone(&reads);
    let app = TestApp::with_store(|store| FaultyStore::new(store, 0, Rates::default()).hanging(held)).await;
    post(&app, "one").await;
    reads.forget_permits(1_000);
    let mut pages = Vec::new();
    for _ in 0..readers() {
        pages.push(tokio::spawn(app.get(EVENTS).send()));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    for path in [EVENTS, MESSAGES] {
        let begun = Instant::now();
        let refused = app.get(path).await;
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
