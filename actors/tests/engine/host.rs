//! One entity: acknowledged means durable, one order, batches, time.

use std::sync::Arc;

use actors::conversation::amend::{Amend, Amendment};
use actors::conversation::{Command, Conversation, State, Update, number_key};
use actors::directory::{CommandContext, Directory, Refusal};
use actors::machine::Machine;
use actors::node::Node;
use actors::store::conformance::{commit, on};
use actors::store::memory::MemoryStore;
use actors::store::{Commit, ReadLevel, RowWrite, Store};
use actors::tables::OVERLAYS;
use futures_util::FutureExt as _;

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn i1_nothing_is_published_before_it_is_durable() {
    let gate = Gate::new();
    let puppet = Puppet::new(true);
    let node = Node::start(Arc::new(gate.clone()), clock(), entropy(), Arc::new(Strings(Arc::clone(&puppet))));
    make_agent(&node, remote()).await;
    let e = entity(1);
    let mut subscription = node.subscribe(e);
    gate.rule(Rule::Hold);
    let answer = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await }
    });
    settle().await;
    assert!(!answer.is_finished(), "no answer");
    assert!(subscription.recv().now_or_never().is_none(), "no notice");
    assert_eq!((puppet.asked(), node.running_turns()), (0, 0), "no model call");
    gate.rule(Rule::Pass);
    answer.await.unwrap().unwrap();
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(subscription.recv().await.unwrap().event.name().unwrap());
    }
    assert_eq!(told, ["conversation.created", "message.created", "turn.started", "message.created", "turn.completed"]);
    assert_eq!(puppet.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn commands_that_come_while_a_commit_is_in_flight_share_the_next_one() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    let e = entity(1);
    gate.rule(Rule::Hold);
    let mut answers = Vec::new();
    for i in 0..65 {
        let node = Arc::clone(&node);
        answers.push(tokio::spawn(async move {
            node.conversation(e, post(e, &format!("{i}")), CommandContext::default()).await
        }));
        if i == 0 {
            settle().await;
        }
    }
    settle().await;
    assert_eq!(gate.commits(), 1, "one commit at a time");
    gate.rule(Rule::Pass);
    let mut seqs = Vec::new();
    for answer in answers {
        seqs.push(messages(answer.await.unwrap().unwrap())[0].id.number);
    }
    assert_eq!(gate.commits(), 2);
    assert_eq!(seqs, (2..67).collect::<Vec<_>>(), "in the order in which they came");
    assert_eq!(texts(&node, e).await.len(), 65);
}

#[tokio::test(start_paused = true)]
async fn a_command_too_large_for_a_shared_commit_is_committed_alone() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    let e = entity(1);
    let text = "x".repeat(actors::limits::BATCH_BYTES + 1);
    gate.rule(Rule::Hold);
    let ask = |text: &str| {
        let node = Arc::clone(&node);
        let text = text.to_owned();
        tokio::spawn(async move { node.conversation(e, post(e, &text), CommandContext::default()).await })
    };
    let mut answers = vec![ask("first")];
    settle().await;
    answers.extend([ask("a"), ask(&text), ask(&text), ask("b"), ask("c")]);
    settle().await;
    gate.rule(Rule::Pass);
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    assert_eq!(gate.commits(), 5, "first; a; heavy; heavy; b and c");
}

#[tokio::test(start_paused = true)]
async fn time_never_runs_backwards_within_an_entity() {
    let clock = clock();
    let store = MemoryStore::default();
    let node = Node::start(Arc::new(store.clone()), clock.clone(), entropy(), Arc::new(actors::agent::NoModels));
    let e = entity(1);
    for back in [0, 10, 5_000, 1, 3_600_000] {
        clock.set(actors::clock::Millis(NOW.0 - back));
        node.conversation(e, post(e, "x"), CommandContext::default()).await.unwrap();
    }
    assert!(log(&node, e).await.iter().all(|record| record.at == NOW));
    let other = Node::start(Arc::new(store), clock, entropy(), Arc::new(actors::agent::NoModels));
    other.conversation(e, post(e, "from another process"), CommandContext::default()).await.unwrap();
    assert_eq!(log(&node, e).await.last().unwrap().at, NOW);
}

