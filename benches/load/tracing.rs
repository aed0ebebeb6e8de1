//! The cost of tracing: the same appends to servers that differ only in where their traces go.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::runtime;

use crate::append::KEY;
use crate::closed_loop;
use crate::connection::Connection;
use crate::measured::Measured;
use crate::scenario::append::Appends;
use crate::scenario::open_conversations;
use crate::server::{Server, sink, tertulia};
use crate::sink::Protocol;
use crate::target::Programs;
use crate::{Error, report, say};

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Clients; every one keeps one connection and one request in flight
    #[arg(long, default_value_t = 64)]
    pub(crate) clients: u32,
    /// Conversations that the messages are spread over
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) conversations: u32,
    /// Seconds measured in each case
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Rounds over all cases; the cases alternate, so that all see the same minutes of the machine
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub(crate) rounds: u32,
    /// How traces travel
    #[arg(long, default_value = "http")]
    pub(crate) protocol: Protocol,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
    /// A program to compare with, for example an earlier version; its traces go nowhere
    #[arg(long)]
    pub(crate) baseline: Option<PathBuf>,
}

/// Where a server's traces go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traces {
    /// There are no traces.
    Off,
    /// The same once more: what differs from the first is chance.
    Again,
    /// One in a hundred to a receiver.
    Some,
    /// All of them to a receiver.
    All,
    /// All of them to a dead receiver.
    Refused,
    /// Nowhere; another program.
    Baseline,
}

impl Traces {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Again => "off, a second server",
            Self::Some => "1 %",
            Self::All => "100 %",
            Self::Refused => "100 %, dead receiver",
            Self::Baseline => "baseline",
        }
    }
}

/// A server under load, and its result in each round.
struct Case {
    traces: Traces,
    server: Server,
    appends: Arc<Appends>,
    rounds: Vec<Measured>,
}

/// The address of a dead receiver: the system does not assign this port, and refuses connections at once.
const DEAD: &str = "http://127.0.0.1:1";

/// Runs every case and prints what was measured.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    measure(options).map(drop)
}

/// The same, and returns by how many percent more CPU a message takes in each case than with traces off in the same
/// round, by the median of the rounds; NaN where this is unknown, because no round was quiet or spans were dropped for
/// lack of room.
pub(crate) fn measure(options: &Options) -> Result<Vec<(Traces, f64)>, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let program = Programs::new(options.server.clone(), None).server()?.to_owned();
    let receiver = sink(options.protocol)?;
    let live = format!("http://{}", receiver.address);
    let to = |endpoint: &str, more: &[(&str, &str)]| {
        let mut env = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), endpoint.to_owned()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL".to_owned(), options.protocol.name().to_owned()),
        ];
        env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        env
    };
    let share = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.01")];
    let mut planned = vec![
        (Traces::Off, program.clone(), Vec::new()),
        (Traces::Again, program.clone(), Vec::new()),
        (Traces::Some, program.clone(), to(&live, &share)),
        (Traces::All, program.clone(), to(&live, &[])),
        (Traces::Refused, program, to(DEAD, &[])),
    ];
    planned.extend(options.baseline.clone().map(|program| (Traces::Baseline, program, Vec::new())));
    let mut cases = Vec::new();
    for (traces, program, env) in planned {
        let server = tertulia(&program, None, KEY, &env)?;
        let ids = runtime.block_on(open_conversations(server.address, KEY, options.conversations))?;
        let appends = Arc::new(Appends::new(server.address, KEY, &ids));
        cases.push(Case { traces, server, appends, rounds: Vec::new() });
    }
    for _ in 0..options.rounds {
        for case in &mut cases {
            let load = closed_loop::Load {
                clients: options.clients,
                warm_up: Duration::from_secs(1),
                measured: Duration::from_secs(options.seconds.into()),
            };
            let measured = runtime.block_on(closed_loop::drive(&case.server, &case.appends, load))?;
            case.server.alive()?;
            case.rounds.push(measured);
        }
    }
    let dropped: Result<Vec<f64>, Error> = cases.iter().map(|case| runtime.block_on(dropped(&case.server))).collect();
    let dropped = dropped?;
    tell(options, &cases, &dropped)?;
    let more = cases.iter().zip(dropped).map(|(case, dropped)| {
        // With a dead receiver most spans find no room, as they should.
        let is_whole = dropped == 0.0 || case.traces == Traces::Refused;
        (case.traces, if is_whole { beside(&cases[0], case) } else { f64::NAN })
    });
    Ok(more.collect())
}

