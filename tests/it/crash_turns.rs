//! The program is killed while turns run, tools are called and people are asked: each acknowledged message has one
//! reply, no message has more, and no history has half a call.
//!
//! `TERTULIA_CRASH_TURN_ROUNDS` and `TERTULIA_CRASH_SEED` set the number and the times of the kills.
#![cfg(unix)]

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::ADMIN_KEY;
use crate::support::client::{Client, Reply, all};
use crate::support::program::{Server, check_sound};
use crate::support::setting::{say, setting, setting_by_store};
use actors::random::Random;

const WRITERS: usize = 16;
/// All histories are read in full after every so many rounds.
const WHOLE_EVERY: u64 = 20;
/// Acknowledgements before a kill.
const MAX_ACKNOWLEDGED: u64 = 60;
const ENV: &[(&str, &str)] = &[("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY), ("TERTULIA_EGRESS_ALLOW", "127.0.0.0/8")];

/// A tool that outlives the program, and counts how often each call arrived.
struct Tool {
    address: SocketAddr,
    calls: Arc<Mutex<HashMap<String, usize>>>,
}

impl Tool {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tool = Self { address: listener.local_addr().unwrap(), calls: Arc::default() };
        let calls = Arc::clone(&tool.calls);
        // The thread ends with the test process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let calls = Arc::clone(&calls);
                // A killed caller hangs up, which is no fault of the tool.
                thread::spawn(move || _ = answer(stream, &calls));
            }
        });
        tool
    }
}

fn answer(stream: TcpStream, calls: &Mutex<HashMap<String, usize>>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut key = String::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
                Some((name, value)) if name.eq_ignore_ascii_case("idempotency-key") => value.clone_into(&mut key),
                Some(_) => {}
                None if line.trim_end().is_empty() => break,
                None => {}
            }
        }
        stream.read_exact(&mut vec![0; length])?;
        *calls.lock().unwrap().entry(key).or_default() += 1;
        // The tool takes its time, unless the caller hangs up meanwhile.
        stream.get_ref().set_read_timeout(Some(Duration::from_millis(15)))?;
        match stream.fill_buf() {
            Ok(_) => return Ok(()),
            Err(_) => stream.get_ref().set_read_timeout(None)?,
        }
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nfound")?;
    }
}

/// One contact that sends messages one after the other, each with its own key.
struct Writer {
    name: String,
    answers: Vec<Reply>,
    in_flight: bool,
    /// The content of its conversation when it was last read.
    known: History,
    /// The number of answers that were compared with it.
    checked: usize,
}

impl Writer {
    fn words(&self, number: usize) -> String {
        format!("{} {} {number}", ["call", "ask", "echo"][number % 3], self.name)
    }

    fn send(&self, client: &mut Client, number: usize) -> io::Result<Reply> {
        let body =
            json!({"type": "TEXT", "contactIdentifier": self.name, "content": {"text": {"body": self.words(number)}}});
        let key = format!("{}-{number}", self.name);
        loop {
            let reply = client.send("POST", "/api/v1/channels/demo-api/messages", Some(&key), &body.to_string())?;
            match reply.status {
                200 => return Ok(reply),
                // The turn waits for people longer than a request does.
                202 => {}
                // A turn that was killed too often is given up; the retry begins it again.
                500 if reply.json()["code"] == "agent_failed" => {}
                _ => panic!("{key}: {}", String::from_utf8_lossy(&reply.body)),
            }
        }
    }

    fn write(&mut self, address: &str, acknowledged: &Sender<()>) -> io::Result<()> {
        let mut client = Client::connect(address)?;
        if let Some(last) = self.answers.last() {
            let again = self.send(&mut client, self.answers.len() - 1)?;
            assert!(again.replayed && again.body == last.body, "{} was answered otherwise", self.name);
        }
        loop {
            self.in_flight = true;
            let reply = self.send(&mut client, self.answers.len())?;
            self.answers.push(reply);
            self.in_flight = false;
            // The receiver is gone once the kill is on its way.
            _ = acknowledged.send(());
        }
    }
}

/// Approves all reviews, until the server is gone or `enough` says so.
fn approve(address: &str, mut enough: impl FnMut() -> bool) -> io::Result<()> {
    let mut client = Client::connect(address)?;
    while !enough() {
        let pending = client.send("GET", "/api/v1/reviews?status=pending&limit=100", None, "")?.json();
        for review in pending["data"].as_array().unwrap() {
            let path = format!("/api/v1/reviews/{}/respond", review["id"].as_str().unwrap());
            let body = json!({"response": {"selectedOption": "approve"}}).to_string();
            let status = client.send("POST", &path, None, &body)?.status;
            assert!(matches!(status, 200 | 409), "{status}");
        }
        thread::yield_now();
    }
    Ok(())
}

