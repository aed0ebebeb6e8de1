//! The cost of turns for conversations without one: the same appends while nothing else happens, and while each
//! conversation has a turn of a slow model.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tokio::runtime;

use crate::append::KEY;
use crate::closed_loop;
use crate::connection::Connection;
use crate::measured::Measured;
use crate::scenario::append::Appends;
use crate::scenario::{for_each, open_conversations};
use crate::server::tertulia;
use crate::target::Programs;
use crate::{Error, report, say};

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Clients in each case; every one keeps one connection and one request in flight
    #[arg(long, value_delimiter = ',', default_values_t = [8, 64])]
    pub(crate) clients: Vec<u32>,
    /// Conversations; in the second half of the run, each has one turn that runs or waits. A workspace may have 5,000
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub(crate) conversations: u32,
    /// How long the model takes, in milliseconds
    #[arg(long, default_value_t = 2_000)]
    pub(crate) latency: u32,
    /// Turns that run at once, of all agents
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) running: u32,
    /// Seconds measured in each case
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Rounds over all cases of a half
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub(crate) rounds: u32,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
}

/// Turns requested of one agent: a server refuses more than 2,500 that run or wait.
const TURNS_PER_AGENT: u32 = 2_000;

/// The turns completed so far. A connection kept from one look to the next would be closed in between.
async fn completed(address: SocketAddr) -> Result<u64, Error> {
    let used = Connection::new(address).ask(KEY, "GET", "/usage", &Value::Null).await?;
    Ok(used["total"]["turns"].as_u64().unwrap_or(0))
}

/// One measured case.
pub(crate) struct Case {
    /// Whether every conversation had a turn in that time.
    pub(crate) with_turns: bool,
    pub(crate) clients: u32,
    pub(crate) measured: Measured,
}

/// Runs both halves and prints what was measured.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    measure(options).map(drop)
}

/// The same, and returns the cases.
pub(crate) fn measure(options: &Options) -> Result<Vec<Case>, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let program = Programs::new(options.server.clone(), None).server()?.to_owned();
    let mut server = tertulia(&program, None, KEY, &[])?;
    let address = server.address;
    say(&format!("opening {} conversations", options.conversations))?;
    let ids = runtime.block_on(open_conversations(address, KEY, options.conversations))?;
    let appends = Arc::new(Appends::new(address, KEY, &ids));
    say(&heading(options))?;
    let mut cases = Vec::new();
    for with_turns in [false, true] {
        if with_turns {
            runtime.block_on(begin_turns(options, address, ids.clone()))?;
        }
        for _ in 0..options.rounds {
            for clients in &options.clients {
                let load = closed_loop::Load {
                    clients: *clients,
                    warm_up: Duration::from_secs(2),
                    measured: Duration::from_secs(options.seconds.into()),
                };
                let begun = Instant::now();
                let before = runtime.block_on(completed(address))?;
                let measured = runtime.block_on(closed_loop::drive(&server, &appends, load))?;
                let after = runtime.block_on(completed(address))?;
                let turns = (after - before) as f64 / begun.elapsed().as_secs_f64();
                server.alive()?;
                say(&line(with_turns, *clients, &measured, turns))?;
                cases.push(Case { with_turns, clients: *clients, measured });
            }
        }
    }
    Ok(cases)
}

/// Creates slow agents, and requests a turn of one of them in every conversation.
async fn begin_turns(options: &Options, address: SocketAddr, ids: Vec<String>) -> Result<(), Error> {
    let agents = options.conversations.div_ceil(TURNS_PER_AGENT);
    let running = options.running.div_ceil(agents);
    let agent = json!({"name": "Slow", "provider": "builtin", "builtin": {"latencyMs": options.latency},
                       "maxConcurrentTurns": running});
    let mut slow = Vec::new();
    for _ in 0..agents {
        let made = Connection::new(address).ask(KEY, "POST", "/agents", &agent).await?;
        slow.push(made["id"].as_str().ok_or("an agent without an id")?.to_owned());
    }
    for_each(address, ids.len() as u32, async move |connection: &mut Connection, nth| {
        let path = format!("/conversations/{}/turns", ids[nth as usize]);
        connection.ask(KEY, "POST", &path, &json!({"agentId": slow[nth as usize % slow.len()]})).await
    })
    .await?;
    Ok(())
}

fn heading(options: &Options) -> String {
    format!(
        "{} conversations, model latency {} ms, {} turns at once, {} s a case, {}\n\n\
         | turns | clients | appends/s | p50 ms | p99 ms | max ms | server CPU µs/append | turns completed/s \
         | generator cores | kernel cores | other cores | errors |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        options.conversations,
        options.latency,
        options.running,
        options.seconds,
        report::machine()
    )
}

fn line(with_turns: bool, clients: u32, measured: &Measured, turns: f64) -> String {
    let head = format!("| {} | {clients} |", if with_turns { "running" } else { "none" });
    if let Some(refused) = report::refused(measured, 10) {
        return head + &refused;
    }
    format!(
        "{head} {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {turns:.1} | {:.2} | {:.2} | {:.2} | {} |{}",
        measured.per_second(),
        measured.quantile(0.5),
        measured.quantile(0.99),
        measured.quantile(1.0),
        measured.server_micros(),
        measured.generator_share(),
        measured.kernel_share(),
        measured.others_share(),
        measured.errors(),
        measured.remarks(),
    )
}
