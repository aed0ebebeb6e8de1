//! Deliveries that a client requests while they are being sent or noted.

use std::time::Duration;

use actors::clock::Clock;
use actors::outbox::Sending;
use actors::outbox::keys::parse_ended_key;
use actors::outbox::pending::DeliveryState;
use actors::store::conformance::{commit, on};
use actors::store::memory::MemoryStore;
use actors::store::{Commit, ReadLevel, RowWrite, Store};
use actors::tables::RETRIED;
use actors::webhook::{DisabledReason, WebhookEndpoint};
use tokio::time::sleep;

use super::fixture::{Fixture, Mood, ONE};
use super::secs;
use crate::support::*;

/// Less than the time that an outcome waits to be noted.
const BEFORE_THE_NOTE: Duration = Duration::from_millis(5);

async fn again(fixture: &Fixture<impl Store>, standing: &DeliveryState) {
    let (_, entity, key) = parse_ended_key(WORKSPACE, &standing.id.0).unwrap();
    fixture.ask(entity, Sending::Again { key, receiver: standing.receiver }).await;
}

/// How often each event was sent, and how many attempts its delivery shows.
async fn counts(fixture: &Fixture<MemoryStore>) -> Vec<(u64, usize, usize)> {
    let arrived = fixture.sink.at(ONE);
    let sent = |seq: u64| arrived.iter().filter(|arrived| arrived.seq() == seq).count();
    let all = [fixture.ended().await, fixture.pending().await].concat();
    let mut counts: Vec<_> = all.iter().map(|one| (one.event.number, one.attempts.len())).collect();
    counts.sort_unstable();
    counts.into_iter().map(|(seq, told)| (seq, sent(seq), told)).collect()
}

/// An endpoint that refuses everything, and three deliveries pending for it on one lane.
async fn with_three_that_wait() -> (Fixture<MemoryStore>, Vec<DeliveryState>) {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |endpoint| endpoint.events = vec!["message.*".to_owned()]).await;
    fixture.sink.mood(ONE, Mood::Refuse);
    for text in ["a", "b", "c"] {
        fixture.say(1, text).await;
    }
    sleep(secs(2)).await;
    let waiting = fixture.pending().await;
    (fixture, waiting)
}

#[tokio::test(start_paused = true)]
async fn a_delivery_requested_during_its_retries_lists_every_attempt() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |endpoint| endpoint.events = vec!["message.*".to_owned()]).await;
    fixture.say(1, "a").await;
    sleep(secs(1)).await;
    let arrived = fixture.ended().await;
    for slow in [0, 3, 12, 40] {
        fixture.sink.mood(ONE, if slow == 0 { Mood::Answer(200) } else { Mood::Slow(slow) });
        for _ in 0..5 {
            again(&fixture, &arrived[0]).await;
            sleep(BEFORE_THE_NOTE).await;
        }
        sleep(secs(2)).await;
        let sent = fixture.sink.at(ONE).len();
        assert_eq!(counts(&fixture).await, [(2, sent, sent)], "{slow} ms");
        fixture.assert_settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_request_before_a_failure_is_noted_keeps_that_attempt() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |endpoint| endpoint.events = vec!["message.*".to_owned()]).await;
    fixture.say(1, "a").await;
    sleep(secs(1)).await;
    let arrived = fixture.ended().await;
    fixture.sink.mood(ONE, Mood::Refuse);
    for _ in 0..5 {
        again(&fixture, &arrived[0]).await;
        sleep(BEFORE_THE_NOTE).await;
    }
    sleep(secs(1)).await;
    let sent = fixture.sink.at(ONE).len();
    assert_eq!(counts(&fixture).await, [(2, sent, sent)]);
}

/// Nothing else is sent twice.
#[tokio::test(start_paused = true)]
async fn a_retry_request_while_its_lane_catches_up_tells_every_attempt() {
    let (fixture, waiting) = with_three_that_wait().await;
    assert_eq!(waiting.len(), 3);
    fixture.sink.mood(ONE, Mood::Answer(200));
    for _ in 0..3 {
        again(&fixture, &waiting[0]).await;
        sleep(BEFORE_THE_NOTE).await;
    }
    sleep(secs(2)).await;
    let counts = counts(&fixture).await;
    assert!(counts.iter().all(|(_, sent, told)| sent == told), "{counts:?}");
    assert_eq!(counts[1..], [(3, 1, 1), (4, 1, 1)], "{counts:?}");
    fixture.assert_settled().await;
}

