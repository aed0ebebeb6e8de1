//! I3 for keys whose scope is wider than one entity: still one effect.

use std::sync::Arc;
use std::time::Duration;

use actors::agent::NoModels;
use actors::conversation::{Command, Rejection, Update};
use actors::directory::{Answer, CommandContext, KeyUse, Refusal};
use actors::id::EntityKey;
use actors::limits;
use actors::node::Node;
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use actors::store::{Fingerprint, KeyHash, SeqRange};
use actors::workflows::claims::home;
use proptest::prelude::*;
use tokio::time::sleep;

use crate::support::*;

fn bytes(n: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    bytes
}

/// A workspace-wide key, for a request that has its effect at any entity.
fn across(key: u64, request: u64) -> CommandContext {
    let home = home(WORKSPACE, &key.to_le_bytes(), 0);
    CommandContext { key: Some(KeyUse::across(KeyHash(bytes(key)), Fingerprint(bytes(request)), home)), trace: None }
}

/// The entity on which request `n` has its effect: a conversation of its own, or the one that the key opens.
fn target(key: u64, request: u64) -> EntityKey {
    if request == 0 { home(WORKSPACE, &key.to_le_bytes(), 0) } else { entity(1_000 * key + request) }
}

/// Sends a request once.
async fn send(node: &Arc<Node>, key: u64, request: u64) -> Result<Answer<()>, ConversationRefusal> {
    let e = target(key, request);
    let context = if request == 0 { across(key, request).without_claim() } else { across(key, request) };
    let answer = node.conversation(e, post(e, "effect"), context).await?;
    Ok(match answer {
        Answer::Done(_) => Answer::Done(()),
        Answer::Repeat(events) => Answer::Repeat(events),
    })
}

