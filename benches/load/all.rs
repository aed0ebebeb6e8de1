//! Everything in one run: each figure stands beside its limit of the same hour, and each ratio beside its goal.

use std::path::PathBuf;

use clap::{Args, ValueEnum as _};

use crate::scenarios::Kind;
use crate::sink::Protocol;
use crate::target::{Programs, Target};
use crate::{Error, append, fanout, limits, memory, open, report, restart, say, scenarios, tracing};

mod goals;

use goals::Goals;

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Seconds measured in each case
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Rounds over all cases; publish three
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Clients of the closed loops, one case each
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256])]
    clients: Vec<u32>,
    /// Conversations that messages are spread over
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..))]
    conversations: u32,
    /// Conversations of the scenario `zipf` and of the memory run
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    many: u32,
    /// Messages that are there when the server is killed and started
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// What stands beside the server in the append run
    #[arg(long, value_delimiter = ',', default_values_t = [Target::L0, Target::Tertulia, Target::Unsynced, Target::Postgres])]
    targets: Vec<Target>,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    server: Option<PathBuf>,
}

/// Runs everything and prints the table.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let server = Some(Programs::new(options.server.clone(), None).server()?.to_owned());
    let (seconds, rounds, clients) = (options.seconds, options.rounds, options.clients.clone());
    let mut goals = Goals::default();
    for _ in 0..rounds {
        heading("limits")?;
        let limits = limits::measure(&limits::Options { clients: clients.clone(), seconds: seconds.min(5) })?;
        heading("append")?;
        let cases = append::cases(&append::Options {
            clients: clients.clone(),
            conversations: options.conversations,
            seconds,
            warm_up: 2,
            rounds: 1,
            server: server.clone(),
            data_dir: None,
            targets: options.targets.clone(),
        })?;
        goals.appends(&limits, &cases);
        // Seven tenths of what the server could do: where a service should be run.
        let own = cases.iter().filter(|case| case.target == Target::Tertulia);
        let rate = own.map(|case| case.measured.per_second()).fold(0.0, f64::max) * 0.7;
        heading("open")?;
        let opened = open::cases(&open::Options {
            rates: vec![rate.max(1.0).floor()],
            connections: 256,
            conversations: options.conversations,
            seconds,
            rounds: 1,
            server: server.clone(),
            targets: vec![Target::L0, Target::Tertulia],
        })?;
        goals.stalls(&opened);
        heading("scenarios")?;
        goals.scenarios(&scenarios::cases(&scenarios::Options {
            only: Kind::value_variants().to_vec(),
            clients: clients.first().copied().unwrap_or(64),
            conversations: options.conversations,
            many: options.many,
            seconds,
            rate: 0.0,
            rounds: 1,
            server: server.clone(),
        })?);
        heading("tracing")?;
        goals.tracing(&tracing::measure(&tracing::Options {
            clients: clients.first().copied().unwrap_or(64),
            conversations: options.conversations,
            seconds,
            rounds: 3,
            protocol: Protocol::Http,
            server: server.clone(),
            baseline: None,
        })?);
    }
    heading("fanout")?;
    fanout::run(&fanout::Options::usual(server.clone()))?;
    heading("restart")?;
    let (messages, conversations) = (options.messages, options.conversations.min(1_000));
    goals.restarts(&restart::measure(&restart::Options { messages, conversations, rounds, server: server.clone() })?);
    heading("memory")?;
    let conversations = vec![options.conversations, options.many];
    goals.memory(&memory::measure(&memory::Options { conversations, passivate: false, server })?);
    heading("ratios")?;
    say(&format!("{rounds} rounds, {seconds} s a case, {}\n", report::machine()))?;
    goals.lines().iter().try_for_each(|line| say(line))
}

fn heading(what: &str) -> Result<(), Error> {
    say(&format!("\n## {what}"))
}