/// Also where more of its lane is under way.
#[tokio::test(start_paused = true)]
async fn a_delivery_just_given_up_is_sent_once_more_on_request() {
    let fixture = Fixture::on(MemoryStore::default());
    let hook = "https://c.example/";
    fixture.channel("demo", Some(hook)).await;
    fixture.sink.mood(hook, Mood::Refuse);
    for text in ["a", "b"] {
        fixture.post_to("demo", content(text)).await;
    }
    sleep(secs(2)).await;
    let waiting = fixture.pending().await;
    assert_eq!(waiting.iter().map(|one| one.event.number).collect::<Vec<_>>(), [1, 2, 3]);
    // The first delivery is given up, and the next one is in flight before that is noted.
    fixture.sink.mood(hook, Mood::Late(500, 410, None));
    while fixture.node.outbox().in_flight() == 0 {
        sleep(BEFORE_THE_NOTE).await;
    }
    fixture.sink.mood(hook, Mood::Slow(3_000));
    sleep(Duration::from_millis(550)).await;
    assert_eq!((fixture.sink.at(hook).len(), fixture.ended().await.len()), (2, 0));
    again(&fixture, &waiting[0]).await;
    sleep(secs(20)).await;
    let mut taken = fixture.sink.taken(hook);
    taken.sort_unstable();
    assert_eq!(taken, [1, 2, 3], "each once");
    fixture.assert_settled().await;
    let attempts = fixture.ended().await[0].attempts.len();
    assert_eq!(attempts, 3, "one that failed, one that it was given up with, and the one that was asked for");
}

#[tokio::test(start_paused = true)]
async fn a_requested_delivery_is_tried_once_those_before_it_are_done() {
    let (fixture, waiting) = with_three_that_wait().await;
    // It fails more than ten times in a row, so the endpoint gets only occasional requests.
    sleep(secs(71 * 3_600 - 600)).await;
    let before = fixture.sink.at(ONE).len();
    again(&fixture, &waiting[2]).await;
    sleep(secs(1)).await;
    assert_eq!(fixture.sink.at(ONE).len(), before + 1, "the first of them is tried now");
    // The last attempt at the first delivery is made 72 hours after its event.
    sleep(secs(3_600 + 900)).await;
    let tried = fixture.sink.at(ONE).split_off(before + 1);
    let [(2, first), (3, second), (4, third)] = tried[..].iter().map(|one| (one.seq(), one.at)).collect::<Vec<_>>()[..]
    else {
        panic!("{tried:#?}")
    };
    assert!(second.since(first) < 1_000 && third.since(second) < 1_000, "{first:?} {second:?} {third:?}");
    assert_eq!((fixture.ended().await.len(), fixture.pending().await.len()), (3, 0), "they are given up");
}

/// Narrows the endpoint's subscription to nothing that is sent here.
async fn unsubscribe(fixture: &Fixture<impl Store>, endpoint: &WebhookEndpoint) {
    let narrowed = WebhookEndpoint { events: vec!["review.*".to_owned()], ..endpoint.clone() };
    fixture.store_endpoint(&narrowed.changed(endpoint, fixture.clock.now())).await;
}

/// An endpoint that refuses everything, and these conversations' deliveries that wait for it.
async fn with_some_that_wait<S: Store>(store: S, of: &[u64]) -> (Fixture<S>, WebhookEndpoint, Vec<DeliveryState>) {
    let fixture = Fixture::on(store);
    let endpoint = fixture.endpoint(1, |endpoint| endpoint.events = vec!["message.*".to_owned()]).await;
    fixture.sink.mood(ONE, Mood::Refuse);
    for conversation in of {
        fixture.say(*conversation, "a").await;
    }
    sleep(secs(1)).await;
    let waiting = fixture.pending().await;
    (fixture, endpoint, waiting)
}

