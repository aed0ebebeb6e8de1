//! Two servers on one store, each of which acts as the owner of everything.

use std::sync::Arc;
use std::time::Duration;

use actors::id::EntityKey;
use actors::registry::Registry;
use actors::store::{Order, SeqRange};
use actors::tables::{AGENTS, CHANNELS};
use actors::workspace::{DEFAULT, address_of};
use axum::body::Body;
use futures_util::future::{join, join_all};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::support::origin::{Heard, Origin, bare};
use crate::support::{Answer, Request, TestApp, TestStore};

const MESSAGES: &str = "/api/v1/messages";
/// How soon a server sees a change of another one: it checks every second, and the check takes time.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// Two servers that know of each other.
async fn servers(env: &[(&str, &str)]) -> [TestApp; 2] {
    let one = TestApp::start(TestStore::shared().await, env).await;
    let other = TestApp::start(one.store.clone(), env).await;
    sleep(Duration::from_secs(4)).await;
    [one, other]
}

/// Reads a stream until it contains `what`.
async fn said(stream: &mut Body, what: &str) {
    let reading = async {
        let mut text = String::new();
        while !text.contains(what) {
            let frame = stream.frame().await.unwrap().unwrap();
            text += std::str::from_utf8(&frame.into_data().unwrap()).unwrap();
        }
    };
    timeout(Duration::from_secs(60), reading).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_follower_on_one_server_soon_sees_events_of_the_other() {
    let [one, other] = servers(&[]).await;
    let made = one.post("/api/v1/conversations").json(json!({})).await.expect(201);
    let path = format!("/api/v1/conversations/{}", made["id"].as_str().unwrap());
    let mut stream = other.get(format!("{path}/events")).header("accept", "text/event-stream").open().await;
    for n in 0..6 {
        let text = format!("message {n}");
        let (here, there) = if n == 3 { (&other, &one) } else { (&one, &other) };
        let body = json!({"content": {"content": text}});
        here.post(format!("{path}/messages")).json(body).await.expect(200);
        let posted = Instant::now();
        said(&mut stream, &text).await;
        assert!(posted.elapsed() <= SEEN_WITHIN, "{n}: {:?}", posted.elapsed());
        let listed = there.get(format!("{path}/messages?order=desc&limit=1")).await.expect(200);
        assert_eq!(listed["data"][0]["content"], text, "lists do not wait for it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_review_decided_on_two_servers_at_once_has_one_outcome() {
    let [one, other] = servers(&[]).await;
    for round in 0..6 {
        let review = json!({"channelId": "demo", "review": {"type": "approval"}});
        let made = one.post(MESSAGES).json(review).await.expect(201);
        let path = format!("/api/v1/reviews/{}", made["id"].as_str().unwrap());
        let respond = |app: &TestApp, option: &str| {
            app.post(format!("{path}/respond")).json(json!({"response": {"selectedOption": option}})).send()
        };
        let waiting = async {
            let answer = other.get(format!("{path}/wait?timeout=30")).await.expect(200);
            (Instant::now(), answer)
        };
        let deciding = async {
            sleep(Duration::from_millis(300 * round)).await;
            let both = join(respond(&one, "approve"), respond(&other, "reject")).await;
            (Instant::now(), both)
        };
        let ((heard, outcome), (decided, both)) = join(waiting, deciding).await;
        let (won, lost) = if both.0.status == 200 { both } else { (both.1, both.0) };
        let won = won.expect(200);
        lost.problem(409, "review_already_completed");
        assert!(heard.saturating_duration_since(decided) <= SEEN_WITHIN);
        assert_eq!(outcome, won, "round {round}");
        for app in [&one, &other] {
            assert_eq!(app.get(&path).await.expect(200), won);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_review_ends_once_although_the_servers_clocks_differ() {
    let [one, other] = servers(&[]).await;
    other.clock.advance(3_000);
    let mut asked = Vec::new();
    for n in 0..6 {
        let review =
            json!({"type": "approval", "expiresInSeconds": 10, "onExpire": {"response": {"selectedOption": "reject"}}});
        let made = [&one, &other][n % 2].post(MESSAGES).json(json!({"channelId": "demo", "review": review})).await;
        asked.push(format!("/api/v1/reviews/{}", made.expect(201)["id"].as_str().unwrap()));
    }
    // First past the deadlines on the clock that is ahead, then past all of them.
    for step in [7_500, 6_000] {
        for app in [&one, &other] {
            app.clock.advance(step);
        }
        sleep(Duration::from_secs(30)).await;
    }
    for path in &asked {
        let (here, there) = join(one.get(path).send(), other.get(path).send()).await;
        let here = here.expect(200);
        assert_eq!(here, there.expect(200));
        assert_eq!((&here["status"], &here["decidedBy"]), (&json!("completed"), &json!("system")), "{here}");
        let late = one.post(format!("{path}/respond")).json(json!({"response": {"selectedOption": "approve"}})).await;
        assert_eq!(late.status, 409);
    }
    let events = one.get("/api/v1/channels/demo/events?limit=200").await.expect(200);
    let ends = events["data"].as_array().unwrap().iter().filter(|event| event["type"] == "review.completed");
    assert_eq!(ends.count(), asked.len(), "each is told once");
}

/// The event ids, in the order in which they first arrived.
fn firsts(heard: &[Heard]) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for heard in heard {
        let id = heard.head.lines().find_map(|line| line.strip_prefix("webhook-id: ")).unwrap();
        if !ids.iter().any(|known| known == id) {
            ids.push(id.to_owned());
        }
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_of_one_server_gets_what_both_post_in_order() {
    let [one, other] = servers(&[("TERTULIA_EGRESS_ALLOW", "127.0.0.0/8")]).await;
    // Both servers have seen that there is no receiver.
    for app in [&one, &other] {
        app.post(MESSAGES).json(json!({"channelId": "demo", "text": "nobody listens"})).await.expect(201);
    }
    let origin = Origin::serve(|_| bare(204, "")).await;
    let endpoint = json!({"url": origin.url("/hook"), "events": ["message.created"]});
    one.post("/api/v1/webhook-endpoints").json(endpoint).await.expect(201);
    for n in 0..6 {
        let app = [&other, &one][n % 2];
        app.post(MESSAGES).json(json!({"channelId": "demo", "text": format!("{n}")})).await.expect(201);
    }
    let events = one.get("/api/v1/channels/demo/events?limit=200").await.expect(200);
    let created = events["data"].as_array().unwrap().iter().filter(|event| event["type"] == "message.created");
    let expected: Vec<&str> = created.skip(2).map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(expected.len(), 6);
    let all = async {
        while firsts(&origin.requests()).len() < expected.len() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), all).await.unwrap();
    assert_eq!(firsts(&origin.requests()), expected);
    let delivered = async |app: &TestApp| loop {
        let page = app.get("/api/v1/webhook-deliveries?status=delivered&order=asc").await.expect(200);
        if page["data"].as_array().unwrap().len() >= expected.len() {
            return page["data"].clone();
        }
    };
    let (here, there) = join(delivered(&one), delivered(&other)).await;
    // The duration of an attempt depends on which server noted it: both may have sent the same event.
    let [here, there] = [here, there].map(|mut page| {
        page.as_array_mut().unwrap().iter_mut().for_each(|one| drop(one["attempts"].take()));
        page
    });
    assert_eq!(here, there);
    let ids: Vec<&str> = here.as_array().unwrap().iter().map(|one| one["eventId"].as_str().unwrap()).collect();
    assert_eq!(ids, expected);
    // An event that both servers took for theirs is sent once more when either checks again, and then nothing waits.
    let settled = async {
        while !one.get("/api/v1/webhook-deliveries?status=pending").await.expect(200)["data"]
            .as_array()
            .unwrap()
            .is_empty()
        {
            for app in [&one, &other] {
                app.clock.advance(1_000);
            }
        }
    };
    timeout(Duration::from_secs(60), settled).await.unwrap();
    assert_eq!(firsts(&origin.requests()), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_key_is_revoked_on_one_server_the_other_refuses_it() {
    let [one, other] = servers(&[]).await;
    let made = one.post("/api/v1/api-keys").json(json!({"name": "k", "scopes": ["messages:read"]})).await.expect(201);
    let key = made["key"].as_str().unwrap();
    other.get("/api/v1/conversations").key(key).await.expect(200);
    one.delete(format!("/api/v1/api-keys/{}", made["id"].as_str().unwrap())).await.expect(204);
    other.get("/api/v1/conversations").key(key).await.problem(401, "unauthenticated");
}

/// Sends a request whose client waits only a moment for the answer, and then sends it again.
async fn insisted(request: impl Fn() -> Request) -> Answer {
    let given_up = timeout(Duration::from_millis(100), request().send()).await;
    assert!(given_up.is_err(), "it is answered once it is known everywhere");
    request().await
}

#[tokio::test(start_paused = true)]
async fn a_retry_of_a_change_is_answered_once_the_other_server_applies_it() {
    let [one, other] = servers(&[]).await;
    let post = |text: &str| other.post(MESSAGES).json(json!({"channelId": "demo", "text": text})).send();
    let made = one.post("/api/v1/api-keys").json(json!({"name": "k", "scopes": ["messages:read"]})).await.expect(201);
    let key = made["key"].as_str().unwrap();
    let path = format!("/api/v1/api-keys/{}", made["id"].as_str().unwrap());
    // The other server has just read the current configuration.
    post("nobody listens").await.expect(201);
    let endpoint = json!({"url": "https://hooks.example/x", "events": ["message.created"]});
    let make = || one.post("/api/v1/webhook-endpoints").idempotency_key("k").json(endpoint.clone());
    let endpoint = insisted(make).await;
    assert_eq!((endpoint.status, endpoint.header("idempotent-replayed")), (201, "true"));
    post("somebody does").await.expect(201);
    let deliveries = other.get("/api/v1/webhook-deliveries").await.expect(200);
    assert_eq!(deliveries["data"][0]["endpointId"], endpoint.json["id"], "{deliveries}");
    // The same for a deletion that has already happened.
    sleep(Duration::from_secs(3)).await;
    other.get("/api/v1/conversations").key(key).await.expect(200);
    insisted(|| one.delete(&path)).await.problem(404, "key_not_found");
    other.get("/api/v1/conversations").key(key).await.problem(401, "unauthenticated");
    // The same for a change that is already made.
    sleep(Duration::from_secs(3)).await;
    post("still taken").await.expect(201);
    insisted(|| one.patch("/api/v1/channels/demo").json(json!({"enabled": false}))).await.expect(200);
    post("not any more").await.problem(409, "channel_disabled");
}

#[tokio::test(start_paused = true)]
async fn many_changes_of_one_server_are_waited_for_together() {
    let [one, _other] = servers(&[]).await;
    let begun = Instant::now();
    let patch = |n: usize| one.patch("/api/v1/channels/demo").json(json!({"name": format!("c{n}")})).send();
    let delete = || one.delete("/api/v1/api-keys/key_00000000000000000000000000").send();
    let (patched, deleted) = join(join_all((0..20).map(patch)), join_all((0..20).map(|_| delete()))).await;
    for answer in patched {
        answer.expect(200);
    }
    for answer in deleted {
        answer.problem(404, "key_not_found");
    }
    assert!(begun.elapsed() < 3 * SEEN_WITHIN, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_gets_a_channel_during_its_deletion_stays() {
    let store = TestStore::shared().await;
    let searches = Arc::new(Semaphore::new(1_000));
    let one = TestApp::start(store.clone().holding(CHANNELS, Arc::clone(&searches)), &[]).await;
    let other = TestApp::start(store, &[]).await;
    sleep(Duration::from_secs(4)).await;
    let agent = json!({"id": "a", "name": "A", "provider": "builtin"});
    one.post("/api/v1/agents").json(agent).await.expect(201);
    searches.forget_permits(searches.available_permits());
    let racing = async {
        // By then the search has found no channel.
        sleep(Duration::from_secs(1)).await;
        let channel = json!({"id": "c", "name": "C", "kind": "api", "agentId": "a"});
        other.post("/api/v1/channels").json(channel).await.expect(201);
        searches.add_permits(1_000);
    };
    let (deleted, ()) = join(one.delete("/api/v1/agents/a").send(), racing).await;
    deleted.problem(409, "agent_in_use");
    for app in [&one, &other] {
        app.get("/api/v1/agents/a").await.expect(200);
    }
    let registry = EntityKey::workspace(address_of(DEFAULT));
    let changes = one.app.node().events::<Registry>(registry, SeqRange::ALL, Order::Asc, 1_000).await.unwrap();
    let mut changes = changes.iter().flat_map(|record| &record.event.changes);
    assert!(changes.all(|change| change.table() != AGENTS || change.value().is_some()), "it never went");
    // The deletion succeeds once no channel uses the agent.
    other.delete("/api/v1/channels/c").await.expect(204);
    one.delete("/api/v1/agents/a").await.expect(204);
}
