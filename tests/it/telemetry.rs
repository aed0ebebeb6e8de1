//! The program's telemetry: every acknowledged request as one complete trace, and no harm elsewhere when the receiver
//! misbehaves.
#![cfg(unix)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::thread;

use serde_json::json;

use crate::models::PATH;
use crate::support::client::{Client, Reply};
use crate::support::program::Server;
use crate::support::{ADMIN_KEY, Kind};

mod agents;
mod forwarding;
mod kills;
mod observed;
mod outside;
mod pushed;
pub(crate) mod receiver;
mod runtime;
mod stops;
mod tables;
mod trouble;
mod turns;
mod underway;

use receiver::{Got, Manner, Receiver};

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const CONSUMER: i32 = 5;

/// A server that sends its traces to this receiver.
fn traced(data: &std::path::Path, receiver: &Receiver, env: &[(&str, &str)]) -> Server {
    traced_to(data, &receiver.endpoint, env)
}

/// A server that sends its traces to this endpoint.
fn traced_to(data: &std::path::Path, endpoint: &str, env: &[(&str, &str)]) -> Server {
    Server::start(data, &environment(endpoint, env))
}

fn environment<'a>(endpoint: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = vec![
        ("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    all.extend(more);
    all
}

/// The same on the store of this run.
fn traced_on_store(data: &std::path::Path, receiver: &Receiver, env: &[(&str, &str)]) -> Server {
    Server::start_on_store(data, &environment(&receiver.endpoint, env))
}

const GRPC: (&str, &str) = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");

fn conversation(client: &mut Client) -> String {
    let reply = client.send("POST", "/api/v1/conversations", None, "{}").unwrap();
    assert_eq!(reply.status, 201);
    reply.json()["id"].as_str().unwrap().to_owned()
}

fn append(client: &mut Client, conversation: &str, key: &str) -> Reply {
    let body = json!({"conversation_id": conversation, "content": {"content": "the secret word"}}).to_string();
    client.send("POST", "/api/v1/messages", Some(key), &body).unwrap()
}

/// The trace and span that an answer names.
fn place(reply: &Reply) -> (String, String) {
    let parts: Vec<&str> = reply.traceparent.split('-').collect();
    (parts[1].to_owned(), parts[2].to_owned())
}

/// The spans of an answer's request: at most one for each of its parts, in their order.
#[derive(Debug)]
struct Tree<'a> {
    server: Vec<&'a Got>,
    wait: Vec<&'a Got>,
    process: Vec<&'a Got>,
    commit: Vec<&'a Got>,
}

impl<'a> Tree<'a> {
    /// The server's span, a wait below it, and a decision and a commit below that, or in a trace to which the wait
    /// links.
    fn of(spans: &'a [Got], reply: &Reply) -> Self {
        let (trace, id) = place(reply);
        let own = || spans.iter().filter(|span| span.trace == trace);
        let wait: Vec<_> = own().filter(|span| span.name == "wait" && span.parent == id).collect();
        let process: Vec<_> = match wait.first().and_then(|wait| wait.links.first()) {
            Some(link) => spans.iter().filter(|span| format!("{}-{}", span.trace, span.id) == *link).collect(),
            None => own().filter(|span| span.kind == CONSUMER && span.parent == id).collect(),
        };
        let of_it = |span: &&Got| process.first().is_some_and(|process| span.parent == process.id);
        let commit = spans.iter().filter(of_it).filter(|span| span.name == "commit" && !span.failed).collect();
        Self { server: own().filter(|span| span.kind == SERVER).collect(), wait, process, commit }
    }

    fn parts(&self) -> [usize; 4] {
        [&self.server, &self.wait, &self.process, &self.commit].map(Vec::len)
    }
}

/// Fails unless the answer has one complete trace that agrees with it.
fn complete(spans: &[Got], reply: &Reply) {
    let (trace, id) = place(reply);
    let tree = Tree::of(spans, reply);
    let (&[server], &[wait], &[process], &[_]) = (&*tree.server, &*tree.wait, &*tree.process, &*tree.commit) else {
        panic!("of one request one of each: {tree:#?}")
    };
    assert_eq!(server.id, id, "it is the one that the answer names");
    let here = format!("{trace}-{id}");
    let message = &reply.json()[0];
    let (message, conversation) = (message["id"].as_str().unwrap(), message["conversation_id"].as_str().unwrap());
    assert_eq!(server.attributes["messaging.message.id"], message, "the message leads to it");
    assert_eq!(process.attributes["messaging.message.conversation_id"], conversation);
    let first = &process.attributes["messaging.message.id"];
    if process.attributes.contains_key("tertulia.message.count") {
        // Messages accepted in one commit have ids with the same beginning.
        assert!(first[..first.len() - 9] == message[..message.len() - 9] && &**first <= message, "{first} {message}");
    } else {
        assert_eq!(first, message);
    }
    assert!(process.parent == id || process.links.contains(&here), "the decision leads back to it");
    assert!(server.began <= wait.began && wait.ended <= process.ended);
    if process.parent == id {
        assert!(process.ended <= server.ended, "the answer was waited for: {process:?} {server:?}");
    }
}

/// Parts that something else waits for: the first word of the waiting span, and of the part.
const PARTS: [(&str, &str); 9] = [
    ("process", "commit"),
    ("alarm", "process"),
    ("invoke_agent", "chat"),
    ("invoke_agent", "execute_tool"),
    ("invoke_agent", "wait"),
    ("invoke_agent", "process"),
    ("fetch", "wait"),
    ("fetch", "process"),
    ("fetch", "write"),
];

