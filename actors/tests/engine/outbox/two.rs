//! Two nodes that send from the same logs.

use std::time::Duration;

use actors::clock::Clock;
use actors::store::memory::MemoryStore;
use actors::webhook::{DisabledReason, WebhookEndpoint};
use tokio::time::sleep;

use super::fixture::{Fixture, Mood, ONE};
use super::secs;
use crate::support::*;

/// Two nodes that know of each other.
async fn two() -> [Fixture<MemoryStore>; 2] {
    let one = Fixture::on(MemoryStore::default().shared());
    let other = one.beside();
    sleep(secs(4)).await;
    [one, other]
}

/// The sequences, in the order in which they first arrived.
fn firsts(taken: &[u64]) -> Vec<u64> {
    let mut firsts = Vec::new();
    for seq in taken {
        if !firsts.contains(seq) {
            firsts.push(*seq);
        }
    }
    firsts
}

#[tokio::test(start_paused = true)]
async fn a_new_or_disabled_endpoint_is_respected_by_every_node() {
    let [one, other] = two().await;
    for fixture in [&one, &other] {
        fixture.say(1, "nobody listens").await;
    }
    let endpoint = one.endpoint(1, |_| {}).await;
    other.say(1, "now somebody does").await;
    settle().await;
    assert_eq!(one.sink.taken(ONE), [4]);
    one.store_endpoint(&WebhookEndpoint { disabled: Some(DisabledReason::Manual), ..endpoint }).await;
    other.say(1, "nobody again").await;
    sleep(secs(60)).await;
    assert_eq!(one.sink.at(ONE).len(), 1);
    one.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_webhook_of_a_channel_is_used_by_every_node() {
    let [one, other] = two().await;
    one.channel("desk", None).await;
    other.post_to("desk", content("nobody listens")).await;
    one.channel("desk", Some(ONE)).await;
    other.post_to("desk", content("now somebody does")).await;
    settle().await;
    assert_eq!(one.sink.taken(ONE), [3]);
    sleep(secs(60)).await;
    other.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_delivery_of_one_node_is_not_sent_by_the_other() {
    let [one, other] = two().await;
    one.endpoint(1, |_| {}).await;
    one.sink.mood(ONE, Mood::Slow(12_000));
    // Each node is to ring the alarms of some of these conversations.
    for n in 0..8 {
        one.say(n, "a").await;
    }
    sleep(secs(120)).await;
    let taken = one.sink.taken(ONE);
    assert_eq!((taken.len(), taken.iter().filter(|seq| **seq == 1).count()), (16, 8), "{taken:?}");
    other.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn posts_of_both_nodes_reach_a_slow_receiver_in_order() {
    let [one, other] = two().await;
    one.endpoint(1, |_| {}).await;
    for slow in [200, 3_000, 11_000] {
        one.sink.mood(ONE, Mood::Slow(slow));
        let before = one.sink.taken(ONE).len();
        let first = log(&one.node, entity(1)).await.len() as u64 + 1;
        for n in 0..12 {
            [&one, &other][n % 2].say(1, "a").await;
            sleep(Duration::from_millis(700)).await;
        }
        sleep(secs(300)).await;
        let last = log(&one.node, entity(1)).await.len() as u64;
        let taken = &one.sink.taken(ONE)[before..];
        assert_eq!(firsts(taken), (first..=last).collect::<Vec<_>>(), "{slow} ms: {taken:?}");
        assert!(taken.len() <= 3 * (last - first + 1) as usize, "{slow} ms: {taken:?}");
        other.assert_settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn deliveries_of_a_lost_node_are_sent_by_the_other() {
    let [one, other] = two().await;
    one.endpoint(1, |_| {}).await;
    one.sink.mood(ONE, Mood::Hang);
    for n in 0..8 {
        one.say(n, "a").await;
    }
    sleep(secs(5)).await;
    one.node.halt().await;
    one.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(120)).await;
    let taken = one.sink.taken(ONE);
    assert_eq!((taken.len(), taken.iter().filter(|seq| **seq == 2).count()), (16, 8), "{taken:?}");
    sleep(secs(60)).await;
    other.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_at_one_node_resends_nothing_that_the_other_is_sending() {
    let [one, other] = two().await;
    let endpoint = one.endpoint(1, |_| {}).await;
    one.sink.mood(ONE, Mood::Slow(12_000));
    for n in 0..8 {
        one.say(n, "a").await;
    }
    sleep(secs(4)).await;
    other.store_endpoint(&endpoint.clone().changed(&endpoint, other.clock.now())).await;
    sleep(secs(120)).await;
    let taken = one.sink.taken(ONE);
    assert_eq!((taken.len(), taken.iter().filter(|seq| **seq == 1).count()), (16, 8), "{taken:?}");
    other.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_at_any_node_sends_what_waits_for_long_at_once() {
    let [one, other] = two().await;
    let endpoint = one.endpoint(1, |_| {}).await;
    one.sink.mood(ONE, Mood::Refuse);
    for n in 0..8 {
        one.say(n, "a").await;
    }
    sleep(secs(60)).await;
    one.sink.mood(ONE, Mood::Answer(200));
    other.store_endpoint(&endpoint.clone().changed(&endpoint, other.clock.now())).await;
    sleep(secs(1)).await;
    assert_eq!(one.sink.taken(ONE).len(), 16);
}
