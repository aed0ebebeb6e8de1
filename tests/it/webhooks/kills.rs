//! The program is killed again and again while it sends to a receiver that misbehaves in every way: no event is lost,
//! none is unsigned, and each log's events arrive at each receiver in their order.
//!
//! `TERTULIA_WEBHOOK_ROUNDS` and `TERTULIA_WEBHOOK_SEED` set the number and the times of the kills.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use actors::id::EventId;
use serde_json::{Value, json};
use tertulia::webhooks::sign;

use super::verifiers::Verifier;
use super::{DELIVERIES, ENDPOINTS, LOOPBACK};
use crate::support::ADMIN_KEY;
use crate::support::client::{Client, all};
use crate::support::origin::{Heard, Origin, Part, bare};
use crate::support::program::Server;
use crate::support::setting::{say, setting, setting_by_store};
use actors::random::Random;

/// Messages of one round.
const MESSAGES: u64 = 60;
/// How long all events may take to arrive once the receiver is well.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// A receiver, and its answers.
struct Sink {
    origin: Origin,
    /// Whether it answers 200 to everything.
    is_well: Arc<AtomicBool>,
    /// Requests, and whether the answer was 200.
    heard: Arc<Mutex<Vec<(Heard, bool)>>>,
    /// Signals each request.
    came: Receiver<()>,
}

impl Sink {
    async fn new(seed: u64) -> Self {
        let is_well = Arc::new(AtomicBool::new(false));
        let heard = Arc::<Mutex<Vec<(Heard, bool)>>>::default();
        let well = Arc::clone(&is_well);
        let all = Arc::clone(&heard);
        let random = Mutex::new(Random(seed));
        let (comes, came) = mpsc::channel();
        let origin = Origin::serve(move |heard| {
            let mood = if well.load(Ordering::SeqCst) { 0 } else { random.lock().unwrap().below(16) };
            all.lock().unwrap().push((heard.clone(), mood < 9));
            // The test may no longer be listening.
            _ = comes.send(());
            match mood {
                0..9 => bare(200, ""),
                9 => bare(500, ""),
                10 => bare(302, "Location: /elsewhere\r\n"),
                11 => vec![Part::Close],
                12 => vec![Part::Reset],
                13 => vec![Part::Bytes(b"HTTP/1.1 2".to_vec()), Part::Close],
                14 => bare(429, "Retry-After: 1\r\n"),
                _ => vec![Part::Silence],
            }
        });
        Self { origin: origin.await, is_well, heard, came }
    }

    fn heard(&self) -> Vec<(Heard, bool)> {
        self.heard.lock().unwrap().clone()
    }

    /// Waits for a request, or for a moment without one.
    fn wait(&self) {
        _ = self.came.recv_timeout(Duration::from_millis(100));
        self.came.try_iter().for_each(drop);
    }
}

fn send(client: &mut Client, method: &str, path: &str, body: &Value) -> Value {
    let reply = client.send(method, path, None, &body.to_string()).unwrap();
    assert!((200..300).contains(&reply.status), "{method} {path}: {}", String::from_utf8_lossy(&reply.body));
    if reply.body.is_empty() { Value::Null } else { reply.json() }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

/// The logs of the messages: the channel, and the conversations.
struct Logs {
    conversations: Vec<String>,
    hook: String,
}

impl Logs {
    /// Posts messages until all are sent, or the server is gone.
    fn write(&self, address: &str, random: &mut Random) {
        let Ok(mut client) = Client::connect(address) else { return };
        for n in 0..MESSAGES {
            let place = random.below(self.conversations.len() as u64 + 2) as usize;
            let mut body = match self.conversations.get(place) {
                Some(id) => json!({"conversation_id": id, "content": {"content": n.to_string()}}),
                None => json!({"channelId": "room", "text": n.to_string()}),
            };
            if place > self.conversations.len() {
                body["webhookUrl"] = json!(self.hook);
            }
            if client.send("POST", "/api/v1/messages", None, &body.to_string()).is_err() {
                return;
            }
        }
    }

    /// The ids of the events that each path must receive, log by log, each in its order.
    fn expected(&self, client: &mut Client) -> BTreeMap<&'static str, Vec<Vec<String>>> {
        let mut expected: BTreeMap<_, Vec<Vec<String>>> = BTreeMap::new();
        let logs = self.conversations.iter().map(|id| format!("conversations/{id}"));
        for log in logs.chain(["channels/room".to_owned()]) {
            let events = all(client, &format!("/api/v1/{log}/events"));
            let ids = |wanted: &dyn Fn(&Value) -> bool| -> Vec<String> {
                events.iter().filter(|event| wanted(event)).map(|event| text(event, "id").to_owned()).collect()
            };
            expected.entry("/all").or_default().push(ids(&|_| true));
            expected.entry("/cloud").or_default().push(ids(&|event| event["type"] == "message.created"));
            if log == "channels/room" {
                expected.entry("/channel").or_default().push(ids(&|_| true));
            }
        }
        expected
    }
}

