//! Deadlines are announced, never early and never lost, whatever dies and however long nothing runs.
//!
//! `TERTULIA_TIMERS` chooses how many. The program is killed while deadlines come due, and it is down while others do.
#![cfg(unix)]

use std::collections::HashMap;
use std::thread;

use serde_json::json;

use crate::client::Client;
use crate::crash::{Random, all, now, say, setting};
use crate::smoke::{Server, program};
use crate::support::ADMIN_KEY;

const CHANNELS: u64 = 200;
/// How long after it is ready a server has announced what was overdue, in milliseconds.
const OVERDUE_WITHIN: u64 = 1_000;

/// Deadlines by review, and where they stand.
#[derive(Default)]
struct Timers(HashMap<String, u64>);

impl Timers {
    /// Sets `count` deadlines between `from` and `to` milliseconds from when the last of them is set.
    fn set(&mut self, server: &Server, count: u64, (from, to): (u64, u64), random: &mut Random) {
        let started = now();
        let requests: Vec<_> =
            (0..count).map(|n| (n % CHANNELS, started + count + from + random.below(to - from))).collect();
        let made = thread::scope(|scope| {
            let writers: Vec<_> = requests
                .chunks(requests.len().div_ceil(8))
                .map(|requests| {
                    scope.spawn(move || {
                        let mut client = Client::connect(&server.address).unwrap();
                        requests.iter().map(|(channel, at)| set(&mut client, *channel, *at)).collect::<Vec<_>>()
                    })
                })
                .collect();
            writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect::<Vec<_>>()
        });
        self.0.extend(made);
    }

    fn last(&self) -> u64 {
        self.0.values().copied().max().unwrap_or_default()
    }
}

/// Sets a deadline; a later one where this one has passed already on a slow machine.
fn set(client: &mut Client, channel: u64, mut at: u64) -> (String, u64) {
    loop {
        let shown = tertulia::wire::time::format(actors::clock::Millis(at));
        let review = json!({"type": "free", "expiresAt": shown.as_str()});
        let body = json!({"channelId": format!("t{channel}"), "review": review}).to_string();
        let made = client.send("POST", "/api/v1/messages", None, &body).unwrap();
        if made.status == 400 && made.json()["code"] == "expiry_in_past" {
            at = now() + 1_000;
            continue;
        }
        assert_eq!(made.status, 201, "{}", made.json());
        return (made.json()["id"].as_str().unwrap().to_owned(), at);
    }
}

/// When each deadline was announced, once all have been.
fn announced(server: &Server, timers: &Timers) -> HashMap<String, u64> {
    let mut client = Client::connect(&server.address).unwrap();
    let mut announced = HashMap::new();
    // The first review that is still pending is waited for, so nothing here waits for a time.
    while announced.len() < timers.0.len() {
        announced.clear();
        for channel in 0..CHANNELS {
            for event in all(&mut client, &format!("/api/v1/channels/t{channel}/events")) {
                if event["type"] == "review.expired" {
                    let at = tertulia::wire::time::parse(event["timestamp"].as_str().unwrap()).unwrap() as u64;
                    let review = event["data"]["messageId"].as_str().unwrap().to_owned();
                    assert_eq!(announced.insert(review.clone(), at), None, "{review} was announced twice");
                }
            }
        }
        if let Some(review) = timers.0.keys().find(|review| !announced.contains_key(*review)) {
            assert!(now() < timers.last() + 60_000, "{review} was lost");
            let waited = client.send("GET", &format!("/api/v1/reviews/{review}/wait?timeout=5"), None, "").unwrap();
            assert_eq!(waited.status, 200);
        }
    }
    announced
}

/// Lets the time come, without a server.
fn pass(until: u64) {
    while now() < until {
        thread::yield_now();
    }
}

fn percentiles(name: &str, mut late: Vec<u64>) -> u64 {
    late.sort_unstable();
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    say(&format!(
        "{name}: {} deadlines, late by p50 {} ms, p90 {} ms, p99 {} ms, at most {} ms",
        late.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    ));
    at(1.0)
}

#[test]
fn i5_no_deadline_is_early_or_lost_across_kills_and_a_stopped_process() {
    let count = setting("TERTULIA_TIMERS", 10_000);
    let mut random = Random(setting("TERTULIA_TIMERS_SEED", 1));
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let start = || Server::start(&data, &[("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY)]);
    let mut server = start();
    let mut client = Client::connect(&server.address).unwrap();
    for n in 0..CHANNELS {
        let body = json!({"id": format!("t{n}"), "name": "t", "kind": "human"}).to_string();
        assert_eq!(client.send("POST", "/api/v1/channels", None, &body).unwrap().status, 201);
    }
    let (mut on_time, mut down, mut timers) = (Vec::new(), Vec::new(), Timers::default());
    // While it runs.
    timers.set(&server, count * 2 / 5, (0, 4_000), &mut random);
    let mut seen = announced(&server, &timers);
    on_time.extend(timers.0.iter().map(|(review, at)| (seen[review], *at)));
    // While it is killed, again and again.
    timers.set(&server, count * 2 / 5, (0, 6_000), &mut random);
    let mut ready = Vec::new();
    for _ in 0..4 {
        let next = now() + 500 + random.below(1_000);
        pass(next);
        let stopped = now();
        drop(server);
        server = start();
        ready.push((stopped, now()));
    }
    // While it is down for a while, and then everything is overdue at once.
    timers.set(&server, count / 5, (0, 1_000), &mut random);
    let stopped = now();
    assert_eq!(server.terminate(), Some(0));
    pass(timers.last() + 1);
    let server = start();
    ready.push((stopped, now()));
    let before: Vec<_> = seen.keys().cloned().collect();
    seen = announced(&server, &timers);
    for (review, at) in timers.0.iter().filter(|(review, _)| !before.contains(review)) {
        // What came due while nothing ran is late from when the server was ready again.
        match ready.iter().find(|(stopped, ready)| (*stopped..=*ready).contains(at)) {
            Some((_, ready)) => down.push((seen[review], *ready)),
            None => on_time.push((seen[review], *at)),
        }
        assert!(seen[review] >= *at, "{review} was announced {} ms early", at - seen[review]);
    }
    let early = on_time.iter().filter(|(seen, at)| seen < at).count();
    let late = |all: &[(u64, u64)]| all.iter().map(|(seen, at)| seen.saturating_sub(*at)).collect::<Vec<_>>();
    percentiles("while it ran", late(&on_time));
    let overdue = percentiles("overdue, from when it was ready", late(&down));
    assert_eq!((early, on_time.len() + down.len()), (0, timers.0.len()));
    assert!(overdue <= OVERDUE_WITHIN, "overdue deadlines were announced {overdue} ms after the server was ready");
    assert_eq!(server.terminate(), Some(0));
    assert!(program(&data).arg("verify").output().unwrap().status.success());
}
