//! Several nodes on one store, each of which acts as the owner of every entity.

use std::sync::Arc;
use std::time::Duration;

use actors::agent::Agent;
use actors::clock::Millis;
use actors::codec;
use actors::conversation::{CancelTurn, Event, TurnStatus};
use actors::directory::{CommandContext, Refusal};
use actors::id::EntityKey;
use actors::node::Node;
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use actors::store::{Store, Table};
use actors::tables::AGENTS;
use tokio::time::sleep;

use crate::alarms::{ask, expired};
use crate::support::*;

const T: Table = Table(99);

/// A node with a name and a clock of its own.
fn node(store: &(impl Store + Clone), seed: u8, puppet: &Arc<Puppet>) -> Arc<Node> {
    let entropy = actors::clock::Entropy::seeded([seed; 32]);
    Node::start(Arc::new(store.clone()), TokioClock::start(), entropy, Arc::new(Strings(Arc::clone(puppet))))
}

/// Two nodes that know of each other, and the model that each asks.
async fn two() -> ([Arc<Node>; 2], [Arc<Puppet>; 2]) {
    let store = MemoryStore::default().shared();
    let puppets = [Puppet::new(false), Puppet::new(false)];
    let nodes = [node(&store, 1, &puppets[0]), node(&store, 2, &puppets[1])];
    make_agent(&nodes[0], remote()).await;
    sleep(Duration::from_secs(4)).await;
    (nodes, puppets)
}

/// Begins a turn of an agent of its own at this node, once others know of it.
async fn begin_turn(node: &Arc<Node>) -> EntityKey {
    make_agent(node, remote()).await;
    sleep(Duration::from_secs(4)).await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    e
}