/// How often events of this conversation were sent.
fn sent(fixture: &Fixture<impl Store>, conversation: u64) -> Vec<u64> {
    let arrived = fixture.sink.at(ONE).into_iter().filter(|one| one.request.entity == entity(conversation));
    arrived.map(|arrived| arrived.seq()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_retry_request_sends_nothing_unsubscribed_before_it() {
    let (fixture, endpoint, waiting) = with_some_that_wait(MemoryStore::default(), &[1, 1, 2]).await;
    let of_another = waiting.iter().find(|one| one.event.entity == entity(2).id).unwrap();
    let behind = waiting.iter().find(|one| one.event.entity == entity(1).id && one.event.number == 3).unwrap();
    // Others take every permit, so the first event waits for one when its time comes.
    fixture.sink.mood(ONE, Mood::Hang);
    fixture.say(3, "a").await;
    fixture.say(4, "a").await;
    settle().await;
    again(&fixture, of_another).await;
    sleep(secs(6)).await;
    assert_eq!((fixture.node.outbox().in_flight(), sent(&fixture, 1)), (3, vec![2]));
    fixture.sink.mood(ONE, Mood::Answer(200));
    again(&fixture, behind).await;
    settle().await;
    unsubscribe(&fixture, &endpoint).await;
    sleep(secs(20)).await;
    assert_eq!(sent(&fixture, 1), [2], "only what was sent before");
    fixture.assert_settled().await;
}

/// Its endpoint wants it no more.
#[tokio::test(start_paused = true)]
async fn a_tried_retry_request_is_not_repeated_for_a_later_one() {
    let (fixture, endpoint, waiting) = with_some_that_wait(MemoryStore::default(), &[1, 1]).await;
    fixture.sink.mood(ONE, Mood::Late(2_000, 500, None));
    again(&fixture, &waiting[0]).await;
    settle().await;
    assert_eq!(fixture.node.outbox().in_flight(), 1);
    unsubscribe(&fixture, &endpoint).await;
    again(&fixture, &waiting[1]).await;
    sleep(secs(20)).await;
    assert_eq!(sent(&fixture, 1), [2, 2], "once by itself and once as it was asked for");
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_request_is_sent_even_if_no_endpoint_subscribes() {
    let gate = Gate::new();
    let (fixture, endpoint, waiting) = with_some_that_wait(gate.clone(), &[1]).await;
    fixture.sink.mood(ONE, Mood::Answer(200));
    gate.hang_event(Some(2));
    unsubscribe(&fixture, &endpoint).await;
    settle().await;
    again(&fixture, &waiting[0]).await;
    sleep(secs(2)).await;
    gate.hang_event(None);
    sleep(secs(2)).await;
    assert_eq!(fixture.sink.taken(ONE), [2]);
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_retry_request_found_to_wait_for_a_disabled_endpoint_is_not_lost() {
    let gate = Gate::new();
    let fixture = Fixture::on(gate.clone());
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Refuse);
    fixture.say(1, "a").await;
    sleep(secs(1)).await;
    let waiting = fixture.pending().await;
    fixture.sink.mood(ONE, Mood::Answer(200));
    // Its search reads both events together, and each message's event by itself.
    gate.hang_event(Some(1));
    fixture.store_endpoint(&WebhookEndpoint { disabled: Some(DisabledReason::Manual), ..endpoint.clone() }).await;
    sleep(secs(1)).await;
    assert_eq!(fixture.node.outbox().active(), 1);
    again(&fixture, &waiting[0]).await;
    sleep(secs(2)).await;
    assert_eq!(fixture.ended().await, []);
    fixture.store_endpoint(&WebhookEndpoint { since: fixture.clock.now(), ..endpoint }).await;
    gate.hang_event(None);
    sleep(secs(2)).await;
    assert_eq!(fixture.sink.taken(ONE), [1], "and not the one that nobody asked for");
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_sent_again_though_earlier_answers_are_damaged() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |_| {}).await;
    fixture.say(1, "a").await;
    sleep(secs(1)).await;
    let sent = fixture.sink.at(ONE).len();
    let ended = fixture.ended().await.remove(0);
    let (_, entity, key) = parse_ended_key(WORKSPACE, &ended.id.0).unwrap();
    let head = fixture.store.load(entity, ReadLevel::Settled).await.unwrap().unwrap().head;
    let row = RowWrite { table: RETRIED, key: key.row(), value: Some("\u{7f}?".into()) };
    commit(fixture.store.as_ref(), Commit { rows: vec![row], ..on(entity, Some(head), "garbled") }).await.unwrap();
    let again = Sending::Again { key, receiver: ended.receiver };
    fixture.node.conversation(entity, again, crate::support::key(1, 1)).await.unwrap();
    sleep(secs(1)).await;
    assert_eq!(fixture.sink.at(ONE).len(), sent + 1);
}

#[tokio::test(start_paused = true)]
async fn requested_attempts_do_not_put_off_the_scheduled_ones() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |endpoint| endpoint.events = vec!["message.*".to_owned()]).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    fixture.say(1, "a").await;
    sleep(secs(1)).await;
    let waiting = fixture.pending().await.remove(0);
    for _ in 0..6 {
        again(&fixture, &waiting).await;
        sleep(secs(1)).await;
    }
    assert_eq!(fixture.sink.at(ONE).len(), 8, "the first pause after the first attempt, however many were requested");
    sleep(secs(20)).await;
    again(&fixture, &waiting).await;
    sleep(secs(16)).await;
    assert_eq!(fixture.sink.at(ONE).len(), 10, "and then the second after the second");
    fixture.sink.mood(ONE, Mood::Late(1, 503, Some(600_000)));
    again(&fixture, &waiting).await;
    sleep(secs(300)).await;
    assert_eq!(fixture.sink.at(ONE).len(), 11, "unless the receiver wants none for longer");
}
