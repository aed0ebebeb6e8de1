//! Many deliveries at once, and many failures at once.

use std::sync::Arc;
use std::time::Duration;

use actors::clock::Clock;
use actors::directory::CommandContext;
use actors::limits;
use actors::message::Content;
use actors::outbox::Sending;
use actors::outbox::keys::parse_ended_key;
use actors::random::Random;
use actors::store::faulty::{FaultyStore, Rates};
use actors::store::memory::MemoryStore;
use actors::tables::{LANES, WORKSPACES};
use actors::webhook::WebhookEndpoint;
use futures_util::StreamExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::fixture::{Arrived, Fixture, Mood, ONE, TWO};
use super::secs;
use crate::support::*;

#[tokio::test(start_paused = true)]
async fn failing_stores_and_receivers_lose_nothing_and_keep_the_order() {
    for seed in 0..3 {
        let store = FaultyStore::new(MemoryStore::default(), seed, Rates::default());
        let mut fixture = Fixture::on(store);
        fixture.endpoint(1, |_| {}).await;
        fixture.endpoint(2, |endpoint| endpoint.events = vec!["message.*".to_owned()]).await;
        fixture.store.set_rates(Rates::OFTEN);
        let mut random = Random(seed);
        for n in 0..60 {
            let moods = [Mood::Answer(200), Mood::Answer(200), Mood::Answer(500), Mood::Refuse, Mood::Hang];
            fixture.sink.mood(ONE, moods[random.below(5) as usize]);
            let e = entity(random.below(3));
            // A post that is refused, or whose outcome is unknown, may or may not be stored; the log says.
            drop(fixture.node.conversation(e, post(e, &format!("{n}")), CommandContext::default()).await);
            sleep(Duration::from_millis(random.below(4_000))).await;
            if random.below(20) == 0 {
                fixture.restart();
            }
        }
        fixture.sink.mood(ONE, Mood::Answer(200));
        fixture.store.calm();
        sleep(secs(2 * 3_600)).await;
        for n in 0..3 {
            let log = log(&fixture.node, entity(n)).await;
            for (url, skip) in [(ONE, 0), (TWO, 1)] {
                let of = |arrived: &&Arrived| arrived.request.entity == entity(n) && arrived.status == Some(200);
                let mut newest = 0;
                for arrived in fixture.sink.at(url).iter().filter(of) {
                    assert!(arrived.seq() <= newest + 1 + skip, "seed {seed}: {} after {newest}", arrived.seq());
                    newest = newest.max(arrived.seq());
                }
                assert_eq!(newest, log.len() as u64, "seed {seed}: {:?}", fixture.store.injected());
            }
        }
    }
}

#[expect(clippy::print_stderr, reason = "the figures of a run with more than usual are what it is for")]
fn say(words: &str) {
    eprintln!("{words}");
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_waits_for_a_dead_receiver_costs_others_nothing() {
    // Set `TERTULIA_OUTBOX_CROWD=100000` for 100,000.
    let waiting: u64 = std::env::var("TERTULIA_OUTBOX_CROWD").map_or(2_000, |crowd| crowd.parse().unwrap());
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |endpoint| endpoint.channel = None).await;
    fixture.sink.mood(ONE, Mood::Hang);
    for n in 0..waiting {
        fixture.say(n, "a").await;
        if n % 500 == 0 {
            sleep(Duration::from_millis(100)).await;
        }
    }
    let mut most = (0, 0);
    for _ in 0..30 {
        sleep(secs(5)).await;
        most = (most.0.max(fixture.node.outbox().active()), most.1.max(fixture.node.outbox().in_flight()));
    }
    assert!(most.0 <= limits::BREAKER_WAITING + 64 && most.1 <= limits::BREAKER_FIRST, "{most:?}");
    assert_eq!(fixture.node.outbox().open_circuits(), 1);
    // Many deliveries wait; a receiver of other events gets its own at once.
    fixture.endpoint(2, |_| {}).await;
    let mut latest = 0;
    for n in waiting..waiting + 100 {
        fixture.say(n, "b").await;
        settle().await;
        let newest = fixture.sink.at(TWO).last().unwrap().at;
        latest = latest.max(fixture.clock.now().since(newest));
        assert!(latest <= 5, "late");
    }
    // Once the receiver is back, it gets all of them, before the retry time of each.
    fixture.sink.mood(ONE, Mood::Answer(200));
    let back = fixture.clock.now();
    while fixture.sink.taken(ONE).len() < 2 * waiting as usize && fixture.clock.now().since(back) < 7_200_000 {
        sleep(secs(5)).await;
    }
    let took = fixture.clock.now().since(back);
    assert!(took < 600_000, "{took} ms");
    say(&format!(
        "{waiting} waited: couriers and requests {most:?}, others {latest} ms late, all there {took} ms after"
    ));
    sleep(secs(60)).await;
    fixture.assert_settled().await;
}