/// The content of a contact's conversation.
#[derive(Debug, Default, PartialEq)]
struct History {
    /// Its id.
    conversation: Option<String>,
    /// The newest message that was read.
    newest: Option<String>,
    /// Messages of people, in order.
    said: Vec<String>,
    /// Replies without calls, in order.
    replies: Vec<String>,
    /// Calls, and the number of results of each.
    results: HashMap<String, usize>,
    /// The number of calls that ask people.
    asks: usize,
}

impl History {
    /// Reads what is new; everything, if nothing is known yet.
    fn read_on(&mut self, client: &mut Client, name: &str) {
        if self.conversation.is_none() {
            let contacts = format!("/api/v1/contacts?identifier={name}");
            let contacts = client.send("GET", &contacts, None, "").unwrap().json();
            let Some(contact) = contacts["data"][0]["id"].as_str() else { return };
            let conversations = all(client, &format!("/api/v1/contacts/{contact}/conversations"));
            assert!(conversations.len() <= 1, "a contact has one conversation: {conversations:?}");
            self.conversation = conversations.first().map(|first| first["id"].as_str().unwrap().to_owned());
        }
        let Some(conversation) = &self.conversation else { return };
        for message in since(client, conversation, self.newest.as_deref()) {
            self.take(&message);
        }
    }

    fn take(&mut self, message: &Value) {
        self.newest = message["id"].as_str().map(str::to_owned);
        let content = message["content"].as_str().unwrap().to_owned();
        match message["role"].as_str().unwrap() {
            "user" => self.said.push(content),
            "assistant" if message["tool_calls"].is_null() => self.replies.push(content),
            "assistant" => {
                for call in message["tool_calls"].as_array().unwrap() {
                    self.asks += usize::from(call["function"]["name"] == "request_review");
                    let before = self.results.insert(call["id"].as_str().unwrap().to_owned(), 0);
                    assert_eq!(before, None, "{call} was made twice");
                }
            }
            "tool" => {
                let call = message["meta_data"]["tool_call_id"].as_str().unwrap();
                *self.results.get_mut(call).expect("a result follows its call") += 1;
            }
            role => panic!("{role}"),
        }
    }
}

/// The messages after a known one, in order; all of them if none is known.
fn since(client: &mut Client, conversation: &str, known: Option<&str>) -> Vec<Value> {
    let path = format!("/api/v1/conversations/{conversation}/messages");
    let Some(known) = known else { return all(client, &path) };
    let mut messages = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.send("GET", &format!("{path}?order=desc&limit=20{cursor}"), None, "").unwrap().json();
        for message in page["data"].as_array().unwrap() {
            if message["id"] == known {
                messages.reverse();
                return messages;
            }
            messages.push(message.clone());
        }
        cursor = format!("&cursor={}", page["nextCursor"].as_str().expect("what was read once is there"));
    }
}

/// Acknowledged messages have their one reply, a message in flight at most one, and every call at most one result.
/// `whole`: what was read before is read again, and is the same.
fn check(client: &mut Client, tool: &Tool, writers: &mut [Writer], whole: bool) -> usize {
    let mut asks = 0;
    for writer in writers {
        writer.known.read_on(client, &writer.name);
        if whole {
            let mut again = History::default();
            again.read_on(client, &writer.name);
            // A turn that was in flight may go on meanwhile.
            while again.newest != writer.known.newest {
                writer.known.read_on(client, &writer.name);
                again.read_on(client, &writer.name);
            }
            assert_eq!(again, writer.known, "{}", writer.name);
        }
        let History { said, replies, results, asks: asked, .. } = &writer.known;
        let certain = writer.answers.len();
        let most = certain + usize::from(writer.in_flight);
        let expected: Vec<String> = (0..said.len()).map(|number| writer.words(number)).collect();
        assert!(*said == expected && (certain..=most).contains(&said.len()), "{}: {said:?}", writer.name);
        for (number, reply) in writer.answers.iter().enumerate().skip(if whole { 0 } else { writer.checked }) {
            let shown = reply.json()["aiMessages"].clone();
            let words = shown[0]["content"]["text"]["body"].as_str().unwrap().to_owned();
            assert!(
                shown.as_array().unwrap().len() == 1 && replies[number] == words,
                "{} {number}: {replies:?}",
                writer.name
            );
        }
        assert!((certain..=most).contains(&replies.len()), "{}: {certain} answered, there is {replies:?}", writer.name);
        assert!(results.values().all(|results| *results <= 1), "{}: {results:?}", writer.name);
        let open = results.values().filter(|results| **results == 0).count();
        assert!(open <= usize::from(writer.in_flight), "{}: {results:?}", writer.name);
        asks += asked;
        writer.checked = certain;
    }
    let called = tool.calls.lock().unwrap();
    assert!(called.values().all(|times| *times == 1), "a call reached its tool twice: {called:?}");
    asks
}

