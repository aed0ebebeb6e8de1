//! Receivers with one URL: it gets an event once, and a change to one of them takes no event from the others.

use std::time::Duration;

use actors::channel::conversation_of;
use actors::clock::Clock;
use actors::directory::CommandContext;
use actors::id::EntityKey;
use actors::limits;
use actors::message::{Callback, Content, Review};
use actors::outbox::keys::parse_ended_key;
use actors::outbox::pending::{DeliveryState, Status};
use actors::outbox::{Lane, Receiver, Sending};
use actors::registry::{self, RowChange};
use actors::store::Store;
use actors::store::memory::MemoryStore;
use actors::tables::{LANES, WEBHOOK_ENDPOINTS};
use actors::webhook::{DisabledReason, WebhookEndpoint};
use tokio::time::sleep;

use super::fixture::{Fixture, Mood, ONE, TWO, approved};
use super::secs;
use crate::support::*;

const MOVED: &str = "https://moved.example/";

/// The change to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Deleted,
    Disabled,
    DisabledForAMoment,
    Moved,
    Narrowed,
}

const FATES: [Fate; 5] = [Fate::Deleted, Fate::Disabled, Fate::DisabledForAMoment, Fate::Moved, Fate::Narrowed];

async fn meet<S: Store>(fixture: &Fixture<S>, endpoint: &WebhookEndpoint, fate: Fate) {
    sleep(secs(1)).await;
    let mut after = endpoint.clone();
    match fate {
        Fate::Deleted => {
            let changes = vec![RowChange::delete(WEBHOOK_ENDPOINTS, endpoint.id.to_string().as_bytes())];
            let command = registry::Command { expected: Vec::new(), changes };
            let registry = EntityKey::workspace(WORKSPACE);
            fixture.node.registry(registry, command, CommandContext::default()).await.unwrap();
            return;
        }
        Fate::Disabled => after.disabled = Some(DisabledReason::Manual),
        Fate::DisabledForAMoment => after.since = fixture.clock.now(),
        Fate::Moved => after.url = MOVED.to_owned(),
        Fate::Narrowed => after.events = vec!["memory.*".to_owned()],
    }
    fixture.store_endpoint(&after.changed(endpoint, fixture.clock.now())).await;
}

/// A message that asks for a review, and the answer to it.
async fn review<S: Store>(fixture: &Fixture<S>, channel: &str, url: &str) {
    let callback = Callback { url: url.to_owned(), method: "PUT".to_owned(), headers: Vec::new() };
    let review = Review {
        kind: "approval".to_owned(),
        payload: None,
        callback: Some(callback),
        expires_at: NOW.plus(1_000_000_000),
        on_expire: None,
        quorum: None,
        asker: None,
        place: None,
    };
    let message = fixture.post_to(channel, Content { review: Some(review), ..content("may I?") }).await;
    fixture.ask(conversation_of(WORKSPACE, channel, 0), approved(message)).await;
}

