//! Events are sent to receivers in order and at least once, and not at all where there is no receiver.

use std::time::Duration;

use actors::agent::Provider;
use actors::agent::builtin::Builtin;
use actors::channel::conversation_of;
use actors::clock::Clock;
use actors::conversation::amend::{Amend, Amendment, Receipt as Came};
use actors::conversation::{Command, Conversation};
use actors::directory::CommandContext;
use actors::id::{Address, EntityKey, EventId, MessageId};
use actors::message::{Callback, Content, Review};
use actors::outbox::Sending;
use actors::outbox::keys::parse_ended_key;
use actors::outbox::pending::{self, DeliveryState, Status};
use actors::store::memory::MemoryStore;
use actors::tables::WEBHOOK_ENDPOINTS;
use actors::trace::{Finished, Value};
use actors::webhook::{DisabledReason, WebhookEndpoint};
use tokio::time::{Instant, sleep};

use crate::support::*;

mod asked;
mod crowds;
mod expiry;
mod fair;
mod fixture;
mod leaving;
mod moving;
mod notes;
mod sharing;
mod told;
mod two;

use fixture::{Arrived, Fixture, Mood, ONE, TWO, approved};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

#[tokio::test(start_paused = true)]
async fn a_conversation_without_receivers_pays_nothing() {
    let gate = Gate::new();
    let fixture = Fixture::on(gate.clone());
    fixture.endpoint(1, |endpoint| endpoint.events = vec!["review.*".to_owned()]).await;
    fixture.endpoint(2, |endpoint| endpoint.channel = Some("elsewhere".to_owned())).await;
    fixture.endpoint(3, |endpoint| endpoint.disabled = Some(DisabledReason::Manual)).await;
    let before = gate.commits();
    for n in 0..20 {
        fixture.say(1, &format!("{n}")).await;
    }
    sleep(secs(60)).await;
    assert_eq!(gate.commits() - before, 20, "one commit a message and none beside");
    let state = fixture.node.state::<Conversation>(entity(1)).await.unwrap().unwrap();
    assert_eq!((state.outbox, fixture.sink.arrived().len()), (None, 0));
    fixture.assert_settled().await;
}

