//! Receivers that are slow, refuse, lie or are not there: they cost nothing but the spans, and each span is counted once.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::receiver::{Manner, Receiver};
use super::{append, conversation};
use crate::support::ADMIN_KEY;
use crate::support::client::Client;
use crate::support::program::program;
use crate::support::until::seen_here;

const WRITERS: usize = 8;
const MESSAGES: usize = 100;

/// A server with spans for a receiver, whose log lines and numbers are read.
struct Burdened {
    child: Child,
    address: String,
    metrics: String,
    /// Its log, behind the lines until it was ready.
    log: BufReader<ChildStderr>,
    lines: usize,
}

impl Burdened {
    fn start(data: &std::path::Path, env: &[(&str, &str)]) -> Self {
        let mut command = program(data);
        command.arg("serve").env("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY).envs(env.iter().copied());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut ready = Value::Null;
        let mut lines = 0;
        while ready["message"] != "ready" {
            let mut line = String::new();
            log.read_line(&mut line).unwrap();
            ready = serde_json::from_str(&line).expect("it ended before it was ready");
            lines += 1;
        }
        let [address, metrics] =
            ["address", "metrics_address"].map(|address| ready[address].as_str().unwrap().to_owned());
        Self { child, address, metrics, log, lines }
    }

    /// All samples of `/metrics`, summed up by name; those of dropped spans by reason.
    fn scrape(&self) -> BTreeMap<String, u64> {
        let mut stream = TcpStream::connect(&self.metrics).unwrap();
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        let mut sums = BTreeMap::new();
        stream.read_to_string(&mut page).unwrap();
        for line in page.lines().filter(|line| line.starts_with("tertulia_") || line.starts_with("http_")) {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = if sample.contains("reason=") { sample } else { sample.split('{').next().unwrap() };
            // Sums of seconds are no counts.
            *sums.entry(name.to_owned()).or_default() += value.parse::<u64>().unwrap_or(0);
        }
        sums
    }

    /// Requests a stop. Returns the number of lines that it has logged, and how long the stop took.
    fn stop(mut self) -> (usize, Duration) {
        let begun = Instant::now();
        let kill = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let lines = self.lines + self.log.by_ref().lines().count();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        (lines, begun.elapsed())
    }
}

impl Drop for Burdened {
    fn drop(&mut self) {
        // Both fail if it has ended already, which is fine.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The spans of a server by what has become of them.
#[derive(Debug)]
struct Spans {
    exported: u64,
    refused: u64,
    queue_full: u64,
    /// In the queue, or in a request that the receiver has not answered.
    on_the_way: u64,
}

impl Spans {
    fn of(numbers: &BTreeMap<String, u64>, held: usize) -> Self {
        let dropped = |reason| numbers[&format!("tertulia_spans_dropped_total{{reason=\"{reason}\"}}")];
        Self {
            exported: numbers["tertulia_spans_exported_total"],
            refused: dropped("refused"),
            queue_full: dropped("queue_full"),
            on_the_way: numbers["tertulia_spans_waiting"] + held as u64,
        }
    }

    fn all(&self) -> u64 {
        self.exported + self.refused + self.queue_full + self.on_the_way
    }
}

/// How many spans have ended, by the other numbers: every stage is counted where it is recorded.
fn ended(numbers: &BTreeMap<String, u64>) -> u64 {
    let stages = [
        "http_server_request_duration_seconds_count",
        "tertulia_mailbox_wait_seconds_count",
        "tertulia_activations_total",
        "tertulia_batch_commands_count",
        "tertulia_commit_seconds_count",
        "tertulia_alarm_lateness_seconds_count",
    ];
    stages.map(|stage| numbers.get(stage).copied().unwrap_or(0)).iter().sum()
}

/// Writers send messages, each to its own conversation. Returns how long each was waited for, the shortest time first.
fn written(address: &str) -> Vec<Duration> {
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let address = address.to_owned();
            thread::spawn(move || {
                let mut client = Client::connect(&address).unwrap();
                let id = conversation(&mut client);
                let send = |n| {
                    let begun = Instant::now();
                    assert_eq!(append(&mut client, &id, &format!("{writer}-{n}")).status, 200);
                    begun.elapsed()
                };
                (0..MESSAGES).map(send).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut took: Vec<Duration> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    took.sort_unstable();
    took
}

/// A server answers many requests, each with spans for this receiver; `None`: nobody listens at `endpoint`. Fails if
/// answers or the stop take long, or a span is not counted once. Returns the number of lines that were logged.
fn burdened(endpoint: &str, protocol: &str, receiver: Option<(&Receiver, Manner)>) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
        // So small that the queue overflows.
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        // No receiver is given up: a request that waited for one would wait longer than its client does.
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "3600000"),
    ];
    let server = Burdened::start(&dir.path().join("data"), &env);
    let before = ended(&server.scrape());
    conversation(&mut Client::connect(&server.address).unwrap());
    // The receiver is busy with the first spans when the others come.
    seen_here(|| receiver.is_none_or(|(receiver, _)| receiver.asked() > 0).then_some(()));
    let took = written(&server.address);
    let median = took[took.len() / 2];
    let slowest = took[took.len() - 1];
    assert!(median < Duration::from_millis(500) && slowest < Duration::from_secs(5), "{median:?}, {slowest:?}");

    // Each span is counted once, whatever has become of it. A batch that is sent again is in no count meanwhile.
    let spans = seen_here(|| {
        let numbers = server.scrape();
        let spans = Spans::of(&numbers, receiver.map_or(0, |(receiver, _)| receiver.held()));
        (spans.all() == ended(&numbers) - before).then_some(spans)
    });
    assert!(spans.all() >= 4 * (WRITERS * MESSAGES) as u64, "{spans:?}");
    let as_it_is = match receiver.map(|(_, manner)| manner) {
        Some(Manner::Takes | Manner::Slow) => spans.exported > 0 && spans.refused == 0,
        Some(Manner::Lies) => spans.exported == 0 && spans.refused > 0,
        Some(Manner::Hangs) => spans.exported == 0 && spans.refused == 0 && spans.queue_full > 0,
        Some(Manner::Refuses | Manner::Hesitates) | None => {
            spans.exported == 0 && spans.refused > 0 && spans.queue_full > 0
        }
    };
    assert!(as_it_is, "{spans:?}");
    assert!(receiver.is_none_or(|(receiver, _)| receiver.spans().len() as u64 >= spans.exported), "{spans:?}");
    let (lines, stop) = server.stop();
    assert!(stop < Duration::from_secs(5), "{stop:?}");
    lines
}

#[test]
fn a_bad_receiver_of_spans_costs_nothing_but_the_spans() {
    let usual = burdened_by(Manner::Takes, Receiver::grpc, "grpc");
    let mut all = Vec::new();
    for manner in [Manner::Slow, Manner::Hangs, Manner::Refuses, Manner::Lies] {
        all.push((manner, burdened_by(manner, Receiver::grpc, "grpc")));
        all.push((manner, burdened_by(manner, Receiver::http, "http/protobuf")));
    }
    for (manner, lines) in all {
        assert!(lines <= usual + 8, "{manner:?}: {lines} lines, and {usual} with a good one");
    }
    // An address without a listener: the receiver was just dropped.
    let dead = Receiver::grpc(Manner::Takes).endpoint;
    assert!(burdened(&dead, "grpc", None) <= usual + 8);
}

fn burdened_by(manner: Manner, start: fn(Manner) -> Receiver, protocol: &str) -> usize {
    let receiver = start(manner);
    burdened(&receiver.endpoint, protocol, Some((&receiver, manner)))
}