/// Also where it changes twice.
#[tokio::test(start_paused = true)]
async fn waiting_events_go_to_the_newest_url_of_an_endpoint_at_once() {
    let lists = Arc::new(Semaphore::new(1_000));
    let fixture =
        Fixture::on(FaultyStore::new(MemoryStore::default(), 0, Rates::default()).hanging_lists(lists.clone()));
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    // More than one page of deliveries.
    for n in 0..150 {
        fixture.say(n, "a").await;
    }
    sleep(secs(100)).await;
    let at = |url: &str| WebhookEndpoint { url: url.to_owned(), ..endpoint.clone() };
    fixture.sink.mood(TWO, Mood::Answer(500));
    lists.forget_permits(usize::MAX);
    fixture.store_endpoint(&at(TWO)).await;
    lists.add_permits(1);
    sleep(secs(1)).await;
    assert!(!fixture.sink.at(TWO).is_empty(), "the first page has gone on, to where they are not taken either");
    fixture.store_endpoint(&at("https://example.com/3")).await;
    lists.close();
    sleep(secs(2)).await;
    assert_eq!(fixture.sink.taken("https://example.com/3").len(), 300);
    fixture.assert_settled().await;
}

/// At a quick receiver and at a slow one.
#[tokio::test(start_paused = true)]
async fn a_burst_of_a_thousand_messages_arrives_in_order() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |_| {}).await;
    fixture.endpoint(2, |_| {}).await;
    fixture.sink.mood(TWO, Mood::Slow(200));
    let everybody = (0..1_000)
        .map(|n| fixture.node.conversation(entity(1), post(entity(1), &n.to_string()), CommandContext::default()));
    // As many in flight as one conversation accepts.
    let posted = futures_util::stream::iter(everybody).buffer_unordered(limits::ENTITY_COMMANDS);
    assert!(posted.all(async |posted| posted.is_ok()).await);
    sleep(secs(1)).await;
    let all: Vec<u64> = (1..=1_001).collect();
    assert_eq!(fixture.sink.taken(ONE), all, "the slow one keeps nobody waiting");
    assert!(fixture.sink.taken(TWO).len() < 20);
    assert_eq!(fixture.node.outbox().in_flight(), 1, "one after the other");
    sleep(secs(201)).await;
    assert_eq!(fixture.sink.taken(TWO), all);
    assert_eq!(fixture.sink.at(TWO).len(), all.len(), "each of them once");
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_keeps_no_retry_of_another_one_waiting() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |_| {}).await;
    fixture.endpoint(2, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    fixture.sink.mood(TWO, Mood::Slow(10_000));
    for n in 0..20 {
        fixture.say(1, &format!("{n}")).await;
    }
    sleep(secs(1)).await;
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(8)).await;
    assert_eq!(fixture.sink.taken(ONE).len(), 21, "5 to 6 seconds, and at most one until the alarm rings");
    assert_eq!(fixture.sink.taken(TWO), [0; 0], "it is at its first one still");
    sleep(secs(220)).await;
    assert_eq!(fixture.sink.taken(TWO).len(), 21);
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_requested_retry_does_not_wait_for_a_busy_courier() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |_| {}).await;
    fixture.endpoint(2, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    fixture.say(1, "a").await;
    sleep(secs(3)).await;
    let waits = fixture.pending().await.remove(0);
    // The log's courier is busy with the other receiver.
    fixture.sink.mood(TWO, Mood::Hang);
    fixture.say(1, "b").await;
    settle().await;
    fixture.sink.mood(ONE, Mood::Answer(200));
    let (_, entity, key) = parse_ended_key(WORKSPACE, &waits.id.0).unwrap();
    fixture.ask(entity, Sending::Again { key, receiver: waits.receiver }).await;
    let asked = fixture.clock.now();
    sleep(Duration::from_millis(500)).await;
    let taken: Vec<_> = fixture.sink.at(ONE).into_iter().filter(|arrived| arrived.status == Some(200)).collect();
    assert!(taken.len() == 3 && taken[0].at.since(asked) < 10, "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn a_url_that_refuses_what_it_gets_keeps_no_other_at_its_host_waiting() {
    let fixture = Fixture::on(MemoryStore::default());
    let hooked = |path: &str| Content { webhook_url: Some(format!("https://hooks.example/{path}")), ..content("a") };
    for n in 0..30 {
        let channel = format!("c{n}");
        fixture.channel(&channel, None).await;
        fixture.sink.mood(&format!("https://hooks.example/bad{n}"), Mood::Answer(500));
        fixture.post_to(&channel, hooked(&format!("bad{n}"))).await;
    }
    sleep(secs(1)).await;
    fixture.channel("well", None).await;
    fixture.post_to("well", hooked("ok")).await;
    sleep(secs(1)).await;
    assert_eq!(fixture.sink.taken("https://hooks.example/ok"), [2]);
    sleep(secs(60)).await;
    for n in 0..30 {
        let tried = fixture.sink.at(&format!("https://hooks.example/bad{n}")).len();
        assert_eq!(tried, 3, "it is tried as published");
    }
}

/// A [`Gate`], and an endpoint that has asked for eight hours' delay.
async fn with_an_endpoint_that_asks_for_time() -> (Gate, Fixture<Gate>, WebhookEndpoint) {
    with_one_on(Gate::new()).await
}

async fn with_one_on(gate: Gate) -> (Gate, Fixture<Gate>, WebhookEndpoint) {
    let fixture = Fixture::on(gate.clone());
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::AskForTime(8 * 3_600_000));
    fixture.say(1, "a").await;
    sleep(secs(60)).await;
    (gate, fixture, endpoint)
}

