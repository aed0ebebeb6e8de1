//! The limits run: what each part of an append can do alone, on this machine, in this hour.

use std::future::Future;
use std::time::{Duration, Instant};

use clap::Args;
use tokio::runtime;
use tokio::task::JoinSet;

use crate::measured::{Latencies, note};
use crate::{Error, proc_stat, report, say};

mod actor;
mod device;
mod group;
mod hop;
mod store;

/// Bytes of a message in the engine's journal: the record, the idempotency key and their framing.
const MESSAGE_BYTES: usize = 640;

/// Actors that calls and messages go to, in turn.
const ACTORS: u32 = 10_000;
/// The name of the limit for an actor among many.
pub(crate) const MANY_ACTORS: &str = "L5 call of 10,000 actors";
/// The name of the limit for a message's own hop to its actor.
pub(crate) const HOP: &str = "hop to 10,000 conversations";

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Operations in flight at once, one case each
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256])]
    pub(crate) clients: Vec<u32>,
    /// Seconds measured in each case
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
}

/// The result of one limit.
pub(crate) struct Limit {
    pub(crate) name: &'static str,
    pub(crate) clients: u32,
    pub(crate) elapsed: Duration,
    pub(crate) latencies: Latencies,
    /// CPU time of this process in the run.
    pub(crate) cpu: Duration,
}

impl Limit {
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// CPU time of one operation, in microseconds.
    pub(crate) fn micros_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.latencies.len().max(1) as f64
    }

    fn line(&self) -> String {
        let millis = |share| self.latencies.value_at_quantile(share) as f64 / 1e3;
        format!(
            "| {} | {} | {:.0} | {:.3} | {:.3} | {:.3} | {:.1} |",
            self.name,
            self.clients,
            self.per_second(),
            millis(0.5),
            millis(0.99),
            millis(1.0),
            self.micros_each(),
        )
    }
}

/// Runs every limit and prints what was measured.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    measure(options).map(drop)
}

/// The same, and returns the results.
pub(crate) fn measure(options: &Options) -> Result<Vec<Limit>, Error> {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let time = Duration::from_secs(options.seconds.into());
    say(&format!("\n{} s a case, {}\n", options.seconds, report::machine()))?;
    say(
        "| limit | in flight | a second | p50 ms | p99 ms | max ms | CPU µs each |\n|---|---:|---:|---:|---:|---:|---:|",
    )?;
    let mut limits = Vec::new();
    let mut told = |limit: Limit| {
        say(&limit.line())?;
        limits.push(limit);
        Ok::<(), Error>(())
    };
    told(device::sync(time)?)?;
    for clients in &options.clients {
        told(runtime.block_on(group::commit(*clients, time))?)?;
        told(runtime.block_on(store::commit(*clients, time))?)?;
    }
    told(runtime.block_on(actor::call(1, 1, time))?)?;
    for clients in &options.clients {
        told(runtime.block_on(actor::call(ACTORS, *clients, time))?)?;
        told(runtime.block_on(hop::refused(*clients, time))?)?;
    }
    Ok(limits)
}

/// Runs so many tasks that repeat an operation until the time is over, each with a number of its own.
async fn repeat<F, Fut>(name: &'static str, clients: u32, time: Duration, what: F) -> Result<Limit, Error>
where
    F: Fn(u32) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<(), Error>> + Send + 'static,
{
    let began = Instant::now();
    let before = proc_stat::process(std::process::id())?;
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let what = what.clone();
        tasks.spawn(async move {
            let mut latencies = Latencies::new(3)?;
            while began.elapsed() < time {
                let since = Instant::now();
                what(client).await?;
                note(&mut latencies, since.elapsed());
            }
            Ok::<_, Error>(latencies)
        });
    }
    let mut latencies = Latencies::new(3)?;
    while let Some(ended) = tasks.join_next().await {
        latencies.add(ended??)?;
    }
    let cpu = proc_stat::process(std::process::id())? - before;
    Ok(Limit { name, clients, elapsed: began.elapsed(), latencies, cpu })
}
