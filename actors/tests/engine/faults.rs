//! What happens when the store, another process or a machine itself goes wrong.

use std::sync::Arc;
use std::time::Duration;

use actors::agent::NoModels;
use actors::conversation::{Command, Conversation, Rejection, Update, message_of};
use actors::directory::{Answer, CommandContext, Directory, Refusal};
use actors::id::{EntityKey, Kind};
use actors::node::Node;
use actors::ports::Ports;
use actors::store::conformance::{commit, on};
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use actors::store::{Commit, ReadLevel, SeqRange, Store as _};
use actors::subscriptions::Missed;
use actors::trace::{Finished, Tracer, Traces};
use futures_util::FutureExt as _;
use tracing::Level;

use crate::lines::Lines;
use crate::support::*;
use crate::traces::in_trace;

/// The log line about an entity that the store does not return.
const NOT_LOADED: &str = "could not load an entity";

fn faulty(rates: Rates) -> Arc<FaultyStore<MemoryStore>> {
    Arc::new(FaultyStore::new(MemoryStore::default(), 5, rates))
}

const NEVER_ANSWERED: Rates = Rates { refused: 0, unanswered: 1_000, late: 0, competed: 0, unread: 0 };
const NEVER_READ: Rates = Rates { refused: 0, unanswered: 0, late: 0, competed: 0, unread: 1_000 };
const REFUSED: Rates = Rates { refused: 1_000, unanswered: 0, late: 0, competed: 0, unread: 0 };
const LATE: Rates = Rates { refused: 0, unanswered: 0, late: 1_000, competed: 0, unread: 0 };

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i6_two_owners_of_one_entity_lose_and_double_nothing() {
    let store = Arc::new(MemoryStore::default());
    let nodes = [node_over(&store), node_over(&store)];
    let e = entity(1);
    let writers: Vec<_> = (0..16_u64)
        .map(|writer| {
            let node = Arc::clone(&nodes[writer as usize % 2]);
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                for i in 0..40 {
                    let text = format!("{writer} {i}");
                    let context = key(writer * 1_000 + i, 0);
                    let seq = loop {
                        match node.conversation(e, post(e, &text), context).await {
                            Ok(Answer::Repeat(events)) => break events.last,
                            Ok(answer) => break messages(answer)[0].id.number,
                            Err(Refusal::Unavailable(_)) => {}
                            Err(other) => panic!("{other}"),
                        }
                    };
                    acknowledged.push((seq, text));
                }
                acknowledged
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    acknowledged.sort();
    assert_eq!(texts(&nodes[0], e).await, acknowledged);
    assert_eq!(nodes[0].state::<Conversation>(e).await.unwrap().unwrap().messages, 640);
}

#[tokio::test(start_paused = true)]
async fn i6_a_refusal_is_sent_only_if_no_other_owner_changed_the_state() {
    let store = Arc::new(MemoryStore::default().shared());
    let nodes = [node_over(&store), node_over(&store)];
    let e = entity(1);
    let close = |closed| Command::Update(Update { closed: Some(closed), ..Update::default() });
    nodes[0].conversation(e, post(e, "a"), CommandContext::default()).await.unwrap();
    nodes[0].conversation(e, close(true), CommandContext::default()).await.unwrap();
    for node in &nodes {
        let refused = node.conversation(e, post(e, "b"), key(1, 1)).await;
        assert!(matches!(refused, Err(Refusal::Rejected(Rejection::Closed))));
    }
    nodes[1].conversation(e, close(false), CommandContext::default()).await.unwrap();
    nodes[1].conversation(e, post(e, "b"), key(1, 1)).await.unwrap();
    nodes[1].conversation(e, close(true), CommandContext::default()).await.unwrap();
    let again = nodes[0].conversation(e, post(e, "b"), key(1, 1)).await;
    assert!(matches!(again, Ok(Answer::Repeat(_))), "the other owner has done it: {again:?}");
    nodes[1].conversation(e, close(false), CommandContext::default()).await.unwrap();
    assert!(nodes[0].conversation(e, post(e, "c"), CommandContext::default()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_unknown_and_the_retry_finds_what_was_done() {
    let store = faulty(Rates::default());
    let node = node_over(&store);
    let e = entity(1);
    node.conversation(e, post(e, "first"), CommandContext::default()).await.unwrap();
    let mut subscription = node.subscribe(e);
    store.set_rates(NEVER_ANSWERED);
    let unknown = node.conversation(e, post(e, "a"), key(1, 1)).await;
    assert!(matches!(unknown, Err(Refusal::Unknown(_))));
    store.calm();
    assert_eq!(subscription.recv().await.unwrap_err(), Missed(0), "it has missed something");
    let again = node.conversation(e, post(e, "a"), key(1, 1)).await;
    assert!(matches!(again, Ok(Answer::Repeat(SeqRange { first: 3, last: 3 }))));
    assert_eq!(texts(&node, e).await.len(), 2);
    node.conversation(e, post(e, "b"), CommandContext::default()).await.unwrap();
    assert_eq!(message_of(&subscription.recv().await.unwrap()).unwrap().content.text.as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn a_late_commit_and_its_retry_have_one_effect() {
    for seed in 0..30 {
        let store = Arc::new(FaultyStore::new(MemoryStore::default(), seed, Rates::default()));
        let node = node_over(&store);
        let e = entity(1);
        store.set_rates(LATE);
        let unknown = node.conversation(e, post(e, "a"), key(1, 1)).await;
        assert!(matches!(unknown, Err(Refusal::Unknown(_))));
        store.calm();
        let again = node.conversation(e, post(e, "a"), key(1, 1)).await;
        assert!(again.is_ok(), "seed {seed}");
        node.conversation(e, post(e, "b"), key(2, 2)).await.unwrap();
        let found = texts(&node, e).await;
        assert_eq!(found, [(2, "a".to_owned()), (3, "b".to_owned())], "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_commit_changes_nothing_and_the_next_one_goes_through() {
    let store = faulty(REFUSED);
    let node = node_over(&store);
    let e = entity(1);
    let refused = node.conversation(e, post(e, "a"), CommandContext::default()).await;
    assert!(matches!(refused, Err(Refusal::Unavailable(_))));
    store.calm();
    node.conversation(e, post(e, "b"), CommandContext::default()).await.unwrap();
    assert_eq!(texts(&node, e).await, [(2, "b".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn an_entity_that_cannot_be_loaded_is_unavailable_until_it_can() {
    let (lines, _catching) = Lines::catch();
    let store = faulty(NEVER_READ);
    let node = node_over(&store);
    let e = entity(1);
    for _ in 0..3 {
        let asked: Vec<_> = (0..10)
            .map(|_| {
                let node = Arc::clone(&node);
                tokio::spawn(async move { node.conversation(e, post(e, "a"), CommandContext::default()).await })
            })
            .collect();
        for asked in asked {
            assert!(matches!(asked.await.unwrap(), Err(Refusal::Unavailable(_))));
        }
    }
    settle().await;
    assert_eq!((node.resident(), node.admission().in_flight()), (0, 0));
    assert!(node.metrics().activations_failed.get() > 1);
    assert_eq!(lines.of(Level::WARN, NOT_LOADED).len(), 1, "one a second says it");
    assert_eq!(lines.of(Level::ERROR, "").len(), 0, "it passes");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let untold = node.metrics().activations_failed.get() - 1;
    node.conversation(e, post(e, "a"), CommandContext::default()).await.unwrap_err();
    let said = lines.of(Level::WARN, NOT_LOADED);
    assert!(said.len() == 2 && said[1].contains(&format!("left_out={untold} ")), "{said:?}");
    store.calm();
    node.conversation(e, post(e, "b"), CommandContext::default()).await.unwrap();
    assert_eq!(texts(&node, e).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_entity_that_is_damaged_is_an_error_of_the_log() {
    let (lines, _catching) = Lines::catch();
    let store = Arc::new(MemoryStore::default());
    let e = entity(1);
    node_over(&store).conversation(e, post(e, "a"), CommandContext::default()).await.unwrap();
    let head = store.load(e, ReadLevel::Settled).await.unwrap().unwrap().head;
    let damage = Commit { state: Some("\u{7f}?".into()), ..on(e, Some(head), "garbled") };
    commit(&*store, damage).await.unwrap();
    let node = node_over(&store);
    let refused = node.conversation(e, post(e, "b"), CommandContext::default()).await;
    assert!(matches!(refused, Err(Refusal::Corrupt(_))), "{refused:?}");
    assert_eq!((lines.of(Level::ERROR, NOT_LOADED).len(), lines.of(Level::WARN, NOT_LOADED).len()), (1, 0));
    assert_eq!(node.metrics().activations_failed.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_entity_that_cannot_be_reloaded_leaves_and_comes_back() {
    let store = faulty(Rates::default());
    let node = node_over(&store);
    let e = entity(1);
    node.conversation(e, post(e, "a"), CommandContext::default()).await.unwrap();
    store.set_rates(Rates { unread: 1_000, ..LATE });
    let unknown = node.conversation(e, post(e, "b"), CommandContext::default()).await;
    assert!(matches!(unknown, Err(Refusal::Unknown(_))));
    settle().await;
    assert_eq!(node.resident(), 0);
    assert_eq!(node.metrics().activations_failed.get(), 1);
    store.calm();
    node.conversation(e, post(e, "c"), CommandContext::default()).await.unwrap();
    let found = texts(&node, e).await;
    assert_eq!((found[0].1.as_str(), found[found.len() - 1].1.as_str()), ("a", "c"));
}

#[tokio::test(start_paused = true)]
async fn a_missing_answer_of_the_store_is_unknown_and_stalls_no_command() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    let e = entity(1);
    gate.rule(Rule::Swallow);
    let before = tokio::time::Instant::now();
    let unknown = node.conversation(e, post(e, "a"), key(1, 1)).await;
    assert!(matches!(unknown, Err(Refusal::Unknown(_))));
    assert!(before.elapsed().as_secs() < 1, "it is told at once");
    gate.rule(Rule::Pass);
    assert!(matches!(
        node.conversation(e, post(e, "a"), key(1, 1)).await,
        Ok(Answer::Repeat(SeqRange { first: 1, last: 2 }))
    ));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_unknown_to_those_who_wait_and_the_next_command_works() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    let directory = Directory::<Bomb>::default();
    let e = EntityKey { kind: Kind::Contact, ..entity(1) };
    let ask = |command: Option<u64>| {
        let node = Arc::clone(&node);
        let directory = directory.clone();
        tokio::spawn(async move { directory.ask(&node, e, command, CommandContext::default()).await })
    };
    assert_eq!(ask(Some(1)).await.unwrap().unwrap(), Answer::Done(1));
    gate.rule(Rule::Hold);
    let in_flight = ask(Some(2));
    settle().await;
    let waiting = [ask(None), ask(Some(4))];
    settle().await;
    gate.rule(Rule::Pass);
    assert_eq!(in_flight.await.unwrap().unwrap(), Answer::Done(3), "its commit ended before the panic");
    for waiting in waiting {
        assert!(matches!(waiting.await.unwrap(), Err(Refusal::Unknown(_))));
    }
    settle().await;
    assert_eq!((directory.resident(), node.admission().in_flight()), (0, 0));
    assert_eq!(ask(Some(8)).await.unwrap().unwrap(), Answer::Done(11));
}

/// A tracer that panics at the end of a commit.
struct Clumsy;

impl Tracer for Clumsy {
    fn record(&self, span: Finished) {
        assert_ne!(span.name, "commit", "told to panic");
    }

    fn samples(&self, _: [u8; 16]) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_is_notified_after_the_actor_panicked() {
    let ports = Ports { traces: Traces::to(Arc::new(Clumsy)), ..Ports::from(Arc::new(NoModels)) };
    let node = Node::start(Arc::new(MemoryStore::default()), clock(), entropy(), ports);
    let e = entity(1);
    let mut subscription = node.subscribe(e);
    let unknown = node.conversation(e, post(e, "a"), in_trace(7)).await;
    assert!(matches!(unknown, Err(Refusal::Unknown(_))));
    settle().await;
    let heard = subscription.recv().now_or_never();
    assert!(matches!(heard, Some(Err(Missed(0)))), "{heard:?}");
    assert_eq!(texts(&node, e).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_too_large_is_distinguished_from_an_outage() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    let e = entity(1);
    gate.rule(Rule::AtMost(0));
    let refused = node.conversation(e, post(e, "x"), CommandContext::default()).await;
    assert!(matches!(refused, Err(Refusal::TooLarge(_))));
    gate.rule(Rule::Pass);
    assert!(texts(&node, e).await.is_empty());
    node.conversation(e, post(e, "x"), CommandContext::default()).await.unwrap();
    assert_eq!(texts(&node, e).await.len(), 1);
}
