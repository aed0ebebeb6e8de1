//! I7: beyond a bound the caller is refused before anything is stored.

use std::sync::Arc;

use actors::conversation::amend::{Amend, Amendment, Edit, Receipt};
use actors::directory::{CommandContext, Directory, Refusal};
use actors::limits::{ENTITY_BYTES, ENTITY_COMMANDS, NODE_BYTES, NODE_COMMANDS};
use actors::node::Node;
use actors::patch::Patch;
use actors::store::SeqRange;
use tokio::task::JoinHandle;

use crate::support::*;

type Waiting = JoinHandle<actors::directory::Reply<actors::conversation::Conversation>>;

/// As many waiting commands as an entity accepts.
async fn fill(node: &Arc<Node>, n: u64) -> Vec<Waiting> {
    let e = entity(n);
    let ask = |i: usize| {
        let node = Arc::clone(node);
        tokio::spawn(async move { node.conversation(e, post(e, &i.to_string()), CommandContext::default()).await })
    };
    let waiting = (0..ENTITY_COMMANDS).map(ask).collect();
    settle().await;
    waiting
}

#[tokio::test(start_paused = true)]
async fn i7_a_full_entity_refuses_and_stores_nothing() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    gate.rule(Rule::Hold);
    let waiting = fill(&node, 1).await;
    assert_eq!(node.admission().in_flight(), ENTITY_COMMANDS);
    let e = entity(1);
    let refused = node.conversation(e, post(e, "too many"), CommandContext::default()).await;
    assert!(matches!(refused, Err(Refusal::Backlog)));
    let other = entity(2);
    let elsewhere = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.conversation(other, post(other, "x"), CommandContext::default()).await }
    });
    settle().await;
    gate.rule(Rule::Pass);
    elsewhere.await.unwrap().unwrap();
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    assert!(texts(&node, e).await.iter().all(|(_, text)| text != "too many"));
    assert_eq!(texts(&node, e).await.len(), ENTITY_COMMANDS);
    assert_eq!(node.admission().in_flight(), 0, "every place is free again");
}

#[tokio::test(start_paused = true)]
async fn i7_a_full_node_refuses_and_stores_nothing() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    gate.rule(Rule::Hold);
    let mut waiting = Vec::new();
    let entities = (NODE_COMMANDS / ENTITY_COMMANDS) as u64;
    for n in 0..entities {
        waiting.extend(fill(&node, n).await);
    }
    let e = entity(entities);
    let refused = node.conversation(e, post(e, "too many"), CommandContext::default()).await;
    assert!(matches!(refused, Err(Refusal::Overloaded)));
    assert_eq!(node.actors() as u64, entities, "what is refused starts no actor");
    gate.rule(Rule::Pass);
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    assert_eq!(node.admission().in_flight(), 0);
    assert_eq!(log(&node, e).await, []);
    node.conversation(e, post(e, "now"), CommandContext::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn i7_bytes_are_bounded_as_commands_are_and_a_single_large_command_is_taken() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    gate.rule(Rule::Hold);
    let directory = Directory::<Bomb>::default();
    let ask = |n: u64, bytes: usize| {
        let node = Arc::clone(&node);
        let directory = directory.clone();
        tokio::spawn(
            async move { directory.ask(&node, entity(n), Some(bytes as u64), CommandContext::default()).await },
        )
    };
    let mut waiting = vec![ask(0, ENTITY_BYTES + 1)];
    settle().await;
    assert!(matches!(ask(0, 1).await.unwrap(), Err(Refusal::Backlog)));
    for n in 1..(NODE_BYTES / ENTITY_BYTES) as u64 {
        waiting.push(ask(n, ENTITY_BYTES));
        settle().await;
    }
    assert!(matches!(waiting.pop().unwrap().await.unwrap(), Err(Refusal::Overloaded)));
    gate.rule(Rule::Pass);
    for waiting in waiting {
        waiting.await.unwrap().unwrap();
    }
    assert_eq!((node.admission().in_flight(), node.admission().bytes_in_flight()), (0, 0));
}

/// A short command may cause a large write: here each acknowledgement writes the whole edited message.
#[tokio::test(start_paused = true)]
async fn i7_a_commit_is_bounded_by_bytes_and_every_command_is_answered() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    let e = entity(1);
    let amend = |message, amendment| {
        let node = Arc::clone(&node);
        let amend = Amend { message, amendment };
        tokio::spawn(async move { node.conversation(e, amend, CommandContext::default()).await })
    };
    let mut posted = Vec::new();
    for n in 0..24 {
        let message = messages(node.conversation(e, post(e, "a"), key(n, n)).await.unwrap())[0].id;
        let edit = Edit { text: Patch::Set("x".repeat(256 * 1024)), ..Edit::default() };
        amend(message, Amendment::Edit(edit)).await.unwrap().unwrap();
        posted.push(message);
    }
    gate.rule(Rule::Hold);
    let first = amend(posted[0], Amendment::Acknowledge(Receipt::Read));
    settle().await;
    let before = gate.commits();
    let waiting: Vec<_> = posted[1..].iter().map(|id| amend(*id, Amendment::Acknowledge(Receipt::Read))).collect();
    settle().await;
    gate.rule(Rule::Pass);
    for waiting in std::iter::once(first).chain(waiting) {
        waiting.await.unwrap().unwrap();
    }
    let commits = gate.commits() - before;
    assert!((4..=8).contains(&commits), "23 times 256 KiB, about five in a MiB: {commits}");
    let read = log(&node, e).await.into_iter().filter(|record| record.event.name() == Some("message.read")).count();
    assert_eq!(read, posted.len());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_hangs_up_does_not_free_a_place_that_is_taken() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    gate.rule(Rule::Hold);
    for waiting in fill(&node, 1).await {
        waiting.abort();
    }
    settle().await;
    assert_eq!(node.admission().in_flight(), ENTITY_COMMANDS);
    let e = entity(1);
    let refused = node.conversation(e, post(e, "too many"), CommandContext::default()).await;
    assert!(matches!(refused, Err(Refusal::Backlog)));
    gate.rule(Rule::Pass);
    settle().await;
    assert_eq!(node.admission().in_flight(), 0);
    assert_eq!(texts(&node, e).await.len(), ENTITY_COMMANDS, "what was admitted is done");
}

#[tokio::test(start_paused = true)]
async fn a_command_without_an_answer_in_time_is_unknown_to_its_caller() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    gate.rule(Rule::Hold);
    let e = entity(1);
    let unknown = node.conversation(e, post(e, "slow"), key(1, 1)).await;
    let unknown: ConversationRefusal = unknown.unwrap_err();
    assert!(matches!(unknown, Refusal::Unknown(_)), "{unknown}");
    gate.rule(Rule::Pass);
    settle().await;
    let again = node.conversation(e, post(e, "slow"), key(1, 1)).await;
    assert!(matches!(again, Ok(actors::directory::Answer::Repeat(SeqRange { first: 1, last: 2 }))));
}