/// Once nothing is in flight, every question was asked once.
fn check_questions(client: &mut Client, writers: &[Writer], asks: usize) {
    let reviews: Vec<Value> = all(client, "/api/v1/messages?channelId=demo");
    let acknowledged: usize = writers.iter().map(|writer| (writer.answers.len() + 1) / 3).sum();
    // A turn that was killed too often may have ended before its question.
    assert!((acknowledged..=asks).contains(&reviews.len()), "{} questions for {asks} calls", reviews.len());
}

fn configure(server: &Server, tool: &Tool) {
    let mut client = Client::connect(&server.address).unwrap();
    let question = json!({"channelId": "demo", "text": "Shall I?", "type": "approval", "expiresInSeconds": 86_400});
    let script = json!([
        {"match": "call", "reply": ["found it"], "toolCall": {"name": "find", "arguments": {"q": "x"}}},
        {"match": "ask", "reply": ["they agree"], "toolCall": {"name": "request_review", "arguments": question}}]);
    let tools = json!([{"name": "find", "url": format!("http://{}/find", tool.address)}]);
    let builtin = json!({"behaviour": "scripted", "latencyMs": 10, "script": script});
    let body = json!({"tools": tools, "builtin": builtin}).to_string();
    let reply = client.send("PATCH", "/api/v1/agents/echo", None, &body).unwrap();
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
}

#[test]
fn a_turn_that_is_killed_has_one_reply_in_the_end_and_no_half_call() {
    let rounds = setting_by_store("TERTULIA_CRASH_TURN_ROUNDS", 20, 3);
    let seed = setting("TERTULIA_CRASH_SEED", 1);
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let tool = Tool::start();
    let mut server = Server::start_on_store(&data, ENV);
    configure(&server, &tool);
    let writer = |n: usize| Writer {
        name: format!("w{n}"),
        answers: Vec::new(),
        in_flight: false,
        known: History::default(),
        checked: 0,
    };
    let mut writers: Vec<Writer> = (0..WRITERS).map(writer).collect();
    for round in 0..rounds {
        let kill_after = 1 + random.below(MAX_ACKNOWLEDGED);
        say(&format!("seed {seed}, round {round}: killed after {kill_after} acknowledgements"));
        let address = server.address.clone();
        let address = address.as_str();
        thread::scope(|scope| {
            let (acknowledged, counted) = mpsc::channel();
            for writer in &mut writers {
                let acknowledged = acknowledged.clone();
                scope.spawn(move || writer.write(address, &acknowledged).unwrap_err());
            }
            scope.spawn(move || approve(address, || false).unwrap_err());
            drop(acknowledged);
            let seen = counted.iter().take(kill_after as usize).count() as u64;
            assert_eq!(seen, kill_after, "the server ended by itself");
            // Dropping the server kills it.
            drop(server);
        });
        server = Server::start_on_store(&data, ENV);
        // Reading everything each time would make later rounds ever longer.
        check(&mut Client::connect(&server.address).unwrap(), &tool, &mut writers, round.is_multiple_of(WHOLE_EVERY));
    }
    finish(&server, &mut writers);
    let client = &mut Client::connect(&server.address).unwrap();
    let asks = check(client, &tool, &mut writers, true);
    check_questions(client, &writers, asks);
    let answered = writers.iter().map(|writer| writer.answers.len());
    let calls = tool.calls.lock().unwrap().len();
    say(&format!(
        "{rounds} kills, {} turns answered, {calls} calls of the tool, {asks} questions",
        answered.sum::<usize>()
    ));
    assert_eq!(server.terminate(), Some(0));
    check_sound(&data, &format!("seed {seed}"));
}

/// Sends every message in flight again, until each has its reply.
fn finish(server: &Server, writers: &mut [Writer]) {
    let address = server.address.as_str();
    let left = &std::sync::atomic::AtomicUsize::new(writers.len());
    thread::scope(|scope| {
        scope.spawn(move || approve(address, || left.load(std::sync::atomic::Ordering::SeqCst) == 0).unwrap());
        for writer in writers {
            scope.spawn(move || {
                let mut client = Client::connect(address).unwrap();
                if std::mem::take(&mut writer.in_flight) {
                    let reply = writer.send(&mut client, writer.answers.len()).unwrap();
                    writer.answers.push(reply);
                }
                left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            });
        }
    });
}
