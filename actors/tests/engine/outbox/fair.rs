//! Fairness: URLs that hang, other URLs at their host, and deliveries that a client requests.

use actors::clock::Clock;
use actors::limits;
use actors::message::Content;
use actors::outbox::Sending;
use actors::outbox::keys::parse_ended_key;
use actors::outbox::pending::{DeliveryState, Status};
use actors::store::memory::MemoryStore;
use actors::webhook::{DisabledReason, WebhookEndpoint};
use tokio::time::sleep;

use super::fixture::{Fixture, Mood, ONE};
use super::secs;
use crate::support::*;

fn url(path: &str) -> String {
    format!("https://hooks.example/{path}")
}

/// Requests a delivery again.
async fn again(fixture: &Fixture<MemoryStore>, standing: &DeliveryState) {
    let (_, entity, key) = parse_ended_key(WORKSPACE, &standing.id.0).unwrap();
    fixture.ask(entity, Sending::Again { key, receiver: standing.receiver }).await;
}

async fn hooked(fixture: &Fixture<MemoryStore>, path: &str, mood: Mood) {
    fixture.sink.mood(&url(path), mood);
    fixture.post_to("demo", Content { webhook_url: Some(url(path)), ..content("a") }).await;
}

#[tokio::test(start_paused = true)]
async fn hanging_urls_keep_no_other_of_their_host_waiting_for_long() {
    for hanging in [14, 300] {
        let fixture = Fixture::on(MemoryStore::default());
        fixture.channel("demo", None).await;
        for n in 0..hanging {
            hooked(&fixture, &format!("hang{n}"), Mood::Hang).await;
        }
        for n in 0..4 {
            sleep(secs(30)).await;
            hooked(&fixture, &format!("ok{n}"), Mood::Answer(200)).await;
            // Within this time, whenever it begins, the slots become free twice.
            sleep(secs(31)).await;
            assert_eq!(fixture.sink.taken(&url(&format!("ok{n}"))).len(), 1, "{n} behind {hanging}");
        }
        // URLs that hang are still tried as published, and hold few sockets.
        sleep(secs(1_200)).await;
        let pending = fixture.pending().await;
        assert_eq!(pending.len(), hanging);
        assert!(pending.iter().all(|standing| !standing.attempts.is_empty()));
        assert_eq!(fixture.node.outbox().open_circuits(), 1);
        assert!(fixture.node.outbox().in_flight() <= 1, "{}", fixture.node.outbox().in_flight());
    }
}

#[tokio::test(start_paused = true)]
async fn a_url_unanswered_once_is_asked_before_those_unanswered_often() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.channel("demo", None).await;
    for n in 0..14 {
        hooked(&fixture, &format!("hang{n}"), Mood::Hang).await;
    }
    sleep(secs(1_100)).await;
    let tried = async || fixture.pending().await.iter().map(|standing| standing.attempts.len()).collect::<Vec<_>>();
    let before = tried().await;
    assert!(before.iter().all(|tried| (2..=3).contains(tried)), "nobody far before another: {before:?}");
    hooked(&fixture, "ok", Mood::Hang).await;
    sleep(secs(16)).await;
    fixture.sink.mood(&url("ok"), Mood::Answer(200));
    // The tripped breaker admits a delivery at most 60 seconds after the current attempt.
    sleep(secs(80)).await;
    assert_eq!(fixture.sink.taken(&url("ok")).len(), 1, "{before:?} {:?}", tried().await);
}

