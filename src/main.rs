//! The command line.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tertulia::config::{Config, ConfigArgs};
use tertulia::serve;

/// A durable, actor-based runtime for conversations between people, contacts and AI agents.
#[derive(Parser)]
#[command(name = "tertulia", version, about, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    settings: ConfigArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the server until it is told to stop (SIGTERM or Ctrl-C)
    Serve,
    /// Prints the whole effective configuration with explanations, secrets masked
    Config,
}

/// Why the process ends without success.
enum Failure {
    /// The command line or the configuration is wrong: exit code 2, as for wrong flags.
    Usage(String),
    /// What was asked for did not succeed: exit code 1.
    Failed(String),
}

impl Failure {
    fn usage(error: impl Display) -> Self {
        Self::Usage(error.to_string())
    }

    fn failed(error: impl Display) -> Self {
        Self::Failed(error.to_string())
    }
}

fn main() -> ExitCode {
    let (code, words) = match run(Cli::parse()) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(words)) => (2, words),
        Err(Failure::Failed(words)) => (1, words),
    };
    let mut stderr = io::stderr().lock();
    for line in words.lines() {
        // Where nobody reads standard error, the exit code still tells.
        let _ = writeln!(stderr, "tertulia: {line}");
    }
    ExitCode::from(code)
}

fn run(cli: Cli) -> Result<(), Failure> {
    let config = Config::from_process(&cli.settings).map_err(Failure::usage)?;
    match cli.command {
        Command::Serve => block_on(serve::run(&config)),
        Command::Config => print(&config.effective()),
    }
}

/// Runs a command that needs the runtime.
fn block_on<E: Display>(work: impl Future<Output = Result<(), E>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)?;
    let done = runtime.block_on(work).map_err(Failure::failed);
    // What still runs was given its time; it must not keep the process.
    runtime.shutdown_background();
    done
}

/// The command's answer, on standard output.
fn print(answer: &str) -> Result<(), Failure> {
    io::stdout().lock().write_all(answer.as_bytes()).map_err(Failure::failed)
}