/// How often each request took effect.
async fn effects(node: &Node, key: u64, requests: u64) -> Vec<usize> {
    let mut effects = Vec::new();
    for request in 0..requests {
        effects.push(texts(node, target(key, request)).await.len());
    }
    effects
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i3_racing_requests_with_one_key_for_many_entities_have_one_effect() {
    const REQUESTS: u64 = 4;
    let store = Arc::new(FaultyStore::new(MemoryStore::default().shared(), 1, Rates::default()));
    let nodes = [node_over(&store), node_over(&store)];
    for key in 0..50 {
        let racing: Vec<_> = (0..32)
            .map(|n| {
                let node = Arc::clone(&nodes[n as usize % 2]);
                tokio::spawn(async move { (n % REQUESTS, send(&node, key, n % REQUESTS).await) })
            })
            .collect();
        let mut told = Vec::new();
        for answer in racing {
            told.push(answer.await.unwrap());
        }
        let effects = effects(&nodes[0], key, REQUESTS).await;
        assert_eq!(effects.iter().sum::<usize>(), 1, "key {key}: {effects:?}");
        let winner = effects.iter().position(|effects| *effects == 1).unwrap() as u64;
        for (request, told) in told {
            match told {
                Ok(_) => assert_eq!(request, winner, "key {key}"),
                Err(Refusal::KeyReused) => assert_ne!(request, winner, "key {key}"),
                Err(other) => panic!("key {key}: {other}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_different_request_that_races_with_one_key_is_refused() {
    let store = FaultyStore::new(MemoryStore::default(), 1, Rates::default()).slow(Duration::from_millis(3));
    let node = node_over(&Arc::new(store));
    for key in 0..50 {
        let told = tokio::join!(send(&node, key, 1), send(&node, key, 2));
        let told = [told.0, told.1];
        assert_eq!(told.iter().filter(|told| told.is_ok()).count(), 1, "key {key}: {told:?}");
        assert_eq!(
            told.iter().filter(|told| matches!(told, Err(Refusal::KeyReused))).count(),
            1,
            "key {key}: {told:?}"
        );
        assert_eq!(effects(&node, key, 3).await.iter().sum::<usize>(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_answered_and_another_request_refused() {
    let node = node_on(MemoryStore::default());
    for key in [1, 2] {
        // The first request takes effect elsewhere, or at the key's home.
        let first = key - 1;
        assert_eq!(send(&node, key, first).await.unwrap(), Answer::Done(()));
        for _ in 0..2 {
            assert!(matches!(send(&node, key, first).await, Ok(Answer::Repeat(SeqRange { first: 1, last: 2 }))));
            for other in (0..3).filter(|other| *other != first) {
                assert!(matches!(send(&node, key, other).await, Err(Refusal::KeyReused)), "{first}, {other}");
            }
        }
        assert_eq!(effects(&node, key, 3).await.iter().sum::<usize>(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_first_request_lets_the_next_one_with_its_key_run() {
    let node = node_on(MemoryStore::default());
    for next in [0, 1] {
        let key = 10 + next;
        let nowhere = entity(5 + next);
        for refused in 100..103 {
            let update = Command::Update(Update { closed: Some(true), ..Update::default() });
            let answer = node.conversation(nowhere, update, across(key, refused)).await;
            assert!(matches!(answer, Err(Refusal::Rejected(Rejection::NotFound))));
        }
        assert_eq!(send(&node, key, next).await.unwrap(), Answer::Done(()));
        assert!(matches!(send(&node, key, next).await, Ok(Answer::Repeat(_))));
        // A refused request may not come back with this key, although it could be done by now.
        node.conversation(nowhere, post(nowhere, "a"), CommandContext::default()).await.unwrap();
        for refused in 100..103 {
            let answer = node.conversation(nowhere, post(nowhere, "b"), across(key, refused)).await;
            assert!(matches!(answer, Err(Refusal::KeyReused)), "{refused}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_forgotten_after_two_days_wherever_it_had_its_effect() {
    for (first, next) in [(1, 2), (1, 0), (0, 1), (1, 1)] {
        let store = MemoryStore::default();
        let clock = clock();
        let told: Arc<actors::clock::ManualClock> = Arc::clone(&clock);
        let node = Node::start(Arc::new(store), told, entropy(), Arc::new(NoModels));
        assert_eq!(send(&node, 1, first).await.unwrap(), Answer::Done(()));
        clock.advance(limits::KEY_KEPT_MILLIS - 1);
        assert!(matches!(send(&node, 1, first).await, Ok(Answer::Repeat(_))));
        clock.advance(1);
        assert_eq!(send(&node, 1, next).await.unwrap(), Answer::Done(()), "{first}, {next}");
        let other = if next == 1 { 2 } else { 1 };
        assert!(matches!(send(&node, 1, other).await, Err(Refusal::KeyReused)), "{first}, {next}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Several callers and two owners, on a store that refuses commits, answers them late, or does not answer.
    #[test]
    fn i3_no_fault_gives_one_key_two_effects(
        rates in (0_u16..150, 0_u16..150, 0_u16..150, 0_u16..150, 0_u16..150),
        seed in any::<u64>(),
        requests in prop::collection::vec(0_u64..4, 2..10),
    ) {
        let (refused, unanswered, late, competed, unread) = rates;
        let rates = Rates { refused, unanswered, late, competed, unread };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async move {
            let store = Arc::new(FaultyStore::new(MemoryStore::default().shared(), seed, rates));
            let nodes = [node_over(&store), node_over(&store)];
            let callers: Vec<_> = requests.into_iter().enumerate().map(|(n, request)| {
                let node = Arc::clone(&nodes[n % 2]);
                tokio::spawn(async move {
                    loop {
                        match send(&node, 1, request).await {
                            Ok(_) => return (request, true),
                            Err(Refusal::KeyReused) => return (request, false),
                            Err(_) => sleep(Duration::from_millis(1 + seed % 7 * n as u64)).await,
                        }
                    }
                })
            }).collect();
            let mut told = Vec::new();
            for caller in callers {
                told.push(caller.await.unwrap());
            }
            let node = node_over(&store);
            let mut effects = Vec::new();
            for request in 0..4 {
                while node.state::<actors::conversation::Conversation>(target(1, request)).await.is_err() {}
                effects.push(loop {
                    let e = target(1, request);
                    let read = node.events::<actors::conversation::Conversation>(
                        e, SeqRange::upto(100), actors::store::Order::Asc, 100).await;
                    if let Ok(events) = read {
                        break events.iter().filter_map(actors::conversation::message_of).count();
                    }
                });
            }
            assert_eq!(effects.iter().sum::<usize>(), 1, "{effects:?}");
            for (request, had_effect) in told {
                assert_eq!(effects[request as usize] == 1, had_effect, "{request}: {effects:?}");
            }
        });
    }
}