#[tokio::test(start_paused = true)]
async fn a_channels_url_receives_pending_events_despite_an_endpoint_there() {
    for fate in FATES {
        let fixture = Fixture::on(MemoryStore::default());
        fixture.channel("demo", Some(ONE)).await;
        let endpoint = fixture.endpoint(1, |_| {}).await;
        fixture.sink.mood(ONE, Mood::Answer(500));
        fixture.post_to("demo", content("a")).await;
        meet(&fixture, &endpoint, fate).await;
        sleep(secs(10)).await;
        let waiting: Vec<_> = fixture.pending().await.iter().map(|one| (one.receiver, one.event.number)).collect();
        assert_eq!(waiting, [(Receiver::Channel, 1), (Receiver::Channel, 2)], "{fate:?}");
        fixture.sink.mood(ONE, Mood::Answer(200));
        sleep(secs(60)).await;
        assert_eq!(fixture.sink.taken(ONE), [1, 2], "{fate:?}");
        assert_eq!(fixture.sink.taken(MOVED), if fate == Fate::Moved { vec![1, 2] } else { vec![] }, "{fate:?}");
        let of_channel = |one: &&DeliveryState| one.receiver == Receiver::Channel;
        let ended = fixture.ended().await;
        assert!(ended.iter().filter(of_channel).all(|one| one.status == Status::Delivered), "{fate:?}: {ended:#?}");
        assert_eq!(ended.iter().filter(of_channel).count(), 2, "{fate:?}");
        fixture.assert_settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_whose_lane_is_damaged_gets_what_an_endpoint_at_its_url_leaves() {
    let gate = Gate::new();
    let fixture = Fixture::on(gate.clone());
    fixture.channel("demo", Some(ONE)).await;
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    fixture.post_to("demo", content("a")).await;
    gate.damage_row(LANES, Lane::to(Receiver::Channel).key());
    meet(&fixture, &endpoint, Fate::Deleted).await;
    sleep(secs(10)).await;
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(60)).await;
    let mut taken = fixture.sink.taken(ONE);
    taken.sort_unstable();
    assert_eq!(taken, [1, 2]);
    gate.mend_rows();
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_callback_receives_its_review_despite_an_endpoint_at_the_same_url() {
    for fate in FATES {
        let fixture = Fixture::on(MemoryStore::default());
        fixture.channel("demo", None).await;
        let endpoint = fixture.endpoint(1, |endpoint| endpoint.events = vec!["review.completed".to_owned()]).await;
        fixture.sink.mood(ONE, Mood::Answer(500));
        review(&fixture, "demo", ONE).await;
        meet(&fixture, &endpoint, fate).await;
        sleep(secs(10)).await;
        fixture.sink.mood(ONE, Mood::Answer(200));
        sleep(secs(60)).await;
        let taken: Vec<_> = fixture.sink.at(ONE).into_iter().filter(|one| one.status == Some(200)).collect();
        let taken: Vec<_> = taken.iter().map(|one| (one.name(), one.request.method.as_str())).collect();
        assert_eq!(taken, [("review.completed", "PUT")], "{fate:?}");
        fixture.assert_sent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_an_endpoint_sends_nothing_twice_to_others() {
    for fate in FATES {
        let fixture = Fixture::on(MemoryStore::default());
        fixture.channel("demo", Some(TWO)).await;
        let endpoint = fixture.endpoint(1, |_| {}).await;
        fixture.endpoint(2, |_| {}).await;
        fixture.sink.mood(ONE, Mood::Answer(500));
        fixture.post_to("demo", content("a")).await;
        meet(&fixture, &endpoint, fate).await;
        sleep(secs(60)).await;
        assert_eq!(fixture.sink.taken(TWO), [1, 2], "{fate:?}");
        fixture.sink.mood(ONE, Mood::Answer(200));
        sleep(secs(60)).await;
        fixture.assert_sent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shared_url_gets_much_that_waits_in_order_despite_a_restart() {
    for (fate, restarts) in [(Fate::Deleted, false), (Fate::Deleted, true), (Fate::Moved, true), (Fate::Disabled, true)]
    {
        let mut fixture = Fixture::on(MemoryStore::default());
        fixture.channel("demo", Some(ONE)).await;
        let endpoint = fixture.endpoint(1, |_| {}).await;
        fixture.sink.mood(ONE, Mood::Answer(500));
        for _ in 0..300 {
            fixture.post_to("demo", content("a")).await;
        }
        meet(&fixture, &endpoint, fate).await;
        if restarts {
            fixture.node.halt().await;
            fixture.restart();
        }
        sleep(secs(10)).await;
        fixture.sink.mood(ONE, Mood::Answer(200));
        sleep(secs(120)).await;
        assert_eq!(fixture.sink.taken(ONE), (1..=301).collect::<Vec<_>>(), "{fate:?} {restarts}");
        fixture.assert_settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shared_url_gets_what_waits_behind_the_channels_own_events() {
    for fate in FATES {
        let fixture = Fixture::on(MemoryStore::default());
        fixture.channel("demo", Some(ONE)).await;
        let some = ["conversation.*", "review.completed"].map(str::to_owned);
        let endpoint = fixture.endpoint(1, |endpoint| endpoint.events = some.to_vec()).await;
        fixture.sink.mood(ONE, Mood::Answer(500));
        review(&fixture, "demo", "https://r.example/").await;
        fixture.post_to("demo", content("b")).await;
        meet(&fixture, &endpoint, fate).await;
        sleep(secs(10)).await;
        fixture.sink.mood(ONE, Mood::Answer(200));
        sleep(secs(120)).await;
        let mut taken = fixture.sink.taken(ONE);
        taken.sort_unstable();
        assert_eq!(taken, [1, 2, 3, 4, 5], "{fate:?}: each once");
        fixture.assert_sent().await;
    }
}

#[tokio::test(start_paused = true)]
async fn deliveries_of_a_deleted_endpoint_are_not_sent_to_a_channels_new_url() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.channel("demo", None).await;
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    fixture.post_to("demo", content("a")).await;
    sleep(secs(1)).await;
    fixture.channel("demo", Some(TWO)).await;
    meet(&fixture, &endpoint, Fate::Deleted).await;
    sleep(secs(60)).await;
    assert_eq!(fixture.sink.taken(TWO), Vec::<u64>::new());
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_secret_of_an_endpoint_sends_nothing_twice_to_a_shared_url() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.channel("demo", Some(ONE)).await;
    let endpoint = fixture.endpoint(1, |endpoint| endpoint.events = vec!["review.*".to_owned()]).await;
    sleep(secs(1)).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    review(&fixture, "demo", "https://r.example/").await;
    fixture.post_to("demo", content("b")).await;
    sleep(secs(1)).await;
    let renewed = WebhookEndpoint { secret: "whsec_new".to_owned(), ..endpoint.clone() };
    fixture.store_endpoint(&renewed.changed(&endpoint, fixture.clock.now())).await;
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(60)).await;
    let mut taken = fixture.sink.taken(ONE);
    taken.sort_unstable();
    assert_eq!(taken, [1, 2, 3, 4, 5], "each once");
    fixture.assert_sent().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_an_endpoint_counts_as_soon_as_its_attempt_failed() {
    for fate in FATES {
        let fixture = Fixture::on(MemoryStore::default());
        fixture.channel("demo", Some(ONE)).await;
        let endpoint = fixture.endpoint(1, |_| {}).await;
        fixture.sink.mood(ONE, Mood::Answer(500));
        fixture.post_to("demo", content("a")).await;
        while fixture.sink.at(ONE).len() < 4 {
            sleep(secs(1)).await;
        }
        fixture.sink.mood(ONE, Mood::Late(10_000, 500, None));
        while fixture.node.outbox().in_flight() == 0 {
            sleep(secs(1)).await;
        }
        fixture.sink.mood(ONE, Mood::Answer(200));
        meet(&fixture, &endpoint, fate).await;
        sleep(secs(12)).await;
        assert_eq!(fixture.sink.at(ONE).len(), 7, "{fate:?}: five attempts for the endpoint, two for the channel");
        assert_eq!(fixture.sink.taken(ONE), [1, 2], "{fate:?}");
        assert_eq!(fixture.sink.taken(MOVED), if fate == Fate::Moved { vec![1, 2] } else { vec![] }, "{fate:?}");
        fixture.assert_settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_resent_event_that_is_unsubscribed_keeps_the_usual_pause() {
    for fate in [Fate::DisabledForAMoment, Fate::Narrowed] {
        let fixture = Fixture::on(MemoryStore::default());
        let endpoint = fixture.endpoint(1, |_| {}).await;
        fixture.say(1, "a").await;
        meet(&fixture, &endpoint, fate).await;
        let (_, entity, key) = parse_ended_key(WORKSPACE, &fixture.ended().await[0].id.0).unwrap();
        fixture.sink.mood(ONE, Mood::Answer(500));
        let receiver = Receiver::Endpoint(endpoint.id);
        fixture.ask(entity, Sending::Again { key, receiver }).await;
        sleep(secs(4)).await;
        assert_eq!(fixture.sink.at(ONE).len(), 3, "{fate:?}");
        fixture.sink.mood(ONE, Mood::Answer(200));
        sleep(secs(3)).await;
        assert_eq!(fixture.sink.taken(ONE), [1, 2, 1], "{fate:?}");
        fixture.assert_settled().await;
    }
}

/// Each arrives once, however many they are.
#[tokio::test(start_paused = true)]
async fn messages_that_wait_at_a_url_are_handed_over_a_few_at_once() {
    let gate = Gate::new();
    let fixture = Fixture::on(gate.clone());
    fixture.channel("demo", None).await;
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    for _ in 0..300 {
        fixture.post_to("demo", Content { webhook_url: Some(ONE.to_owned()), ..content("a") }).await;
    }
    meet(&fixture, &endpoint, Fate::Deleted).await;
    fixture.sink.mood(ONE, Mood::Slow(100));
    let mut most = 0;
    for _ in 0..12_000 {
        sleep(Duration::from_millis(10)).await;
        most = most.max(gate.last().0.rows.iter().filter(|row| row.table == LANES).count());
    }
    // This includes the endpoint's own lane, and one that is handed over in any case.
    assert!(most <= limits::COURIER_LANES + 2, "{most} lanes in one note");
    let mut taken = fixture.sink.taken(ONE);
    taken.sort_unstable();
    assert_eq!(taken, (2..=301).collect::<Vec<_>>(), "each once");
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_during_a_change_of_an_endpoint_reaches_a_shared_url() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.channel("demo", Some(ONE)).await;
    let endpoint = fixture.endpoint(1, |_| {}).await;
    sleep(secs(1)).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    let then = fixture.clock.now();
    sleep(Duration::from_millis(1)).await;
    fixture.post_to("demo", content("a")).await;
    settle().await;
    let moved = WebhookEndpoint { url: MOVED.to_owned(), ..endpoint.clone() };
    fixture.store_endpoint(&moved.changed(&endpoint, then)).await;
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(60)).await;
    assert_eq!((fixture.sink.taken(MOVED), fixture.sink.taken(ONE)), (vec![1, 2], vec![1, 2]));
    fixture.assert_settled().await;
}

/// Two endpoints at one URL; the second has more pending behind what the first one left to it.
async fn left_to_the_second(webhook_url: Option<&str>) -> (Fixture<MemoryStore>, WebhookEndpoint) {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.channel("demo", webhook_url).await;
    let first = fixture.endpoint(1, |endpoint| endpoint.events = vec!["conversation.*".to_owned()]).await;
    let second = fixture.endpoint(2, |endpoint| endpoint.url = ONE.to_owned()).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    fixture.post_to("demo", content("a")).await;
    meet(&fixture, &first, Fate::Deleted).await;
    sleep(secs(1)).await;
    let lanes: Vec<_> = fixture.pending().await.iter().map(|one| (one.receiver, one.event.number)).collect();
    let second_s = Receiver::Endpoint(second.id);
    assert_eq!(lanes, [(second_s, 2), (second_s, 1)]);
    (fixture, second)
}

#[tokio::test(start_paused = true)]
async fn deliveries_left_by_two_endpoints_go_to_the_channel() {
    for fate in FATES {
        let (fixture, second) = left_to_the_second(Some(ONE)).await;
        meet(&fixture, &second, fate).await;
        sleep(secs(10)).await;
        fixture.sink.mood(ONE, Mood::Answer(200));
        sleep(secs(60)).await;
        let mut taken = fixture.sink.taken(ONE);
        taken.sort_unstable();
        assert_eq!(taken, [1, 2], "{fate:?}: each once");
        let ended = fixture.ended().await;
        let of_channel = ended.iter().filter(|one| one.receiver == Receiver::Channel);
        assert_eq!(of_channel.filter(|one| one.status == Status::Delivered).count(), 2, "{fate:?}: {ended:#?}");
        fixture.assert_settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn deliveries_left_to_an_endpoint_fail_where_it_was_off() {
    let (fixture, second) = left_to_the_second(None).await;
    meet(&fixture, &second, Fate::DisabledForAMoment).await;
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(60)).await;
    assert_eq!(fixture.sink.taken(ONE), []);
    let ended: Vec<_> = fixture.ended().await.iter().map(|one| (one.event.number, one.status)).collect();
    assert_eq!(ended, [(1, Status::Failed), (2, Status::Failed)]);
    fixture.assert_settled().await;
}