/// Fails if a span began before its parent, or ended after a parent that waited for it.
fn contained(spans: &[Got]) {
    let by_place: BTreeMap<(&str, &str), &Got> = spans.iter().map(|span| ((&*span.trace, &*span.id), span)).collect();
    let word = |span: &'_ Got| span.name.split(' ').next().unwrap().to_owned();
    for span in spans {
        let Some(parent) = by_place.get(&(&*span.trace, &*span.parent)) else { continue };
        assert!(parent.began <= span.began, "{span:?} began before {parent:?}");
        if PARTS.contains(&(&*word(parent), &*word(span))) {
            assert!(span.ended <= parent.ended, "{span:?} ended after {parent:?}");
        }
    }
}

/// Content that must not be in a span: the words of people, and their identity.
fn says_nothing(spans: &[Got]) {
    for span in spans {
        for (name, value) in &span.attributes {
            assert!(!value.contains("secret") && !value.contains(ADMIN_KEY), "{name} of {} is {value}", span.name);
        }
    }
}

#[test]
fn every_acknowledged_request_has_one_complete_trace_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::grpc(Manner::Takes);
    let server = traced_on_store(&dir.path().join("data"), &receiver, &[GRPC]);
    let shared = conversation(&mut Client::connect(&server.address).unwrap());
    let messages = if Kind::chosen() == Kind::Cql { 10 } else { 40 };
    let writers: Vec<_> = (0..16)
        .map(|writer| {
            let address = server.address.clone();
            let shared = shared.clone();
            thread::spawn(move || {
                let mut client = Client::connect(&address).unwrap();
                let own = conversation(&mut client);
                // Half of the writers write to one conversation, so that many messages are decided together.
                let target = if writer % 2 == 0 { shared } else { own };
                (0..messages).map(|n| append(&mut client, &target, &format!("{writer}-{n}"))).collect::<Vec<_>>()
            })
        })
        .collect();
    let replies: Vec<Reply> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    assert_eq!(server.terminate(), Some(0));
    let spans = receiver.spans();
    for reply in &replies {
        assert_eq!(reply.status, 200);
        complete(&spans, reply);
    }
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len(), "no span came twice");
    assert!(spans.iter().any(|span| span.links.len() > 1 && span.kind == CONSUMER), "some were decided together");
    assert!(spans.iter().all(|span| span.service == "tertulia" && span.began <= span.ended));
    contained(&spans);
    says_nothing(&spans);
    tables::describes(&spans);
}

#[test]
fn traces_go_over_http_too_with_the_headers_and_the_name_of_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::http(Manner::Takes);
    let env = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=seven"),
        ("OTEL_SERVICE_NAME", "chat"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ];
    let server = traced(&dir.path().join("data"), &receiver, &env);
    let mut client = Client::connect(&server.address).unwrap();
    let id = conversation(&mut client);
    let reply = append(&mut client, &id, "a");
    assert_eq!(server.terminate(), Some(0));
    let spans = receiver.spans();
    complete(&spans, &reply);
    assert!(spans.iter().all(|span| span.service == "chat"));
    assert_eq!(receiver.headers()["x-tenant"], "seven");
    assert_eq!(receiver.headers()["content-encoding"], "gzip");
}

#[test]
fn a_receiver_of_spans_that_is_busy_gets_each_once_all_the_same() {
    for (receiver, protocol) in
        [(Receiver::grpc(Manner::Hesitates), "grpc"), (Receiver::http(Manner::Hesitates), "http/protobuf")]
    {
        let dir = tempfile::tempdir().unwrap();
        let env = [("OTEL_EXPORTER_OTLP_PROTOCOL", protocol), ("OTEL_METRICS_EXPORTER", "none")];
        let server = traced(&dir.path().join("data"), &receiver, &env);
        let mut client = Client::connect(&server.address).unwrap();
        let id = conversation(&mut client);
        let replies: Vec<Reply> = (0..5).map(|n| append(&mut client, &id, &n.to_string())).collect();
        assert_eq!(server.terminate(), Some(0));
        let spans = receiver.spans();
        replies.iter().for_each(|reply| complete(&spans, reply));
        let ids: BTreeSet<&str> = spans.iter().map(|span| &*span.id).collect();
        assert_eq!(ids.len(), spans.len(), "{protocol}");
    }
}

#[test]
fn unsampled_requests_are_exported_only_if_they_fail() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::grpc(Manner::Takes);
    let env = [GRPC, ("OTEL_TRACES_SAMPLER", "always_off"), ("TERTULIA_SLOW_MILLIS", "3600000")];
    let server = traced(&dir.path().join("data"), &receiver, &env);
    let mut client = Client::connect(&server.address).unwrap();
    let id = conversation(&mut client);
    assert!(append(&mut client, &id, "a").traceparent.ends_with("-00"));
    // An address without a listener: this one was just dropped.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let agent = json!({"provider": "openai", "model": "small", "baseUrl": format!("http://{nobody}/v1")});
    assert_eq!(client.send("PATCH", "/api/v1/agents/echo", None, &agent.to_string()).unwrap().status, 200);
    let message = json!({"type": "TEXT", "contactIdentifier": "ana", "content": {"text": {"body": "the secret word"}}});
    let failed = client.send("POST", PATH, None, &message.to_string()).unwrap();
    assert_eq!(failed.status, 500);
    assert_eq!(server.terminate(), Some(0));
    let spans = receiver.spans();
    let [span] = &spans[..] else { panic!("only what failed, and nothing that happened within it: {spans:#?}") };
    assert_eq!((span.trace.clone(), span.id.clone()), place(&failed), "it is the one that the answer names");
    assert_eq!((span.failed, &*span.attributes["tertulia.kept"]), (true, "agent"));
    assert_eq!(span.attributes["messaging.message.id"], failed.json()["messageId"].as_str().unwrap());
    says_nothing(&spans);
    tables::describes(&spans);
}
