//! Receivers that are slow, refuse, lie or are not there: they cost nothing but the spans, and each span is counted once.

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::observed::Observed;
use super::receiver::{Manner, Receiver};
use super::{GRPC, append, conversation, traced_to};
use crate::support::client::Client;
use crate::support::until::seen_here;

const WRITERS: usize = 8;
const MESSAGES: usize = 100;

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
/// answers or the stop take long, or a span is not counted once. Returns the lines that were logged.
fn burdened(endpoint: &str, protocol: &str, receiver: Option<(&Receiver, Manner)>) -> Vec<String> {
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
    let server = Observed::start(&dir.path().join("data"), &env);
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
    let usual = burdened_by(Manner::Takes, Receiver::grpc, "grpc").len();
    let mut all = Vec::new();
    for manner in [Manner::Slow, Manner::Hangs, Manner::Refuses, Manner::Lies] {
        all.push((manner, burdened_by(manner, Receiver::grpc, "grpc")));
        all.push((manner, burdened_by(manner, Receiver::http, "http/protobuf")));
    }
    for (manner, lines) in all {
        assert!(lines.len() <= usual + 8, "{manner:?}: {usual} lines with a good one, and {lines:#?}");
        let rejections = lines.iter().filter(|line| line.contains("\"the receiver rejects spans"));
        assert_eq!(rejections.count(), usize::from(manner == Manner::Lies), "{manner:?}: {lines:#?}");
    }
    // An address without a listener: the receiver was just dropped.
    let dead = Receiver::grpc(Manner::Takes).endpoint;
    assert!(burdened(&dead, "grpc", None).len() <= usual + 8);
}

fn burdened_by(manner: Manner, start: fn(Manner) -> Receiver, protocol: &str) -> Vec<String> {
    let receiver = start(manner);
    burdened(&receiver.endpoint, protocol, Some((&receiver, manner)))
}

/// A way to `receiver` whose first connection leads nowhere, and is not closed: as if the receiver's machine had
/// vanished. Returns its address.
fn way_that_loses_its_first_connection(receiver: &Receiver) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let to = receiver.endpoint.trim_start_matches("http://").to_owned();
    thread::spawn(move || {
        let _lost = listener.accept().unwrap();
        while let Ok((near, _)) = listener.accept() {
            let far = TcpStream::connect(&to).unwrap();
            for (mut from, mut to) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                thread::spawn(move || io::copy(&mut from, &mut to));
            }
        }
    });
    format!("http://{address}")
}

#[test]
fn spans_reach_a_receiver_whose_first_connection_was_lost_without_a_sign() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::grpc(Manner::Takes);
    let endpoint = way_that_loses_its_first_connection(&receiver);
    let env = [GRPC, ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"), ("OTEL_METRICS_EXPORTER", "none")];
    let server = traced_to(&dir.path().join("data"), &endpoint, &env);
    conversation(&mut Client::connect(&server.address).unwrap());
    seen_here(|| (!receiver.spans().is_empty()).then_some(()));
}
