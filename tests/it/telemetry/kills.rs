//! The traces of a killed server that have arrived, and those after its next start.

use std::collections::BTreeSet;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::receiver::{Manner, Receiver};
use super::{GRPC, Tree, append, complete, contained, conversation, place, traced_on_store};
use crate::support::client::{Client, Reply};
use crate::support::until::seen_here;

const WRITERS: usize = 8;
/// How long a span waits for others before it is sent; `traced_on_store` configures the server with it.
const DELAY: Duration = Duration::from_millis(50);
/// A span acknowledged this long before the kill has arrived: this covers the delay, and the way many times over, for a
/// busy machine.
const ARRIVED: Duration = Duration::from_secs(1);

/// An acknowledged request.
struct Acknowledged {
    reply: Reply,
    at: Instant,
}

/// Appends until the server is gone.
fn write(address: &str, shared: &str, writer: usize, told: &Sender<Acknowledged>) {
    let mut client = Client::connect(address).unwrap();
    let own = conversation(&mut client);
    // Half of the writers write to one conversation, so that many messages are decided together.
    let target = if writer.is_multiple_of(2) { shared } else { &own };
    for n in 0.. {
        let body = json!({"conversation_id": target, "content": {"content": "the secret word"}}).to_string();
        let key = format!("{writer}-{n}");
        let Ok(reply) = client.send("POST", "/api/v1/messages", Some(&key), &body) else { return };
        assert_eq!(reply.status, 200);
        // The receiver is gone once the kill is on its way.
        _ = told.send(Acknowledged { reply, at: Instant::now() });
    }
}

/// Kills a server after some time of writes; returns all that it acknowledged, and the time of the kill.
fn killed_while_written_to(data: &std::path::Path, receiver: &Receiver) -> (Vec<Acknowledged>, Instant) {
    let server = traced_on_store(data, receiver, &[GRPC, ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]);
    let shared = conversation(&mut Client::connect(&server.address).unwrap());
    let (told, acknowledged) = mpsc::channel();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let address = server.address.clone();
            let shared = shared.clone();
            let told = told.clone();
            thread::spawn(move || write(&address, &shared, writer, &told))
        })
        .collect();
    drop(told);
    let mut all: Vec<Acknowledged> = acknowledged.iter().take(WRITERS).collect();
    let first = all[0].at;
    seen_here(|| {
        all.extend(acknowledged.try_iter());
        (first.elapsed() > ARRIVED + 4 * DELAY).then_some(())
    });
    let killed = Instant::now();
    drop(server);
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    all.extend(acknowledged.try_iter());
    (all, killed)
}

#[test]
fn traces_that_had_the_time_are_whole_though_the_server_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let receiver = Receiver::grpc(Manner::Takes);
    let (acknowledged, killed) = killed_while_written_to(&data, &receiver);
    let spans = receiver.spans();
    let mut in_time = 0;
    let mut whole = 0;
    let mut cut = 0;
    let mut lost = 0;
    for Acknowledged { reply, at } in &acknowledged {
        let parts = Tree::of(&spans, reply).parts();
        assert!(parts.iter().all(|part| *part <= 1), "nothing comes twice: {parts:?}");
        let had_time = *at + ARRIVED < killed;
        in_time += usize::from(had_time);
        match parts {
            [1, 1, 1, 1] => {
                complete(&spans, reply);
                whole += 1;
            }
            _ => {
                assert!(!had_time, "{:?} before the kill: {parts:?}", killed - *at);
                if parts[..3] == [0; 3] { lost += 1 } else { cut += 1 }
            }
        }
    }
    println!("{} acknowledged, {in_time} in time: {whole} whole, {cut} cut, {lost} lost", acknowledged.len());
    assert!(in_time > 0, "some had the time");
    contained(&spans);
    let ids: BTreeSet<&str> = spans.iter().map(|span| &*span.id).collect();
    assert_eq!(ids.len(), spans.len(), "no span came twice");

    let server = traced_on_store(&data, &receiver, &[GRPC]);
    let mut client = Client::connect(&server.address).unwrap();
    let before = acknowledged.last().unwrap().reply.json()[0]["conversation_id"].as_str().unwrap().to_owned();
    let replies: Vec<Reply> = (0..20).map(|n| append(&mut client, &before, &format!("after-{n}"))).collect();
    let repeated = append(&mut client, &before, "after-0");
    assert_eq!(server.terminate(), Some(0));
    let spans = receiver.spans();
    replies.iter().for_each(|reply| complete(&spans, reply));
    contained(&spans);
    assert!(repeated.replayed);
    let (trace, _) = place(&repeated);
    let names: BTreeSet<&str> = spans.iter().filter(|span| span.trace == trace).map(|span| &*span.name).collect();
    let expected = ["POST /api/v1/messages", "process conversation", "wait"];
    assert_eq!(names, expected.into(), "a repeated answer stores nothing");
}
