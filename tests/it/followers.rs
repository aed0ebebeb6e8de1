//! Many followers of one log, on the program itself: each hears of an event at once, at little cost.
//!
//! `TERTULIA_FOLLOWERS` sets their number; `--nocapture` shows the measurements.
#![cfg(target_os = "linux")]

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::support::ADMIN_KEY;
use crate::support::client::Client;
use crate::support::program::Server;
use crate::support::setting::{say, setting};

/// Events that all followers receive.
const EVENTS: u64 = 5;
/// Connections opened at the same time: fewer than a listener's queue accepts.
const OPENED_AT_ONCE: u64 = 50;

/// Reads a connection up to these words.
async fn read_to(stream: &mut TcpStream, read: &mut Vec<u8>, words: &[u8]) {
    while !read.windows(words.len()).any(|window| window == words) {
        assert_ne!(stream.read_buf(read).await.unwrap(), 0, "the stream ended");
    }
}

/// A follower of the channel `demo` at its live end.
async fn follow(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /api/v1/channels/demo/events HTTP/1.1\r\nHost: t\r\nX-API-Key: {ADMIN_KEY}\r\n\
         Accept: text/event-stream\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    read_to(&mut stream, &mut read, b"\r\n\r\n").await;
    assert!(read.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&read));
    stream
}

/// The memory of a process, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[tokio::test]
async fn each_of_many_followers_receives_every_event_at_little_cost() {
    let count = setting("TERTULIA_FOLLOWERS", 200);
    let dir = tempfile::tempdir().unwrap();
    // One workspace may have three eighths of the connections for its streams.
    let connections = (3 * count).max(10_000).to_string();
    let env = [("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY), ("TERTULIA_MAX_CONNECTIONS", &*connections)];
    let server = Server::start_on_store(&dir.path().join("data"), &env);
    let mut client = Client::connect(&server.address).unwrap();
    let mut post = |n: u64| {
        let body = json!({"channelId": "demo", "text": format!("number {n}")}).to_string();
        assert_eq!(client.send("POST", "/api/v1/messages", None, &body).unwrap().status, 201);
    };
    post(0);
    let before = resident(server.pid());
    let mut followers = Vec::new();
    for _ in 0..count.div_ceil(OPENED_AT_ONCE) {
        followers.extend(join_all((0..OPENED_AT_ONCE).map(|_| follow(&server.address))).await);
    }
    let count = followers.len();
    let with_followers = resident(server.pid());
    let (told, mut heard) = mpsc::channel(count);
    for mut stream in followers {
        let told = told.clone();
        tokio::spawn(async move {
            let mut read = Vec::new();
            for n in 1..=EVENTS {
                read_to(&mut stream, &mut read, format!("number {n}\"").as_bytes()).await;
                told.send(Instant::now()).await.unwrap();
            }
            // Each event once, in order.
            let text = String::from_utf8(read).unwrap();
            let ids: Vec<u64> = text.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
            assert!(ids.len() as u64 == EVENTS && ids.is_sorted_by(|one, next| one + 1 == *next), "{ids:?}");
            stream
        });
    }
    let mut late = Vec::new();
    for n in 1..=EVENTS {
        let begun = Instant::now();
        post(n);
        for _ in 0..count {
            late.push(heard.recv().await.expect("every follower hears it") - begun);
        }
    }
    late.sort_unstable();
    let at = |share: usize| late[(late.len() - 1) * share / 100];
    say(&format!(
        "{count} followers: {} KiB each, {} MiB in all; an event arrived after {:?} (half), {:?} (99 of 100), {:?} (all)",
        with_followers.saturating_sub(before) / 1024 / count as u64,
        with_followers >> 20,
        at(50),
        at(99),
        at(100),
    ));
    assert!(with_followers.saturating_sub(before) / (count as u64) < 64 * 1024, "a follower costs little");
    assert!(at(100) < Duration::from_secs(30), "nobody waits for another one");
    drop(client);
    // When the server stops, followers are told to reconnect, and delay the stop no longer than that.
    assert_eq!(tokio::task::spawn_blocking(move || server.terminate()).await.unwrap(), Some(0));
}
