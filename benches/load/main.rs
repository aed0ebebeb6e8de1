//! Load: what a message costs, beside what the machine can do.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod all;
mod append;
mod closed_loop;
mod connection;
mod cql;
mod dialect;
mod fanout;
mod installed;
mod kill;
mod limits;
mod measured;
mod memory;
mod noop;
mod open;
mod open_loop;
mod postgres;
mod proc_stat;
mod report;
mod response;
mod restart;
mod restate;
mod scenario;
mod scenarios;
mod server;
mod sink;
mod stored;
mod synapse;
mod target;
mod tracing;
mod turns;

/// Anything that stops a run.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// Load programs for Tertulia; everything runs on the loopback address of this machine.
#[derive(Parser)]
#[command(name = "load", about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything below in one run, and the table of ratios beside the goals; `cql` and ten minutes where asked for
    All(all::Options),
    /// Durable keyed appends in a closed loop, beside a server that does nothing (L0) and what a team would build
    /// instead
    Append(append::Options),
    /// The same appends due at fixed times, with latencies from when they were due
    Open(open::Options),
    /// The other operations of clients, one after the other: exchanges, reviews, reads, one hot conversation, many
    Scenarios(scenarios::Options),
    /// What each part of an append can do alone: the device (L1), a group commit (L2), the store (L3), an actor (L5),
    /// and a message's hop
    Limits(limits::Options),
    /// The time until an event reaches many followers
    Fanout(fanout::Options),
    /// How soon a server is ready, empty and after a SIGKILL
    Restart(restart::Options),
    /// Messages that were acknowledged and are missing after a SIGKILL
    Kill(kill::Options),
    /// Memory of a resident conversation, and of a passivated one
    Memory(memory::Options),
    /// The CPU time of a message with traces off, at 1 %, at 100 % and with a dead receiver
    Tracing(tracing::Options),
    /// Durable keyed appends while each conversation has a turn of a slow model, and while none has
    Turns(turns::Options),
    /// Durable keyed appends on a CQL server, beside the driver alone doing the same conditional batches there
    Cql(cql::Options),
    /// The no-op server; `append` starts it
    #[command(hide = true)]
    NoopServer,
    /// The receiver that discards traces; `tracing` starts it
    #[command(hide = true)]
    Sink {
        /// How traces travel
        protocol: sink::Protocol,
    },
}

fn main() -> ExitCode {
    // This program is also the keeper of the CQL server that it starts.
    if bed::keep() {
        return ExitCode::SUCCESS;
    }
    let outcome = match Cli::parse().command {
        Command::All(options) => all::run(&options),
        Command::Append(options) => append::run(&options),
        Command::Open(options) => open::run(&options),
        Command::Scenarios(options) => scenarios::run(&options),
        Command::Limits(options) => limits::run(&options),
        Command::Fanout(options) => fanout::run(&options),
        Command::Restart(options) => restart::run(&options),
        Command::Kill(options) => kill::run(&options),
        Command::Memory(options) => memory::run(&options),
        Command::Tracing(options) => tracing::run(&options),
        Command::Turns(options) => turns::run(&options),
        Command::Cql(options) => cql::run(&options),
        Command::NoopServer => noop::run(),
        Command::Sink { protocol } => sink::run(protocol),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is closed, the exit code still reports the failure.
            let _ = writeln!(std::io::stderr(), "load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a line of the program's output.
fn say(line: &str) -> Result<(), Error> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
