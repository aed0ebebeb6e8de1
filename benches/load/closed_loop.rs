//! The closed loop: each client has one connection and sends its next request when it has the answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::Error;
use crate::connection::Connection;
use crate::measured::{Measured, Tally, Times};
use crate::scenario::Scenario;
use crate::server::Server;
use crate::stored::Stored;

/// The number of clients and the durations.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) clients: u32,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
}

pub(crate) const WARMING: u8 = 0;
pub(crate) const MEASURING: u8 = 1;
pub(crate) const STOPPED: u8 = 2;

/// Runs one case.
pub(crate) async fn drive<S: Scenario>(server: &Server, scenario: &Arc<S>, load: Load) -> Result<Measured, Error> {
    let phase = Arc::new(AtomicU8::new(WARMING));
    let mut clients = JoinSet::new();
    for _ in 0..load.clients {
        clients.spawn(client(server.address, Arc::clone(scenario), Arc::clone(&phase)));
    }
    sleep(load.warm_up).await;
    let stored = Stored::now(server).await?;
    let before = Times::now(server)?;
    phase.store(MEASURING, Ordering::Relaxed);
    sleep(load.measured).await;
    phase.store(STOPPED, Ordering::Relaxed);
    let after = Times::now(server)?;
    let stored = Stored::now(server).await?.since(stored);
    let mut all = Tally::new()?;
    while let Some(tally) = clients.join_next().await {
        all.add(tally??)?;
    }
    Ok(Measured { stored, ..Measured::between(&before, &after, all) })
}

/// Repeats the scenario until the run is over; replaces a connection that breaks.
async fn client<S: Scenario>(address: SocketAddr, scenario: Arc<S>, phase: Arc<AtomicU8>) -> Result<Tally, Error> {
    let mut tally = Tally::new()?;
    let mut connection = Connection::new(address);
    while phase.load(Ordering::Relaxed) != STOPPED {
        let started = Instant::now();
        let outcome = scenario.once(&mut connection).await;
        if phase.load(Ordering::Relaxed) == MEASURING {
            tally.count(&outcome, started.elapsed());
        }
        if outcome.is_err() {
            // A dead server refuses connections at once; without a pause this loop would take the whole core.
            sleep(Duration::from_millis(1)).await;
        }
    }
    Ok(tally)
}
