//! Reviews are decided once: by the first client or by the deadline, whichever process dies meanwhile.
//!
//! Every review has three clients that want to approve, reject and cancel it, and a deadline. They race, the program is
//! killed in between, and a client without an answer asks again. The outcome goes to the review's callback, also across
//! the kills. `TERTULIA_RACES_REVIEWS`, `TERTULIA_RACES_KILLS` and `TERTULIA_RACES_SEED` set how many and in which
//! order.
#![cfg(unix)]

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::support::client::{Client, Reply, all};
use crate::support::program::{Server, check_sound};
use crate::support::setting::{now, say, setting, setting_by_store};
use crate::support::{ADMIN_KEY, Kind};
use actors::random::Random;

const CHANNELS: usize = 8;
/// The number of kills, each after so many more answers.
fn kills() -> usize {
    setting_by_store("TERTULIA_RACES_KILLS", 8, 4) as usize
}

/// The action of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Approve,
    Reject,
    Cancel,
}

const WISHES: [Wish; 3] = [Wish::Approve, Wish::Reject, Wish::Cancel];

impl Wish {
    /// The status of a review that this wish decides.
    fn status(self) -> &'static str {
        if self == Self::Cancel { "cancelled" } else { "completed" }
    }

    fn send(self, client: &mut Client, keys: &Keys, review: &str) -> io::Result<Reply> {
        let answer = |option: &str| json!({"response": {"selectedOption": option}, "feedback": review}).to_string();
        let (path, body, key) = match self {
            Self::Approve => ("respond", answer("approve"), &keys.ana),
            Self::Reject => ("respond", answer("reject"), &keys.bob),
            Self::Cancel => ("cancel", String::new(), &keys.admin),
        };
        let path = format!("/api/v1/reviews/{review}/{path}");
        loop {
            let reply = client.send_as(key, "POST", &path, Some(&format!("{self:?}-{review}")), &body)?;
            if !is_unknown(&reply) {
                return Ok(reply);
            }
        }
    }
}

/// On a slow cluster an outcome may be unknown, and a retry with the key finds out.
fn is_unknown(reply: &Reply) -> bool {
    Kind::chosen() == Kind::Cql && (reply.status == 503 || reply.json()["code"] == "idempotency_in_progress")
}

struct Keys {
    admin: String,
    ana: String,
    bob: String,
}

/// A review, and the answers that its clients got.
struct Race {
    review: String,
    channel: usize,
    /// Milliseconds since 1970.
    deadline: u64,
    told: Mutex<HashMap<usize, Reply>>,
}

/// Callbacks: by review and `webhook-id`, their number and the outcome.
type Told = BTreeMap<String, BTreeMap<String, (usize, Value)>>;

/// The receiver of all callbacks.
struct Sink {
    url: String,
    told: Arc<Mutex<Told>>,
}

impl Sink {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/outcome", listener.local_addr().unwrap());
        let told: Arc<Mutex<Told>> = Arc::default();
        let hearing = Arc::clone(&told);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let told = Arc::clone(&hearing);
                // The connection ends when the program at its other end is killed.
                thread::spawn(move || {
                    let mut stream = BufReader::new(&stream);
                    while listen(&mut stream, &told).is_ok() {}
                });
            }
        });
        Self { url, told }
    }

    /// The callbacks, once there is one for every review.
    fn all(&self, count: usize) -> Told {
        let begun = now();
        loop {
            let told = self.told.lock().unwrap();
            if told.len() >= count {
                return told.clone();
            }
            assert!(now() < begun + 120_000, "{} of {count} callbacks came", told.len());
            drop(told);
            thread::yield_now();
        }
    }
}

