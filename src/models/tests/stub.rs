//! An endpoint that plays a script: one act a connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What the endpoint does with a request.
pub(super) enum Act {
    /// It sends these bytes and closes.
    Say(String),
    /// It sends these bytes and then nothing more until the other side closes.
    Hold(String),
    /// It sends these one after the other, each on its way before the next, and closes.
    Pieces(Vec<Vec<u8>>),
    /// The same, and then resets the connection.
    Reset(Vec<Vec<u8>>),
    /// It sends the first once and the second again and again until the other side closes.
    Drip(String, String),
}

/// What the endpoint has seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// A request, whole, and the answer as far as the script goes.
    Request,
    /// The other side closed a connection that was held.
    Closed,
}

pub(super) struct Stub {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    pub(super) seen: mpsc::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Stub {
    pub(super) async fn start(script: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (saw, seen) = mpsc::channel(64);
        let heard = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            for act in script {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = request(&mut stream).await;
                heard.lock().unwrap().push(request);
                // A client that has had enough may close in the middle of a large answer.
                let held = play(&mut stream, act).await.unwrap_or(false);
                let _ = saw.send(Seen::Request).await;
                if held {
                    // Both a proper end and a reset are an end.
                    let _ = stream.read(&mut [0; 1]).await;
                    let _ = saw.send(Seen::Closed).await;
                }
            }
        });
        Self { address, requests, seen, task }
    }

    pub(super) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The requests so far, heads and bodies.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// Plays an act; `true`: the connection is to be held.
async fn play(stream: &mut TcpStream, act: Act) -> std::io::Result<bool> {
    stream.set_nodelay(true)?;
    match act {
        Act::Say(bytes) => stream.write_all(bytes.as_bytes()).await?,
        Act::Hold(bytes) => {
            stream.write_all(bytes.as_bytes()).await?;
            return Ok(true);
        }
        Act::Pieces(pieces) => send(stream, pieces).await?,
        Act::Reset(pieces) => {
            send(stream, pieces).await?;
            stream.set_zero_linger()?;
        }
        Act::Drip(first, again) => {
            stream.write_all(first.as_bytes()).await?;
            loop {
                stream.write_all(again.as_bytes()).await?;
                tokio::task::yield_now().await;
            }
        }
    }
    Ok(false)
}

async fn send(stream: &mut TcpStream, pieces: Vec<Vec<u8>>) -> std::io::Result<()> {
    for piece in pieces {
        stream.write_all(&piece).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// One request, up to the end of its body.
async fn request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse::<usize>().unwrap() {
                return text;
            }
        }
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes).await.unwrap();
        assert_ne!(read, 0, "the request broke off");
        text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
    }
}

/// An answer with these header lines and this body.
pub(super) fn answer(status: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

pub(super) fn json_answer(body: &serde_json::Value) -> String {
    answer("200 OK", &["content-type: application/json; charset=utf-8"], &body.to_string())
}
