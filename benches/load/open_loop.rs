//! The open loop: requests are due at fixed times, whether or not earlier ones have ended, because the clients of a
//! real server do not wait for each other. A latency counts from the time at which the request was due, so a stall of
//! the server also counts for all requests that became due in it; a closed loop would have waited and seen one slow
//! answer (coordinated omission).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::Error;
use crate::connection::Connection;
use crate::measured::{Latencies, Measured, Tally, Times, note};
use crate::scenario::Scenario;
use crate::server::Server;

/// How often due requests are released; this delays no request further.
const PACE: Duration = Duration::from_micros(200);
/// How long due requests may take after the end of the run.
const TAIL: Duration = Duration::from_secs(10);

/// The rate and the durations.
#[derive(Clone, Copy)]
pub(crate) struct Arrivals {
    /// Requests a second, evenly spaced.
    pub(crate) rate: f64,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// Connections; this also bounds the requests in flight.
    pub(crate) connections: u32,
}

/// The result of an open loop.
pub(crate) struct Opened {
    /// Latencies count from when the request was due.
    pub(crate) measured: Measured,
    /// How late requests were sent, because all connections were busy or the generator had no time.
    pub(crate) late: Latencies,
    /// Requests that became due in the measured time.
    pub(crate) due: u64,
    /// Those of them that had no answer when the run ended.
    pub(crate) unanswered: u64,
}

/// When each request is due.
struct Schedule {
    begin: Instant,
    rate: f64,
    /// The first request that is measured.
    first: u64,
    /// The number after the last request.
    end: u64,
}

impl Schedule {
    fn due(&self, nth: u64) -> Instant {
        self.begin + Duration::from_secs_f64(nth as f64 / self.rate)
    }

    /// How many requests are due by then.
    fn by(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.begin).as_secs_f64() * self.rate;
        (passed as u64 + 1).min(self.end)
    }
}

/// Runs one case.
pub(crate) async fn drive<S: Scenario>(server: &Server, scenario: &Arc<S>, load: Arrivals) -> Result<Opened, Error> {
    let schedule = Arc::new(Schedule {
        begin: Instant::now() + Duration::from_millis(20),
        rate: load.rate,
        first: (load.rate * load.warm_up.as_secs_f64()) as u64,
        end: (load.rate * (load.warm_up + load.measured).as_secs_f64()) as u64,
    });
    // A permit is a due request; clients take requests in the order in which they became due.
    let ready = Arc::new(Semaphore::new(0));
    let taken = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..load.connections {
        let turn = Turn { ready: Arc::clone(&ready), taken: Arc::clone(&taken), schedule: Arc::clone(&schedule) };
        clients.spawn(client(server.address, Arc::clone(scenario), turn));
    }
    let pacer = pace(Arc::clone(&schedule), Arc::clone(&ready))?;
    let until = |at: Instant| tokio::time::sleep_until(tokio::time::Instant::from_std(at));
    until(schedule.due(schedule.first)).await;
    let before = Times::now(server)?;
    until(schedule.due(schedule.end)).await;
    let after = Times::now(server)?;
    pacer.join().map_err(|_| "the pacer panicked")?;
    let mut all = Tally::new()?;
    let mut late = Latencies::new(3)?;
    while let Some(ended) = clients.join_next().await {
        let (tally, lateness) = ended??;
        all.add(tally)?;
        late.add(lateness)?;
    }
    let due = schedule.end - schedule.first;
    let answered = all.latencies.len() + all.errors.values().sum::<u64>();
    let measured = Measured::between(&before, &after, all);
    Ok(Opened { measured, late, due, unanswered: due.saturating_sub(answered) })
}

/// Releases due requests. It has its own thread, because the runtime's timers have a resolution of a millisecond.
fn pace(schedule: Arc<Schedule>, ready: Arc<Semaphore>) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("pacer".to_owned()).spawn(move || {
        let mut released = 0;
        while released < schedule.end {
            std::thread::sleep(schedule.due(released).saturating_duration_since(Instant::now()).max(PACE));
            let due = schedule.by(Instant::now());
            // No run has more requests than a semaphore has permits.
            ready.add_permits((due - released) as usize);
            released = due;
        }
        // The waiting clients learn that no more requests come.
        ready.add_permits(Semaphore::MAX_PERMITS / 2);
    })
}

/// The requests that clients take in turn.
struct Turn {
    ready: Arc<Semaphore>,
    taken: Arc<AtomicU64>,
    schedule: Arc<Schedule>,
}

impl Turn {
    /// The next request, once it is due; `None` at the end.
    async fn next(&self) -> Option<u64> {
        self.ready.acquire().await.ok()?.forget();
        let nth = self.taken.fetch_add(1, Ordering::Relaxed);
        (nth < self.schedule.end).then_some(nth)
    }
}

async fn client<S: Scenario>(address: SocketAddr, scenario: Arc<S>, turn: Turn) -> Result<(Tally, Latencies), Error> {
    let mut tally = Tally::new()?;
    let mut late = Latencies::new(3)?;
    let mut connection = Connection::new(address);
    let given_up = tokio::time::Instant::from_std(turn.schedule.due(turn.schedule.end) + TAIL);
    while let Some(nth) = turn.next().await {
        let due = turn.schedule.due(nth);
        let lateness = due.elapsed();
        let Ok(outcome) = timeout_at(given_up, scenario.once(&mut connection)).await else { break };
        if nth >= turn.schedule.first {
            note(&mut late, lateness);
            tally.count(&outcome, due.elapsed());
        }
    }
    Ok((tally, late))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_evenly_and_never_before_their_time() {
        let begin = Instant::now();
        let schedule = Schedule { begin, rate: 1_000.0, first: 0, end: 5_000 };
        assert_eq!(schedule.due(0), begin);
        assert_eq!(schedule.due(2_500), begin + Duration::from_millis(2_500));
        assert_eq!(schedule.by(begin), 1);
        assert_eq!(schedule.by(begin + Duration::from_micros(9_900)), 10);
        assert_eq!(schedule.by(begin + Duration::from_secs(60)), 5_000);
    }
}
