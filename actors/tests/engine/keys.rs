//! I3: one effect per idempotency key.

use std::collections::HashSet;
use std::sync::Arc;

use actors::clock::Millis;
use actors::conversation::{Command, Conversation, Post, Rejection, Update};
use actors::directory::{Answer, CommandContext, Directory, Refusal};
use actors::limits;
use actors::node::Node;
use actors::store::SeqRange;
use actors::store::memory::MemoryStore;

use crate::support::*;

/// The sequences in the log that a keyed command is known to have produced.
fn range(answer: Answer<actors::conversation::Reply>) -> SeqRange {
    match answer {
        Answer::Repeat(events) => events,
        done => {
            let messages = messages(done);
            let first = messages[0].id.number;
            // A first post also opens the conversation.
            SeqRange::new(if first == 2 { 1 } else { first }, messages[messages.len() - 1].id.number)
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i3_racing_commands_with_one_key_have_one_effect_and_one_answer() {
    let node = node_on(MemoryStore::default());
    for e in (0..20).map(entity) {
        let racing: Vec<_> = (0..64)
            .map(|_| {
                let node = Arc::clone(&node);
                tokio::spawn(async move { node.conversation(e, post(e, "once"), key(1, 1)).await })
            })
            .collect();
        let mut done = 0;
        let mut ranges = HashSet::new();
        for answer in racing {
            let answer = answer.await.unwrap().unwrap();
            done += u32::from(matches!(answer, Answer::Done(_)));
            ranges.insert(range(answer));
        }
        assert_eq!((done, ranges), (1, HashSet::from([SeqRange::new(1, 2)])));
        assert_eq!(texts(&node, e).await.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_with_another_request_is_refused_and_changes_nothing() {
    let node = node_on(MemoryStore::default());
    let e = entity(1);
    node.conversation(e, post(e, "a"), key(1, 1)).await.unwrap();
    let other = node.conversation(e, post(e, "b"), key(1, 2)).await;
    assert!(matches!(other, Err(Refusal::KeyReused)));
    assert_eq!(texts(&node, e).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rejected_command_does_not_burn_its_key() {
    let node = node_on(MemoryStore::default());
    let e = entity(1);
    let close = |closed| Command::Update(Update { closed: Some(closed), ..Update::default() });
    node.conversation(e, post(e, "a"), CommandContext::default()).await.unwrap();
    node.conversation(e, close(true), CommandContext::default()).await.unwrap();
    let refused = node.conversation(e, post(e, "b"), key(1, 1)).await;
    assert!(matches!(refused, Err(Refusal::Rejected(Rejection::Closed))));
    node.conversation(e, close(false), CommandContext::default()).await.unwrap();
    // Even a different request may use the key now.
    assert!(matches!(node.conversation(e, post(e, "c"), key(1, 2)).await, Ok(Answer::Done(_))));
}

#[tokio::test(start_paused = true)]
async fn a_key_remembers_that_nothing_changed_and_changes_nothing_later() {
    let node = node_on(MemoryStore::default());
    let e = entity(1);
    let close = |closed| Command::Update(Update { closed: Some(closed), ..Update::default() });
    node.conversation(e, post(e, "a"), CommandContext::default()).await.unwrap();
    // The conversation is already open.
    assert!(matches!(node.conversation(e, close(false), key(1, 1)).await, Ok(Answer::Done(_))));
    node.conversation(e, close(true), CommandContext::default()).await.unwrap();
    for _ in 0..2 {
        let again = node.conversation(e, close(false), key(1, 1)).await;
        assert!(matches!(again, Ok(Answer::Repeat(SeqRange { first: 3, last: 2 }))), "{again:?}");
    }
    let closed = node.conversation(e, post(e, "b"), CommandContext::default()).await;
    assert!(matches!(closed, Err(Refusal::Rejected(Rejection::Closed))));
    assert!(matches!(node.conversation(e, close(false), key(1, 2)).await, Err(Refusal::KeyReused)));
}

#[tokio::test(start_paused = true)]
async fn a_key_does_not_remember_where_it_had_no_effect() {
    let node = node_on(MemoryStore::default());
    let e = entity(1);
    node.conversation(e, post(e, "a"), CommandContext::default()).await.unwrap();
    let Command::Post(Post { opening: Some(opening), .. }) = post(e, "a") else { panic!("a post opens") };
    // This conversation exists, so the new one is to be opened elsewhere.
    assert!(matches!(node.conversation(e, Command::Open(opening), key(1, 1)).await, Ok(Answer::Done(_))));
    assert!(node.key(e, key(1, 1).key.unwrap().hash).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_key_is_kept_for_its_time_and_then_forgotten() {
    let clock = clock();
    let store = MemoryStore::default();
    let node = Node::start(Arc::new(store.clone()), clock.clone(), entropy(), Arc::new(actors::agent::NoModels));
    let e = entity(1);
    node.conversation(e, post(e, "a"), key(1, 1)).await.unwrap();
    clock.set(NOW.plus(limits::KEY_KEPT_MILLIS - 1));
    assert!(matches!(
        node.conversation(e, post(e, "a"), key(1, 1)).await,
        Ok(Answer::Repeat(SeqRange { first: 1, last: 2 }))
    ));
    assert!(node.key(e, key(1, 1).key.unwrap().hash).await.unwrap().is_some());
    clock.set(NOW.plus(limits::KEY_KEPT_MILLIS));
    assert!(node.key(e, key(1, 1).key.unwrap().hash).await.unwrap().is_none());
    assert!(matches!(node.conversation(e, post(e, "b"), key(1, 2)).await, Ok(Answer::Done(_))));
    assert!(matches!(
        node.conversation(e, post(e, "b"), key(1, 2)).await,
        Ok(Answer::Repeat(SeqRange { first: 3, last: 3 }))
    ));
    // The same in a process that reads the key from the store.
    clock.set(Millis(NOW.0 + 2 * limits::KEY_KEPT_MILLIS));
    let other = Node::start(Arc::new(store), clock, entropy(), Arc::new(actors::agent::NoModels));
    assert!(matches!(other.conversation(e, post(e, "c"), key(1, 3)).await, Ok(Answer::Done(_))));
}

#[tokio::test(start_paused = true)]
async fn a_key_outlives_records_of_a_clock_that_was_ahead() {
    let clock = clock();
    let node =
        Node::start(Arc::new(MemoryStore::default()), clock.clone(), entropy(), Arc::new(actors::agent::NoModels));
    let e = entity(1);
    node.conversation(e, post(e, "a"), key(1, 1)).await.unwrap();
    clock.set(NOW.plus(limits::KEY_KEPT_MILLIS + 1));
    node.conversation(e, post(e, "b"), CommandContext::default()).await.unwrap();
    clock.set(NOW.plus(300_000));
    let again = node.conversation(e, post(e, "a"), key(1, 1)).await;
    assert!(matches!(again, Ok(Answer::Repeat(SeqRange { first: 1, last: 2 }))), "{again:?}");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_found_after_passivation_and_behind_many_others() {
    let node = node_on(MemoryStore::default());
    let directory = Directory::<Conversation>::default();
    let e = entity(1);
    let keys = limits::KEYS_CACHED as u64 * 2 + 3;
    let mut first = Vec::new();
    for i in 0..keys {
        first.push(range(directory.ask(&node, e, post(e, "x"), key(i, i)).await.unwrap()));
    }
    for (passivated, stay) in [(None, 1), (Some(NO_ACTORS), 1), (Some(NONE), 0)] {
        if let Some(bounds) = passivated {
            directory.sweep(node.now(), bounds).await;
            settle().await;
            assert_eq!((directory.actors(), directory.resident()), (0, stay));
        }
        for i in 0..keys {
            let again = directory.ask(&node, e, post(e, "x"), key(i, i)).await.unwrap();
            assert!(matches!(again, Answer::Repeat(_)));
            assert_eq!(range(again), first[i as usize]);
            let other = directory.ask(&node, e, post(e, "y"), key(i, i + 1)).await;
            assert!(matches!(other, Err(Refusal::KeyReused)));
        }
    }
    assert_eq!(texts(&node, e).await.len() as u64, keys);
}
