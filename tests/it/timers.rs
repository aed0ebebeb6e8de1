//! Deadlines are announced, never early and never lost, whichever process dies and however long no server runs.
//!
//! `TERTULIA_TIMERS` sets the number of deadlines, `TERTULIA_TIMERS_DOWN` how many of them come due while no server
//! runs, and `TERTULIA_TIMERS_CHANNELS` the number of channels. The program is killed while deadlines come due, and it
//! is down while others do.
#![cfg(unix)]

use std::collections::{HashMap, HashSet};
use std::thread;

use serde_json::json;

use crate::support::client::{Client, all};
use crate::support::program::{Server, check_sound};
use crate::support::setting::{now, say, setting, setting_by_store};
use crate::support::{ADMIN_KEY, Kind};
use actors::random::Random;

/// How soon after it is ready a server has announced overdue deadlines, in milliseconds. A quiet machine needs less
/// than one second; here other tests run too. `TERTULIA_TIMERS_OVERDUE` sets another bound.
const OVERDUE_WITHIN: u64 = 5_000;
/// The same for a CQL server on the same machine.
const OVERDUE_WITHIN_CQL: u64 = 20_000;

/// A deadline.
#[derive(Clone, Debug)]
struct Timer {
    review: String,
    channel: u64,
    /// Milliseconds since 1970.
    at: u64,
}

/// The number of channels with deadlines.
fn channels() -> u64 {
    setting_by_store("TERTULIA_TIMERS_CHANNELS", 200, 50)
}

