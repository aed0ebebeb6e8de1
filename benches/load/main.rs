//! Load: what a message costs, beside what the machine can do.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod append;
mod cql;
mod generator;
mod noop;
mod proc_stat;
mod report;
mod request;
mod response;
mod server;
mod sink;
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
    /// Durable keyed appends over many conversations, beside a server that does nothing (L0)
    Append(append::Options),
    /// The CPU of a message with traces off, at 1 %, at 100 % and with a dead receiver
    Tracing(tracing::Options),
    /// Durable keyed appends while a slow model has a turn of every conversation, and while it has none
    Turns(turns::Options),
    /// Durable keyed appends on a CQL server, beside the driver alone doing the same conditional batches there
    Cql(cql::Options),
    /// The server that does nothing; `append` starts it
    #[command(hide = true)]
    NoopServer,
    /// The receiver that throws traces away; `tracing` starts it
    #[command(hide = true)]
    Sink {
        /// How traces travel
        protocol: sink::Protocol,
    },
}

fn main() -> ExitCode {
    // The same program is the keeper of the CQL server that it starts.
    if bed::keep() {
        return ExitCode::SUCCESS;
    }
    let outcome = match Cli::parse().command {
        Command::Append(options) => append::run(&options),
        Command::Tracing(options) => tracing::run(&options),
        Command::Turns(options) => turns::run(&options),
        Command::Cql(options) => cql::run(&options),
        Command::NoopServer => noop::run(),
        Command::Sink { protocol } => sink::run(protocol),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where nobody reads standard error, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "load: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A line of the program's answer.
fn say(line: &str) -> Result<(), Error> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
