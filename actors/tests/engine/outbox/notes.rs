//! The outcome of every delivery is noted, whatever happens in between.

use std::sync::Arc;

use actors::directory::CommandContext;
use actors::id::EntityKey;
use actors::message::NewMessage;
use actors::outbox::pending::Status;
use actors::outbox::{Lane, Receiver};
use actors::registry::{self, RowChange};
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use actors::tables::{LANE_TIMES, LANES, WEBHOOK_ENDPOINTS};
use actors::webhook::{DisabledReason, WebhookEndpoint};
use tokio::time::sleep;
use tracing::Level;

use super::fixture::{Fixture, Mood, ONE, TWO};
use super::*;
use crate::lines::Lines;

/// Messages pending for an endpoint, in posts of so many.
const POSTS: usize = 30;
const POST: usize = 50;

#[tokio::test(start_paused = true)]
async fn more_ends_than_fit_a_commit_are_noted_and_none_is_sent_twice() {
    let gate = Gate::new();
    let fixture = Fixture::on(gate.clone());
    let long = format!("https://example.com/{}", "x".repeat(1_980));
    let endpoint = fixture.endpoint(1, |endpoint| endpoint.url.clone_from(&long)).await;
    fixture.endpoint(2, |_| {}).await;
    fixture.sink.mood(&long, Mood::Answer(500));
    for _ in 0..POSTS {
        let Command::Post(post) = post(entity(1), "a") else { unreachable!() };
        let message = || NewMessage { content: Arc::new(content("a")), parent: None, review_millis: None };
        let messages = (0..POST).map(|_| message()).collect();
        fixture.ask(entity(1), actors::conversation::Post { messages, ..post }).await;
    }
    sleep(secs(10)).await;
    let all: Vec<u64> = (1..=(POSTS * POST + 1) as u64).collect();
    assert_eq!((fixture.sink.taken(&long), fixture.sink.taken(TWO)), (vec![], all.clone()));
    // Each row contains the whole URL: all rows together are more than three million bytes.
    gate.rule(Rule::AtMost(2_000_000));
    let off = WebhookEndpoint { disabled: Some(DisabledReason::Manual), ..endpoint };
    fixture.store_endpoint(&off).await;
    fixture.say(1, "the last").await;
    sleep(secs(600)).await;
    let ended = fixture.ended().await;
    let failed = ended.iter().filter(|standing| standing.status == Status::Failed);
    assert_eq!(failed.filter(|standing| standing.url == long).count(), all.len());
    assert_eq!(fixture.sink.taken(TWO), (1..=all.len() as u64 + 1).collect::<Vec<_>>(), "each once");
    fixture.assert_settled().await;
}

/// It goes on once the event can be read.
#[tokio::test(start_paused = true)]
async fn a_lane_whose_event_is_unreadable_keeps_no_other_waiting() {
    let gate = Gate::new();
    let fixture = one_of_two_fails(&gate).await;
    fixture.sink.mood(TWO, Mood::Slow(3_000));
    fixture.say(1, "a").await;
    // One is retried after five to six seconds, when Two is in the middle of its second request.
    sleep(secs(4)).await;
    gate.damage(Some(1));
    fixture.say(1, "b").await;
    sleep(secs(60)).await;
    assert_eq!(fixture.sink.taken(TWO), [1, 2, 3], "each once");
    assert_eq!(fixture.sink.at(ONE).len(), 1);
    fixture.say(1, "c").await;
    sleep(secs(10)).await;
    assert_eq!(fixture.sink.taken(TWO), [1, 2, 3, 4]);
    let before = gate.commits();
    sleep(secs(3_600)).await;
    assert!(gate.commits() - before <= 8, "it is looked at every ten minutes");
    gate.damage(None);
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(800)).await;
    assert_eq!((fixture.sink.taken(ONE), fixture.sink.at(ONE).len()), (vec![1, 2, 3, 4], 5));
    fixture.assert_settled().await;
}