#[tokio::test(start_paused = true)]
async fn a_state_from_a_snapshot_is_the_state_from_the_whole_log() {
    for snapshot_every in [1, 2, 3, 16, 1_000] {
        let store = MemoryStore::new(snapshot_every);
        let node = node_on(store.clone());
        let directory = Directory::<Conversation>::default();
        let e = entity(1);
        // From now on the node knows that there are no receivers.
        node.conversation(entity(2), post(entity(2), "x"), CommandContext::default()).await.unwrap();
        for i in 0..40 {
            let command = match i % 5 {
                3 => Command::Update(Update { closed: Some(i % 2 == 0), ..Update::default() }),
                4 => Command::Update(Update { closed: Some(false), ..Update::default() }),
                _ => post(e, "x"),
            };
            directory.ask(&node, e, command, CommandContext::default()).await.unwrap();
            if i % 7 == 0 {
                directory.sweep(node.now(), NONE).await;
                settle().await;
                assert_eq!(directory.resident(), 0);
            }
        }
        let mut replayed: Option<State> = None;
        for record in log(&node, e).await {
            Conversation::apply(&mut replayed, &record);
        }
        assert_eq!(node.state::<Conversation>(e).await.unwrap(), replayed);
        let loaded = store.load(e, ReadLevel::Acknowledged).await.unwrap().unwrap();
        assert!(loaded.tail.len() as u64 <= 2 * snapshot_every, "a load reads few records");
    }
}

/// Refusals are answered without a commit, so only the stack would limit how many batches follow each other at once.
#[test]
fn a_long_queue_of_refusals_is_a_loop_and_not_a_recursion() {
    let small_stack = std::thread::Builder::new().stack_size(384 * 1024);
    let thread = small_stack.spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(refuse_a_long_queue());
    });
    thread.unwrap().join().unwrap();
}

async fn refuse_a_long_queue() {
    let gate = Gate::new();
    let e = entity(1);
    node_on(gate.clone()).conversation(e, post(e, "x"), CommandContext::default()).await.unwrap();
    // This node has not seen the conversation begin, so it reads every key from the store; no batch fits two commands.
    let node = node_on(gate.clone());
    let text = "x".repeat(actors::limits::BATCH_BYTES / 2);
    gate.rule(Rule::Hold);
    let closing = tokio::spawn({
        let node = Arc::clone(&node);
        let close = Command::Update(Update { closed: Some(true), ..Update::default() });
        async move { node.conversation(e, close, CommandContext::default()).await }
    });
    settle().await;
    let refused: Vec<_> = (0..255)
        .map(|i| {
            let node = Arc::clone(&node);
            let command = post(e, &text);
            tokio::spawn(async move { node.conversation(e, command, key(i, i)).await })
        })
        .collect();
    settle().await;
    gate.rule(Rule::Pass);
    closing.await.unwrap().unwrap();
    for refused in refused {
        assert!(matches!(refused.await.unwrap(), Err(Refusal::Rejected(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_row_refuses_no_other_command_of_its_batch() {
    let gate = Gate::new();
    let node = node_over(&Arc::new(gate.clone()));
    let e = entity(1);
    let said = messages(node.conversation(e, post(e, "hi"), CommandContext::default()).await.unwrap());
    let send = |command| {
        let node = Arc::clone(&node);
        tokio::spawn(async move { node.conversation(e, command, CommandContext::default()).await })
    };
    gate.rule(Rule::Hold);
    let first = send(post(e, "first"));
    settle().await;
    gate.damage_rows(OVERLAYS);
    let amends = Arc::clone(&node);
    let delete = Amend { message: said[0].id, amendment: Amendment::Delete { seen: None } };
    let damaged = tokio::spawn(async move { amends.conversation(e, delete, CommandContext::default()).await });
    let behind = send(post(e, "behind"));
    settle().await;
    gate.rule(Rule::Pass);
    first.await.unwrap().unwrap();
    assert!(matches!(damaged.await.unwrap(), Err(Refusal::Corrupt(_))));
    behind.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_row_refuses_only_the_commands_that_need_it() {
    let store = Arc::new(MemoryStore::default());
    let e = entity(1);
    let node = node_over(&store);
    let said = messages(node.conversation(e, post(e, "hi"), CommandContext::default()).await.unwrap());
    let message = said[0].id;
    // As if a newer server had written it, or the disk had corrupted it.
    let head = store.load(e, ReadLevel::Settled).await.unwrap().unwrap().head;
    let garbled = RowWrite { table: OVERLAYS, key: number_key(message.number), value: Some("\u{7f}?".into()) };
    let damage = Commit { rows: vec![garbled], ..on(e, Some(head), "garbled") };
    commit(&*store, damage).await.unwrap();

    let node = node_over(&store);
    let delete = || Amend { message, amendment: Amendment::Delete { seen: None } };
    for _ in 0..2 {
        let refused = node.conversation(e, delete(), CommandContext::default()).await;
        assert!(matches!(refused, Err(Refusal::Corrupt(_))), "{refused:?}");
    }
    node.conversation(e, post(e, "and on"), CommandContext::default()).await.unwrap();
    let texts: Vec<_> = log(&node, e).await.iter().filter_map(|record| record.event.name()).collect();
    assert_eq!(texts, ["conversation.created", "message.created", "message.created"]);
}