/// Of so many pairs of heartbeats the first one fails.
async fn fail_every_second_beat<S: Store>(store: &FaultyStore<S>, pairs: usize) {
    for _ in 0..pairs {
        store.set_rates(Rates { unread: 1_000, ..Rates::default() });
        sleep(Duration::from_secs(3)).await;
        store.calm();
        sleep(Duration::from_secs(3)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_runs_in_another_living_process_is_left_to_it() {
    let (nodes, puppets) = two().await;
    for n in 0..8 {
        nodes[0].conversation(entity(n), post_with_turn(entity(n), "hi"), CommandContext::default()).await.unwrap();
    }
    sleep(Duration::from_secs(90)).await;
    assert_eq!((puppets[0].asked(), puppets[1].asked()), (8, 0));
    for _ in 0..8 {
        puppets[0].may_answer();
    }
    settle().await;
    for n in 0..8 {
        assert_eq!(status(&nodes[1], entity(n), 1).await, (TurnStatus::Completed, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_was_lost_with_another_process_is_started_again_here() {
    let store = MemoryStore::default().shared();
    let lost = Puppet::new(false);
    let puppet = Puppet::new(true);
    let other = node(&store, 1, &lost);
    make_agent(&other, remote()).await;
    let here = node(&store, 2, &puppet);
    sleep(Duration::from_secs(4)).await;
    let e = entity(1);
    other.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    // Between two of the seconds at which turns are checked.
    sleep(Duration::from_millis(20_500)).await;
    assert_eq!(status(&here, e, 1).await, (TurnStatus::Running, 1));
    // The node stops saying that it lives, and does nothing more; its memory is lost.
    other.halt().await;
    sleep(Duration::from_secs(40)).await;
    assert_eq!((status(&here, e, 1).await, puppet.asked()), ((TurnStatus::Completed, 2), 1));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_runs_elsewhere_is_left_alone_after_a_store_was_away() {
    let shared = MemoryStore::default().shared();
    let stores = [1, 2].map(|seed| FaultyStore::new(shared.clone(), seed, Rates::default()));
    let puppets = [Puppet::new(false), Puppet::new(false)];
    let nodes = [node(&stores[0], 1, &puppets[0]), node(&stores[1], 2, &puppets[1])];
    make_agent(&nodes[0], remote()).await;
    sleep(Duration::from_secs(4)).await;
    for e in (0..8).map(entity) {
        nodes[0].conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    }
    sleep(Duration::from_secs(6)).await;
    for store in &stores {
        store.set_rates(Rates { unread: 1_000, ..Rates::default() });
    }
    sleep(Duration::from_secs(15)).await;
    // The process that runs the turns reaches the store again some seconds after the one that looks.
    stores[1].calm();
    sleep(Duration::from_secs(7)).await;
    stores[0].calm();
    sleep(Duration::from_secs(40)).await;
    assert_eq!((puppets[0].asked(), puppets[1].asked()), (8, 0), "no model is asked twice");
    puppets[0].may_answer();
    settle().await;
    for e in (0..8).map(entity) {
        assert_eq!(status(&nodes[1], e, 1).await, (TurnStatus::Completed, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_whose_process_died_while_the_store_was_away_is_started_again_here() {
    let shared = MemoryStore::default().shared();
    let stores = [1, 2].map(|seed| FaultyStore::new(shared.clone(), seed, Rates::default()));
    let puppet = Puppet::new(true);
    let other = node(&stores[0], 1, &Puppet::new(false));
    let here = node(&stores[1], 2, &puppet);
    let e = begin_turn(&other).await;
    for store in &stores {
        store.set_rates(Rates { unread: 1_000, ..Rates::default() });
    }
    sleep(Duration::from_secs(5)).await;
    other.halt().await;
    sleep(Duration::from_secs(25)).await;
    for store in &stores {
        store.calm();
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!((status(&here, e, 1).await, puppet.asked()), ((TurnStatus::Running, 1), 0));
    sleep(Duration::from_secs(30)).await;
    assert_eq!((status(&here, e, 1).await, puppet.asked()), ((TurnStatus::Completed, 2), 1));
}

#[tokio::test(start_paused = true)]
async fn a_dead_process_has_its_turn_taken_over_if_every_second_beat_fails() {
    let shared = MemoryStore::default().shared();
    let store = FaultyStore::new(shared.clone(), 2, Rates::default());
    let puppet = Puppet::new(true);
    let other = node(&shared, 1, &Puppet::new(false));
    let here = node(&store, 2, &puppet);
    let e = begin_turn(&other).await;
    sleep(Duration::from_secs(4)).await;
    other.halt().await;
    fail_every_second_beat(&store, 15).await;
    assert_eq!((status(&here, e, 1).await, puppet.asked()), ((TurnStatus::Completed, 2), 1));
}

/// Every second beat fails, and its clock was an hour ahead.
#[tokio::test(start_paused = true)]
async fn a_dead_process_whose_clock_was_ahead_has_its_turn_taken_over() {
    let shared = MemoryStore::default().shared();
    let store = FaultyStore::new(shared.clone(), 2, Rates::default());
    let puppet = Puppet::new(true);
    let other = node(&shared, 1, &Puppet::new(false));
    let clock = TokioClock::start();
    clock.set_back(3_600_000);
    let entropy = actors::clock::Entropy::seeded([2; 32]);
    let here = Node::start(Arc::new(store.clone()), clock, entropy, Arc::new(Strings(Arc::clone(&puppet))));
    let e = begin_turn(&other).await;
    sleep(Duration::from_secs(4)).await;
    other.halt().await;
    here.conversation(e, post(e, "are you there?"), CommandContext::default()).await.unwrap();
    fail_every_second_beat(&store, 8).await;
    assert_eq!((status(&here, e, 1).await, puppet.asked()), ((TurnStatus::Running, 1), 0));
    sleep(Duration::from_secs(60)).await;
    assert_eq!((status(&here, e, 1).await, puppet.asked()), ((TurnStatus::Completed, 2), 1));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_takes_long_costs_a_shared_store_a_read_now_and_then() {
    let gate = Gate::shared();
    let puppet = Puppet::new(false);
    let models = Arc::new(Strings(Arc::clone(&puppet)));
    let node = Node::start(Arc::new(gate.clone()), TokioClock::start(), entropy(), models);
    let patient = Agent { timeout_seconds: 600, ..Agent::new("bot", "Bot", remote(), NOW) };
    put(&node, AGENTS, b"bot", codec::encode(&patient)).await;
    let reads_of_a_minute = async || {
        gate.reads();
        sleep(Duration::from_secs(60)).await;
        gate.reads()
    };
    let idle = reads_of_a_minute().await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    settle().await;
    let working = reads_of_a_minute().await;
    assert!(working <= idle + 15, "{working} and not {idle}");
    sleep(Duration::from_secs(180)).await;
    let later = reads_of_a_minute().await;
    assert!(later <= idle + 3, "the longer it takes, the more rarely: {later} and not {idle}");
    puppet.may_answer();
    settle().await;
    assert_eq!(status(&node, e, 1).await, (TurnStatus::Completed, 1));
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_cancelled_in_another_process_is_stopped_here() {
    let (nodes, puppets) = two().await;
    let e = entity(1);
    nodes[0].conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!((puppets[0].asked(), nodes[0].status().turns), (1, 1));
    nodes[1].conversation(e, CancelTurn { number: 1 }, CommandContext::default()).await.unwrap();
    sleep(Duration::from_secs(15)).await;
    assert_eq!(nodes[0].status().turns, 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_turn_is_stopped_though_the_store_went_away_meanwhile() {
    let outcome_after = Duration::from_secs(1);
    let store = FaultyStore::new(MemoryStore::default().shared(), 1, Rates::default()).slow(outcome_after);
    let puppet = Puppet::new(false);
    let node = node(&store, 1, &puppet);
    make_agent(&node, remote()).await;
    let e = entity(1);
    node.conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
    settle().await;
    store.set_rates(Rates { unanswered: 1_000, ..Rates::default() });
    let cancelling = node.conversation(e, CancelTurn { number: 1 }, CommandContext::default());
    let away = async {
        sleep(outcome_after / 2).await;
        store.set_rates(Rates { unanswered: 1_000, unread: 1_000, ..Rates::default() });
    };
    let (cancelled, ()) = tokio::join!(cancelling, away);
    assert!(matches!(cancelled, Err(Refusal::Unknown(_))));
    settle().await;
    assert!(node.metrics().activations_failed.get() > 0, "its state could not be read again");
    assert_eq!((puppet.asked(), node.running_turns()), (1, 1));
    store.calm();
    node.conversation(e, post(e, "go on"), CommandContext::default()).await.unwrap();
    assert_eq!(node.running_turns(), 0);
    assert_eq!(status(&node, e, 1).await, (TurnStatus::Cancelled, 1));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_is_announced_on_time_while_a_turn_runs_in_another_process() {
    let (nodes, _puppets) = two().await;
    let mut deadlines = Vec::new();
    for n in 0..16 {
        let e = entity(n);
        nodes[0].conversation(e, post_with_turn(e, "hi"), CommandContext::default()).await.unwrap();
        // The node that handles the question knows of its deadline; the other one does not.
        let deadline = nodes[0].now().plus(20_000 + 100 * n);
        let asked = nodes[usize::from(n % 2 == 1)].conversation(e, ask(e, deadline), CommandContext::default());
        asked.await.unwrap();
        deadlines.push((e, deadline));
    }
    sleep(Duration::from_secs(40)).await;
    for (n, (e, deadline)) in deadlines.into_iter().enumerate() {
        assert_eq!(status(&nodes[0], e, 1).await, (TurnStatus::Running, 1), "{n}");
        let ended = expired(&nodes[1], e).await;
        assert!(
            ended.len() == 1 && ended[0] >= deadline && ended[0].since(deadline) <= 50,
            "{n}: {ended:?}, {deadline}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn alarms_of_a_dead_process_are_rung_by_the_next_one() {
    let store = MemoryStore::default().shared();
    let clock = TokioClock::start();
    let start = |seed| {
        let entropy = actors::clock::Entropy::seeded([seed; 32]);
        let clock: Arc<TokioClock> = Arc::clone(&clock);
        Node::start(Arc::new(store.clone()), clock, entropy, Arc::new(Strings(Puppet::new(false))))
    };
    let dying = start(1);
    sleep(Duration::from_secs(4)).await;
    let mut deadlines = Vec::new();
    for n in 0..80 {
        let deadline = dying.now().plus(1_000 * n + 500);
        dying.conversation(entity(n), ask(entity(n), deadline), CommandContext::default()).await.unwrap();
        deadlines.push((entity(n), deadline));
    }
    sleep(Duration::from_secs(10)).await;
    dying.halt().await;
    sleep(Duration::from_secs(20)).await;
    let next = start(2);
    let ready = next.now();
    sleep(Duration::from_secs(60)).await;
    for (e, deadline) in deadlines {
        let ended = expired(&next, e).await;
        assert_eq!(ended.len(), 1, "{e:?}");
        let late = ended[0].since(deadline.max(ready));
        // Also while the dead node's last word may still count as that of a living one.
        assert!(ended[0] >= deadline && (ended[0] < ready || late <= 50), "{e:?}: {late} ms late");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_configuration_elsewhere_is_seen_within_two_seconds() {
    let (nodes, _) = two().await;
    let workspace = EntityKey::workspace(WORKSPACE);
    let read = async |node: &Arc<Node>| node.configured::<Millis>(workspace, T, b"row").await.unwrap().map(|row| *row);
    put(&nodes[0], T, b"row", codec::encode(&Millis(1))).await;
    sleep(Duration::from_secs(2)).await;
    assert_eq!((read(&nodes[0]).await, read(&nodes[1]).await), (Some(Millis(1)), Some(Millis(1))));
    put(&nodes[0], T, b"row", codec::encode(&Millis(2))).await;
    assert_eq!(read(&nodes[0]).await, Some(Millis(2)), "at once where it was changed");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(read(&nodes[1]).await, Some(Millis(2)));
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_receives_events_of_other_processes() {
    let (nodes, _) = two().await;
    let e = entity(1);
    nodes[0].conversation(e, post(e, "first"), CommandContext::default()).await.unwrap();
    let mut events = nodes[1].subscribe(e);
    sleep(Duration::from_secs(2)).await;
    // The subscriber may have missed events between its read and the first check.
    assert!(events.recv().await.is_err());
    nodes[0].conversation(e, post(e, "second"), CommandContext::default()).await.unwrap();
    assert!(events.recv().await.is_err(), "it is told to look");
    assert_eq!(texts(&nodes[1], e).await.len(), 2);
    nodes[1].conversation(e, post(e, "third"), CommandContext::default()).await.unwrap();
    assert!(
        matches!(&events.recv().await.unwrap().event, Event::MessageCreated(_)),
        "what is posted here comes itself"
    );
}