/// The damage is an error of the log.
#[tokio::test(start_paused = true)]
async fn events_before_a_damaged_one_are_sent() {
    let (lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let fixture = Fixture::on(gate.clone());
    fixture.endpoint(1, |_| {}).await;
    gate.damage(Some(3));
    let Command::Post(post) = post(entity(1), "a") else { unreachable!() };
    let message = || NewMessage { content: Arc::new(content("a")), parent: None, review_millis: None };
    let messages = (0..3).map(|_| message()).collect();
    fixture.ask(entity(1), actors::conversation::Post { messages, ..post }).await;
    sleep(secs(20)).await;
    assert_eq!(fixture.sink.taken(ONE), [1, 2], "each once");
    assert_eq!(lines.of(Level::ERROR, "could not send events because one is damaged").len(), 1, "one a minute");
    assert_eq!(lines.of(Level::WARN, "").len(), 0);
    gate.damage(None);
    sleep(secs(20)).await;
    assert_eq!(fixture.sink.taken(ONE), [1, 2, 3, 4], "in order");
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn deliveries_under_way_are_noted_though_new_events_are_unreadable() {
    let gate = Gate::new();
    let fixture = Fixture::on(gate.clone());
    fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Slow(3_000));
    fixture.say(1, "a").await;
    sleep(secs(1)).await;
    gate.damage(Some(3));
    fixture.say(1, "b").await;
    sleep(secs(20)).await;
    assert_eq!(fixture.sink.taken(ONE), [1, 2]);
    assert_eq!(fixture.ended().await.len(), 2);
    gate.damage(None);
    sleep(secs(10)).await;
    assert_eq!(fixture.sink.taken(ONE), [1, 2, 3]);
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn arrivals_are_noted_once_commits_succeed_and_not_sent_again() {
    let store = FaultyStore::new(MemoryStore::default(), 5, Rates::default());
    let fixture = Fixture::on(store.clone());
    fixture.endpoint(1, |_| {}).await;
    fixture.endpoint(2, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Slow(3_000));
    fixture.sink.mood(TWO, Mood::Slow(500));
    fixture.say(1, "a").await;
    store.set_rates(Rates { refused: 1_000, ..Rates::default() });
    sleep(secs(10)).await;
    assert_eq!(fixture.node.outbox().in_flight(), 0, "what waits to be noted holds no place");
    sleep(secs(50)).await;
    store.calm();
    sleep(secs(30)).await;
    for url in [ONE, TWO] {
        assert_eq!(fixture.sink.taken(url), [1, 2], "{url}: each once");
    }
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_note_that_cannot_be_made_does_not_keep_a_node_from_stopping_in_time() {
    let store = FaultyStore::new(MemoryStore::default(), 5, Rates::default());
    let fixture = Fixture::on(store.clone());
    fixture.endpoint(1, |_| {}).await;
    fixture.say(1, "a").await;
    store.set_rates(Rates { refused: 1_000, ..Rates::default() });
    sleep(secs(60)).await;
    let began = tokio::time::Instant::now();
    fixture.node.drain(began + secs(3)).await;
    assert!(began.elapsed() <= secs(3), "{:?}", began.elapsed());
    assert_eq!(fixture.node.outbox().active(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_endpoint_leaves_no_lane_for_a_damaged_event() {
    let (lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let fixture = Fixture::on(gate.clone());
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    for text in ["a", "b", "c"] {
        fixture.say(1, text).await;
    }
    sleep(secs(3)).await;
    gate.damage(Some(3));
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(10)).await;
    assert_eq!(fixture.sink.taken(ONE), [1, 2]);
    let waiting: Vec<_> = fixture.pending().await.iter().map(|one| one.event.number).collect();
    assert_eq!(waiting, [4], "what can be read of it is shown");
    let changes = vec![RowChange::delete(WEBHOOK_ENDPOINTS, endpoint.id.to_string().as_bytes())];
    let command = registry::Command { expected: Vec::new(), changes };
    fixture.node.registry(EntityKey::workspace(WORKSPACE), command, CommandContext::default()).await.unwrap();
    sleep(secs(5)).await;
    assert_eq!(lines.of(Level::ERROR, "a damaged event is not sent to a deleted endpoint").len(), 1);
    fixture.assert_settled().await;
}

/// Two endpoints, of which the first one answers with an error.
async fn one_of_two_fails(gate: &Gate) -> Fixture<Gate> {
    let fixture = Fixture::on(gate.clone());
    fixture.endpoint(1, |_| {}).await;
    fixture.endpoint(2, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    fixture
}

fn sorted(mut seqs: Vec<u64>) -> Vec<u64> {
    seqs.sort_unstable();
    seqs
}

/// Its own receiver gets them too, and what waited once the lane can be read.
#[tokio::test(start_paused = true)]
async fn a_damaged_lane_keeps_no_receiver_from_new_events() {
    let (lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let fixture = Fixture::on(gate.clone());
    let failing = Receiver::Endpoint(fixture.endpoint(1, |_| {}).await.id);
    fixture.endpoint(2, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    fixture.say(1, "a").await;
    sleep(secs(3)).await;
    gate.damage_row(LANES, Lane::to(failing).key());
    fixture.say(1, "b").await;
    sleep(secs(3)).await;
    assert_eq!(fixture.sink.taken(TWO), [1, 2, 3]);
    fixture.sink.mood(ONE, Mood::Answer(200));
    fixture.say(1, "c").await;
    sleep(secs(120)).await;
    assert_eq!((fixture.sink.taken(TWO), sorted(fixture.sink.taken(ONE))), (vec![1, 2, 3, 4], vec![3, 4]));
    let said = lines.of(Level::ERROR, "a lane is damaged");
    assert!(said.len() == 1 && said[0].contains("Endpoint"), "{said:?}");
    let before = gate.commits();
    sleep(secs(3_600)).await;
    assert!(gate.commits() - before <= 8, "{}", gate.commits() - before);
    gate.mend_rows();
    sleep(secs(60)).await;
    assert_eq!(sorted(fixture.sink.taken(ONE)), [1, 2, 3, 4]);
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn deliveries_are_noted_although_no_lane_can_be_read() {
    let (_lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let fixture = one_of_two_fails(&gate).await;
    // So that nothing is to be handed over.
    sleep(secs(3_600)).await;
    gate.damage_rows(LANES);
    fixture.say(1, "a").await;
    sleep(secs(4)).await;
    assert_eq!((sorted(fixture.sink.taken(TWO)), fixture.ended().await.len()), (vec![1, 2], 2));
    gate.mend_rows();
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(60)).await;
    assert_eq!((sorted(fixture.sink.taken(ONE)), fixture.sink.at(TWO).len()), (vec![1, 2], 2));
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn deliveries_are_noted_although_no_time_of_a_lane_can_be_read() {
    let (_lines, _catching) = Lines::catch();
    let gate = Gate::new();
    let fixture = one_of_two_fails(&gate).await;
    fixture.say(1, "a").await;
    sleep(secs(3)).await;
    gate.damage_rows(LANE_TIMES);
    fixture.say(1, "b").await;
    sleep(secs(4)).await;
    assert_eq!((fixture.sink.taken(TWO), fixture.ended().await.len()), (vec![1, 2, 3], 3));
    gate.mend_rows();
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(900)).await;
    assert_eq!(fixture.sink.taken(ONE), [1, 2, 3]);
    fixture.assert_settled().await;
}
