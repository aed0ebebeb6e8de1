//! Everything in one run: each figure beside its limit of the same hour, and each ratio beside its goal.

use std::path::PathBuf;

use clap::{Args, ValueEnum as _};

use crate::scenarios::Kind;
use crate::sink::Protocol;
use crate::target::{Programs, Target};
use crate::{Error, append, cql, fanout, kill, limits, memory, open, report, restart, say, scenarios, tracing, turns};

mod goals;
mod table;

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
    /// Messages in the store when the server is killed and started
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// Servers to compare in the append run; the durable ones are killed too
    #[arg(long, value_delimiter = ',', default_values_t = [Target::L0, Target::Tertulia, Target::Unsynced, Target::Postgres])]
    targets: Vec<Target>,
    /// Does not wait until conversations are passivated, which takes two minutes of idleness
    #[arg(long)]
    without_passivation: bool,
    /// Runs the server on CQL too, beside the driver alone; the test bed starts a node
    #[arg(long)]
    cql: bool,
    /// The same on these nodes, host:port each
    #[arg(long, value_delimiter = ',')]
    nodes: Vec<String>,
    /// Looks for the slowest request of ten minutes too
    #[arg(long)]
    ten_minutes: bool,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    server: Option<PathBuf>,
}

/// The rate of the ten minutes.
const TEN_MINUTES_AT: u32 = 10_000;

/// Runs everything and prints the table.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let server = Some(Programs::new(options.server.clone(), None).server()?.to_owned());
    let mut goals = Goals::default();
    for _ in 0..options.rounds {
        round(options, &server, &mut goals)?;
    }
    once(options, &server, &mut goals)?;
    asked_for(options, &server, &mut goals)?;
    heading("ratios")?;
    say(&format!("{} rounds, {} s a case, {}\n", options.rounds, options.seconds, report::machine()))?;
    goals.rows().iter().try_for_each(|line| say(line))
}

/// The figures that differ from one minute of the machine to the next.
fn round(options: &Options, server: &Option<PathBuf>, goals: &mut Goals) -> Result<(), Error> {
    let Options { seconds, conversations, .. } = *options;
    let clients = options.clients.clone();
    let first = options.clients.first().copied().unwrap_or(64);
    heading("limits")?;
    let limits = limits::measure(&limits::Options { clients: clients.clone(), seconds: seconds.min(5) })?;
    heading("append")?;
    let cases = append::cases(&append::Options {
        clients,
        conversations,
        seconds,
        warm_up: seconds.min(2),
        rounds: 1,
        server: server.clone(),
        data_dir: None,
        targets: options.targets.clone(),
    })?;
    goals.appends(&limits, &cases);
    // Seven tenths of the server's throughput: the load at which a service should run.
    let own = cases.iter().filter(|case| case.target == Target::Tertulia);
    let rate = own.map(|case| case.measured.per_second()).fold(0.0, f64::max) * 0.7;
    heading("open")?;
    goals.stalls(seconds, &opened(options, server, rate.max(1.0).floor(), seconds, &[Target::L0, Target::Tertulia])?);
    heading("scenarios")?;
    goals.scenarios(&scenarios::cases(&scenarios::Options {
        only: Kind::value_variants().to_vec(),
        clients: first,
        conversations,
        many: options.many,
        seconds,
        rate: 0.0,
        rounds: 1,
        server: server.clone(),
    })?);
    heading("tracing")?;
    goals.tracing(&tracing::measure(&tracing::Options {
        clients: first,
        conversations,
        seconds,
        // A round's figure is the median of these; a run of one round only checks that everything works.
        rounds: options.rounds.min(3),
        protocol: Protocol::Http,
        server: server.clone(),
        baseline: None,
    })?);
    Ok(())
}

/// The figures for which one time is enough, and the runs that repeat themselves.
fn once(options: &Options, server: &Option<PathBuf>, goals: &mut Goals) -> Result<(), Error> {
    let Options { seconds, rounds, conversations, messages, many, .. } = *options;
    heading("turns")?;
    goals.turns(&turns::measure(&turns::Options {
        clients: vec![options.clients.first().copied().unwrap_or(64)],
        conversations: conversations.min(5_000),
        latency: 2_000,
        running: 64,
        seconds,
        rounds,
        server: server.clone(),
    })?);
    heading("fanout")?;
    let usual = fanout::Options::usual(server.clone());
    let messages_a_case = usual.messages.min(20 * seconds);
    goals.fanout(&fanout::measure(&fanout::Options { messages: messages_a_case, ..usual })?);
    heading("kill")?;
    goals.kills(&kill::measure(&kill::Options {
        rounds,
        clients: 64,
        conversations: conversations.min(1_000),
        seconds: seconds.min(3),
        server: server.clone(),
        targets: options.targets.iter().copied().filter(|target| target.is_durable()).collect(),
    })?);
    heading("restart")?;
    let conversations = conversations.min(1_000);
    let restarts = restart::measure(&restart::Options { messages, conversations, rounds, server: server.clone() })?;
    goals.restarts(messages, &restarts);
    heading("memory")?;
    let passivate = !options.without_passivation;
    goals.memory(&memory::measure(&memory::Options { conversations: vec![many], passivate, server: server.clone() })?);
    Ok(())
}

/// The runs that take a cluster, or much longer than everything else.
fn asked_for(options: &Options, server: &Option<PathBuf>, goals: &mut Goals) -> Result<(), Error> {
    if options.cql || !options.nodes.is_empty() {
        heading("cql")?;
        goals.cql(Some(&cql::measure(&cql::Options {
            clients: vec![64],
            conversations: options.conversations.min(1_000),
            seconds: options.seconds,
            warm_up: 5,
            rounds: options.rounds,
            server: server.clone(),
            nodes: options.nodes.clone(),
        })?));
    } else {
        goals.cql(None);
    }
    if options.ten_minutes {
        heading("ten minutes")?;
        let cases = opened(options, server, TEN_MINUTES_AT.into(), 600, &[Target::Tertulia])?;
        goals.ten_minutes(TEN_MINUTES_AT, &cases);
    } else {
        goals.no_ten_minutes(TEN_MINUTES_AT);
    }
    Ok(())
}

/// An open loop at this rate.
fn opened(
    options: &Options,
    server: &Option<PathBuf>,
    rate: f64,
    seconds: u32,
    targets: &[Target],
) -> Result<Vec<open::Case>, Error> {
    open::cases(&open::Options {
        rates: vec![rate],
        connections: 256,
        conversations: options.conversations,
        seconds,
        rounds: 1,
        server: server.clone(),
        targets: targets.to_vec(),
    })
}

fn heading(what: &str) -> Result<(), Error> {
    say(&format!("\n## {what}"))
}
