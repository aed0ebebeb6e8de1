//! The open run: keyed appends that are due at fixed times, at several rates, beside the no-op server.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::runtime;

use crate::open_loop::{self, Arrivals, Opened};
use crate::target::{Programs, Target};
use crate::{Error, append, report, say};

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Requests due per second, one case each
    #[arg(long, value_delimiter = ',', default_values_t = [1_000.0, 5_000.0, 10_000.0])]
    pub(crate) rates: Vec<f64>,
    /// Connections; this also bounds the requests in flight
    #[arg(long, default_value_t = 256)]
    pub(crate) connections: u32,
    /// Conversations that the messages are spread over
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) conversations: u32,
    /// Seconds measured in each case; ten minutes show stalls that seconds do not
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(crate) seconds: u32,
    /// Rounds over all cases
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub(crate) rounds: u32,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
    /// Servers to measure
    #[arg(long, value_delimiter = ',', default_values_t = [Target::L0, Target::Tertulia])]
    pub(crate) targets: Vec<Target>,
}

/// An open loop's case.
pub(crate) struct Case {
    pub(crate) target: Target,
    pub(crate) opened: Opened,
}

/// Runs every case and prints what was measured.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    cases(options).map(drop)
}

/// The same, and returns the cases.
pub(crate) fn cases(options: &Options) -> Result<Vec<Case>, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut programs = Programs::new(options.server.clone(), None);
    let mut servers = append::servers(&runtime, &mut programs, &options.targets, options.conversations)?;
    say(&format!("\n{} connections, {} s a case, {}\n", options.connections, options.seconds, report::machine()))?;
    say(report::OPEN)?;
    let mut cases = Vec::new();
    for _ in 0..options.rounds {
        for rate in &options.rates {
            for (target, server, appends) in &mut servers {
                let load = Arrivals {
                    rate: *rate,
                    warm_up: Duration::from_secs(2),
                    measured: Duration::from_secs(options.seconds.into()),
                    connections: options.connections,
                };
                let opened = runtime.block_on(open_loop::drive(server, appends, load))?;
                server.alive()?;
                say(&report::open(target.name(), "append", &opened))?;
                cases.push(Case { target: *target, opened });
            }
        }
    }
    Ok(cases)
}
