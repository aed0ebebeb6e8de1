//! A copy whose server is killed in the middle is completed by the next server, without a request.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{CONVERSATIONS, text};
use crate::support::ADMIN_KEY;
use crate::support::client::{Client, all};
use crate::support::program::Server;

const ENV: &[(&str, &str)] = &[("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY)];
/// Messages of the original: many steps of a copy, each a commit of its own.
const MESSAGES: usize = 3_000;
/// Messages of one request.
const BATCH: usize = 100;

fn words(n: usize) -> String {
    format!("number {n}.")
}

/// A conversation with all the messages.
fn talk(client: &mut Client) -> String {
    let mut conversation = Value::Null;
    for from in (0..MESSAGES).step_by(BATCH) {
        let batch: Vec<Value> = (from..from + BATCH).map(|n| json!({"content": words(n)})).collect();
        let body = json!({"conversation_id": conversation, "content": batch}).to_string();
        let made = client.send("POST", "/api/v1/messages", None, &body).unwrap();
        assert_eq!(made.status, 200);
        conversation = made.json()[0]["conversation_id"].clone();
    }
    text(&conversation).to_owned()
}

/// The conversation that is not `source`, as soon as there is one.
fn copy_of(client: &mut Client, source: &str) -> String {
    loop {
        let page = client.send("GET", CONVERSATIONS, None, "").unwrap().json();
        let ids = page["data"].as_array().unwrap().iter().map(|one| text(&one["id"]).to_owned());
        if let Some(copy) = ids.into_iter().find(|id| id != source) {
            return copy;
        }
    }
}

/// Follows the log of a conversation from its beginning until an event contains these words.
fn follow_to(address: &str, conversation: &str, words: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(90))).unwrap();
    write!(
        stream,
        "GET {CONVERSATIONS}/{conversation}/events?after=0 HTTP/1.1\r\nHost: t\r\nX-API-Key: {ADMIN_KEY}\r\n\
         Accept: text/event-stream\r\n\r\n"
    )
    .unwrap();
    let mut lines = BufReader::new(stream).lines();
    assert!(lines.any(|line| line.unwrap().contains(words)), "the stream ended");
}

#[test]
fn a_copy_that_was_killed_in_the_middle_is_made_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start_on_store(&data, ENV);
    let mut client = Client::connect(&server.address).unwrap();
    let source = talk(&mut client);
    let path = format!("{CONVERSATIONS}/{source}/fork");
    let copy = thread::scope(|scope| {
        let mut asking = Client::connect(&server.address).unwrap();
        let path = &path;
        scope.spawn(move || asking.send("POST", path, Some("k"), "{}"));
        let copy = copy_of(&mut client, &source);
        // Dropping the server kills it.
        drop(server);
        copy
    });

    let server = Server::start_on_store(&data, ENV);
    follow_to(&server.address, &copy, &words(MESSAGES - 1));
    let mut client = Client::connect(&server.address).unwrap();
    let said = all(&mut client, &format!("{CONVERSATIONS}/{copy}/messages"));
    let said: Vec<&str> = said.iter().map(|message| text(&message["content"])).collect();
    assert_eq!(said, (0..MESSAGES).map(words).collect::<Vec<_>>(), "each message once, in order");
    let again = client.send("POST", &path, Some("k"), "{}").unwrap();
    assert_eq!((again.status, again.replayed), (201, true));
    assert_eq!((&again.json()["id"], &again.json()["messageCount"]), (&json!(copy), &json!(MESSAGES)));
}