/// Requests pending deliveries until there are none.
fn arrive(client: &mut Client, sink: &Sink, deadline: Instant) {
    loop {
        let pending = all(client, &format!("{DELIVERIES}?status=pending"));
        if pending.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{} have not arrived, such as {:#}", pending.len(), pending[0]);
        // A delivery that has just arrived is noted soon without a request; a request would send it once more, and so
        // on.
        let failed = |delivery: &&Value| {
            let last = delivery["attempts"].as_array().unwrap().last();
            last.is_some_and(|attempt| attempt["statusCode"] != 200)
        };
        for delivery in pending.iter().filter(failed) {
            client.send("POST", &format!("{DELIVERIES}/{}/retry", text(delivery, "id")), None, "").unwrap();
        }
        sink.wait();
    }
}

fn check(heard: &[(Heard, bool)], expected: &BTreeMap<&'static str, Vec<Vec<String>>>, secrets: &[(&str, String)]) {
    let secret =
        |heard: &Heard| secrets.iter().find(|(path, _)| *path == heard.path()).map(|(_, secret)| secret).unwrap();
    for (heard, _) in heard {
        let id = heard.header("webhook-id");
        let seconds = heard.header("webhook-timestamp").parse().unwrap();
        let signature = sign(secret(heard), id, seconds, &heard.body).unwrap();
        assert_eq!(heard.header("webhook-signature"), signature, "{}", heard.sent);
    }
    for (path, logs) in expected {
        for log in logs {
            let place = |heard: &Heard| log.iter().position(|id| id == heard.header("webhook-id"));
            let mut taken = 0;
            for (heard, is_taken) in heard.iter().filter(|(heard, _)| heard.path() == *path) {
                let Some(place) = place(heard) else { continue };
                assert!(place <= taken, "{path}: event {place} of its log came when {taken} had been taken");
                taken = taken.max(if *is_taken { place + 1 } else { 0 });
            }
            assert_eq!(taken, log.len(), "{path}: the first that was lost is {:?}", log.get(taken));
        }
    }
    let everything: Vec<Heard> = heard.iter().map(|(heard, _)| heard.clone()).collect();
    for verifier in [Verifier::Python, Verifier::Node] {
        verifier.accepts(&everything, |heard| secret(heard).clone());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_survive_kills_and_a_receiver_that_does_all_wrong() {
    let rounds = setting_by_store("TERTULIA_WEBHOOK_ROUNDS", 4, 2);
    let seed = setting("TERTULIA_WEBHOOK_SEED", 1);
    let sink = Sink::new(seed).await;
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let start = || {
        let env = [LOOPBACK[0], ("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY)];
        Server::start_on_store(&dir.path().join("data"), &env)
    };
    let mut server = start();
    let mut client = Client::connect(&server.address).unwrap();
    let url = |path: &str| sink.origin.url(path);
    let every = send(&mut client, "POST", ENDPOINTS, &json!({"url": url("/all")}));
    let cloud = json!({"url": url("/cloud"), "events": ["message.created"], "format": "cloudevents"});
    let cloud = send(&mut client, "POST", ENDPOINTS, &cloud);
    let channel = json!({"id": "room", "name": "room", "kind": "human", "webhookUrl": url("/channel")});
    let channel = send(&mut client, "POST", "/api/v1/channels", &channel);
    let conversation = |_| text(&send(&mut client, "POST", "/api/v1/conversations", &json!({})), "id").to_owned();
    let logs = Logs { conversations: (0..6).map(conversation).collect(), hook: url("/message") };
    for round in 0..rounds {
        let kill_at = sink.heard().len() as u64 + 5 + random.below(60);
        say(&format!("seed {seed}, round {round}: killed after {kill_at} requests"));
        let address = server.address.clone();
        let mut own = Random(random.below(u64::MAX >> 33));
        thread::scope(|scope| {
            let writing = scope.spawn(|| logs.write(&address, &mut own));
            while (sink.heard().len() as u64) < kill_at && !writing.is_finished() {
                sink.wait();
            }
            // Dropping the server kills it.
            drop(server);
        });
        server = start();
    }
    sink.is_well.store(true, Ordering::SeqCst);
    let mut client = Client::connect(&server.address).unwrap();
    // Changing an endpoint wakes the deliveries that wait for it.
    for endpoint in [&every, &cloud] {
        let path = format!("{ENDPOINTS}/{}", text(endpoint, "id"));
        let events: Vec<_> =
            endpoint["events"].as_array().unwrap().iter().chain([&json!("turn.failed")]).cloned().collect();
        send(&mut client, "PATCH", &path, &json!({"events": events}));
    }
    arrive(&mut client, &sink, Instant::now() + DELIVERY_TIMEOUT);
    let heard = sink.heard();
    let expected = logs.expected(&mut client);
    let count: usize = expected.values().flatten().map(Vec::len).sum();
    say(&format!("{count} deliveries in {} requests", heard.len()));
    assert!(heard.iter().all(|(heard, _)| EventId::parse(heard.header("webhook-id")).is_some()));
    assert!(heard.iter().all(|(heard, _)| heard.path() != "/elsewhere"), "no redirect is followed");
    let secret = |of: &Value, name: &str| of[name].as_str().unwrap().to_owned();
    let secrets = [
        ("/all", secret(&every, "secret")),
        ("/cloud", secret(&cloud, "secret")),
        ("/channel", secret(&channel, "webhookSecret")),
        ("/message", secret(&channel, "webhookSecret")),
    ];
    check(&heard, &expected, &secrets);
    assert_eq!(server.terminate(), Some(0));
}
