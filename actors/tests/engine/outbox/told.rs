//! Reports on deliveries that are given up, and on receivers that come and go.

use actors::store::faulty::{FaultyStore, Rates};
use tracing::Level;

use super::*;
use crate::lines::Lines;

#[tokio::test(start_paused = true)]
async fn deliveries_given_up_are_counted_and_logged_without_their_url() {
    let (lines, _catching) = Lines::catch();
    let fixture = Fixture::on(MemoryStore::default());
    let url = "https://example.com/hook?token=confidential";
    let endpoint = fixture.endpoint(1, |endpoint| endpoint.url = url.to_owned()).await;
    fixture.endpoint(2, |_| {}).await;
    fixture.sink.mood(url, Mood::Answer(500));
    fixture.say(1, "a").await;
    sleep(secs(1)).await;
    assert_eq!(fixture.node.metrics().webhooks_failed.get(), 0, "they are tried again");
    fixture.sink.mood(url, Mood::Answer(410));
    sleep(secs(10)).await;
    let ended = fixture.ended().await;
    let failed: Vec<_> = ended.iter().filter(|standing| standing.status == Status::Failed).collect();
    assert_eq!((failed.len(), fixture.node.metrics().webhooks_failed.get()), (2, 2), "what arrived is none of them");
    let told = lines.of(Level::WARN, "a delivery was given up");
    for part in [
        format!("event={} ", failed[0].event),
        format!("delivery={} ", failed[0].id),
        format!("entity={:?} ", entity(1)),
        format!("endpoint={} ", endpoint.id),
        "receiver=\"endpoint\" ".to_owned(),
        "status=410 ".to_owned(),
    ] {
        assert!(told[0].contains(&part), "{part}: {told:#?}");
    }
    assert!(told.iter().all(|line| !line.contains("confidential") && !line.contains("whsec")), "{told:#?}");
}

#[tokio::test(start_paused = true)]
async fn deliveries_given_up_are_logged_once_after_an_unknown_outcome() {
    let unanswered = Rates { unanswered: 1_000, ..Rates::default() };
    let late = Rates { late: 1_000, ..Rates::default() };
    let mut noted_late = 0;
    for (seed, rates) in (0..5).flat_map(|seed| [(seed, unanswered), (seed, late)]) {
        let (lines, _catching) = Lines::catch();
        let store = FaultyStore::new(MemoryStore::default(), seed, Rates::default());
        let fixture = Fixture::on(store.clone());
        fixture.endpoint(1, |_| {}).await;
        fixture.sink.mood(ONE, Mood::Answer(410));
        fixture.say(1, "a").await;
        store.set_rates(rates);
        sleep(secs(1)).await;
        assert!(store.injected().unanswered + store.injected().late > 0);
        store.calm();
        sleep(secs(60)).await;
        let failed = fixture.ended().await.iter().filter(|standing| standing.status == Status::Failed).count() as u64;
        assert_eq!(fixture.node.metrics().webhooks_failed.get(), failed, "seed {seed}, {rates:?}");
        assert!(failed == 2 || rates == late, "it was noted");
        let told = lines.of(Level::WARN, "a delivery was given up");
        assert_eq!(told.is_empty(), failed == 0, "{told:#?}");
        noted_late += u64::from(rates == late && failed > 0);
        fixture.assert_settled().await;
    }
    assert!((1..5).contains(&noted_late), "some were and some were not: {noted_late}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_disabled_with_pending_events_has_one_log_line() {
    let (lines, _catching) = Lines::catch();
    let fixture = Fixture::on(MemoryStore::default());
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    for n in 0..30 {
        fixture.say(1, &format!("{n}")).await;
    }
    sleep(secs(1)).await;
    fixture.store_endpoint(&WebhookEndpoint { disabled: Some(DisabledReason::Manual), ..endpoint }).await;
    sleep(secs(600)).await;
    assert_eq!(fixture.node.metrics().webhooks_failed.get(), 31);
    let told = lines.of(Level::WARN, "a delivery was given up");
    assert!(told.len() == 1 && told[0].contains("deliveries=31 "), "{told:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_paused_and_a_resumed_receiver_have_a_log_line_each() {
    let (lines, _catching) = Lines::catch();
    let fixture = Fixture::on(MemoryStore::default());
    let endpoint = fixture.endpoint(1, |endpoint| endpoint.url = format!("{ONE}?token=confidential")).await;
    fixture.sink.mood(&endpoint.url, Mood::Answer(500));
    for n in 0..20 {
        fixture.say(n, "a").await;
    }
    sleep(secs(300)).await;
    let closed = lines.of(Level::INFO, "deliveries to a receiver are paused");
    assert_eq!((closed.len(), lines.of(Level::INFO, "deliveries to a receiver resumed").len()), (1, 0), "{closed:#?}");
    fixture.sink.mood(&endpoint.url, Mood::Answer(200));
    sleep(secs(3_600)).await;
    let back = lines.of(Level::INFO, "deliveries to a receiver resumed");
    assert_eq!((back.len(), lines.of(Level::INFO, "deliveries to a receiver are paused").len()), (1, 1), "{back:#?}");
    for line in closed.iter().chain(&back) {
        assert!(line.contains(&format!("endpoint={} ", endpoint.id)) && line.contains("server=example.com "), "{line}");
        assert!(!line.contains("confidential"), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_untried_age_leaves_out_events_that_were_tried() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Slow(5_000));
    fixture.say(1, "a").await;
    fixture.say(1, "b").await;
    let age = || fixture.node.outbox().oldest_untried(fixture.node.now());
    sleep(secs(4)).await;
    assert!((3_900..=4_100).contains(&age()), "{}: the first one has no answer yet", age());
    sleep(secs(3)).await;
    assert!((6_900..=7_100).contains(&age()), "{}: the second one waits behind it", age());
    sleep(secs(60)).await;
    assert_eq!(age(), 0, "all have arrived");
    fixture.sink.mood(ONE, Mood::Answer(500));
    fixture.say(1, "c").await;
    sleep(Duration::from_millis(10)).await;
    assert_eq!(
        (fixture.sink.at(ONE).last().unwrap().status, age()),
        (Some(500), 0),
        "its receiver is asked again later"
    );
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_gone_is_reported_once_it_is_disabled() {
    let (lines, _catching) = Lines::catch();
    let fixture = Fixture::on(MemoryStore::default());
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(410));
    fixture.say(1, "a").await;
    fixture.say(2, "b").await;
    sleep(secs(10)).await;
    let told = lines.of(Level::INFO, "an endpoint whose receiver is gone was disabled");
    assert!(told.len() == 1 && told[0].contains(&endpoint.id.to_string()), "{told:#?}");
}