#[tokio::test(start_paused = true)]
async fn many_messages_to_one_url_that_hangs_keep_no_other_at_its_host_waiting() {
    let fixture = Fixture::on(MemoryStore::default());
    for n in 0..100 {
        fixture.channel(&format!("c{n}"), None).await;
    }
    fixture.sink.mood(&url("hang"), Mood::Hang);
    let hang = || Content { webhook_url: Some(url("hang")), ..content("a") };
    for n in 0..100 {
        fixture.post_to(&format!("c{n}"), hang()).await;
    }
    settle().await;
    assert_eq!(fixture.node.outbox().in_flight(), 3, "two at a time, and one as it was new");
    fixture.channel("demo", None).await;
    hooked(&fixture, "ok0", Mood::Answer(200)).await;
    settle().await;
    assert_eq!(fixture.sink.taken(&url("ok0")).len(), 1);
    sleep(secs(300)).await;
    assert_eq!(fixture.node.outbox().open_circuits(), 1);
    hooked(&fixture, "ok1", Mood::Answer(200)).await;
    settle().await;
    assert_eq!(fixture.sink.taken(&url("ok1")).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_requested_delivery_is_sent_now_though_others_hang_before_it() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |endpoint| endpoint.events = vec!["message.*".to_owned()]).await;
    fixture.sink.mood(ONE, Mood::Hang);
    for n in 1..=4 {
        fixture.say(n, "a").await;
        settle().await;
    }
    sleep(secs(2)).await;
    fixture.sink.mood(ONE, Mood::Answer(200));
    assert_eq!((fixture.node.outbox().in_flight(), fixture.sink.at(ONE).len()), (2, 0));
    let waits = fixture.pending().await.into_iter().filter(|standing| standing.attempts.is_empty());
    let last = waits.max_by_key(|standing| standing.event).unwrap();
    again(&fixture, &last).await;
    sleep(secs(2)).await;
    assert_eq!(fixture.sink.at(ONE).first().map(|arrived| arrived.request.id), Some(last.event));
    sleep(secs(60)).await;
    let times = fixture.sink.at(ONE).iter().filter(|arrived| arrived.request.id == last.event).count();
    assert_eq!((times, fixture.sink.at(ONE).len()), (1, 4), "once, and the others in their turn");
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_request_during_an_attempt_is_tried_right_after_it() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |endpoint| endpoint.events = vec!["message.*".to_owned()]).await;
    fixture.sink.mood(ONE, Mood::Hang);
    fixture.say(1, "a").await;
    sleep(secs(6)).await;
    again(&fixture, &fixture.pending().await[0]).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    sleep(secs(9)).await;
    assert_eq!((fixture.sink.at(ONE).len(), fixture.node.outbox().in_flight()), (0, 1), "one attempt at a time");
    sleep(secs(1)).await;
    assert_eq!(fixture.sink.at(ONE).len(), 1, "it waits for no pause");
    sleep(secs(4)).await;
    assert_eq!(fixture.sink.at(ONE).len(), 1, "and is tried as published from then on");
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(3)).await;
    assert_eq!(fixture.sink.taken(ONE), [2]);
    fixture.assert_settled().await;
}

/// It was off while the delivery waited behind others.
#[tokio::test(start_paused = true)]
async fn a_requested_delivery_is_sent_though_its_endpoint_was_off() {
    let fixture = Fixture::on(MemoryStore::default());
    let endpoint = fixture.endpoint(1, |endpoint| endpoint.events = vec!["message.*".to_owned()]).await;
    // After these, the endpoint gets as many requests at once as any receiver.
    for n in 0..limits::MAX_BREAKER_PERMITS as u64 {
        fixture.say(n, "a").await;
        settle().await;
    }
    fixture.sink.mood(ONE, Mood::Hang);
    for n in 0..limits::MAX_BREAKER_PERMITS as u64 + 1 {
        fixture.say(100 + n, "a").await;
        settle().await;
    }
    sleep(secs(2)).await;
    fixture.sink.mood(ONE, Mood::Answer(200));
    let off = WebhookEndpoint { disabled: Some(DisabledReason::Manual), ..endpoint.clone() };
    fixture.store_endpoint(&off).await;
    sleep(secs(2)).await;
    fixture.store_endpoint(&WebhookEndpoint { since: fixture.clock.now(), ..endpoint }).await;
    sleep(secs(2)).await;
    let taken = fixture.sink.taken(ONE).len();
    let hang = fixture.node.outbox().in_flight();
    assert_eq!((taken, hang), (limits::MAX_BREAKER_PERMITS, limits::MAX_BREAKER_PERMITS), "the last one waits");
    let last = fixture.pending().await.into_iter().max_by_key(|standing| standing.event).unwrap();
    again(&fixture, &last).await;
    sleep(secs(2)).await;
    assert_eq!(fixture.sink.at(ONE).last().map(|arrived| arrived.request.id), Some(last.event));
    let failed = fixture.ended().await.into_iter().filter(|standing| standing.status == Status::Failed);
    assert_eq!(failed.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_requested_retry_is_sent_though_many_lanes_of_its_log_hang() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.channel("demo", None).await;
    hooked(&fixture, "asked", Mood::AskForTime(8 * 3_600_000)).await;
    sleep(secs(2)).await;
    let asked = fixture.pending().await.remove(0);
    for n in 0..limits::COURIER_LANES * 4 / 5 {
        // Each at a host of its own.
        let hang = format!("https://hang{n}.example/");
        fixture.sink.mood(&hang, Mood::Hang);
        fixture.post_to("demo", Content { webhook_url: Some(hang), ..content("a") }).await;
    }
    sleep(secs(2)).await;
    assert_eq!(fixture.node.outbox().in_flight(), limits::COURIER_LANES * 4 / 5);
    fixture.sink.mood(&url("asked"), Mood::Answer(200));
    again(&fixture, &asked).await;
    sleep(secs(2)).await;
    assert_eq!(fixture.sink.taken(&url("asked")), [asked.event.number]);
}
