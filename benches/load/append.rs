//! The append run: the same closed loop against a server that does nothing and against the real one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::runtime;

use crate::generator::{self, Measured};
use crate::request::Appends;
use crate::server::{Server, build, noop, tertulia};
use crate::{Error, report, say};

/// The key that both servers are started with; it never leaves the loopback address.
pub(crate) const KEY: &str = "load-0123456789abcdef0123456789abcdef";

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Clients in each case; every client keeps one connection and one request in flight
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256])]
    clients: Vec<u32>,
    /// Conversations that the messages are spread over
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    conversations: u32,
    /// Seconds measured in each case
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Seconds before the measurement in each case
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=60))]
    warm_up: u32,
    /// Rounds over all cases; the spread between them is the run's noise
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    server: Option<PathBuf>,
    /// An empty directory for the server's data, on the disk that is to be measured; by default one beside this
    /// program, which is removed afterwards
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// What is measured
    #[arg(long, value_delimiter = ',', default_values_t = [Target::L0, Target::Tertulia])]
    targets: Vec<Target>,
}

/// A server under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// The server that does nothing
    L0,
    /// The real one
    Tertulia,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::L0 => "l0",
            Self::Tertulia => "tertulia",
        })
    }
}

/// One measured case.
pub(crate) struct Case {
    pub(crate) target: Target,
    pub(crate) clients: u32,
    pub(crate) measured: Measured,
}

/// Runs every case and prints what was measured.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    // One thread: the generator must not take more than the core that is not the server's.
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let program = match &options.server {
        Some(program) => Some(program.clone()),
        None if options.targets.contains(&Target::Tertulia) => Some(build()?),
        None => None,
    };
    let mut servers = Vec::new();
    for target in &options.targets {
        let server = match (target, &program) {
            (Target::Tertulia, Some(program)) => tertulia(program, options.data_dir.as_deref(), KEY)?,
            _ => noop(KEY)?,
        };
        let appends = runtime.block_on(prepare(*target, &server, options.conversations))?;
        servers.push((*target, server, Arc::new(appends)));
    }
    say(&report::heading(options.conversations, options.seconds))?;
    let mut cases = Vec::new();
    for _ in 0..options.rounds {
        for clients in &options.clients {
            // The targets take turns within a case, so that both see the same minute of the machine.
            for (target, server, appends) in &mut servers {
                let load = generator::Load {
                    clients: *clients,
                    warm_up: Duration::from_secs(options.warm_up.into()),
                    measured: Duration::from_secs(options.seconds.into()),
                };
                let measured = runtime.block_on(generator::drive(server, appends, load))?;
                server.alive()?;
                let case = Case { target: *target, clients: *clients, measured };
                say(&report::line(&case))?;
                cases.push(case);
            }
        }
    }
    report::ratios(&cases).iter().try_for_each(|line| say(line))
}

/// What is appended to: conversations that exist already, made by the same route.
async fn prepare(target: Target, server: &Server, conversations: u32) -> Result<Appends, Error> {
    let ids = match target {
        Target::L0 => (0..conversations).map(|n| format!("conv_{n:026}")).collect(),
        Target::Tertulia => {
            say(&format!("opening {conversations} conversations"))?;
            generator::open_conversations(server.address, KEY, conversations).await?
        }
    };
    Ok(Appends::new(server.address, KEY, ids))
}
