//! Long conversations: imported in batches, and searched.
//!
//! `TERTULIA_BULK_MESSAGES` sets the number of messages; `--nocapture` shows the measurements.
#![cfg(unix)]

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::clock::Millis;
use actors::metrics::CommitEnd;
use actors::store::faulty::{FaultyStore, Rates};
use serde_json::{Value, json};
use tertulia::wire::time::Time;
use tokio::sync::Semaphore;

use crate::support::setting::{say, setting_by_store};
use crate::support::{BEGIN, Kind, TestApp};

const MESSAGES: &str = "/api/v1/messages";
/// Messages of one request, the most that one accepts.
const BATCH: u64 = 100;
/// Events that one request reads at most, however long it takes.
const LOOKED_AT: u64 = 10_000;

/// The time of the message with this number: years ago, and later messages not always have later times.
fn said_at(n: u64) -> Value {
    json!(Time(Millis(BEGIN.0 - 100_000_000_000 + (n ^ 1) * 1_000)))
}

fn words(n: u64) -> String {
    let mark = if n.is_multiple_of(4_999) { "needle" } else { "hay" };
    format!("message {n}: {mark} and what people say in a line or two")
}

/// Imports `count` messages; returns the conversation.
async fn import(app: &TestApp, count: u64) -> String {
    let mut conversation = None;
    for from in (0..count).step_by(BATCH as usize) {
        let one = |n| json!({"content": words(n), "sender_id": format!("s{}", n % 3), "created_at": said_at(n)});
        let batch: Vec<Value> = (from..count.min(from + BATCH)).map(one).collect();
        let body = json!({"conversation_id": conversation, "content": batch});
        let key = format!("import-{from}");
        let made = app.post(MESSAGES).json(body).idempotency_key(&key).await.expect(200);
        conversation = made[0]["conversation_id"].as_str().map(str::to_owned);
    }
    conversation.unwrap()
}

/// Reads all pages of a list; returns its entries, the number of pages, and the time of the slowest.
async fn pages(app: &TestApp, list: &str) -> (Vec<Value>, u64, Duration) {
    let mut data = Vec::new();
    let mut count = 0;
    let mut path = list.to_owned();
    let mut slowest = Duration::ZERO;
    loop {
        let begun = Instant::now();
        let page = app.get(&path).await.expect(200);
        slowest = slowest.max(begun.elapsed());
        count += 1;
        data.extend(page["data"].as_array().unwrap().iter().cloned());
        let Some(cursor) = page["nextCursor"].as_str() else { return (data, count, slowest) };
        path.clear();
        write!(path, "{list}&cursor={cursor}").unwrap();
    }
}

#[tokio::test]
async fn an_import_keeps_its_order_and_its_search_goes_on_by_pages() {
    let app = TestApp::new().await;
    // On a CQL server of the tests more would take minutes.
    let is_cql = Kind::chosen() == Kind::Cql;
    let count = setting_by_store("TERTULIA_BULK_MESSAGES", 12_000, 1_200);
    let commits = || app.app.node().metrics().commit.of(CommitEnd::Committed).snapshot().count();
    let begun = Instant::now();
    let before = commits();
    let conversation = import(&app, count).await;
    let imported = begun.elapsed();
    // On CQL an outcome may be unknown, and the request is retried.
    assert!(is_cql || commits() - before == count.div_ceil(BATCH), "a batch is one commit");

    let list = format!("/api/v1/conversations/{conversation}/messages?limit=200");
    let (all, ..) = pages(&app, &list).await;
    assert_eq!(all.len() as u64, count);
    for (n, message) in (0..).zip(&all) {
        let expected = (json!(words(n)), said_at(n));
        assert_eq!((&message["content"], &message["created_at"]), (&expected.0, &expected.1));
    }

    let begun = Instant::now();
    let (found, requests, slowest) = pages(&app, &format!("{list}&search=needle+people")).await;
    let marked: Vec<Value> = (0..count).filter(|n| n.is_multiple_of(4_999)).map(|n| json!(words(n))).collect();
    assert_eq!(found.iter().map(|message| message["content"].clone()).collect::<Vec<_>>(), marked);
    assert!(requests <= count.div_ceil(LOOKED_AT), "{requests} of {count}");
    say(&format!(
        "{count} messages: imported in {imported:?}, {:.0} a second; searched in {:?} by {requests} requests, the \
         slowest took {slowest:?}",
        count as f64 / imported.as_secs_f64(),
        begun.elapsed(),
    ));
    let (newest, ..) = pages(&app, &format!("{list}&search=needle&order=desc")).await;
    assert!(newest.iter().map(|message| &message["content"]).eq(marked.iter().rev()));
}

/// Or that they are too many.
#[tokio::test(start_paused = true)]
async fn a_search_returns_what_it_has_after_waiting_five_seconds() {
    if Kind::chosen() != Kind::Memory {
        // The order is certain only where nothing has to be waited for.
        return;
    }
    let reads = Arc::new(Semaphore::new(1_000));
    let held = Arc::clone(&reads);
    let rates = Rates::default();
    let app = TestApp::with_store(|store| FaultyStore::new(store, 0, rates).hanging(held)).await;
    let conversation = import(&app, 300).await;
    let list = format!("/api/v1/conversations/{conversation}/messages?limit=200");
    reads.forget_permits(1_000);
    // Two searches run and a third waits; the first completes its first part, and the third takes its slot.
    let mut searches = Vec::new();
    for _ in 0..3 {
        searches.push(tokio::spawn(app.get(format!("{list}&search=hay")).send()));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    let [first, second, third] = <[_; 3]>::try_from(searches).unwrap();
    let begun = tokio::time::Instant::now();
    reads.add_permits(1);
    let looked = first.await.unwrap().expect(200);
    assert!(!looked["data"].as_array().unwrap().is_empty() && looked["hasMore"] == true, "{looked}");
    let refused = app.get(format!("{list}&search=hay")).await;
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(refused.problem(503, "overloaded")["detail"], "too many searches are in progress; retry later");
    assert_eq!(begun.elapsed().as_secs(), 10, "each has waited its time");
    // A post reads nothing of the log.
    app.post(MESSAGES).json(json!({"conversation_id": conversation, "content": {"content": "hay"}})).await.expect(200);

    reads.close();
    for search in [second, third] {
        assert_eq!(search.await.unwrap().expect(200)["data"].as_array().unwrap().len(), 200);
    }
    let rest =
        app.get(format!("{list}&search=hay&cursor={}", looked["nextCursor"].as_str().unwrap())).await.expect(200);
    assert_eq!(rest["data"].as_array().unwrap().len(), 200);
}
