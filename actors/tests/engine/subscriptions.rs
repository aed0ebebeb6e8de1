//! Who listens to a conversation.

use std::sync::Arc;

use actors::directory::Circumstances;
use actors::limits::SUBSCRIBER_EVENTS;
use actors::random::Random;
use actors::store::memory::MemoryStore;
use actors::subscriptions::{Missed, Subscriptions};
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

#[test]
fn nothing_is_kept_of_subscribers_that_left_however_they_race() {
    let all = Arc::new(Subscriptions::default());
    let threads: Vec<_> = (0..4)
        .map(|seed| {
            let all = Arc::clone(&all);
            std::thread::spawn(move || {
                let mut random = Random(seed);
                let mut mine = Vec::new();
                for _ in 0..20_000 {
                    if random.below(2) == 0 || mine.is_empty() {
                        mine.push(all.subscribe(entity(random.below(2))));
                    } else {
                        mine.swap_remove(random.below(mine.len() as u64) as usize);
                    }
                    if random.below(20) == 0 {
                        mine.clear();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(all.listened_to(), 0);
}
