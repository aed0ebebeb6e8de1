//! The program streams files in pieces, however many and however large they are.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use serde_json::{Value, json};

use super::{MAX_BYTES, picture};
use crate::support::ADMIN_KEY;
use crate::support::client::Client;
use crate::support::origin::Origin;
use crate::support::program::Server;
use crate::support::setting::say;

/// Files at once, in each direction.
const PARALLEL: usize = 16;
/// Rounds of so many files, in each direction.
const ROUNDS: usize = 3;
/// The most memory that the program may add, in KiB, however many files pass. Held whole, the concurrent files of one
/// direction would be 160 MiB, and all files nine times as much. The rest is pieces in flight, and what the allocator
/// keeps of them for each of its threads.
const MAX_GROWTH_KIB: u64 = 96 * 1024;

/// Runs `work` so many times at once.
fn at_once<T: Send>(work: impl Fn() -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let workers: Vec<_> = (0..PARALLEL).map(|_| scope.spawn(&work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    })
}

/// Uploads the largest file; returns its id.
fn upload(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /api/v1/attachments HTTP/1.1\r\nHost: test\r\nX-API-Key: {ADMIN_KEY}\r\nContent-Type: application/pdf\r\n\
         Content-Length: {MAX_BYTES}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..MAX_BYTES / 65_536 {
        stream.write_all(&[b'x'; 65_536]).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let made: Value = serde_json::from_str(body).unwrap();
    assert_eq!(made["size"], json!(MAX_BYTES), "{answer}");
    made["id"].as_str().unwrap().to_owned()
}

/// Downloads it in pieces; returns the number of bytes.
fn download(address: &str, id: &str) -> u64 {
    let mut stream = TcpStream::connect(address).unwrap();
    let path = format!("/api/v1/attachments/{id}/content");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nX-API-Key: {ADMIN_KEY}\r\nConnection: close\r\n\r\n").unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
}

#[test]
fn memory_stays_flat_while_the_largest_files_come_and_go() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let origin = runtime.block_on(Origin::serve(|_| picture(MAX_BYTES)));
    let dir = tempfile::tempdir().unwrap();
    let env = [("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY), ("TERTULIA_EGRESS_ALLOW", "127.0.0.0/8")];
    let server = Server::start_on_store(&dir.path().join("data"), &env);
    let address = server.address.as_str();
    let fetch = || {
        let mut client = Client::connect(address).unwrap();
        let contact = format!("{:?}", thread::current().id());
        let content = json!({"image": {"url": origin.url("/p.png"), "caption": "x"}});
        let body = json!({"type": "IMAGE", "contactIdentifier": contact, "content": content}).to_string();
        let sent = client.send("POST", "/api/v1/channels/demo-api/messages", None, &body).unwrap();
        assert_eq!(sent.status, 200, "{}", sent.json());
    };
    // One of each first, so that one-time allocations are made.
    fetch();
    assert_eq!(download(address, &upload(address)), MAX_BYTES);
    let before = server.peak_memory();
    let round = || {
        at_once(fetch);
        let ids = at_once(|| upload(address));
        assert!(at_once(|| download(address, &ids[0])).iter().all(|size| *size == MAX_BYTES));
        server.peak_memory()
    };
    let first = round();
    let last = (1..ROUNDS).fold(first, |_, _| round());
    say(&format!(
        "{PARALLEL} files of {MAX_BYTES} bytes at once fetched, uploaded and downloaded: at most {before} KiB before, \
         {first} KiB in the first round, {last} KiB in {ROUNDS}"
    ));
    assert!(last - before < MAX_GROWTH_KIB, "{} KiB for files that pass", last - before);
    assert_eq!(server.terminate(), Some(0));
}