#[tokio::test(start_paused = true)]
async fn a_new_url_gets_what_waits_once_the_list_of_it_can_be_read() {
    let (gate, fixture, endpoint) = with_an_endpoint_that_asks_for_time().await;
    gate.lose_lists(5);
    fixture.store_endpoint(&WebhookEndpoint { url: TWO.to_owned(), ..endpoint }).await;
    sleep(secs(30)).await;
    assert_eq!(fixture.sink.taken(TWO), [], "the fifth pause is not over");
    sleep(secs(32)).await;
    assert_eq!(fixture.sink.taken(TWO), [1, 2]);
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_url_gets_what_waits_once_its_lane_can_be_read() {
    let (gate, fixture, endpoint) = with_an_endpoint_that_asks_for_time().await;
    gate.lose_rows(LANES, 3);
    fixture.store_endpoint(&WebhookEndpoint { url: TWO.to_owned(), ..endpoint }).await;
    sleep(secs(5)).await;
    assert_eq!(fixture.sink.taken(TWO), [], "it is looked for every two seconds");
    sleep(secs(2)).await;
    assert_eq!(fixture.sink.taken(TWO), [1, 2]);
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_url_gets_what_waits_though_its_courier_begins_late() {
    let (gate, fixture, endpoint) = with_an_endpoint_that_asks_for_time().await;
    gate.lose_rows(WORKSPACES, 2);
    fixture.store_endpoint(&WebhookEndpoint { url: TWO.to_owned(), ..endpoint }).await;
    sleep(secs(10)).await;
    assert_eq!(fixture.sink.taken(TWO), [1, 2]);
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_url_gets_what_waits_though_that_could_not_be_noted() {
    // On a shared store, the server gives up a note before other nodes go on with the log.
    let (gate, fixture, endpoint) = with_one_on(Gate::shared()).await;
    fixture.sink.mood(TWO, Mood::Late(500, 503, None));
    fixture.store_endpoint(&WebhookEndpoint { url: TWO.to_owned(), ..endpoint }).await;
    gate.rule(Rule::AtMost(0));
    sleep(secs(10)).await;
    gate.rule(Rule::Pass);
    fixture.sink.mood(TWO, Mood::Answer(200));
    sleep(secs(30)).await;
    assert_eq!(fixture.sink.taken(TWO), [1, 2]);
    fixture.assert_sent().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_url_that_events_wait_for_keeps_no_node_from_stopping() {
    let (gate, fixture, endpoint) = with_an_endpoint_that_asks_for_time().await;
    gate.lose_rows(WORKSPACES, usize::MAX);
    fixture.store_endpoint(&WebhookEndpoint { url: TWO.to_owned(), ..endpoint }).await;
    sleep(Duration::from_millis(4_500)).await;
    assert_eq!(fixture.node.outbox().active(), 1);
    let began = Instant::now();
    fixture.node.drain(began + secs(10)).await;
    assert!(began.elapsed() < secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_new_url_gets_what_waits_once_the_log_has_room() {
    const NEW: &str = "https://new.example/";
    let fixture = Fixture::on(MemoryStore::default());
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::AskForTime(8 * 3_600_000));
    fixture.say(1, "a").await;
    sleep(secs(60)).await;
    for n in 2..60 {
        let others = fixture.endpoint(n, |_| {}).await;
        fixture.sink.mood(&others.url, Mood::Slow(5_000));
    }
    fixture.say(1, "b").await;
    sleep(secs(2)).await;
    fixture.store_endpoint(&WebhookEndpoint { url: NEW.to_owned(), ..endpoint }).await;
    sleep(secs(1)).await;
    assert_eq!(fixture.sink.taken(NEW), []);
    sleep(secs(60)).await;
    assert_eq!(fixture.sink.taken(NEW), [1, 2, 3]);
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_url_has_nothing_sent_twice_to_another_receiver() {
    const NEW: &str = "https://new.example/";
    let gate = Gate::new();
    let fixture = Fixture::on(gate.clone());
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.endpoint(2, |_| {}).await;
    fixture.sink.mood(ONE, Mood::AskForTime(8 * 3_600_000));
    fixture.say(1, "a").await;
    sleep(secs(60)).await;
    fixture.say(1, "b").await;
    // The lookup of pending deliveries sees the log as it is before all of that is sent.
    gate.hold_loads(Some(entity(1)));
    fixture.store_endpoint(&WebhookEndpoint { url: NEW.to_owned(), ..endpoint }).await;
    sleep(secs(5)).await;
    assert_eq!((fixture.sink.taken(TWO), fixture.node.outbox().active()), (vec![1, 2, 3], 0));
    gate.hold_loads(None);
    sleep(secs(5)).await;
    assert_eq!(fixture.sink.taken(NEW), [1, 2, 3]);
    assert_eq!(fixture.sink.taken(TWO), [1, 2, 3], "each once");
    fixture.assert_settled().await;
}
