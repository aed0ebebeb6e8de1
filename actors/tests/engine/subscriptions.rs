//! Who listens to a conversation.

use actors::directory::Circumstances;
use actors::limits::SUBSCRIBER_EVENTS;
use actors::store::memory::MemoryStore;
use actors::subscriptions::Missed;
use futures_util::FutureExt as _;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn every_subscriber_hears_every_event_in_order() {
    let node = node_on(MemoryStore::default());
    let e = entity(1);
    let mut subscriptions = [node.subscribe(e), node.subscribe(e)];
    let mut elsewhere = node.subscribe(entity(2));
    for i in 0..20 {
        node.conversation(e, post(e, &i.to_string()), Circumstances::default()).await.unwrap();
    }
    for subscription in &mut subscriptions {
        for seq in 1..=21 {
            assert_eq!(subscription.recv().await.unwrap().seq, seq);
        }
    }
    assert!(elsewhere.recv().now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_reads_too_slowly_is_told_how_many_it_has_missed() {
    let node = node_on(MemoryStore::default());
    let e = entity(1);
    let mut subscription = node.subscribe(e);
    let missed = 10;
    for i in 1..SUBSCRIBER_EVENTS as u64 + missed {
        node.conversation(e, post(e, &i.to_string()), Circumstances::default()).await.unwrap();
    }
    assert_eq!(subscription.recv().await.unwrap_err(), Missed(missed));
    assert_eq!(subscription.recv().await.unwrap().seq, missed + 1);
}
