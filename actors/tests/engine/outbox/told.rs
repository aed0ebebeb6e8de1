//! What is told of deliveries that nobody gets, and of receivers that come and go.

use tracing::Level;

use super::*;
use crate::lines::Lines;

#[tokio::test(start_paused = true)]
async fn deliveries_that_are_given_up_are_counted_and_told_with_their_ids_and_without_their_url() {
    let (lines, _catching) = Lines::catch();
    let bench = Bench::on(MemoryStore::default());
    let url = "https://example.com/hook?token=confidential";
    let endpoint = bench.endpoint(1, |endpoint| endpoint.url = url.to_owned()).await;
    bench.endpoint(2, |_| {}).await;
    bench.sink.mood(url, Mood::Answer(500));
    bench.say(1, "a").await;
    sleep(secs(1)).await;
    assert_eq!(bench.node.metrics().webhooks_failed.get(), 0, "they are tried again");
    bench.sink.mood(url, Mood::Answer(410));
    sleep(secs(10)).await;
    let ended = bench.ended().await;
    let failed: Vec<_> = ended.iter().filter(|standing| standing.status == Status::Failed).collect();
    assert_eq!((failed.len(), bench.node.metrics().webhooks_failed.get()), (2, 2), "what arrived is none of them");
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
async fn an_endpoint_that_is_disabled_with_much_that_waits_is_told_of_in_a_line() {
    let (lines, _catching) = Lines::catch();
    let bench = Bench::on(MemoryStore::default());
    let endpoint = bench.endpoint(1, |_| {}).await;
    bench.sink.mood(ONE, Mood::Answer(500));
    for n in 0..30 {
        bench.say(1, &format!("{n}")).await;
    }
    sleep(secs(1)).await;
    bench.store_endpoint(&WebhookEndpoint { disabled: Some(DisabledReason::Manual), ..endpoint }).await;
    sleep(secs(600)).await;
    assert_eq!(bench.node.metrics().webhooks_failed.get(), 31);
    let told = lines.of(Level::WARN, "a delivery was given up");
    assert!(told.len() == 1 && told[0].contains("deliveries=31 "), "{told:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_gets_nothing_for_now_and_one_that_is_back_are_told_of_in_a_line_each() {
    let (lines, _catching) = Lines::catch();
    let bench = Bench::on(MemoryStore::default());
    let endpoint = bench.endpoint(1, |endpoint| endpoint.url = format!("{ONE}?token=confidential")).await;
    bench.sink.mood(&endpoint.url, Mood::Answer(500));
    for n in 0..20 {
        bench.say(n, "a").await;
    }
    sleep(secs(300)).await;
    let closed = lines.of(Level::INFO, "a receiver gets nothing for now");
    assert_eq!((closed.len(), lines.of(Level::INFO, "a receiver takes events again").len()), (1, 0), "{closed:#?}");
    bench.sink.mood(&endpoint.url, Mood::Answer(200));
    sleep(secs(3_600)).await;
    let back = lines.of(Level::INFO, "a receiver takes events again");
    assert_eq!((back.len(), lines.of(Level::INFO, "a receiver gets nothing for now").len()), (1, 1), "{back:#?}");
    for line in closed.iter().chain(&back) {
        assert!(line.contains(&format!("endpoint={} ", endpoint.id)) && line.contains("server=example.com "), "{line}");
        assert!(!line.contains("confidential"), "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_gone_is_told_of_once_it_is_disabled() {
    let (lines, _catching) = Lines::catch();
    let bench = Bench::on(MemoryStore::default());
    let endpoint = bench.endpoint(1, |_| {}).await;
    bench.sink.mood(ONE, Mood::Answer(410));
    bench.say(1, "a").await;
    bench.say(2, "b").await;
    sleep(secs(10)).await;
    let told = lines.of(Level::INFO, "an endpoint that is gone was disabled");
    assert!(told.len() == 1 && told[0].contains(&endpoint.id.to_string()), "{told:#?}");
}