/// Sets `count` deadlines, `from` to `to` milliseconds after the time when, at this `pace`, the last of them will have
/// been set. Returns them, and how many milliseconds each took.
fn set_all(server: &Server, count: u64, pace: f64, (from, to): (u64, u64), random: &mut Random) -> (Vec<Timer>, f64) {
    let started = now();
    let through = started + (count as f64 * pace) as u64;
    let requests: Vec<_> = (0..count).map(|n| (n % channels(), through + from + random.below(to - from))).collect();
    let timers = thread::scope(|scope| {
        let writers: Vec<_> = requests
            .chunks(requests.len().div_ceil(8))
            .map(|requests| {
                scope.spawn(move || {
                    let mut client = Client::connect(&server.address).unwrap();
                    requests.iter().map(|(channel, at)| set(&mut client, *channel, *at)).collect::<Vec<_>>()
                })
            })
            .collect();
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    (timers, (now() - started) as f64 / count as f64)
}

/// Sets a deadline, or a later one if this one has already passed on a slow machine.
fn set(client: &mut Client, channel: u64, mut at: u64) -> Timer {
    loop {
        let shown = tertulia::wire::time::format(actors::clock::Millis(at));
        let review = json!({"type": "free", "expiresAt": shown.as_str()});
        let body = json!({"channelId": format!("t{channel}"), "review": review}).to_string();
        // On a slow cluster an outcome may be unknown. A deadline that was stored twice ends twice.
        let made = loop {
            let made = client.send("POST", "/api/v1/messages", None, &body).unwrap();
            if Kind::chosen() != Kind::Cql || made.status != 503 {
                break made;
            }
        };
        if made.status == 400 && made.json()["code"] == "expiry_in_past" {
            at = now() + 1_000;
            continue;
        }
        assert_eq!(made.status, 201, "{}", made.json());
        return Timer { review: made.json()["id"].as_str().unwrap().to_owned(), channel, at };
    }
}

/// Leaves a server alone for a second: a review's expiry, which needs no request, ends the wait.
fn leave_alone(client: &mut Client) {
    let body = json!({"channelId": "demo", "review": {"type": "free", "expiresInSeconds": 1}}).to_string();
    let asked = client.send("POST", "/api/v1/messages", None, &body).unwrap().json();
    let path = format!("/api/v1/reviews/{}/wait?timeout=5", asked["id"].as_str().unwrap());
    assert_eq!(client.send("GET", &path, None, "").unwrap().json()["status"], "expired");
}

/// The time at which each deadline was announced, once all have been.
fn announced(server: &Server, timers: &[Timer]) -> HashMap<String, u64> {
    let mut client = Client::connect(&server.address).unwrap();
    let mut announced = HashMap::new();
    let last = timers.iter().map(|timer| timer.at).max().unwrap_or_default();
    while now() < last + 1_000 {
        leave_alone(&mut client);
    }
    for channel in 0..channels() {
        let set: Vec<_> = timers.iter().filter(|timer| timer.channel == channel).collect();
        loop {
            let mut seen = HashMap::new();
            for event in all(&mut client, &format!("/api/v1/channels/t{channel}/events")) {
                if event["type"] == "review.expired" {
                    let at = tertulia::wire::time::parse(event["timestamp"].as_str().unwrap()).unwrap() as u64;
                    let review = event["data"]["messageId"].as_str().unwrap().to_owned();
                    assert_eq!(seen.insert(review.clone(), at), None, "{review} was announced twice");
                }
            }
            let Some(pending) = set.iter().find(|timer| !seen.contains_key(&timer.review)) else {
                announced.extend(seen);
                break;
            };
            assert!(now() < pending.at + 60_000, "{pending:?} was lost");
            leave_alone(&mut client);
        }
    }
    announced
}

/// Waits until this time, without a server.
fn pass(until: u64) {
    while now() < until {
        thread::yield_now();
    }
}

fn percentiles(name: &str, mut late: Vec<u64>) -> u64 {
    late.sort_unstable();
    let at = |share: f64| late.get((late.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or_default();
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
    let count = setting_by_store("TERTULIA_TIMERS", 10_000, 1_000);
    let mut random = Random(setting("TERTULIA_TIMERS_SEED", 1));
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let start = || Server::start_on_store(&data, &[("TERTULIA_BOOTSTRAP_API_KEY", ADMIN_KEY)]);
    let mut server = start();
    let mut client = Client::connect(&server.address).unwrap();
    for n in 0..channels() {
        let body = json!({"id": format!("t{n}"), "name": "t", "kind": "human"}).to_string();
        assert_eq!(client.send("POST", "/api/v1/channels", None, &body).unwrap().status, 201);
    }
    // Deadlines while the server runs.
    let (mut timers, pace) = set_all(&server, count * 2 / 5, 0.0, (0, 4_000), &mut random);
    announced(&server, &timers);
    // Deadlines while it is killed, again and again.
    let (more, pace) = set_all(&server, count * 2 / 5, pace, (0, 5_000), &mut random);
    timers.extend(more);
    // The gaps: from the end of one server until the next one is ready.
    let mut gaps = Vec::new();
    for _ in 0..4 {
        pass(now() + 500 + random.below(700));
        let gone = now();
        drop(server);
        server = start();
        gaps.push((gone, now()));
    }
    // Deadlines while it is down for a while; afterwards all of them are overdue at once.
    let down = setting("TERTULIA_TIMERS_DOWN", count / 5);
    // A server stops after its last answers, which take longer on a cluster.
    let soon = if Kind::chosen() == Kind::Cql { 6_000 } else { 500 };
    let (more, _) = set_all(&server, down, 1.5 * pace, (soon, soon + 1_000), &mut random);
    let stopped_over: HashSet<String> = more.iter().map(|timer| timer.review.clone()).collect();
    timers.extend(more);
    let gone = now();
    assert_eq!(server.terminate(), Some(0));
    pass(timers.iter().map(|timer| timer.at).max().unwrap_or_default() + 1);
    let server = start();
    gaps.push((gone, now()));
    let seen = announced(&server, &timers);
    let mut on_time = Vec::new();
    let mut killed_over = Vec::new();
    let mut overdue = Vec::new();
    for Timer { review, at, .. } in &timers {
        assert!(seen[review] >= *at, "{review} was announced {} ms early", at - seen[review]);
        // A deadline due before the next server was ready is late from then on; it may be announced a moment earlier.
        match gaps.iter().rfind(|(gone, _)| *gone <= seen[review]) {
            Some((_, ready)) if at < ready => {
                let which = if stopped_over.contains(review) { &mut overdue } else { &mut killed_over };
                which.push(seen[review].saturating_sub(*ready));
            }
            _ => on_time.push(seen[review] - at),
        }
    }
    #[cfg(target_os = "linux")]
    say(&format!("the last server took {} ms of the processor, to answer questions too", server.processor_millis()));
    percentiles("while it ran", on_time);
    let worst = percentiles("overdue after a kill, from when it was ready", killed_over);
    let worst = worst.max(percentiles("overdue after a stop, from when it was ready", overdue));
    let allowed = setting_by_store("TERTULIA_TIMERS_OVERDUE", OVERDUE_WITHIN, OVERDUE_WITHIN_CQL);
    assert!(worst <= allowed, "overdue deadlines were announced {worst} ms after the server was ready");
    assert_eq!(server.terminate(), Some(0));
    check_sound(&data, "timers");
}
