//! The fan-out run: many followers of one conversation's events, and how long an event takes to reach all of them,
//! beside a server that forwards events and keeps nothing (L6).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::append::{KEY, conversations};
use crate::connection::{Connection, connect};
use crate::measured::{Latencies, Measured, Tally, Times, note};
use crate::server::Server;
use crate::target::{Programs, Target};
use crate::{Error, proc_stat, report, say};

/// How long an event may take to all followers.
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(30);
/// The beginning of an event's `id:` line.
const ID: &[u8] = b"id:";

const FOLLOWERS: [u32; 2] = [100, 1_000];
const MESSAGES: u32 = 50;
const MESSAGE_PAUSE_MILLIS: u64 = 100;
const TARGETS: [Target; 2] = [Target::L0, Target::Tertulia];

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Followers, one case each; the server takes 10,000 connections unless configured otherwise, and the system about
    /// 28,000 from one address to one port
    #[arg(long, value_delimiter = ',', default_values_t = FOLLOWERS)]
    pub(crate) followers: Vec<u32>,
    /// Messages in each case, one after the other
    #[arg(long, default_value_t = MESSAGES, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) messages: u32,
    /// Milliseconds between two messages
    #[arg(long, default_value_t = MESSAGE_PAUSE_MILLIS)]
    pub(crate) pause: u64,
    /// Servers to follow; L0 is L6 here
    #[arg(long, value_delimiter = ',', default_values_t = TARGETS)]
    pub(crate) targets: Vec<Target>,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
}

impl Options {
    /// The defaults, with this server.
    pub(crate) fn usual(server: Option<PathBuf>) -> Self {
        Self {
            followers: FOLLOWERS.to_vec(),
            messages: MESSAGES,
            pause: MESSAGE_PAUSE_MILLIS,
            targets: TARGETS.to_vec(),
            server,
        }
    }
}

/// One measured case.
pub(crate) struct Case {
    pub(crate) target: Target,
    pub(crate) followers: u32,
    /// Latencies of every event at every follower.
    pub(crate) measured: Measured,
    /// Latencies of every event at the last of its followers.
    last: Latencies,
    /// Events that should have arrived.
    expected: u64,
    /// The server's memory for each follower, in bytes.
    each: u64,
}

impl Case {
    /// The latency that this share of the events did not exceed at the last of their followers, in milliseconds; NaN
    /// where it says nothing about the server.
    pub(crate) fn last(&self, share: f64) -> f64 {
        let is_whole = self.measured.tells() && self.measured.tally.latencies.len() == self.expected;
        if is_whole { self.last.value_at_quantile(share) as f64 / 1e3 } else { f64::NAN }
    }

    fn line(&self) -> String {
        let Self { measured, last, followers, expected, .. } = self;
        let head = format!("| {} | {followers} |", if self.target == Target::L0 { "l6" } else { self.target.name() });
        if let Some(refused) = report::refused(measured, 10) {
            return head + &refused;
        }
        let last = |share| last.value_at_quantile(share) as f64 / 1e3;
        format!(
            "{head} {} | {expected} | {:.2} | {:.2} | {:.2} | {:.2} | {} | {:.1} | {:.2} | {:.2} |{}",
            measured.tally.latencies.len(),
            measured.quantile(0.5),
            measured.quantile(0.99),
            last(0.5),
            last(0.99),
            self.each / 1024,
            measured.server_micros(),
            measured.generator_share(),
            measured.others_share(),
            measured.remarks(),
        )
    }
}

/// Runs every case and prints what was measured.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    measure(options).map(drop)
}

/// The same, and returns the cases.
pub(crate) fn measure(options: &Options) -> Result<Vec<Case>, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut programs = Programs::new(options.server.clone(), None);
    say(&format!("\n{} messages a case, one every {} ms, {}\n", options.messages, options.pause, report::machine()))?;
    say(
        "| target | followers | events received | of expected | p50 ms | p99 ms | last follower p50 ms | p99 ms | KiB a follower | server CPU µs an event | generator cores | other cores |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    )?;
    let mut cases = Vec::new();
    for target in &options.targets {
        let mut server = programs.start(*target)?;
        for followers in &options.followers {
            let case = runtime.block_on(case(options, *target, &server, *followers))?;
            server.alive()?;
            say(&case.line())?;
            cases.push(case);
        }
    }
    Ok(cases)
}

/// The times at which followers receive events.
type Heard = mpsc::Sender<Instant>;

async fn case(options: &Options, target: Target, server: &Server, followers: u32) -> Result<Case, Error> {
    let ids = conversations(target, server, 1).await?;
    let id = ids.first().ok_or("no conversation was opened")?;
    let empty = proc_stat::resident(server.pid())?;
    // Room for the most events that can arrive before they are counted.
    let (heard, mut hear) = mpsc::channel(followers as usize + 1);
    let following = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..followers {
        let stream = follow(server.address, id).await?;
        tasks.push(tokio::spawn(listen(stream, heard.clone(), Arc::clone(&following))));
    }
    drop(heard);
    while following.load(Ordering::Relaxed) < u64::from(followers) {
        sleep(Duration::from_millis(10)).await;
    }
    let each = proc_stat::resident(server.pid())?.saturating_sub(empty) / u64::from(followers.max(1));
    let mut all = Tally::new()?;
    let mut last = Latencies::new(3)?;
    let before = Times::now(server)?;
    let mut poster = Connection::new(server.address);
    for _ in 0..options.messages {
        let sent = Instant::now();
        let body = json!({"content": {"content": "Hello, all of you"}, "conversation_id": id});
        poster.ask(KEY, "POST", "/messages", &body).await?;
        for nth in 0..followers {
            let Ok(Some(at)) = timeout(ARRIVAL_TIMEOUT, hear.recv()).await else { break };
            let took = at.saturating_duration_since(sent);
            note(&mut all.latencies, took);
            if nth + 1 == followers {
                note(&mut last, took);
            }
        }
        sleep(Duration::from_millis(options.pause)).await;
    }
    let measured = Measured::between(&before, &Times::now(server)?, all);
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    let expected = u64::from(followers) * u64::from(options.messages);
    Ok(Case { target, followers, measured, last, expected, each })
}

/// Requests a conversation's events from now on.
async fn follow(address: SocketAddr, conversation: &str) -> Result<TcpStream, Error> {
    let mut stream = connect(address).await?;
    let request = format!(
        "GET /api/v1/conversations/{conversation}/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {KEY}\r\n\
         accept: text/event-stream\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    Ok(stream)
}

/// Reports every event until the stream ends.
async fn listen(mut stream: TcpStream, heard: Heard, following: Arc<AtomicU64>) {
    let mut buffer = vec![0; 4096];
    let mut is_following = false;
    // The end of the previous read, because an id line may be cut in two.
    let mut kept: Vec<u8> = Vec::new();
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        let at = Instant::now();
        if !is_following {
            // The head comes before any event: the poster waits for all heads.
            is_following = true;
            following.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        kept.extend_from_slice(&buffer[..read]);
        while let Some(line) = kept.iter().position(|byte| *byte == b'\n') {
            if kept[..line].starts_with(ID) && heard.send(at).await.is_err() {
                return;
            }
            kept.drain(..=line);
        }
    }
}
