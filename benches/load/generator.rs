//! The closed loop: every client has one connection and sends its next request when it has its answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::request::{self, Appends};
use crate::server::Server;
use crate::{Error, proc_stat, response};

/// Clients that open conversations; a batch on the disk takes many at once.
const OPENERS: u32 = 64;

/// How hard and how long.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) clients: u32,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

/// What one case showed. Only answers that came within the measured time count.
pub(crate) struct Measured {
    /// How long was really measured.
    pub(crate) elapsed: Duration,
    /// From the first byte written to the last one read, in microseconds, ascending; one for each 2xx answer.
    pub(crate) latencies: Vec<u32>,
    /// Everything that was no 2xx answer, by what it was.
    pub(crate) errors: BTreeMap<String, u64>,
    /// CPU time of the server.
    pub(crate) server: Duration,
    /// CPU time of this process.
    pub(crate) generator: Duration,
    /// CPU time of everything on the machine.
    pub(crate) machine: Duration,
}

pub(crate) const WARMING: u8 = 0;
pub(crate) const MEASURING: u8 = 1;
pub(crate) const STOPPED: u8 = 2;

#[derive(Default)]
struct Tally {
    latencies: Vec<u32>,
    errors: BTreeMap<String, u64>,
}

impl Tally {
    fn failed(&mut self, what: String) {
        *self.errors.entry(what).or_default() += 1;
    }
}

/// One case.
pub(crate) async fn drive(server: &Server, appends: &Arc<Appends>, load: Load) -> Result<Measured, Error> {
    let phase = Arc::new(AtomicU8::new(WARMING));
    let mut clients = JoinSet::new();
    for _ in 0..load.clients {
        clients.spawn(client(server.address, Arc::clone(appends), Arc::clone(&phase)));
    }
    sleep(load.warm_up).await;
    let before = Times::now(server)?;
    phase.store(MEASURING, Ordering::Relaxed);
    sleep(load.measured).await;
    phase.store(STOPPED, Ordering::Relaxed);
    let after = Times::now(server)?;
    let mut all = Tally::default();
    while let Some(tally) = clients.join_next().await {
        let tally = tally?;
        all.latencies.extend(tally.latencies);
        for (what, times) in tally.errors {
            *all.errors.entry(what).or_default() += times;
        }
    }
    all.latencies.sort_unstable();
    Ok(Measured {
        elapsed: after.at - before.at,
        latencies: all.latencies,
        errors: all.errors,
        server: after.server.saturating_sub(before.server),
        generator: after.generator.saturating_sub(before.generator),
        machine: after.machine.saturating_sub(before.machine),
    })
}

/// The clocks at one moment.
struct Times {
    at: Instant,
    server: Duration,
    generator: Duration,
    machine: Duration,
}

impl Times {
    fn now(server: &Server) -> Result<Self, Error> {
        Ok(Self {
            server: proc_stat::process(server.pid())?,
            generator: proc_stat::process(std::process::id())?,
            machine: proc_stat::machine()?,
            at: Instant::now(),
        })
    }
}

/// Sends and reads until the run is over; a connection that breaks is replaced.
async fn client(address: SocketAddr, appends: Arc<Appends>, phase: Arc<AtomicU8>) -> Tally {
    let mut tally = Tally::default();
    let mut request = Vec::with_capacity(1024);
    let mut answer = Vec::with_capacity(4096);
    let mut kept = None;
    while phase.load(Ordering::Relaxed) != STOPPED {
        appends.next_into(&mut request);
        let started = Instant::now();
        let outcome = exchange(address, &mut kept, &request, &mut answer).await;
        let measuring = phase.load(Ordering::Relaxed) == MEASURING;
        match outcome {
            Ok(200..=299) if measuring => tally.latencies.push(micros(started.elapsed())),
            Ok(status) if measuring => tally.failed(format!("status {status}")),
            Err(error) => {
                kept = None;
                if measuring {
                    tally.failed(error.to_string());
                }
                // A server that is gone refuses at once; without a pause this loop would take the whole core.
                sleep(Duration::from_millis(1)).await;
            }
            Ok(_) => {}
        }
    }
    tally
}

/// One request and its answer's status, on the kept connection or on a new one.
async fn exchange(
    address: SocketAddr,
    kept: &mut Option<TcpStream>,
    request: &[u8],
    answer: &mut Vec<u8>,
) -> std::io::Result<u16> {
    let stream = match kept {
        Some(stream) => stream,
        None => kept.insert(connect(address).await?),
    };
    stream.write_all(request).await?;
    Ok(response::read(stream, answer).await?.status)
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(crate) fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

/// Opens `count` conversations and returns their ids.
pub(crate) async fn open_conversations(address: SocketAddr, key: &str, count: u32) -> Result<Vec<String>, Error> {
    let next = Arc::new(AtomicU32::new(0));
    let mut openers = JoinSet::new();
    for _ in 0..OPENERS.min(count) {
        openers.spawn(open_some(address, key.to_owned(), Arc::clone(&next), count));
    }
    let mut ids = Vec::new();
    while let Some(opened) = openers.join_next().await {
        ids.extend(opened??);
    }
    Ok(ids)
}

async fn open_some(address: SocketAddr, key: String, next: Arc<AtomicU32>, count: u32) -> Result<Vec<String>, Error> {
    let mut stream = connect(address).await?;
    let mut answer = Vec::new();
    let mut ids = Vec::new();
    loop {
        let nth = next.fetch_add(1, Ordering::Relaxed);
        if nth >= count {
            return Ok(ids);
        }
        stream.write_all(&request::opening(address, &key, nth)).await?;
        let response = response::read(&mut stream, &mut answer).await?;
        let body = &answer[response.body];
        let id = serde_json::from_slice::<serde_json::Value>(body).ok();
        let id = id.as_ref().and_then(|body| body[0]["conversation_id"].as_str());
        let Some(id) = id.filter(|_| matches!(response.status, 200..=299)) else {
            let body = String::from_utf8_lossy(body);
            return Err(format!("a conversation was not opened: status {}: {body}", response.status).into());
        };
        ids.push(id.to_owned());
    }
}
