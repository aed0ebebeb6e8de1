//! Peers: what a team would build instead, each as a server that the load program starts and drives.

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod postgres;

/// Anything that stops a server.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// Servers to compare with; `load` starts them.
#[derive(Parser)]
#[command(name = "peers", about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    peer: Peer,
}

#[derive(Subcommand)]
enum Peer {
    /// axum on an existing Postgres
    Postgres(postgres::Options),
}

fn main() -> ExitCode {
    let Peer::Postgres(options) = Cli::parse().peer;
    match postgres::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Where standard error is closed, the exit code still reports the failure.
            let _ = writeln!(std::io::stderr(), "peers: {error}");
            ExitCode::FAILURE
        }
    }
}
