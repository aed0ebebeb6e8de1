//! The command line.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tertulia::config::{Config, ConfigArgs};

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
        Command::Config => print(&config.effective()),
    }
}

/// The command's answer, on standard output.
fn print(answer: &str) -> Result<(), Failure> {
    io::stdout().lock().write_all(answer.as_bytes()).map_err(Failure::failed)
}
