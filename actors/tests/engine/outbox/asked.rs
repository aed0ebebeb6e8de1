//! What somebody asks for while it is being sent or noted.

use std::time::Duration;

use actors::outbox::Sending;
use actors::outbox::pending::DeliveryState;
use actors::outbox::state::parse_ended_key;
use actors::store::memory::MemoryStore;
use tokio::time::sleep;

use super::fixture::{Fixture, Mood, ONE};
use super::secs;
use crate::support::*;

/// Less than what was done waits to be noted.
const BEFORE_THE_NOTE: Duration = Duration::from_millis(5);

async fn again(fixture: &Fixture<MemoryStore>, standing: &DeliveryState) {
    let (_, entity, key) = parse_ended_key(WORKSPACE, &standing.id.0).unwrap();
    fixture.ask(entity, Sending::Again { key, receiver: standing.receiver }).await;
}

/// How often each event was sent, and how many attempts its delivery tells of.
async fn counts(fixture: &Fixture<MemoryStore>) -> Vec<(u64, usize, usize)> {
    let arrived = fixture.sink.at(ONE);
    let sent = |seq: u64| arrived.iter().filter(|arrived| arrived.seq() == seq).count();
    let all = [fixture.ended().await, fixture.pending().await].concat();
    let mut counts: Vec<_> = all.iter().map(|one| (one.event.number, one.attempts.len())).collect();
    counts.sort_unstable();
    counts.into_iter().map(|(seq, told)| (seq, sent(seq), told)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_while_it_is_being_sent_again_tells_of_every_attempt() {
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
async fn what_is_asked_for_before_an_attempt_is_noted_that_failed_tells_of_that_too() {
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

#[tokio::test(start_paused = true)]
async fn what_is_asked_for_while_its_lane_catches_up_tells_of_every_attempt_and_nothing_else_is_sent_twice() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |endpoint| endpoint.events = vec!["message.*".to_owned()]).await;
    fixture.sink.mood(ONE, Mood::Refuse);
    for text in ["a", "b", "c"] {
        fixture.say(1, text).await;
    }
    sleep(secs(2)).await;
    let waiting = fixture.pending().await;
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
