//! The program is killed again and again under writes: each acknowledged message is stored once, in order.
//!
//! `TERTULIA_CRASH_ROUNDS` and `TERTULIA_CRASH_SEED` set the number and the times of the kills. A kill comes after a
//! seeded number of acknowledgements, so no test waits for time to pass.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{self, Sender};
use std::thread;

use actors::id::MessageId;
use actors::random::Random;
use serde_json::{Value, json};

use crate::support::client::{Client, Reply, all};
use crate::support::program::{Server, check_sound};
use crate::support::setting::{say, setting, setting_by_store};
use crate::support::{ADMIN_KEY, Kind};

const WRITERS: usize = 32;
/// Acknowledgements before a kill.
const MAX_ACKNOWLEDGED: u64 = 160;

/// The API that a writer uses, and the conversation or channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Channel(String),
    Contact(String),
    Conversation(String),
    /// Every message opens a conversation.
    New,
}

/// A client that sends numbered messages one after the other, each with its own key.
struct Writer {
    name: String,
    place: Place,
    /// The answers, by message number.
    answers: Vec<Reply>,
    /// Whether the next message was already sent, and its answer never arrived.
    in_flight: bool,
}

impl Writer {
    fn request(&self, number: usize) -> (String, String, String) {
        let text = format!("{} {number}", self.name);
        let (path, body) = match &self.place {
            Place::Channel(channel) => ("/api/v1/messages".to_owned(), json!({"channelId": channel, "text": text})),
            Place::Contact(contact) => (
                "/api/v1/channels/demo-api/messages".to_owned(),
                json!({"type": "TEXT", "contactIdentifier": contact, "content": {"text": {"body": text}}}),
            ),
            Place::Conversation(id) => {
                ("/api/v1/messages".to_owned(), json!({"conversation_id": id, "content": {"content": text}}))
            }
            Place::New => ("/api/v1/messages".to_owned(), json!({"content": [{"content": text}, {"content": text}]})),
        };
        (path, format!("{}-{number}", self.name), body.to_string())
    }

    fn send(&self, client: &mut Client, number: usize) -> io::Result<Reply> {
        let (path, key, body) = self.request(number);
        let mut reply = client.send("POST", &path, Some(&key), &body)?;
        // A turn that was killed too often is given up; the retry begins it again. On a slow cluster an outcome may be
        // unknown, and a retry with the key finds out.
        let asks_again = |reply: &Reply| {
            let unknown = Kind::chosen() == Kind::Cql && matches!(reply.status, 202 | 503);
            unknown || reply.status == 500 && reply.json()["code"] == "agent_failed"
        };
        while asks_again(&reply) {
            reply = client.send("POST", &path, Some(&key), &body)?;
        }
        let expected = if matches!(self.place, Place::Channel(_)) { 201 } else { 200 };
        assert_eq!(reply.status, expected, "{key}: {}", String::from_utf8_lossy(&reply.body));
        Ok(reply)
    }

    /// Sends a message again that was answered before; the answer must be the same.
    fn retry(&self, client: &mut Client, number: usize) -> io::Result<()> {
        let again = self.send(client, number)?;
        let first = &self.answers[number];
        assert!(again.replayed, "{} {number} had an effect again", self.name);
        assert_eq!(String::from_utf8_lossy(&again.body), String::from_utf8_lossy(&first.body));
        Ok(())
    }

    /// Writes until the server is gone.
    fn write(&mut self, address: &str, random: &mut Random, acknowledged: &Sender<()>) -> io::Result<()> {
        let mut client = Client::connect(address)?;
        if !self.answers.is_empty() {
            self.retry(&mut client, self.answers.len() - 1)?;
            self.retry(&mut client, random.below(self.answers.len() as u64) as usize)?;
        }
        loop {
            let number = self.answers.len();
            let was_in_flight = std::mem::replace(&mut self.in_flight, true);
            let reply = self.send(&mut client, number)?;
            let first = !was_in_flight && Kind::chosen() != Kind::Cql;
            assert!(!first || !reply.replayed, "{} {number} was sent for the first time", self.name);
            self.answers.push(reply);
            self.in_flight = false;
            if was_in_flight {
                self.retry(&mut client, number)?;
            }
            // The receiver is gone once the kill is on its way.
            _ = acknowledged.send(());
        }
    }
}

/// The messages of a place as `(id, role, text)`, in order.
fn history(client: &mut Client, place: &Place) -> Vec<(MessageId, String, String)> {
    let path = match place {
        Place::Channel(channel) => format!("/api/v1/messages?channelId={channel}"),
        Place::Conversation(id) => format!("/api/v1/conversations/{id}/messages"),
        Place::Contact(identifier) => {
            let contacts = client.send("GET", &format!("/api/v1/contacts?identifier={identifier}"), None, "");
            let contacts = contacts.unwrap().json();
            let Some(contact) = contacts["data"][0]["id"].as_str() else { return Vec::new() };
            let conversations = all(client, &format!("/api/v1/contacts/{contact}/conversations"));
            assert!(conversations.len() <= 1, "a contact has one conversation: {conversations:?}");
            let Some(conversation) = conversations.first() else { return Vec::new() };
            format!("/api/v1/conversations/{}/messages", conversation["id"].as_str().unwrap())
        }
        Place::New => return Vec::new(),
    };
    let shown = |message: &Value| {
        let text = message.get("text").or_else(|| message.get("content")).unwrap().as_str().unwrap().to_owned();
        let role = message["role"].as_str().unwrap_or("user").to_owned();
        (MessageId::parse(message["id"].as_str().unwrap()).unwrap(), role, text)
    };
    all(client, &path).iter().map(shown).collect()
}

