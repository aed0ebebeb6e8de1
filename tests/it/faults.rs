//! The message APIs on a store that fails, on two nodes at once, and after a restart: one effect per key, in order.

use std::time::Duration;

use actors::store::faulty::{FaultyStore, Rates};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::attachments::{files_below, until, uploaded};
use crate::support::{Answer, Request, TestApp};

/// A request of each API: path, key and body.
fn requests(conversation: &str, n: usize) -> [(&'static str, String, Value); 4] {
    let text = format!("m{n}");
    [
        ("/api/v1/messages", format!("a{n}"), json!({"channelId": "demo", "text": text})),
        (
            "/api/v1/channels/demo-api/messages",
            format!("b{n}"),
            json!({"type": "TEXT", "contactIdentifier": "c", "content": {"text": {"body": text}}}),
        ),
        ("/api/v1/messages", format!("c{n}"), json!({"conversation_id": conversation, "content": {"content": text}})),
        ("/api/v1/messages", format!("n{n}"), json!({"content": [{"content": text}, {"content": text}]})),
    ]
}

/// Sends until the request succeeds; every refusal before must be one that allows a retry.
async fn until_done(app: &TestApp, (path, key, body): (&str, String, Value), seed: u64) -> Answer {
    for _ in 0..200 {
        let answer = app.post(path).idempotency_key(&key).json(body.clone()).await;
        match answer.status {
            200 | 201 => return answer,
            // The engine looks for lost turns by the clock, which is paused here while the client waits.
            202 => app.clock.advance(2_000),
            // Late commits are settled in time, which goes on only while no request is sent.
            503 => {
                let seconds = answer.header("retry-after").parse();
                tokio::time::sleep(Duration::from_secs(seconds.expect("when to come again"))).await;
            }
            500 => assert_eq!(answer.json["code"], "agent_failed", "seed {seed}: {}", answer.json),
            status => panic!("seed {seed}: {key}: {status} {}", answer.json),
        }
    }
    let last = app.post(path).idempotency_key(&key).json(body.clone()).await;
    panic!("seed {seed}: {key} is never done: {} {}", last.status, last.json);
}

/// The state at the end: the texts of the channel, of the contact's conversation by role, of the conversation, and how
/// many conversations were opened with two messages.
async fn outcome(app: &TestApp, conversation: &str) -> [Vec<String>; 5] {
    let list = async |path: String, name: &str| -> Vec<String> {
        let page = app.get(path).await.expect(200);
        page["data"].as_array().unwrap().iter().map(|item| item[name].as_str().unwrap().to_owned()).collect()
    };
    let page = app.get("/api/v1/conversations?limit=200").await.expect(200);
    let conversations = page["data"].as_array().unwrap();
    let of_contact: Vec<_> = conversations.iter().filter(|c| c["contactId"].is_string()).collect();
    assert_eq!(of_contact.len(), 1);
    let contact = format!("/api/v1/conversations/{}/messages?limit=200", of_contact[0]["id"].as_str().unwrap());
    let opened = conversations.iter().filter(|c| c["contactId"].is_null() && c["id"] != conversation);
    [
        list("/api/v1/messages?channelId=demo&limit=200".to_owned(), "text").await,
        list(format!("{contact}&role=user"), "content").await,
        list(format!("{contact}&role=assistant"), "content").await,
        list(format!("/api/v1/conversations/{conversation}/messages?limit=200"), "content").await,
        opened.map(|c| c["messageCount"].to_string()).collect(),
    ]
}

/// The expected state after `n` requests of each API, one after the other.
fn expected(n: usize) -> [Vec<String>; 5] {
    let texts: Vec<_> = (0..n).map(|n| format!("m{n}")).collect();
    [texts.clone(), texts.clone(), texts.clone(), texts, vec!["2".to_owned(); n]]
}

/// A conversation created before anything fails.
async fn opened(app: &TestApp) -> String {
    let body = json!({"title": "t"});
    let made = until_done(app, ("/api/v1/conversations", "open".to_owned(), body), 0).await;
    made.json["id"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn on_a_store_that_fails_a_retried_message_has_one_effect_and_one_answer() {
    for seed in 0..25 {
        let app = TestApp::with_store(|store| FaultyStore::new(store, seed, Rates::OFTEN)).await;
        let conversation = opened(&app).await;
        let mut answers = Vec::new();
        for n in 0..6 {
            for request in requests(&conversation, n) {
                answers.push((request.clone(), until_done(&app, request, seed).await));
            }
        }
        let sound = TestApp::start(app.store.clone(), &[]).await;
        for (request, first) in answers {
            let again = until_done(&sound, request, seed).await;
            assert_eq!(again.header("idempotent-replayed"), "true", "seed {seed}");
            assert_eq!(String::from_utf8_lossy(&again.bytes), String::from_utf8_lossy(&first.bytes), "seed {seed}");
        }
        assert_eq!(outcome(&sound, &conversation).await, expected(6), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_nodes_that_both_take_a_message_for_theirs_give_it_one_effect() {
    for round in 0..10 {
        let one = TestApp::new().await;
        let two = TestApp::start(one.store.clone(), &[]).await;
        let conversation = opened(&one).await;
        for n in 0..6 {
            for request in requests(&conversation, n) {
                let nodes = if (n + round) % 2 == 0 { [&one, &two] } else { [&two, &one] };
                let tries = nodes.into_iter().cycle().take(6).map(|node| until_done(node, request.clone(), 0));
                let answers = join_all(tries).await;
                for answer in &answers {
                    assert_eq!(String::from_utf8_lossy(&answer.bytes), String::from_utf8_lossy(&answers[0].bytes));
                }
            }
        }
        assert_eq!(outcome(&one, &conversation).await, expected(6));
        assert_eq!(outcome(&two, &conversation).await, expected(6));
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_a_stopped_process_left_behind_is_ended_by_the_next_one() {
    let before = TestApp::new().await;
    before.echo(json!({"builtin": {"latencyMs": 10_000}})).await;
    let body = json!({"type": "TEXT", "contactIdentifier": "c", "content": {"text": {"body": "x"}}});
    let path = "/api/v1/channels/demo-api/messages";
    let send = |app: &TestApp| app.post(path).idempotency_key("k").json(body.clone());
    let early = send(&before).header("prefer", "wait=0").await.expect(202);
    let after = TestApp::start(before.store.clone(), &[]).await;
    let last = send(&after).await.expect(200);
    assert_eq!((&last["messageId"], &last["turn"]["id"]), (&early["messageId"], &early["turn"]["id"]));
    assert_eq!(last["aiMessages"].as_array().unwrap().len(), 1);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    for app in [&before, &after] {
        assert_eq!(send(app).await.expect(200), last);
        let conversation = last["conversationId"].as_str().unwrap();
        let page = app.get(format!("/api/v1/conversations/{conversation}/messages")).await.expect(200);
        assert_eq!(page["data"].as_array().unwrap().len(), 2, "one reply, although both have run the turn");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_keeps_waiting_while_the_store_cannot_be_read() {
    let (app, store) = TestApp::faulty().await;
    app.echo(json!({"builtin": {"latencyMs": 20_000}})).await;
    let review = json!({"type": "approval", "expiresInSeconds": 10});
    let asked = app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": "?", "review": review}));
    let review = asked.await.expect(201)["id"].as_str().unwrap().to_owned();
    let body = json!({"type": "TEXT", "contactIdentifier": "c", "content": {"text": {"body": "x"}}});
    let exchange = tokio::spawn(app.post("/api/v1/channels/demo-api/messages").json(body).send());
    let outcome = tokio::spawn(app.get(format!("/api/v1/reviews/{review}/wait?timeout=55")).send());
    let too_short = tokio::spawn(app.get(format!("/api/v1/reviews/{review}/wait?timeout=12")).send());

    tokio::time::sleep(Duration::from_secs(2)).await;
    store.set_rates(Rates { unread: 1_000, ..Rates::default() });
    tokio::time::sleep(Duration::from_secs(9)).await;
    app.clock.advance(11_000);
    let refused = too_short.await.unwrap();
    assert_eq!(refused.header("retry-after"), "1");
    refused.problem(503, "store_unavailable");
    assert!(!exchange.is_finished() && !outcome.is_finished());
    store.calm();
    assert_eq!(outcome.await.unwrap().expect(200)["status"], "expired");
    assert_eq!(exchange.await.unwrap().expect(200)["aiMessages"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_on_an_unreadable_store_waits_and_misses_nothing() {
    let (app, store) = TestApp::faulty().await;
    // The channel has no messages yet: the owner of its events is looked up with the first one.
    let mut live = app.get("/api/v1/channels/demo/events").follow().await;
    let post = |text: &str| app.post("/api/v1/messages").json(json!({"channelId": "demo", "text": text}));
    post("first").await.expect(201);
    store.set_rates(Rates { unread: 1_000, ..Rates::default() });
    let told = tokio::time::timeout(Duration::from_secs(20), live.told()).await;
    assert_eq!(told.ok().flatten().map(|told| told.event), Some(None), "only a comment");
    store.calm();
    post("second").await.expect(201);
    for (id, event, text) in [
        ("1", "conversation.created", None),
        ("2", "message.created", Some("first")),
        ("3", "message.created", Some("second")),
    ] {
        let told = live.next().await;
        assert_eq!((told.id.as_deref(), told.event.as_deref()), (Some(id), Some(event)));
        assert_eq!(told.data["data"]["text"].as_str(), text);
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_store_makes_no_answer_deny_what_was_stored() {
    let (app, store) = TestApp::faulty().await;
    app.echo(json!({"builtin": {"latencyMs": 60_000}})).await;
    let mut untold = 0;
    for _ in 0..60 {
        let made = app.post("/api/v1/conversations").json(json!({"title": "t"})).await.expect(201);
        let conversation = format!("/api/v1/conversations/{}", made["id"].as_str().unwrap());
        store.set_rates(Rates { unread: 200, ..Rates::default() });
        let answer = app.post(format!("{conversation}/turns")).json(json!({"agentId": "echo"})).await;
        store.calm();
        let page = app.get(format!("{conversation}/events")).await.expect(200);
        let started = page["data"].as_array().unwrap().iter().any(|event| event["type"] == "turn.started");
        match (answer.status, answer.json["code"].as_str()) {
            (202, _) => assert!(started),
            (503, Some("store_unavailable")) => assert!(!started),
            (503, Some("outcome_unknown")) => {
                assert!(started);
                untold += 1;
            }
            other => panic!("{other:?} {}", answer.json),
        }
    }
    assert!(untold > 2, "{untold}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_on_an_unreadable_store_is_not_refused_as_too_late() {
    let (app, store) = TestApp::faulty().await;
    let had = uploaded(&app, "had").await;
    let mentioned = uploaded(&app, "mentioned").await;
    let review = json!({"type": "approval", "expiresAt": "2025-01-01T00:01:00Z"});
    let bodies = [
        json!({"channelId": "demo", "text": "x", "attachmentIds": [had]}),
        json!({"content": {"content": "x", "attachments": [{"id": mentioned}]}}),
        json!({"channelId": "demo", "text": "x", "review": review}),
    ];
    let send = |at: usize| app.post("/api/v1/messages").idempotency_key(&at.to_string()).json(bodies[at].clone());
    let mut firsts = Vec::new();
    for at in 0..bodies.len() {
        firsts.push(send(at).await);
    }
    for id in [&firsts[0].json["id"], &firsts[1].json[0]["id"]] {
        app.delete(format!("/api/v1/messages/{}", id.as_str().unwrap())).await.expect(204);
    }
    app.clock.advance(actors::limits::LINKING_MILLIS);
    until(async || files_below(app.files.path()).is_empty().then_some(())).await;
    app.clock.advance(120_000);
    for (at, first) in firsts.iter().enumerate() {
        let mut replays = 0;
        let mut outages = 0;
        for _ in 0..100 {
            store.set_rates(Rates { unread: 300, ..Rates::default() });
            let again = send(at).await;
            store.calm();
            match (again.status, again.header("idempotent-replayed"), again.json["code"].as_str()) {
                (status, "true", _) if status == first.status => replays += 1,
                (503, _, Some("store_unavailable")) => outages += 1,
                _ => panic!("{at}: {} {}", again.status, again.json),
            }
        }
        assert!(replays > 5 && outages > 5, "{at}: {replays} {outages}");
    }
}

/// So is an erasure.
#[tokio::test(start_paused = true)]
async fn a_copy_on_a_slow_store_is_waited_for_as_long_as_preferred() {
    let slow = |store| FaultyStore::new(store, 0, Rates::default()).slow(Duration::from_secs(3));
    let app = TestApp::with_memory(slow).await;
    let body = json!({"type": "TEXT", "contactIdentifier": "c", "content": {"text": {"body": "x"}}});
    let said = app.post("/api/v1/channels/demo-api/messages").json(body).await.expect(200);
    let fork = format!("/api/v1/conversations/{}/fork", said["conversationId"].as_str().unwrap());
    let contact = format!("/api/v1/contacts/{}", said["contactId"].as_str().unwrap());
    let took = async |request: Request| {
        let begun = tokio::time::Instant::now();
        (request.await.status, begun.elapsed().as_secs())
    };
    let copy = |prefer: &'static str| app.post(&fork).header("prefer", prefer).json(json!({}));
    let whole = took(copy("handling=lenient")).await;
    let early = took(copy("wait=1")).await;
    let at_once = took(copy("respond-async")).await;
    // A stored change is visible before its writer gets the answer, so the copy is complete by then.
    assert_eq!((whole.0, early.0, at_once.0), (201, 201, 202));
    // All wait until the beginning of the copy is durable; then its messages are copied.
    assert_eq!((early.1 - at_once.1, whole.1 - at_once.1 >= 3), (1, true), "{whole:?} {early:?} {at_once:?}");
    let (status, seconds) = took(app.delete(&contact).header("prefer", "wait=1")).await;
    assert_eq!((status, seconds), (202, 3 + 1));
    let (_, seconds) = took(app.delete(&contact)).await;
    assert!((10..=20).contains(&seconds), "who prefers nothing waits for many commits: {seconds}");
}
