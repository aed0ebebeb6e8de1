//! The open loop: things are due at fixed times, whether or not earlier ones have ended, as the world's clients are not
//! one program. A latency counts from when its request was due, so a server that stalls pays for everybody who came
//! meanwhile; a closed loop would have waited with it and seen one slow answer (coordinated omission).

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

/// How often it is looked up what has become due; nothing is sent later than that because of it.
const PACE: Duration = Duration::from_micros(200);
/// How long requests that were due may take after the end of the run.
const TAIL: Duration = Duration::from_secs(10);

/// How many and how long.
#[derive(Clone, Copy)]
pub(crate) struct Arrivals {
    /// A second, evenly.
    pub(crate) rate: f64,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// Connections; more can never be in flight.
    pub(crate) connections: u32,
}

/// What an open loop showed.
pub(crate) struct Opened {
    /// Latencies count from when the request was due.
    pub(crate) measured: Measured,
    /// How late requests were sent, because all connections were waiting or the generator had no time.
    pub(crate) late: Latencies,
    /// Requests that became due in the measured time.
    pub(crate) due: u64,
    /// Those of them that had no answer when the run was given up.
    pub(crate) unanswered: u64,
}

/// When each request is due.
struct Schedule {
    begin: Instant,
    rate: f64,
    /// The first request that counts.
    first: u64,
    /// The first one behind the end.
    end: u64,
}

impl Schedule {
    fn due(&self, nth: u64) -> Instant {
        self.begin + Duration::from_secs_f64(nth as f64 / self.rate)
    }

    /// Requests that are due by then.
    fn by(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.begin).as_secs_f64() * self.rate;
        (passed as u64 + 1).min(self.end)
    }
}

/// One case.
pub(crate) async fn drive<S: Scenario>(server: &Server, scenario: &Arc<S>, load: Arrivals) -> Result<Opened, Error> {
    let schedule = Arc::new(Schedule {
        begin: Instant::now() + Duration::from_millis(20),
        rate: load.rate,
        first: (load.rate * load.warm_up.as_secs_f64()) as u64,
        end: (load.rate * (load.warm_up + load.measured).as_secs_f64()) as u64,
    });
    // A permit is a request that is due; they are taken in the order in which they became due.
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
    let (mut all, mut late) = (Tally::new()?, Latencies::new(3)?);
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

/// Lets requests become due. A thread of its own: the runtime's timers are as coarse as a millisecond.
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
        // Whoever is left learns that nothing more comes.
        ready.add_permits(Semaphore::MAX_PERMITS / 2);
    })
}

/// The requests, as clients take them.
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
    let (mut tally, mut late) = (Tally::new()?, Latencies::new(3)?);
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
