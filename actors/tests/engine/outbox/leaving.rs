//! Receivers that are removed while deliveries wait for them: these stay visible, and can be sent again.

use actors::channel::conversation_of;
use actors::clock::Clock;
use actors::conversation::amend::{Amend, Amendment, Receipt as Came};
use actors::directory::CommandContext;
use actors::id::EntityKey;
use actors::message::Content;
use actors::outbox::Sending;
use actors::outbox::keys::parse_ended_key;
use actors::outbox::pending::{self, DeliveryState, Status};
use actors::registry::{self, RowChange};
use actors::store::Store;
use actors::store::memory::MemoryStore;
use actors::tables::{CHANNELS, WEBHOOK_ENDPOINTS};
use actors::webhook::{DisabledReason, WebhookEndpoint};
use tokio::time::sleep;

use super::fixture::{Fixture, Mood, ONE};
use super::secs;
use crate::support::*;

const HOOK: &str = "https://c.example/";

fn errors(delivery: &DeliveryState) -> Vec<Option<&str>> {
    delivery.attempts.iter().map(|attempt| attempt.error.as_deref()).collect()
}

async fn again(fixture: &Fixture<impl Store>, standing: &DeliveryState) {
    let (_, entity, key) = parse_ended_key(WORKSPACE, &standing.id.0).unwrap();
    fixture.ask(entity, Sending::Again { key, receiver: standing.receiver }).await;
    sleep(secs(2)).await;
}

/// It can be sent again.
#[tokio::test(start_paused = true)]
async fn a_tried_delivery_fails_when_its_endpoint_unsubscribes() {
    let of_another_type = |endpoint: &mut actors::webhook::WebhookEndpoint| endpoint.events = vec!["review.*".into()];
    let elsewhere = |endpoint: &mut actors::webhook::WebhookEndpoint| endpoint.channel = Some("elsewhere".to_owned());
    for change in [of_another_type, elsewhere] {
        let fixture = Fixture::on(MemoryStore::default());
        let mut endpoint = fixture.endpoint(1, |_| {}).await;
        fixture.sink.mood(ONE, Mood::Answer(500));
        fixture.say(1, "a").await;
        sleep(secs(1)).await;
        let waited = fixture.pending().await;
        assert_eq!(waited.len(), 2);
        change(&mut endpoint);
        fixture.store_endpoint(&endpoint).await;
        sleep(secs(1)).await;
        let ended = fixture.ended().await;
        assert_eq!(ended.len(), 1, "the other one was never tried: {ended:#?}");
        assert_eq!((ended[0].id, ended[0].status, ended[0].url.as_str()), (waited[0].id, Status::Failed, ONE));
        assert_eq!((errors(&ended[0]), ended[0].attempts[0].status), (vec![None, Some("unsubscribed")], Some(500)));
        assert_eq!(fixture.sink.at(ONE).len(), 1);
        fixture.assert_settled().await;
        fixture.sink.mood(ONE, Mood::Answer(200));
        again(&fixture, &ended[0]).await;
        assert_eq!(fixture.sink.taken(ONE), [1]);
        fixture.assert_settled().await;
    }
}

/// Also where that subscribes to it no more; it is sent on request.
#[tokio::test(start_paused = true)]
async fn a_delivery_put_off_by_its_endpoint_is_seen_until_then() {
    let fixture = Fixture::on(MemoryStore::default());
    let mut endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::AskForTime(3_600_000));
    fixture.say(1, "a").await;
    fixture.say(2, "b").await;
    sleep(secs(1)).await;
    endpoint.events = vec!["review.*".to_owned()];
    fixture.store_endpoint(&endpoint).await;
    sleep(secs(60)).await;
    let pending = fixture.pending().await;
    assert_eq!(pending.iter().map(|standing| standing.event.number).collect::<Vec<_>>(), [1, 1]);
    let found = pending::find(&fixture.node, WORKSPACE, pending[0].id).await.unwrap();
    assert_eq!(found.as_ref(), Some(&pending[0]));
    fixture.sink.mood(ONE, Mood::Answer(200));
    again(&fixture, &pending[0]).await;
    assert_eq!(fixture.sink.taken(ONE), [1], "who asks for it gets it, subscribed or not");
    sleep(secs(3_700)).await;
    let failed: Vec<_> = fixture.ended().await.into_iter().filter(|one| one.status == Status::Failed).collect();
    assert_eq!(failed.iter().map(|one| one.id).collect::<Vec<_>>(), [pending[1].id]);
    fixture.assert_settled().await;
}

async fn delete_channel(fixture: &Fixture<impl Store>) {
    let changes = vec![RowChange::delete(CHANNELS, b"demo")];
    let command = registry::Command { expected: Vec::new(), changes };
    fixture.node.registry(EntityKey::workspace(WORKSPACE), command, CommandContext::default()).await.unwrap();
}

/// Two events pending for the URL of a channel; the first was tried.
async fn waiting_for_its_channel() -> Fixture<MemoryStore> {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.channel("demo", Some(HOOK)).await;
    fixture.sink.mood(HOOK, Mood::Answer(500));
    fixture.post_to("demo", content("a")).await;
    sleep(secs(1)).await;
    fixture
}

