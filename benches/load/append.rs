//! The append run: the same closed loop against the real server, against one that does nothing, and against what a team
//! would build instead.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::runtime::{self, Runtime};

use crate::closed_loop::{self, Load};
use crate::measured::Measured;
use crate::scenario::append::Appends;
use crate::server::Server;
use crate::target::{Programs, Target};
use crate::{Error, report, say, scenario};

/// The key that both servers are started with; it never leaves the loopback address.
pub(crate) const KEY: &str = "load-0123456789abcdef0123456789abcdef";

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Clients in each case; every client keeps one connection and one request in flight
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256])]
    pub(crate) clients: Vec<u32>,
    /// Conversations that the messages are spread over
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) conversations: u32,
    /// Seconds measured in each case
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Seconds before the measurement in each case
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=60))]
    pub(crate) warm_up: u32,
    /// Rounds over all cases; the spread between them is the run's noise
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub(crate) rounds: u32,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
    /// An empty directory for the server's data, on the disk that is to be measured; by default one beside this
    /// program, which is removed afterwards
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Servers to measure
    #[arg(long, value_delimiter = ',', default_values_t = [Target::L0, Target::Tertulia])]
    pub(crate) targets: Vec<Target>,
}

/// One measured case.
pub(crate) struct Case {
    pub(crate) target: Target,
    pub(crate) clients: u32,
    pub(crate) measured: Measured,
}

/// Runs every case and prints what was measured.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let cases = cases(options)?;
    ratios(&cases).iter().try_for_each(|line| say(line))
}

/// Runs every case, printing each.
pub(crate) fn cases(options: &Options) -> Result<Vec<Case>, Error> {
    // One thread: the generator must not take more than the core that the server does not use.
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut programs = Programs::new(options.server.clone(), options.data_dir.clone());
    let mut servers = servers(&runtime, &mut programs, &options.targets, options.conversations)?;
    say(&format!("\n{} conversations, {} s a case, {}\n", options.conversations, options.seconds, report::machine()))?;
    say(report::CLOSED)?;
    let mut cases = Vec::new();
    for _ in 0..options.rounds {
        for clients in &options.clients {
            // The targets alternate within a case, so that all see the same minute of the machine.
            for (target, server, appends) in &mut servers {
                let load = Load {
                    clients: *clients,
                    warm_up: Duration::from_secs(options.warm_up.into()),
                    measured: Duration::from_secs(options.seconds.into()),
                };
                let measured = runtime.block_on(closed_loop::drive(server, appends, load))?;
                server.alive()?;
                say(&report::closed(target.name(), "append", *clients, &measured))?;
                cases.push(Case { target: *target, clients: *clients, measured });
            }
        }
    }
    Ok(cases)
}

/// A server of each target, with the appends to it.
pub(crate) fn servers(
    runtime: &Runtime,
    programs: &mut Programs,
    targets: &[Target],
    count: u32,
) -> Result<Vec<(Target, Server, Arc<Appends>)>, Error> {
    let mut servers = Vec::new();
    for target in targets {
        let server = programs.start(*target)?;
        let ids = runtime.block_on(conversations(*target, &server, count))?;
        let appends = Appends::said(&*server.dialect, &ids);
        servers.push((*target, server, Arc::new(appends)));
    }
    Ok(servers)
}

/// Opens the conversations to append to, by the same route.
pub(crate) async fn conversations(target: Target, server: &Server, count: u32) -> Result<Vec<String>, Error> {
    if target == Target::L0 {
        return Ok((0..count).map(|n| format!("conv_{n:026}")).collect());
    }
    let count = target.conversations(count);
    say(&format!("opening {count} conversations on {}", target.name()))?;
    scenario::open(server.address, Arc::clone(&server.dialect), count).await
}

/// The ratio of every other target to L0, for each number of clients in each round.
pub(crate) fn ratios(cases: &[Case]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut beside: Option<&Case> = None;
    for case in cases {
        match beside {
            _ if case.target == Target::L0 => beside = Some(case),
            Some(l0) if l0.clients == case.clients => lines.push(format!(
                "\n{} clients: {}/L0 throughput {:.2}, server CPU per message {:.2}, p99 {:.2}",
                case.clients,
                case.target.name(),
                case.measured.per_second() / l0.measured.per_second(),
                case.measured.server_micros() / l0.measured.server_micros(),
                case.measured.quantile(0.99) / l0.measured.quantile(0.99),
            )),
            _ => {}
        }
    }
    lines
}
