//! Subscribers of a conversation.

use actors::directory::CommandContext;
use actors::limits::{SUBSCRIBER_BYTES, SUBSCRIBER_EVENTS};
use actors::store::memory::MemoryStore;
use actors::subscriptions::Missed;
use futures_util::FutureExt as _;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn every_subscriber_receives_every_event_in_order() {
    let node = node_on(MemoryStore::default());
    let e = entity(1);
    let mut subscriptions = [node.subscribe(e), node.subscribe(e)];
    let mut elsewhere = node.subscribe(entity(2));
    for i in 0..20 {
        node.conversation(e, post(e, &i.to_string()), CommandContext::default()).await.unwrap();
    }
    for subscription in &mut subscriptions {
        for seq in 1..=21 {
            assert_eq!(subscription.recv().await.unwrap().seq, seq);
        }
    }
    assert!(elsewhere.recv().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_learns_how_many_events_it_missed() {
    let node = node_on(MemoryStore::default());
    let e = entity(1);
    let mut subscription = node.subscribe(e);
    let missed = 10;
    for i in 1..SUBSCRIBER_EVENTS as u64 + missed {
        node.conversation(e, post(e, &i.to_string()), CommandContext::default()).await.unwrap();
    }
    assert_eq!(subscription.recv().await.unwrap_err(), Missed(missed));
    assert_eq!(subscription.recv().await.unwrap().seq, missed + 1);
}

/// The size of a message, eight of which fill what is kept for a subscriber.
const EIGHTH: usize = SUBSCRIBER_BYTES / 8;

#[tokio::test(start_paused = true)]
async fn i7_a_slow_subscriber_is_bounded_by_bytes_and_resumes_by_reading() {
    let node = node_on(MemoryStore::default());
    let e = entity(1);
    let mut subscription = node.subscribe(e);
    for _ in 0..100 {
        node.conversation(e, post(e, &"x".repeat(EIGHTH)), CommandContext::default()).await.unwrap();
    }
    let mut kept = 0;
    let told = loop {
        match subscription.recv().await {
            Ok(_) if kept < 100 => kept += 1,
            told => break told.map(|event| event.seq),
        }
    };
    // The first event says that the conversation began.
    assert!((2..=9).contains(&kept), "{kept}");
    assert_eq!(told, Err(Missed(0)), "it is told to read on");
    node.conversation(e, post(e, "next"), CommandContext::default()).await.unwrap();
    assert_eq!(subscription.recv().await.unwrap().seq, 102);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_keeps_up_receives_every_event() {
    let node = node_on(MemoryStore::default());
    let e = entity(1);
    let mut subscription = node.subscribe(e);
    for seq in 1..100 {
        node.conversation(e, post(e, &"x".repeat(EIGHTH)), CommandContext::default()).await.unwrap();
        if seq == 1 {
            subscription.recv().await.unwrap();
        }
        assert_eq!(subscription.recv().await.unwrap().seq, seq + 1);
    }
}
