//! Entities that are passivated and loaded again while commands arrive from everywhere.

use std::sync::Arc;
use std::time::Duration;

use actors::conversation::{Command, Conversation, Update};
use actors::directory::{Answer, Bounds, CommandContext, Directory};
use actors::limits;
use actors::random::Random;
use actors::store::SeqRange;
use actors::store::memory::MemoryStore;
use tokio::time::{Instant, timeout};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn commands_that_race_with_passivation_are_neither_lost_nor_doubled() {
    const ENTITIES: u64 = 4;
    const TASKS: u64 = 16;
    const STEPS: u64 = 400;
    let node = node_on(MemoryStore::default());
    let directory = Directory::<Conversation>::default();
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let node = Arc::clone(&node);
            let directory = directory.clone();
            tokio::spawn(async move {
                let mut random = Random(task);
                let mut acknowledged = Vec::new();
                for step in 0..STEPS {
                    match random.below(10) {
                        0 => {
                            let bounds = if random.below(2) == 0 { NONE } else { NO_ACTORS };
                            directory.sweep(node.now(), bounds).await;
                        }
                        1 => directory.drain(Instant::now() + Duration::from_millis(random.below(3))).await,
                        2 => tokio::task::yield_now().await,
                        _ => {
                            let n = random.below(ENTITIES);
                            let text = format!("{task} {step}");
                            let context =
                                if random.below(2) == 0 { key(task * STEPS + step, 0) } else { <_>::default() };
                            let answer = directory.ask(&node, entity(n), post(entity(n), &text), context).await;
                            let message = messages(answer.expect("every command is done")).remove(0);
                            acknowledged.push((n, message.id.number, text));
                        }
                    }
                }
                acknowledged
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for task in tasks {
        acknowledged.extend(task.await.expect("the tasks are seeded with 0 to 15"));
    }
    acknowledged.sort();
    let mut found = Vec::new();
    for n in 0..ENTITIES {
        found.extend(texts(&node, entity(n)).await.into_iter().map(|(seq, text)| (n, seq, text)));
    }
    assert_eq!(found, acknowledged);
    directory.drain(Instant::now() + Duration::from_secs(5)).await;
    assert_eq!(directory.resident(), 0);
    // The outbox may still be noting its progress.
    let quiet = async {
        while node.admission().in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), quiet).await.expect("every place is free again");
}

#[tokio::test(start_paused = true)]
async fn an_idle_entity_leaves_after_its_time_and_a_used_one_stays() {
    let clock = TokioClock::start();
    let node = actors::node::Node::start(
        Arc::new(MemoryStore::default()),
        clock,
        entropy(),
        Arc::new(actors::agent::NoModels),
    );
    let idle = entity(1);
    let used = entity(2);
    node.conversation(idle, post(idle, "a"), CommandContext::default()).await.unwrap();
    for _ in 0..limits::PASSIVATE_AFTER_MILLIS / 10_000 + 2 {
        assert!(node.resident() >= 1);
        node.conversation(used, post(used, "b"), CommandContext::default()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(node.resident(), 1);
    let answer = node.conversation(idle, post(idle, "c"), CommandContext::default()).await;
    assert!(matches!(answer, Ok(Answer::Done(_))));
    assert_eq!(texts(&node, idle).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_cap_the_longest_idle_entities_leave_first_and_busy_ones_never() {
    let gate = Gate::new();
    let clock = clock();
    let node =
        actors::node::Node::start(Arc::new(gate.clone()), clock.clone(), entropy(), Arc::new(actors::agent::NoModels));
    let directory = Directory::<Conversation>::default();
    for n in 0..10 {
        clock.advance(1);
        directory.ask(&node, entity(n), post(entity(n), "a"), CommandContext::default()).await.unwrap();
    }
    gate.rule(Rule::Hold);
    let busy = tokio::spawn({
        let node = Arc::clone(&node);
        let directory = directory.clone();
        async move { directory.ask(&node, entity(0), post(entity(0), "b"), CommandContext::default()).await }
    });
    settle().await;
    directory.sweep(node.now(), Bounds { actors: 4, entities: 4, ..NO_ACTORS }).await;
    settle().await;
    // An evicted actor's knowledge is forgotten where there is no room for it, by the next sweep at the latest.
    directory.sweep(node.now(), Bounds { actors: 4, entities: 4, ..NO_ACTORS }).await;
    assert_eq!((directory.actors(), directory.resident()), (4, 4));
    gate.rule(Rule::Pass);
    busy.await.unwrap().unwrap();
    let commits = gate.commits();
    for n in [0, 7, 8, 9] {
        directory.ask(&node, entity(n), post(entity(n), "c"), CommandContext::default()).await.unwrap();
        assert_eq!(directory.resident(), 4, "{n} had stayed");
    }
    assert_eq!(gate.commits(), commits + 4);
}

#[tokio::test(start_paused = true)]
async fn the_successor_of_an_actor_that_left_asks_the_store_nothing() {
    let gate = Gate::new();
    let node = node_on(gate.clone());
    let directory = Directory::<Conversation>::default();
    let e = entity(1);
    // From now on the node knows that there are no receivers.
    node.conversation(entity(2), post(entity(2), "x"), CommandContext::default()).await.unwrap();
    let first = directory.ask(&node, e, post(e, "a"), key(1, 1)).await.unwrap();
    directory.sweep(node.now(), NO_ACTORS).await;
    settle().await;
    assert_eq!((directory.actors(), directory.resident()), (0, 1));
    gate.reads();
    let again = directory.ask(&node, e, post(e, "a"), key(1, 1)).await.unwrap();
    assert!(matches!((&first, &again), (Answer::Done(_), Answer::Repeat(SeqRange { first: 1, last: 2 }))), "{again:?}");
    directory.ask(&node, e, post(e, "b"), key(2, 2)).await.unwrap();
    assert_eq!(gate.reads(), 0, "a key that was used and one that was not are told apart");
    assert_eq!((directory.actors(), directory.resident()), (1, 1));
    assert_eq!(texts(&node, e).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn kept_states_are_forgotten_when_idle_or_beyond_the_bound() {
    let clock = clock();
    let node = actors::node::Node::start(
        Arc::new(MemoryStore::default()),
        clock.clone(),
        entropy(),
        Arc::new(actors::agent::NoModels),
    );
    let directory = Directory::<Conversation>::default();
    for n in 0..4 {
        clock.advance(1);
        directory.ask(&node, entity(n), post(entity(n), "a"), CommandContext::default()).await.unwrap();
        directory.sweep(node.now(), NO_ACTORS).await;
        settle().await;
    }
    assert_eq!((directory.actors(), directory.resident()), (0, 4));
    // By now they were last used 4, 3, 2 and 1 milliseconds ago.
    clock.advance(1);
    directory.sweep(node.now(), Bounds { idle_millis: 4, ..NO_ACTORS }).await;
    assert_eq!(directory.resident(), 3, "the first was idle for too long");
    directory.sweep(node.now(), Bounds { entities: 2, ..NO_ACTORS }).await;
    assert_eq!(directory.resident(), 2);
    for (n, resident) in [(3, 2), (2, 2), (1, 3), (0, 4)] {
        directory.ask(&node, entity(n), post(entity(n), "b"), CommandContext::default()).await.unwrap();
        assert_eq!(directory.resident(), resident, "{n}");
        assert_eq!(texts(&node, entity(n)).await.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_successor_sees_the_changes_of_others_before_it_commits() {
    let node = node_on(MemoryStore::default());
    let here = Directory::<Conversation>::default();
    let there = Directory::<Conversation>::default();
    let e = entity(1);
    here.ask(&node, e, post(e, "a"), CommandContext::default()).await.unwrap();
    here.sweep(node.now(), NO_ACTORS).await;
    settle().await;
    assert_eq!((here.actors(), here.resident()), (0, 1), "it was kept");
    there.ask(&node, e, post(e, "b"), CommandContext::default()).await.unwrap();
    here.ask(&node, e, post(e, "c"), CommandContext::default()).await.unwrap();
    let texts: Vec<String> = texts(&node, e).await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_on_a_kept_state_is_sent_only_if_it_still_holds() {
    let node = node_on(MemoryStore::default().shared());
    let here = Directory::<Conversation>::default();
    let there = Directory::<Conversation>::default();
    let e = entity(1);
    let close = |closed| Command::Update(Update { closed: Some(closed), ..Update::default() });
    here.ask(&node, e, post(e, "a"), CommandContext::default()).await.unwrap();
    here.ask(&node, e, close(true), CommandContext::default()).await.unwrap();
    here.sweep(node.now(), NO_ACTORS).await;
    settle().await;
    assert_eq!((here.actors(), here.resident()), (0, 1), "what is kept says that it is closed");
    there.ask(&node, e, close(false), CommandContext::default()).await.unwrap();
    here.ask(&node, e, post(e, "b"), CommandContext::default()).await.unwrap();
    assert_eq!(texts(&node, e).await.len(), 2);
}
