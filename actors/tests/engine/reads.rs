//! Reads from the store that need no actor.

use actors::conversation::Conversation;
use actors::directory::CommandContext;

use crate::support::*;

/// Some pages of a log.
const MESSAGES: u64 = 130;

#[tokio::test]
async fn a_walk_back_shows_every_event_once_until_one_is_found() {
    let (store, place) = (Gate::new(), entity(1));
    let node = node_on(store.clone());
    for n in 0..MESSAGES {
        node.conversation(place, post(place, &n.to_string()), CommandContext::default()).await.unwrap();
    }
    let walk = async |wanted: Option<u64>, upto: u64| {
        let mut seen = Vec::new();
        let found = node.find_back::<Conversation, _>(place, upto, |record| {
            seen.push(record.seq);
            (Some(record.seq) == wanted).then_some(record.seq)
        });
        (found.await.unwrap(), seen)
    };
    let last = log(&node, place).await.last().unwrap().seq;
    assert!(last >= MESSAGES);
    for (wanted, upto) in [(Some(1), last), (None, last), (Some(last), last), (Some(3), 70), (None, 0)] {
        let all = wanted.unwrap_or(1)..=upto;
        assert_eq!(walk(wanted, upto).await, (wanted, all.rev().collect()), "{wanted:?} up to {upto}");
    }
    // An empty page ends the walk: the store has nothing before it.
    store.empty_logs(1);
    assert_eq!(walk(Some(1), last).await, (None, Vec::new()));
}
