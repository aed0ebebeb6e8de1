//! A web server for tests, which gives exactly the answers that a test defines, byte for byte.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Answers until its runtime ends.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    ended: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Heard>>>,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// Method, path and version.
    pub(crate) line: String,
    /// Everything up to the empty line, in lower case.
    pub(crate) head: String,
    /// The same, as it was sent.
    pub(crate) sent: String,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    pub(crate) fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }

    /// A header's value as it was sent; empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        let named = |line: &'_ str| line.split_once(": ").is_some_and(|(known, _)| known.eq_ignore_ascii_case(name));
        self.sent.lines().find(|line| named(line)).map_or("", |line| &line[name.len() + 2..])
    }
}

/// A part of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    Bytes(Vec<u8>),
    /// So many zeros, in the chunks of a chunked body.
    Zeros(u64),
    /// A byte every second, until the client disconnects.
    Drip,
    /// Nothing more, on an open connection.
    Silence,
    /// Nothing until the test releases it.
    Held(Arc<Notify>),
    /// The end of the connection.
    Close,
    /// The same, discarding all data in flight.
    Reset,
}

/// A complete answer of status 200.
pub(crate) fn ok(content_type: &str, body: &[u8]) -> Vec<Part> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n", body.len());
    vec![Part::Bytes([head.as_bytes(), body].concat())]
}

/// A complete answer without a body, with these headers.
pub(crate) fn bare(status: u16, headers: &str) -> Vec<Part> {
    vec![Part::Bytes(format!("HTTP/1.1 {status} X\r\n{headers}Content-Length: 0\r\n\r\n").into_bytes())]
}

impl Origin {
    /// Listens on 127.0.0.1, at any port.
    pub(crate) async fn serve(answer: impl Fn(&Heard) -> Vec<Part> + Send + Sync + 'static) -> Self {
        Self::serve_at(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0), answer).await
    }

    /// Listens at `address`.
    pub(crate) async fn serve_at(
        address: SocketAddr,
        answer: impl Fn(&Heard) -> Vec<Part> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let origin = Self::at(address);
        let connections = Arc::clone(&origin.connections);
        let ended = Arc::clone(&origin.ended);
        let requests = Arc::clone(&origin.requests);
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let answer = Arc::clone(&answer);
                let requests = Arc::clone(&requests);
                let ended = Arc::clone(&ended);
                tokio::spawn(async move {
                    let mut stream = BufReader::new(stream);
                    while let Some(heard) = hear(&mut stream).await {
                        let parts = answer(&heard);
                        requests.lock().unwrap().push(heard);
                        if !say(&mut stream, parts).await {
                            break;
                        }
                    }
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        origin
    }

    /// No request should arrive here: each is counted and gets an answer that cannot be overlooked.
    pub(crate) async fn canary(ip: IpAddr) -> Self {
        Self::serve_at(SocketAddr::new(ip, 0), |_| ok("text/plain", b"the inside")).await
    }

    /// Sends this to each client, without waiting for a request.
    pub(crate) async fn greeting(words: &'static [u8]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let origin = Self::at(listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // A client may have disconnected before the end.
                drop(stream.write_all(words).await);
            }
        });
        origin
    }

    fn at(address: SocketAddr) -> Self {
        Self { address, connections: Arc::default(), ended: Arc::default(), requests: Arc::default() }
    }

    /// A URL of this server.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The number of connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// The number of open connections.
    pub(crate) fn open_connections(&self) -> usize {
        self.connections() - self.ended.load(Ordering::SeqCst)
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Heard> {
        self.requests.lock().unwrap().clone()
    }
}

async fn hear(stream: &mut BufReader<TcpStream>) -> Option<Heard> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head).unwrap();
    let line = text.lines().next().unwrap().to_owned();
    let head = text.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Heard { line, head, sent: text, body })
}

/// Sends the parts; returns whether the connection stays open.
async fn say(stream: &mut BufReader<TcpStream>, parts: Vec<Part>) -> bool {
    for part in parts {
        let said = match part {
            Part::Bytes(bytes) => stream.write_all(&bytes).await,
            Part::Zeros(count) => zeros(stream, count).await,
            Part::Drip => drip(stream).await,
            Part::Silence => {
                // Waits until the client disconnects.
                while stream.read_u8().await.is_ok() {}
                return false;
            }
            Part::Held(until) => {
                until.notified().await;
                Ok(())
            }
            Part::Close => return false,
            Part::Reset => {
                stream.get_ref().set_zero_linger().unwrap();
                return false;
            }
        };
        if said.is_err() {
            return false;
        }
    }
    true
}

async fn drip(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    let mut beat = tokio::time::interval(std::time::Duration::from_secs(1));
    loop {
        beat.tick().await;
        stream.write_all(b"x").await?;
        stream.flush().await?;
    }
}

async fn zeros(stream: &mut BufReader<TcpStream>, mut count: u64) -> std::io::Result<()> {
    const CHUNK: [u8; 16_384] = [0; 16_384];
    while count > 0 {
        let length = usize::try_from(count).unwrap_or(usize::MAX).min(CHUNK.len());
        stream.write_all(format!("{length:x}\r\n").as_bytes()).await?;
        stream.write_all(&CHUNK[..length]).await?;
        stream.write_all(b"\r\n").await?;
        count -= length as u64;
    }
    stream.write_all(b"0\r\n\r\n").await
}