/// Acknowledged messages are stored once and in their order; only messages in flight may be there besides.
fn check(client: &mut Client, writers: &[Writer]) {
    let mut places: BTreeMap<&Place, Vec<&Writer>> = BTreeMap::new();
    for writer in writers {
        places.entry(&writer.place).or_default().push(writer);
    }
    for (place, writers) in places.iter().filter(|(place, _)| ***place != Place::New) {
        let history = history(client, place);
        let numbers: Vec<_> = history.iter().map(|(id, ..)| id.number).collect();
        if matches!(place, Place::Contact(_)) {
            assert!(numbers.is_sorted_by(|a, b| a < b), "{place:?}");
        } else {
            // The first event is the beginning of the conversation; each message is the next event.
            assert!(numbers.iter().copied().eq(2..2 + numbers.len() as u64), "{place:?}: {numbers:?}");
        }
        for writer in writers {
            let of = |wanted: &str| -> Vec<&str> {
                let mine = history.iter().filter(|(_, role, _)| role == wanted);
                mine.filter_map(|(.., text)| text.strip_prefix(&format!("{} ", writer.name))).collect()
            };
            let acknowledged: Vec<_> = (0..=writer.answers.len()).map(|number| number.to_string()).collect();
            let certain = writer.answers.len();
            let said = of("user");
            let there = said == acknowledged[..certain] || (writer.in_flight && said == acknowledged);
            assert!(there, "{}: {certain} acknowledged, there is {said:?}", writer.name);
            if matches!(place, Place::Contact(_)) {
                let heard = of("assistant");
                let there = heard == acknowledged[..certain] || (writer.in_flight && heard == acknowledged);
                assert!(there, "{}: {certain} answered, there is {heard:?}", writer.name);
            }
        }
    }
    let expected: usize = writers.iter().filter(|w| w.place == Place::New).map(|w| w.answers.len()).sum();
    let possible = writers.iter().filter(|w| w.place == Place::New && w.in_flight).count();
    let opened = all(client, "/api/v1/conversations");
    let opened = opened.iter().filter(|c| c["channelId"].is_null() && c["messageCount"] == 2 && c["title"].is_null());
    let opened = opened.count();
    assert!((expected..=expected + possible).contains(&opened), "{opened} were opened, {expected} acknowledged");
}

/// Creates channels and conversations for the writers; returns one or more writers for each place.
fn writers(server: &Server) -> Vec<Writer> {
    let mut client = Client::connect(&server.address).unwrap();
    // Slow enough that most kills come during turns.
    let slow = json!({"builtin": {"latencyMs": 15}}).to_string();
    assert_eq!(client.send("PATCH", "/api/v1/agents/echo", None, &slow).unwrap().status, 200);
    let mut places = Vec::new();
    for n in 0..4 {
        let body = json!({"id": format!("c{n}"), "name": "c", "kind": "human"}).to_string();
        assert_eq!(client.send("POST", "/api/v1/channels", None, &body).unwrap().status, 201);
        let body = json!({"title": "shared"}).to_string();
        let made = client.send("POST", "/api/v1/conversations", None, &body).unwrap().json();
        places.push(Place::Channel(format!("c{n}")));
        places.push(Place::Contact(format!("contact{n}@example.com")));
        places.push(Place::Conversation(made["id"].as_str().unwrap().to_owned()));
        places.push(if n == 0 { Place::New } else { Place::Contact(format!("alone{n}")) });
    }
    let writer = |n: usize| Writer {
        name: format!("w{n}"),
        place: places[n % places.len()].clone(),
        answers: Vec::new(),
        in_flight: false,
    };
    (0..WRITERS).map(writer).collect()
}

#[test]
fn acknowledged_messages_survive_every_kill_once_and_in_order() {
    let rounds = setting_by_store("TERTULIA_CRASH_ROUNDS", 20, 3);
    let seed = setting("TERTULIA_CRASH_SEED", 1);
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let start = || Server::start_on_store(&data, &[("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY)]);
    let mut server = start();
    let mut writers = writers(&server);
    for round in 0..rounds {
        let kill_after = random.below(MAX_ACKNOWLEDGED);
        say(&format!("seed {seed}, round {round}: killed after {kill_after} acknowledgements"));
        thread::scope(|scope| {
            let (acknowledged, counted) = mpsc::channel();
            let address = server.address.clone();
            for writer in &mut writers {
                let acknowledged = acknowledged.clone();
                let address = address.clone();
                let mut random = Random(random.below(u64::MAX >> 33));
                scope.spawn(move || writer.write(&address, &mut random, &acknowledged).unwrap_err());
            }
            drop(acknowledged);
            let seen = counted.iter().take(kill_after as usize).count() as u64;
            assert_eq!(seen, kill_after, "the server ended by itself");
            // Dropping the server kills it.
            drop(server);
        });
        server = start();
        check(&mut Client::connect(&server.address).unwrap(), &writers);
    }
    finish(&server, &mut writers);
    assert_eq!(server.terminate(), Some(0));
    check_sound(&data, &format!("seed {seed}"));
}

/// Sends every message in flight again, so that nothing is uncertain, and asks for every answer again.
fn finish(server: &Server, writers: &mut [Writer]) {
    let mut client = Client::connect(&server.address).unwrap();
    for writer in &mut *writers {
        if std::mem::take(&mut writer.in_flight) {
            let reply = writer.send(&mut client, writer.answers.len()).unwrap();
            writer.answers.push(reply);
        }
        for number in 0..writer.answers.len() {
            writer.retry(&mut client, number).unwrap();
        }
    }
    check(&mut client, writers);
}
