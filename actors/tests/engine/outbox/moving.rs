//! Receivers that get another URL while an attempt at the old one is in flight.

use actors::clock::Clock;
use actors::id::EntityKey;
use actors::store::Store;
use actors::store::memory::MemoryStore;
use actors::tables::WEBHOOK_ENDPOINTS;
use actors::webhook::{DisabledReason, WebhookEndpoint};
use tokio::time::sleep;

use super::fixture::{Fixture, Mood, ONE, TWO};
use super::secs;
use crate::support::*;

const EIGHT_HOURS: u64 = 8 * 60 * 60 * 1000;

async fn stored<S: Store>(fixture: &Fixture<S>, endpoint: &WebhookEndpoint) -> WebhookEndpoint {
    let registry = EntityKey::workspace(WORKSPACE);
    let id = endpoint.id.to_string();
    let row = fixture.node.configured::<WebhookEndpoint>(registry, WEBHOOK_ENDPOINTS, id.as_bytes());
    WebhookEndpoint::clone(&row.await.unwrap().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_of_the_old_url_does_not_affect_the_new_one() {
    for mood in [Mood::Late(10_000, 410, None), Mood::Late(10_000, 503, Some(EIGHT_HOURS)), Mood::Hang] {
        let fixture = Fixture::on(MemoryStore::default());
        let endpoint = fixture.endpoint(1, |_| {}).await;
        fixture.sink.mood(ONE, mood);
        fixture.say(1, "a").await;
        sleep(secs(1)).await;
        let moved = WebhookEndpoint { url: TWO.to_owned(), ..endpoint.clone() };
        fixture.store_endpoint(&moved.changed(&endpoint, fixture.clock.now())).await;
        sleep(secs(17)).await;
        assert_eq!(stored(&fixture, &endpoint).await.disabled, None, "{mood:?}");
        assert_eq!(fixture.sink.taken(TWO), [1, 2], "{mood:?}");
        sleep(secs(60)).await;
        fixture.assert_settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_from_before_the_clock_was_set_back_gets_events() {
    let fixture = Fixture::on(MemoryStore::default());
    sleep(secs(1_000)).await;
    fixture.endpoint(1, |_| {}).await;
    fixture.clock.set_back(600_000);
    fixture.say(1, "a").await;
    sleep(secs(1)).await;
    assert_eq!(fixture.sink.taken(ONE), [1, 2]);
    fixture.sink.mood(ONE, Mood::AskForTime(1_000_000));
    fixture.say(1, "b").await;
    sleep(secs(500)).await;
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(600)).await;
    assert_eq!(fixture.sink.taken(ONE), [1, 2, 3], "also what waits while the clock catches up");
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_enabled_since_ignores_an_earlier_gone() {
    let fixture = Fixture::on(MemoryStore::default());
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Late(10_000, 410, None));
    fixture.say(1, "a").await;
    sleep(secs(1)).await;
    let off = WebhookEndpoint { disabled: Some(DisabledReason::Manual), ..endpoint.clone() };
    let off = off.changed(&endpoint, fixture.clock.now());
    fixture.store_endpoint(&off).await;
    sleep(secs(1)).await;
    let on = WebhookEndpoint { disabled: None, since: fixture.clock.now(), ..off.clone() };
    fixture.store_endpoint(&on.changed(&off, fixture.clock.now())).await;
    sleep(secs(20)).await;
    assert_eq!(stored(&fixture, &endpoint).await.disabled, None);
    fixture.say(2, "b").await;
    sleep(secs(20)).await;
    assert_eq!(stored(&fixture, &endpoint).await.disabled, Some(DisabledReason::Gone), "what it says now counts");
}

async fn moves<S: Store>(fixture: &Fixture<S>, endpoint: &WebhookEndpoint) {
    let moved = WebhookEndpoint { url: TWO.to_owned(), ..endpoint.clone() };
    fixture.store_endpoint(&moved.changed(endpoint, fixture.clock.now())).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_url_has_a_schedule_of_its_own() {
    for mood in [Mood::Answer(500), Mood::Late(10_000, 500, None)] {
        let fixture = Fixture::on(MemoryStore::default());
        let endpoint = fixture.endpoint(1, |_| {}).await;
        fixture.sink.mood(ONE, mood);
        fixture.sink.mood(TWO, Mood::Answer(500));
        fixture.say(1, "a").await;
        if mood == Mood::Answer(500) {
            while fixture.sink.at(ONE).len() < 6 {
                sleep(secs(10)).await;
            }
        }
        sleep(secs(1)).await;
        moves(&fixture, &endpoint).await;
        while fixture.sink.at(TWO).is_empty() {
            sleep(secs(1)).await;
        }
        fixture.sink.mood(TWO, Mood::Answer(200));
        sleep(secs(7)).await;
        let tried: Vec<_> = fixture.sink.at(TWO).iter().map(|arrived| arrived.at).collect();
        assert_eq!(fixture.sink.taken(TWO), [1, 2], "{mood:?}");
        assert!((5_000..6_000).contains(&tried[1].since(tried[0])), "{mood:?}: {tried:?}");
        fixture.assert_settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_url_is_tried_for_three_days_of_its_own() {
    let mut fixture = Fixture::on(MemoryStore::default());
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    fixture.sink.mood(TWO, Mood::Answer(500));
    fixture.say(1, "a").await;
    sleep(secs(71 * 60 * 60)).await;
    moves(&fixture, &endpoint).await;
    sleep(secs(10)).await;
    // The store also knows what was tried where.
    fixture.node.halt().await;
    fixture.restart();
    sleep(secs(2 * 60 * 60)).await;
    assert_eq!(fixture.ended().await, []);
    fixture.sink.mood(TWO, Mood::Answer(200));
    sleep(secs(5 * 60 * 60)).await;
    assert_eq!(fixture.sink.taken(TWO), [1, 2]);
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn waiting_deliveries_go_to_a_channels_new_url_at_once() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.channel("demo", Some(ONE)).await;
    fixture.channel("other", Some(ONE)).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    for channel in ["demo", "demo", "other"] {
        fixture.post_to(channel, content("a")).await;
    }
    sleep(secs(5_000)).await;
    fixture.channel("demo", Some(TWO)).await;
    let asked = fixture.sink.at(ONE).len();
    sleep(secs(1)).await;
    assert_eq!(fixture.sink.taken(TWO), [1, 2, 3]);
    assert_eq!(fixture.sink.at(ONE).len(), asked, "who waits elsewhere goes on waiting");
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(40_000)).await;
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn the_new_url_of_an_api_channel_gets_what_waits_at_once() {
    let fixture = Fixture::on(MemoryStore::default());
    for channel in ["shop", "other"] {
        fixture.api_channel(channel, Some(ONE)).await;
    }
    fixture.sink.mood(ONE, Mood::Answer(500));
    for (n, channel) in [(1, "shop"), (2, "shop"), (3, "other")] {
        fixture.say_on(channel, n, "a").await;
    }
    sleep(secs(5_000)).await;
    fixture.api_channel("shop", Some(TWO)).await;
    let asked = fixture.sink.at(ONE).len();
    sleep(secs(1)).await;
    let mut taken = fixture.sink.taken(TWO);
    taken.sort_unstable();
    assert_eq!(taken, [1, 1, 2, 2]);
    assert_eq!(fixture.sink.at(ONE).len(), asked, "who waits elsewhere goes on waiting");
}