/// It can be sent once the channel has one.
#[tokio::test(start_paused = true)]
async fn a_delivery_fails_once_its_channel_has_no_url() {
    let fixture = waiting_for_its_channel().await;
    fixture.channel("demo", None).await;
    let pending = fixture.pending().await;
    assert_eq!(pending.len(), 2, "it is seen until its time comes");
    assert_eq!(pending[0].url, HOOK);
    sleep(secs(10)).await;
    let ended = fixture.ended().await;
    assert_eq!(
        ended.iter().map(|one| one.id).collect::<Vec<_>>(),
        pending.iter().map(|one| one.id).collect::<Vec<_>>()
    );
    assert!(ended.iter().all(|one| one.status == Status::Failed));
    assert_eq!(errors(&ended[0]), [None, Some("receiver_deleted")], "tried once");
    assert_eq!(errors(&ended[1]), [Some("receiver_deleted")], "waited behind it");
    assert_eq!(ended.iter().map(|one| one.url.as_str()).collect::<Vec<_>>(), [HOOK, ""], "where it went at last");
    fixture.post_to("demo", content("nobody hears this")).await;
    sleep(secs(10)).await;
    fixture.channel("demo", Some(HOOK)).await;
    fixture.sink.mood(HOOK, Mood::Answer(200));
    again(&fixture, &ended[1]).await;
    assert_eq!(fixture.sink.taken(HOOK), [2]);
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn waiting_deliveries_fail_when_their_channel_is_deleted() {
    let fixture = waiting_for_its_channel().await;
    delete_channel(&fixture).await;
    sleep(secs(10)).await;
    let ended = fixture.ended().await;
    let last: Vec<_> = ended.iter().map(|one| errors(one).pop().flatten()).collect();
    assert_eq!(last, [Some("channel_deleted"); 2]);
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_messages_own_url_gets_what_waits_once_its_channel_has_it_too() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.channel("demo", None).await;
    fixture.sink.mood(HOOK, Mood::Answer(500));
    let hooked = Content { webhook_url: Some(HOOK.to_owned()), ..content("a") };
    let message = fixture.post_to("demo", hooked).await;
    let entity = conversation_of(WORKSPACE, "demo", 0);
    fixture.ask(entity, Amend { message, amendment: Amendment::Acknowledge(Came::Read) }).await;
    sleep(secs(1)).await;
    fixture.channel("demo", Some(HOOK)).await;
    let waiting: Vec<_> = fixture.pending().await.into_iter().map(|delivery| delivery.event_type).collect();
    assert_eq!(waiting, ["message.created", "message.read"]);
    fixture.sink.mood(HOOK, Mood::Answer(200));
    sleep(secs(10)).await;
    assert_eq!(fixture.sink.taken(HOOK), [2, 3]);
    fixture.ask(entity, Amend { message, amendment: Amendment::Delete { seen: None } }).await;
    sleep(secs(1)).await;
    assert_eq!(
        fixture.sink.taken(HOOK),
        [2, 3, 4],
        "the channel sends what happens from then on, and nobody else does"
    );
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_on_its_way_is_not_sent_once_it_is_unsubscribed() {
    let fixture = Fixture::on(MemoryStore::default());
    let mut endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Slow(1_000));
    for _ in 0..100 {
        fixture.say(1, "a").await;
    }
    sleep(secs(5)).await;
    endpoint.events = vec!["review.*".to_owned()];
    fixture.store_endpoint(&endpoint).await;
    sleep(secs(200)).await;
    let arrived = fixture.sink.at(ONE).len();
    assert!((4..=6).contains(&arrived), "{arrived} of 101");
    assert_eq!(fixture.ended().await.len(), arrived, "nothing is kept of the others");
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_arrived_stays_so_where_it_cannot_be_sent_again() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.channel("demo", Some(HOOK)).await;
    fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    fixture.post_to("demo", content("a")).await;
    sleep(secs(1)).await;
    let arrived = fixture.ended().await;
    assert_eq!(arrived.iter().map(|one| one.url.as_str()).collect::<Vec<_>>(), [HOOK; 2]);
    delete_channel(&fixture).await;
    for round in 1..=2 {
        again(&fixture, &arrived[0]).await;
        let ended = fixture.ended().await;
        assert_eq!((ended[0].status, ended[0].url.as_str()), (Status::Delivered, HOOK), "{round}");
        assert_eq!(errors(&ended[0]), [vec![None], vec![Some("channel_deleted"); round]].concat());
        assert_eq!(ended[1], arrived[1], "{round}");
    }
    assert_eq!(fixture.sink.at(HOOK).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_delivery_that_does_not_arrive_has_failed() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.channel("demo", Some(HOOK)).await;
    fixture.post_to("demo", content("a")).await;
    sleep(secs(1)).await;
    let arrived = fixture.ended().await;
    fixture.sink.mood(HOOK, Mood::Answer(500));
    again(&fixture, &arrived[0]).await;
    delete_channel(&fixture).await;
    sleep(secs(10)).await;
    let ended = fixture.ended().await;
    assert_eq!((ended[0].status, errors(&ended[0])), (Status::Failed, vec![None, None, Some("channel_deleted")]));
    assert_eq!(ended[0].url, HOOK, "where it went at last");
    fixture.assert_settled().await;
}

/// Whatever it subscribes to.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_gone_is_disabled_by_a_requested_delivery() {
    let fixture = Fixture::on(MemoryStore::default());
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::AskForTime(3_600_000));
    fixture.say(1, "a").await;
    sleep(secs(1)).await;
    let narrowed = WebhookEndpoint { events: vec!["review.*".to_owned()], ..endpoint.clone() };
    fixture.store_endpoint(&narrowed.changed(&endpoint, fixture.clock.now())).await;
    sleep(secs(1)).await;
    fixture.sink.mood(ONE, Mood::Answer(410));
    again(&fixture, &fixture.pending().await[0]).await;
    let registry = EntityKey::workspace(WORKSPACE);
    let id = endpoint.id.to_string();
    let row = fixture.node.configured::<WebhookEndpoint>(registry, WEBHOOK_ENDPOINTS, id.as_bytes());
    assert_eq!(row.await.unwrap().unwrap().disabled, Some(DisabledReason::Gone));
    assert_eq!(fixture.sink.at(ONE).len(), 2);
    fixture.assert_settled().await;
}