/// Receives a delivery and confirms it.
fn listen(stream: &mut BufReader<&TcpStream>, told: &Mutex<Told>) -> io::Result<()> {
    let mut id = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end().to_ascii_lowercase();
        match line.split_once(": ") {
            Some(("webhook-id", value)) => value.clone_into(&mut id),
            Some(("content-length", value)) => length = value.parse().unwrap(),
            _ if line.is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let event: Value = serde_json::from_slice(&body).unwrap();
    let review = event["data"]["messageId"].as_str().unwrap().to_owned();
    let mut all = told.lock().unwrap();
    let (times, first) = all.entry(review).or_default().entry(id).or_insert_with(|| (0, event["data"].clone()));
    *times += 1;
    assert_eq!(*first, event["data"], "the same event says the same");
    drop(all);
    stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
}

/// A key of a principal who answers reviews.
fn key_of(client: &mut Client, name: &str) -> String {
    let body = json!({"name": name, "scopes": ["reviews:respond"], "principal": {"type": "user", "id": name}});
    let made = client.send("POST", "/api/v1/api-keys", None, &body.to_string()).unwrap();
    made.json()["key"].as_str().unwrap().to_owned()
}

/// Creates `count` reviews. A third of them expire soon, a third while their clients race, and a third much later.
fn ask(server: &Server, sink: &Sink, count: usize, random: &mut Random) -> Vec<Race> {
    let mut client = Client::connect(&server.address).unwrap();
    (0..count)
        .map(|n| {
            let channel = n % CHANNELS;
            let mut from_now = match n % 3 {
                0 => 20 + random.below(200),
                1 => 200 + random.below(4_000),
                _ => 3_600_000,
            };
            let on_expire = if n % 2 == 0 { json!({"response": {"selectedOption": "reject"}}) } else { Value::Null };
            let callback = json!({"url": sink.url});
            let mut review = json!({"type": "approval", "onExpire": on_expire, "callback": callback});
            loop {
                let deadline = now() + from_now;
                review["expiresAt"] = json!(tertulia::wire::time::format(actors::clock::Millis(deadline)).as_str());
                let body = json!({"channelId": format!("r{channel}"), "review": review}).to_string();
                // Each try has its own key, because its deadline is a different one.
                let key = format!("ask-{}-{n}-{deadline}", server.pid());
                let made = loop {
                    let made = client.send("POST", "/api/v1/messages", Some(&key), &body).unwrap();
                    if !is_unknown(&made) {
                        break made;
                    }
                };
                if made.status == 400 && made.json()["code"] == "expiry_in_past" {
                    // On a slow machine the deadline passed before the review was created.
                    from_now += 500;
                    continue;
                }
                assert_eq!(made.status, 201, "{}", made.json());
                let review = made.json()["id"].as_str().unwrap().to_owned();
                return Race { review, channel, deadline, told: Mutex::default() };
            }
        })
        .collect()
}

/// Has every client without an answer ask, until all have one or the server is gone; kills the server after
/// `kill_after` answers.
fn race(server: Server, races: &[Race], keys: &Keys, kill_after: usize, random: &mut Random) -> Option<Server> {
    let answered = AtomicUsize::new(0);
    let address = server.address.clone();
    let server = Mutex::new(Some(server));
    thread::scope(|scope| {
        for (n, wish) in WISHES.iter().copied().enumerate() {
            for half in 0..2 {
                let mut order: Vec<&Race> = races.iter().skip(half).step_by(2).collect();
                random.shuffle(&mut order);
                let answered = &answered;
                let address = &address;
                let server = &server;
                scope.spawn(move || {
                    let Ok(mut client) = Client::connect(address) else { return };
                    for race in order {
                        if race.told.lock().unwrap().contains_key(&n) {
                            continue;
                        }
                        let Ok(reply) = wish.send(&mut client, keys, &race.review) else { return };
                        race.told.lock().unwrap().insert(n, reply);
                        if answered.fetch_add(1, Ordering::SeqCst) + 1 == kill_after {
                            // Dropping the server kills it.
                            drop(server.lock().unwrap().take());
                        }
                    }
                });
            }
        }
    });
    server.into_inner().unwrap()
}

/// The end of a review, as every client must see it.
fn outcome(review: &Value) -> Value {
    json!({"status": review["status"], "response": review["response"], "feedback": review["feedback"],
        "decidedBy": review["decidedBy"], "completedAt": review["completedAt"]})
}

/// One outcome, the same for all clients; returns its cause: a client's wish, or the time.
fn check(client: &mut Client, keys: &Keys, race: &Race, ends: &BTreeMap<String, Vec<Value>>, called: &Told) -> String {
    let review = client.send("GET", &format!("/api/v1/reviews/{}", race.review), None, "").unwrap().json();
    let ended = outcome(&review);
    let by_time = review["completedAt"] == review["expiresAt"];
    let told = race.told.lock().unwrap();
    let mut winners = Vec::new();
    for (n, wish) in WISHES.iter().enumerate() {
        let reply = &told[&n];
        let body = reply.json();
        match reply.status {
            200 => {
                winners.push(wish);
                assert_eq!(outcome(&body), ended, "{wish:?} was told another outcome: {review}");
                assert_eq!(review["status"], wish.status());
                assert!(!by_time, "{wish:?} was accepted at its deadline: {review}");
                // A retry gets the same answer, and has no effect.
                let again = wish.send(client, keys, &race.review).unwrap();
                assert_eq!((again.replayed, &again.body), (true, &reply.body), "{wish:?}: {review}");
            }
            409 => {
                let code = if by_time { "review_expired" } else { "review_already_completed" };
                assert_eq!(body["code"], code, "{wish:?}: {review}");
                assert_eq!(outcome(&body["review"]), ended, "{wish:?} was told another outcome: {review}");
            }
            _ => panic!("{wish:?}: {body}"),
        }
    }
    assert_eq!(winners.len(), usize::from(!by_time), "{winners:?} have decided {review}");
    let ends = &ends[&race.review];
    assert_eq!(ends.len(), 1, "one event says how it ended: {ends:?}");
    assert_eq!(outcome(&ends[0]["data"]), ended);
    let called: Vec<_> = called[&race.review].iter().map(|(id, (_, data))| (id.as_str(), outcome(data))).collect();
    assert_eq!(called, [(ends[0]["id"].as_str().unwrap(), ended)], "one event for the callback");
    if by_time {
        let announced = tertulia::wire::time::parse(ends[0]["timestamp"].as_str().unwrap()).unwrap();
        assert!(announced >= race.deadline as i64, "announced before its deadline: {ends:?}");
    }
    match winners.first() {
        Some(wish) => format!("{wish:?}"),
        None => format!("time: {}", review["status"].as_str().unwrap()),
    }
}

#[test]
fn i4_a_review_has_one_outcome_for_every_reader() {
    let count = setting_by_store("TERTULIA_RACES_REVIEWS", 2_000, 200) as usize;
    let seed = setting("TERTULIA_RACES_SEED", 1);
    say(&format!("{count} reviews, seed {seed}"));
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let env = [("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY), ("TERTULIA_EGRESS_ALLOW", "127.0.0.0/8")];
    let start = || Server::start_on_store(&data, &env);
    let sink = Sink::open();
    let mut server = start();
    let mut client = Client::connect(&server.address).unwrap();
    let keys = Keys { ana: key_of(&mut client, "ana"), bob: key_of(&mut client, "bob"), admin: ADMIN_KEY.to_owned() };
    for n in 0..CHANNELS {
        let body = json!({"id": format!("r{n}"), "name": "r", "kind": "human"}).to_string();
        assert_eq!(client.send("POST", "/api/v1/channels", None, &body).unwrap().status, 201);
    }
    let mut races = Vec::new();
    for _ in 0..kills() {
        let round = ask(&server, &sink, count / kills(), &mut random);
        let kill_after = 1 + random.below(3 * round.len() as u64 - 1) as usize;
        let alive = race(server, &round, &keys, kill_after, &mut random);
        assert!(alive.is_none(), "the clients were through before the kill");
        server = start();
        // The clients without an answer ask again.
        server = race(server, &round, &keys, usize::MAX, &mut random).unwrap();
        races.extend(round);
    }
    let mut client = Client::connect(&server.address).unwrap();
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    wait_for_deadlines(&mut client, &races);
    let ends = ends(&mut client, &races);
    let called = sink.all(races.len());
    let deliveries: usize = called.values().flat_map(BTreeMap::values).map(|(times, _)| times).sum();
    say(&format!("{} callbacks in {deliveries} deliveries", called.len()));
    for race in &races {
        *outcomes.entry(check(&mut client, &keys, race, &ends, &called)).or_default() += 1;
    }
    say(&format!("{outcomes:?}"));
    assert_eq!(outcomes.values().sum::<usize>(), races.len());
    for outcome in ["Approve", "Reject", "Cancel", "time: completed", "time: expired"] {
        assert!(outcomes.contains_key(outcome), "nothing ended by {outcome}: {outcomes:?}");
    }
    assert_eq!(server.terminate(), Some(0));
    check_sound(&data, &format!("seed {seed}"));
}

/// The events about the ends of reviews, by review, once there is one for each. After a kill, the successor of a dead
/// process announces its events as soon as it knows of the death.
fn ends(client: &mut Client, races: &[Race]) -> BTreeMap<String, Vec<Value>> {
    let late = now() + 60_000;
    loop {
        let mut ends: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for n in 0..CHANNELS {
            for event in all(client, &format!("/api/v1/channels/r{n}/events")) {
                let kind = event["type"].as_str().unwrap();
                if kind.starts_with("review.") && kind != "review.requested" {
                    let review = event["data"]["messageId"].as_str().unwrap().to_owned();
                    ends.entry(review).or_default().push(event);
                }
            }
        }
        let Some(race) = races.iter().find(|race| !ends.contains_key(&race.review)) else { return ends };
        assert!(now() < late, "nothing says how {} ended", race.review);
    }
}

/// Waits until the newest of the racing deadlines has passed and was announced.
fn wait_for_deadlines(client: &mut Client, races: &[Race]) {
    for channel in 0..CHANNELS {
        let near = races.iter().filter(|race| race.channel == channel && race.deadline < now() + 60_000);
        for race in near {
            let path = format!("/api/v1/reviews/{}/wait?timeout=20", race.review);
            let review = client.send("GET", &path, None, "").unwrap().json();
            assert_ne!(review["status"], "pending");
        }
    }
}