/// How many spans found no room. Spans that a receiver refuses were sent, and cost as much as others.
async fn dropped(server: &Server) -> Result<f64, Error> {
    const METRIC: &str = "tertulia_spans_dropped_total{reason=\"queue_full\"}";
    let Some(metrics) = server.metrics else { return Ok(0.0) };
    let page = Connection::new(metrics).text("/metrics").await?;
    Ok(page
        .lines()
        .filter_map(|line| line.strip_prefix(METRIC)?.trim().parse::<f64>().ok())
        .fold(0.0, |all, one| all + one))
}

/// Prints each case beside the first one of the same round: a round's disturbances are the same for all cases.
fn tell(options: &Options, cases: &[Case], dropped: &[f64]) -> Result<(), Error> {
    let Options { clients, conversations, seconds, rounds, protocol, .. } = options;
    say(&format!(
        "{clients} clients, {conversations} conversations, {rounds} rounds of {seconds} s, {}, {}\n\n\
         | traces | server CPU µs/message, of each round | median | beside off | requests/s | p99 ms | errors | spans dropped |\n\
         |---|---|---:|---:|---:|---:|---:|---:|",
        protocol.name(),
        report::machine()
    ))?;
    for (case, dropped) in cases.iter().zip(dropped) {
        // A figure in parentheses does not count.
        let shown = |round: &Measured| match round.server_micros() {
            micros if round.tells() => format!("{micros:.1}"),
            micros => format!("({micros:.1})"),
        };
        let each: Vec<String> = case.rounds.iter().map(shown).collect();
        let remarks = |(nth, round): (usize, &Measured)| {
            let why = round.refused().map(|why| format!("\n  {why}")).unwrap_or_default() + &round.remarks();
            if why.is_empty() { why } else { format!("\n  round {}:{}", nth + 1, why.replace("\n  ", " ")) }
        };
        let remarks: String = case.rounds.iter().enumerate().map(remarks).collect();
        let beside = beside(&cases[0], case);
        say(&format!(
            "| {} | {} | {} | {} | {} | {} | {} | {dropped} |{remarks}",
            case.traces.name(),
            each.join(" "),
            report::told(median(case, Measured::server_micros)),
            if beside.is_nan() { "–".to_owned() } else { format!("{beside:+.1} %") },
            report::told(median(case, Measured::per_second)),
            report::told(median(case, |round| round.quantile(0.99))),
            case.rounds.iter().map(Measured::errors).sum::<u64>(),
        ))?;
    }
    Ok(())
}

/// By how many percent more CPU a message takes in this case than in `off`: the median of the rounds in which both
/// count, each compared with itself; NaN where there is none.
fn beside(off: &Case, case: &Case) -> f64 {
    let both = off.rounds.iter().zip(&case.rounds).filter(|(off, round)| off.tells() && round.tells());
    middle(both.map(|(off, round)| (round.server_micros() / off.server_micros() - 1.0) * 100.0))
}

/// The median of the rounds that count; NaN where none does.
fn median(case: &Case, of: impl Fn(&Measured) -> f64) -> f64 {
    middle(case.rounds.iter().filter(|round| round.tells()).map(of))
}

/// The middle one of some figures; NaN where there are none.
fn middle(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
