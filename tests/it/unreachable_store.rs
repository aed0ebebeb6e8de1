//! The program on a CQL server that is not yet reachable, becomes unreachable, and returns.
#![cfg(unix)]

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::ADMIN_KEY;

/// An address without a listener, on the same host as the server that it will lead to.
fn free() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A proxy to the CQL server that can be cut.
struct Way {
    address: String,
    is_open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    accepting: thread::JoinHandle<()>,
}

impl Way {
    fn open(address: &str, to: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let is_open = Arc::new(AtomicBool::new(true));
        let streams = Arc::new(Mutex::new(Vec::new()));
        let open = Arc::clone(&is_open);
        let all = Arc::clone(&streams);
        let to = to.to_owned();
        let accepting = thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                if !open.load(Ordering::SeqCst) {
                    return;
                }
                let far = TcpStream::connect(&to).unwrap();
                for (mut from, mut to) in [
                    (near.try_clone().unwrap(), far.try_clone().unwrap()),
                    (far.try_clone().unwrap(), near.try_clone().unwrap()),
                ] {
                    thread::spawn(move || {
                        // The copy ends when either side does.
                        _ = io::copy(&mut from, &mut to);
                        _ = to.shutdown(Shutdown::Both);
                    });
                }
                all.lock().unwrap().extend([near, far]);
            }
        });
        Self { address: address.to_owned(), is_open, streams, accepting }
    }

    /// As if the server had died: connections break, and new ones are refused.
    fn cut(self) {
        self.is_open.store(false, Ordering::SeqCst);
        drop(TcpStream::connect(&self.address));
        self.accepting.join().unwrap();
        for stream in self.streams.lock().unwrap().drain(..) {
            // A stream that has already ended is fine.
            _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A running program; dropping this kills it.
struct Running {
    child: Child,
    address: String,
    /// The directory of attachments.
    _dir: TempDir,
}

impl Running {
    fn start(nodes: &str, keyspace: &str) -> Self {
        let address = free();
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tertulia"));
        command.env_clear().arg("--data-dir").arg(dir.path().join("data"));
        command.args(["--listen", &address, "--metrics-listen", "127.0.0.1:0"]);
        command.args(["--store", "cql", "--migrate", "--cql-nodes", nodes, "serve"]);
        command.env("TERTULIA_CQL_KEYSPACE", keyspace).env("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, address, _dir: dir }
    }

    /// Sends a request on a new connection; returns the status, whether there is a time for a retry, and the body.
    fn ask(&self, method: &str, path: &str, body: &str) -> io::Result<(u16, bool, Value)> {
        let mut stream = TcpStream::connect(&self.address)?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nX-API-Key: {ADMIN_KEY}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nIdempotency-Key: {}\r\nConnection: close\r\n\r\n",
            body.len(),
            blake3::hash(body.as_bytes()).to_hex()
        );
        stream.write_all(format!("{head}{body}").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
        let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
        let retry = head.to_ascii_lowercase().contains("\r\nretry-after: ");
        Ok((status, retry, serde_json::from_str(body).unwrap_or(Value::Null)))
    }

    /// Repeats the request until the answer has this status.
    fn until(&self, status: u16, method: &str, path: &str, body: &str) -> (bool, Value) {
        let late = Instant::now() + Duration::from_secs(90);
        loop {
            match self.ask(method, path, body) {
                Ok((found, retry, json)) if found == status => return (retry, json),
                other => assert!(Instant::now() < late, "{path}: {other:?}"),
            }
            thread::yield_now();
        }
    }

    /// Waits for the line that reports readiness.
    fn is_ready(&mut self) {
        let lines = BufReader::new(self.child.stdout.take().unwrap()).lines();
        let said = lines.map_while(Result::ok).any(|line| line.starts_with("tertulia is ready on"));
        assert!(said, "it ended before it was ready");
    }

    fn terminate(mut self) -> Option<i32> {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail if the process has already ended, which is fine.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn waits(server: &Running) {
    server.until(200, "GET", "/healthz", "");
    for (method, path) in [("GET", "/readyz"), ("POST", "/api/v1/messages"), ("GET", "/nothing")] {
        let (retry, problem) = server.until(503, method, path, "{}");
        assert_eq!((retry, &problem["code"]), (true, &json!("store_unavailable")), "{path}");
    }
}

#[test]
fn a_server_without_its_store_lives_is_not_ready_and_stops_when_asked() {
    let server = Running::start(&free(), "never");
    waits(&server);
    assert_eq!(server.terminate(), Some(0));
    // A server that accepts connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Running::start(&silent.local_addr().unwrap().to_string(), "never");
    waits(&server);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn a_server_waits_for_its_store_outlives_its_loss_and_goes_on() {
    let Some(cql) = bed::server() else { return };
    let address = free();
    let mut server = Running::start(&address, "reach");
    waits(&server);
    let way = Way::open(&address, &cql.nodes()[0]);
    server.is_ready();
    server.until(200, "GET", "/readyz", "");
    let body = r#"{"channelId":"demo","text":"first"}"#;
    let (_, first) = server.until(201, "POST", "/api/v1/messages", body);

    way.cut();
    let other = r#"{"channelId":"demo","text":"meanwhile"}"#;
    let (status, retry, problem) = server.ask("POST", "/api/v1/channels/demo/messages", other).unwrap();
    assert_eq!((status, retry), (503, true), "{problem}");
    let (_, problem) = server.until(503, "GET", "/readyz", "");
    assert_eq!(problem["code"], "store_unavailable");

    let way = Way::open(&address, &cql.nodes()[0]);
    server.until(200, "GET", "/readyz", "");
    let (_, again) = server.until(201, "POST", "/api/v1/messages", body);
    assert_eq!(again["id"], first["id"], "a retry of what was acknowledged finds it");
    let (_, list) = server.until(200, "GET", "/api/v1/messages?channelId=demo&order=desc&limit=10", "");
    let texts: Vec<&str> = list["data"].as_array().unwrap().iter().filter_map(|m| m["text"].as_str()).collect();
    assert_eq!(texts.iter().filter(|text| **text == "first").count(), 1, "{texts:?}");
    assert_eq!(server.terminate(), Some(0));
    way.cut();
}