/// One commit notes a whole burst.
#[tokio::test(start_paused = true)]
async fn subscribed_events_arrive_at_once_in_order() {
    let gate = Gate::new();
    let fixture = Fixture::on(gate.clone());
    let endpoint = fixture.endpoint(1, |_| {}).await;
    let before = gate.commits();
    for n in 0..50 {
        fixture.say(1, &format!("{n}")).await;
    }
    settle().await;
    assert_eq!(fixture.sink.taken(ONE), (1..=51).collect::<Vec<_>>(), "the beginning and fifty messages");
    sleep(Duration::from_millis(100)).await;
    assert_eq!(gate.commits() - before, 51, "fifty messages and a note");
    fixture.assert_settled().await;
    let ended = fixture.ended().await;
    assert_eq!(ended.len(), 51);
    for (standing, arrived) in ended.iter().zip(fixture.sink.at(ONE)) {
        assert_eq!((standing.status, standing.event), (Status::Delivered, arrived.request.id));
        assert_eq!((standing.event_type.as_str(), standing.url.as_str()), (arrived.name(), ONE));
        assert_eq!((standing.attempts.len(), standing.attempts[0].status), (1, Some(200)));
        assert_eq!(arrived.request.secrets, [endpoint.secret.as_str()]);
        let found = pending::find(&fixture.node, WORKSPACE, standing.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(standing));
        assert_eq!(pending::find(&fixture.node, Address([2; 10]), standing.id).await.unwrap(), None, "elsewhere");
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_fails_is_tried_as_published_and_gets_everything_in_order() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |_| {}).await;
    fixture.endpoint(2, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    fixture.say(1, "a").await;
    sleep(secs(1)).await;
    fixture.say(1, "b").await;
    sleep(secs(1)).await;
    let pending = fixture.pending().await;
    assert_eq!(pending.iter().map(|standing| standing.event.number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(pending.iter().map(|standing| standing.attempts.len()).collect::<Vec<_>>(), [1, 0, 0]);
    assert!(pending.iter().all(|standing| standing.status == Status::Pending && standing.next_at.is_some()));
    for standing in &pending {
        assert_eq!(pending::find(&fixture.node, WORKSPACE, standing.id).await.unwrap().as_ref(), Some(standing));
    }
    assert_eq!(fixture.sink.taken(TWO), [1, 2, 3], "others get theirs all the same");
    sleep(secs(200)).await;
    let tried: Vec<_> =
        fixture.sink.at(ONE).iter().map(|arrived| (arrived.seq(), arrived.at.since(NOW) / 1_000)).collect();
    let [(1, 0), (1, second), (1, third), (1, fourth)] = tried[..] else { panic!("{tried:?}") };
    assert!((5..=6).contains(&second) && (35..=42).contains(&third) && (155..=186).contains(&fourth), "{tried:?}");
    fixture.sink.mood(ONE, Mood::Answer(204));
    sleep(secs(720)).await;
    assert_eq!(fixture.sink.taken(ONE), [1, 2, 3]);
    fixture.assert_settled().await;
    let ended = fixture.ended().await;
    let first = ended.iter().find(|standing| standing.url == ONE && standing.event.number == 1).unwrap();
    let statuses: Vec<_> = first.attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!(statuses, [Some(500), Some(500), Some(500), Some(500), Some(204)]);
}

/// Then the next event gets its turn.
#[tokio::test(start_paused = true)]
async fn a_silent_receiver_is_given_up_after_72_hours() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Hang);
    fixture.say(1, "a").await;
    sleep(secs(3_600)).await;
    fixture.say(1, "b").await;
    sleep(secs(71 * 3_600 - 60)).await;
    assert_eq!(fixture.ended().await.len(), 0);
    sleep(secs(3_600 + 120)).await;
    let ended = fixture.ended().await;
    assert!(ended.len() == 3 && ended.iter().all(|standing| standing.status == Status::Failed), "{ended:#?}");
    assert!(ended[0].attempts.len() > 12 && ended[1].attempts.len() == 1 && ended[2].attempts.len() < 8, "{ended:#?}");
    let attempt = &ended[0].attempts[0];
    assert_eq!((attempt.status, attempt.duration_millis), (None, 15_200));
    assert_eq!(attempt.error.as_deref(), Some("timeout"));
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_right_after_a_commit_delivers_in_the_next_process() {
    // A node that is as good as dead sends nothing: its receivers hang.
    let mut fixture = Fixture::on(Gate::new());
    fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Hang);
    fixture.say(1, "a").await;
    assert_eq!(fixture.pending().await.len(), 2, "what was not tried yet is seen too");
    fixture.node.drain(Instant::now()).await;
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(10)).await;
    fixture.restart();
    sleep(secs(1)).await;
    assert_eq!(fixture.sink.taken(ONE), [1, 2]);
    sleep(secs(5)).await;
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn deliveries_under_way_at_a_drain_are_noted_and_not_sent_again() {
    let mut fixture = Fixture::on(Gate::new());
    fixture.endpoint(1, |_| {}).await;
    fixture.say(1, "a").await;
    fixture.node.drain(Instant::now() + secs(10)).await;
    assert_eq!((fixture.node.outbox().active(), fixture.sink.taken(ONE)), (0, vec![1, 2]));
    fixture.restart();
    sleep(secs(60)).await;
    assert_eq!(fixture.sink.taken(ONE), [1, 2]);
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_turn_leaves_a_stopping_node_time_to_end_its_sending() {
    let mut fixture = Fixture::on(Gate::new());
    let slow = Builtin { latency_ms: 60_000, ..Builtin::default() };
    make_agent(&fixture.node, Provider::Builtin(slow)).await;
    fixture.ask(entity(2), post_with_turn(entity(2), "hi")).await;
    fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Slow(13_000));
    fixture.say(1, "a").await;
    sleep(secs(1)).await;
    fixture.node.drain(Instant::now() + secs(20)).await;
    assert_eq!(fixture.sink.taken(ONE), [1]);
    assert_eq!(status(&fixture.node, entity(2), 1).await.1, 1, "a node that stops begins no turn anew");
    fixture.restart();
    sleep(secs(60)).await;
    let first = fixture.sink.at(ONE).iter().filter(|arrived| arrived.seq() == 1).count();
    assert_eq!((first, fixture.sink.taken(ONE).contains(&2)), (1, true), "only what was not sent is");
}

#[tokio::test(start_paused = true)]
async fn an_event_reaches_each_receiver_once_and_each_url_once() {
    let fixture = Fixture::on(MemoryStore::default());
    let hook = "https://c.example/";
    let message_hook = "https://m.example/";
    let callback_url = "https://r.example/";
    fixture.channel("demo", Some(hook)).await;
    fixture.channel("quiet", None).await;
    fixture.endpoint(1, |endpoint| endpoint.events = vec!["review.*".to_owned()]).await;
    fixture.endpoint(2, |endpoint| endpoint.url = hook.to_owned()).await;
    let review = |url: &str| Review {
        kind: "approval".to_owned(),
        payload: None,
        callback: Some(Callback {
            url: url.to_owned(),
            method: "PUT".to_owned(),
            headers: vec![("X-Run".to_owned(), "7".to_owned())],
        }),
        expires_at: NOW.plus(1_000_000),
        on_expire: None,
        quorum: None,
        asker: None,
        place: None,
    };
    let with = |url: &str, hook: &str| Content {
        review: Some(review(url)),
        webhook_url: Some(hook.to_owned()),
        ..content("may I?")
    };
    let first = fixture.post_to("demo", with(callback_url, message_hook)).await;
    let second = fixture.post_to("quiet", with("https://M.example:443/#top", message_hook)).await;
    fixture.post_to("quiet", content("nobody hears this but endpoint 2")).await;
    let entities = ["demo", "quiet"].map(|channel| conversation_of(WORKSPACE, channel, 0));
    for (entity, message) in entities.into_iter().zip([first, second]) {
        fixture.ask(entity, approved(message)).await;
        fixture.ask(entity, Amend { message, amendment: Amendment::Acknowledge(Came::Read) }).await;
    }
    sleep(secs(1)).await;
    let names = |url: &str, channel: usize| {
        let of = |arrived: &Arrived| arrived.request.entity == entities[channel];
        let names: Vec<_> = fixture.sink.at(url).iter().filter(|arrived| of(arrived)).map(Arrived::name).collect();
        names
    };
    let all = ["conversation.created", "message.created", "review.requested", "review.completed", "message.read"];
    assert_eq!(names(hook, 0), all, "the channel's and endpoint 2's URL is one");
    assert_eq!(names(message_hook, 0), &all[1..]);
    assert_eq!(names(callback_url, 0), ["review.completed"]);
    assert_eq!(names(ONE, 0), ["review.requested", "review.completed"]);
    assert_eq!(names(message_hook, 1), &all[1..], "the message's and the callback's URL is one");
    assert_eq!(names(hook, 1).len(), 6);
    for arrived in fixture.sink.at(callback_url).into_iter().chain(fixture.sink.at(message_hook)) {
        let asked = arrived.name() == "review.completed"
            && (arrived.request.url == callback_url || arrived.request.entity == entities[1]);
        let (method, headers) = if asked { ("PUT", 1) } else { ("POST", 0) };
        assert_eq!((arrived.request.method.as_str(), arrived.request.headers.len()), (method, headers));
        assert_eq!(arrived.request.secrets, ["whsec_channel"]);
    }
    let ids: Vec<_> =
        fixture.sink.arrived().iter().filter(|a| a.name() == "review.completed").map(|a| a.request.id).collect();
    assert_eq!(ids.iter().collect::<std::collections::BTreeSet<_>>().len(), 2, "one id for all receivers");
    fixture.assert_sent().await;
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_gone_gets_nothing_until_it_is_enabled() {
    let fixture = Fixture::on(MemoryStore::default());
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    fixture.say(1, "a").await;
    fixture.say(2, "b").await;
    sleep(secs(1)).await;
    fixture.sink.mood(ONE, Mood::Answer(410));
    sleep(secs(10)).await;
    let registry = EntityKey::workspace(WORKSPACE);
    let id = endpoint.id.to_string();
    let row = fixture.node.configured::<WebhookEndpoint>(registry, WEBHOOK_ENDPOINTS, id.as_bytes());
    let off = row.await.unwrap().unwrap();
    assert_eq!(off.disabled, Some(DisabledReason::Gone));
    assert!(fixture.sink.at(ONE).len() <= 4, "no more than was under way");
    let ended = fixture.ended().await;
    assert!(ended.len() == 4 && ended.iter().all(|standing| standing.status == Status::Failed), "{ended:#?}");
    fixture.say(1, "nobody hears this").await;
    sleep(secs(1)).await;
    let back = WebhookEndpoint { disabled: None, since: fixture.clock.now(), ..WebhookEndpoint::clone(&off) };
    fixture.sink.mood(ONE, Mood::Answer(200));
    fixture.store_endpoint(&back).await;
    fixture.say(1, "c").await;
    sleep(secs(1)).await;
    assert_eq!(fixture.sink.taken(ONE), [4], "what came meanwhile is not sent");
    fixture.assert_settled().await;
}

/// One that waits goes at once.
#[tokio::test(start_paused = true)]
async fn a_failed_delivery_is_sent_again_on_request() {
    let fixture = Fixture::on(MemoryStore::default());
    let endpoint = fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::Answer(500));
    fixture.say(1, "a").await;
    sleep(secs(700)).await;
    let tries = fixture.sink.at(ONE).len();
    fixture.sink.mood(ONE, Mood::Answer(200));
    let waiting = fixture.pending().await;
    let again = async |standing: &DeliveryState| {
        let (_, entity, key) = parse_ended_key(WORKSPACE, &standing.id.0).unwrap();
        fixture.ask(entity, Sending::Again { key, receiver: standing.receiver }).await;
        sleep(secs(2)).await;
    };
    again(&waiting[0]).await;
    assert_eq!((fixture.sink.at(ONE).len(), fixture.sink.taken(ONE)), (tries + 2, vec![1, 2]));
    fixture.assert_settled().await;
    // A delivered event is sent again, beside the others; it may fail and wait as it did at first.
    fixture.sink.mood(ONE, Mood::Refuse);
    let arrived = fixture.ended().await;
    again(&arrived[0]).await;
    let standing = pending::find(&fixture.node, WORKSPACE, arrived[0].id).await.unwrap().unwrap();
    assert_eq!((standing.status, fixture.ended().await.len()), (Status::Pending, 1));
    assert_eq!(fixture.pending().await, std::slice::from_ref(&standing));
    assert_eq!(standing.attempts.len(), arrived[0].attempts.len() + 1);
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(10)).await;
    assert_eq!(fixture.sink.taken(ONE), [1, 2, 1]);
    fixture.assert_settled().await;
    // Deleting an endpoint ends its pending deliveries.
    fixture.sink.mood(ONE, Mood::Refuse);
    fixture.say(1, "b").await;
    sleep(secs(1)).await;
    let changes = vec![actors::registry::RowChange::delete(WEBHOOK_ENDPOINTS, endpoint.id.to_string().as_bytes())];
    let command = actors::registry::Command { expected: Vec::new(), changes };
    fixture.node.registry(EntityKey::workspace(WORKSPACE), command, CommandContext::default()).await.unwrap();
    sleep(secs(1)).await;
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_url_does_not_wait_for_the_time_its_predecessor_asked_for() {
    let fixture = Fixture::on(MemoryStore::default());
    let endpoint = fixture.endpoint(1, |endpoint| endpoint.events = vec!["message.*".to_owned()]).await;
    fixture.sink.mood(ONE, Mood::AskForTime(3_000_000));
    fixture.say(1, "a").await;
    fixture.say(1, "b").await;
    sleep(secs(1)).await;
    let moved = "https://new.example/".to_owned();
    let changed =
        |url: &str| WebhookEndpoint { url: url.to_owned(), updated_at: Some(fixture.clock.now()), ..endpoint.clone() };
    fixture.store_endpoint(&changed(ONE)).await;
    sleep(secs(1)).await;
    assert_eq!(fixture.sink.at(ONE).len(), 1, "another change of it is no reason");
    fixture.store_endpoint(&changed(&moved)).await;
    sleep(secs(1)).await;
    assert_eq!(fixture.sink.taken(&moved).len(), 2);
    fixture.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_asks_for_time_gets_it() {
    let fixture = Fixture::on(MemoryStore::default());
    fixture.endpoint(1, |_| {}).await;
    fixture.sink.mood(ONE, Mood::AskForTime(300_000));
    fixture.say(1, "a").await;
    sleep(secs(1)).await;
    fixture.sink.mood(ONE, Mood::Answer(200));
    sleep(secs(298)).await;
    assert_eq!(fixture.sink.at(ONE).len(), 1);
    // This includes the ten seconds that may be added.
    sleep(secs(12)).await;
    assert_eq!(fixture.sink.taken(ONE), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_span_of_an_attempt_names_its_delivery_and_number() {
    let (fixture, kept) = Fixture::traced(MemoryStore::default());
    let endpoint = fixture.endpoint(1, |endpoint| endpoint.url = format!("{ONE}/secret?token=secret")).await;
    fixture.sink.mood(&endpoint.url, Mood::Answer(503));
    fixture.say(1, "a").await;
    sleep(secs(20)).await;
    fixture.sink.mood(&endpoint.url, Mood::Answer(204));
    sleep(secs(60)).await;
    let ended = fixture.ended().await;
    let spans = kept.spans();
    let of = |event: &EventId| {
        let is_of = |span: &&Finished| span.attributes.contains(&("tertulia.event.id", event.to_string().into()));
        spans.iter().filter(is_of).collect::<Vec<_>>()
    };
    for (standing, statuses) in ended.iter().zip([&[503_u32, 503, 204][..], &[204]]) {
        let attempts = of(&standing.event);
        assert_eq!(attempts.len(), statuses.len(), "{attempts:#?}");
        for (nth, (span, status)) in (1_u32..).zip(attempts.iter().zip(statuses)) {
            let EventId { at, entity, number } = standing.event;
            let mut expected: Vec<(&str, Value)> = vec![("tertulia.event.id", standing.event.to_string().into())];
            expected.extend((standing.event_type == "message.created").then(|| {
                let message = MessageId::new(at, entity, number);
                ("messaging.message.id", message.to_string().into())
            }));
            expected.extend([
                ("tertulia.delivery.id", standing.id.to_string().into()),
                ("tertulia.delivery.attempt", nth.into()),
            ]);
            expected.extend((nth > 1).then(|| ("http.request.resend_count", (nth - 1).into())));
            expected.extend([
                ("tertulia.delivery.receiver", "endpoint".into()),
                ("tertulia.endpoint.id", endpoint.id.to_string().into()),
                ("http.request.method", "POST".to_owned().into()),
                ("url.scheme", "https".to_owned().into()),
                ("server.address", "example.com".to_owned().into()),
                ("server.port", 443_u32.into()),
                ("http.response.status_code", (*status).into()),
            ]);
            assert_eq!((&*span.name, &span.attributes), (&*format!("deliver {}", standing.event_type), &expected));
        }
    }
    // Sending it again on request begins a new series of attempts.
    let (_, entity, key) = parse_ended_key(WORKSPACE, &ended[0].id.0).unwrap();
    fixture.ask(entity, Sending::Again { key, receiver: ended[0].receiver }).await;
    sleep(secs(2)).await;
    let spans = kept.spans();
    assert!(spans.last().unwrap().attributes.contains(&("tertulia.delivery.attempt", 1_u32.into())), "{spans:#?}");
}
