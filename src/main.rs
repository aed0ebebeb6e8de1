//! The command line.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use actors::key::PrincipalKind;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use tertulia::config::{Config, ConfigArgs, LogFormat};
use tertulia::operators::{self, NewKey, OperatorError};
use tertulia::{serve, stores, transfer};

/// Messages are allocated by one thread and freed by another; the system's allocator spends a third of a message's
/// CPU on that.
#[cfg(not(feature = "heap-profile"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The allocator that can report what it has allocated, and for whom (`GET /admin/heap`).
#[cfg(feature = "heap-profile")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A durable, actor-based runtime for conversations between people, contacts and AI agents.
#[derive(Parser)]
#[command(
    name = "tertulia",
    version,
    about,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Most settings have no flag: `tertulia config` prints all of them, with their environment names."
)]
struct Cli {
    #[command(flatten)]
    settings: ConfigArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the server until it receives SIGTERM or Ctrl-C
    Serve,
    /// Creates the CQL keyspace if it does not exist and applies pending migrations
    Migrate,
    /// Prints the whole effective configuration with explanations, secrets masked
    Config,
    /// Creates, lists and revokes API keys in the store of a stopped server
    #[command(subcommand)]
    Keys(Keys),
    /// Exports a workspace, or everything, as JSON lines; the export contains the store's secrets
    Export {
        /// Only this workspace and its keys [default: everything]
        #[arg(long)]
        workspace: Option<String>,
        /// Writes to this file [default: standard output]. Resumes an interrupted export to it if none of the
        /// exported entities has changed since, else restarts it; a complete export is left unchanged, and the
        /// command fails if the store has changed since
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Replaces an earlier export in that file once the new one is complete
        #[arg(long, requires = "out")]
        anew: bool,
    },
    /// Imports an export into a store that was never started, or without this workspace; can be repeated
    Import {
        /// The export [default: standard input]
        file: Option<PathBuf>,
        /// Omits the API keys: each installation hashes them with its own secret
        #[arg(long)]
        without_keys: bool,
    },
    /// Reads the whole store of a stopped server, and its attachments if they are in a directory, and reports
    /// whether it is intact
    Verify,
}

#[derive(Subcommand)]
enum Keys {
    /// Creates a key and prints it once
    Create {
        /// A human-readable name
        #[arg(long)]
        name: String,
        /// Its scopes: messages:write, messages:read, reviews:respond, admin
        #[arg(long, value_delimiter = ',', required = true, value_name = "SCOPE,...")]
        scopes: Vec<String>,
        /// The workspace in which it is valid
        #[arg(long, default_value = actors::workspace::DEFAULT)]
        workspace: String,
        /// The type of its principal: an agent (a program) or a user (a person)
        #[arg(long, default_value = PrincipalKind::Agent.name(), value_parser = principal_kinds())]
        principal_type: PrincipalKind,
        /// The id of its principal [default: the key's own id]
        #[arg(long)]
        principal_id: Option<String>,
    },
    /// Prints every key, one per line: id, workspace, scopes, principal, creation, name
    List,
    /// Revokes a key
    Revoke {
        /// The key's id, key_…
        id: String,
    },
}

fn principal_kinds() -> impl TypedValueParser<Value = PrincipalKind> {
    PossibleValuesParser::new(PrincipalKind::ALL.map(PrincipalKind::name)).try_map(|word| {
        PrincipalKind::ALL.into_iter().find(|kind| kind.name() == word).ok_or("not one of the possible values")
    })
}

/// Why nothing was migrated, or the result could not be printed.
#[derive(Debug, thiserror::Error)]
enum MigrateFailure {
    #[error(transparent)]
    Stores(#[from] stores::StoresError),
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
}

/// Why the process ends without success.
enum Failure {
    /// The command line or the configuration is wrong: exit code 2, as for wrong flags.
    Usage(String),
    /// The command did not succeed: exit code 1.
    Failed(String),
    /// The same, and its log says why.
    Logged,
}

impl Failure {
    fn usage(error: impl Display) -> Self {
        Self::Usage(error.to_string())
    }

    fn failed(error: impl Display) -> Self {
        Self::Failed(error.to_string())
    }

    /// Of a server. Standard error is its log: one of JSON has nothing but JSON, and the reason is in its last line.
    /// People at a terminal, or with a log for people, read the reason in words.
    fn of_server(config: &Config, failed: serve::Failed) -> Self {
        let is_for_programs = config.log_format == LogFormat::Json && !io::stderr().is_terminal();
        if failed.is_logged && is_for_programs { Self::Logged } else { Self::failed(failed.error) }
    }
}

fn main() -> ExitCode {
    let (code, words) = match run(Cli::parse()) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(words)) => (2, words),
        Err(Failure::Failed(words)) => (1, words),
        Err(Failure::Logged) => (1, String::new()),
    };
    let mut stderr = io::stderr().lock();
    for line in words.lines() {
        // If standard error is closed, there is still the exit code.
        let _ = writeln!(stderr, "tertulia: {line}");
    }
    ExitCode::from(code)
}

fn run(cli: Cli) -> Result<(), Failure> {
    let config = Config::from_process(&cli.settings).map_err(Failure::usage)?;
    match cli.command {
        Command::Serve => run_to_end(serve::run(&config), |failed| Failure::of_server(&config, failed)),
        Command::Migrate => block_on(async { Ok::<_, MigrateFailure>(write(&stores::migrate(&config).await?)?) }),
        Command::Config => print(&config.effective()),
        Command::Keys(keys) => block_on(run_keys(&config, keys)),
        Command::Export { workspace, out, anew } => block_on(async {
            // Standard output may be the export itself.
            tell(&operators::export(&config, workspace.as_deref(), out.as_deref(), anew).await?);
            Ok::<_, OperatorError>(())
        }),
        Command::Import { file, without_keys } => block_on(async {
            let options = transfer::Options { without_keys };
            Ok::<_, OperatorError>(write(&operators::import(&config, file.as_deref(), options).await?)?)
        }),
        Command::Verify => block_on(async { Ok::<_, OperatorError>(write(&operators::verify(&config).await?)?) }),
    }
}

async fn run_keys(config: &Config, keys: Keys) -> Result<(), OperatorError> {
    match keys {
        Keys::Create { name, scopes, workspace, principal_type, principal_id } => {
            let new = NewKey { name, scopes, workspace, kind: principal_type, principal: principal_id };
            operators::create_key(config, new, |key| write(&format!("{key}\n"))).await
        }
        Keys::List => Ok(write(&operators::list_keys(config).await?)?),
        Keys::Revoke { id } => operators::revoke_key(config, &id).await,
    }
}

/// Runs a command that needs the runtime.
fn block_on<E: Display>(work: impl Future<Output = Result<(), E>>) -> Result<(), Failure> {
    run_to_end(work, Failure::failed)
}

/// The same, where its error needs a translation.
fn run_to_end<E>(work: impl Future<Output = Result<(), E>>, failed: impl FnOnce(E) -> Failure) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::failed)?;
    let done = runtime.block_on(work).map_err(failed);
    // Remaining tasks had their time; they must not keep the process.
    runtime.shutdown_background();
    done
}

/// Reports on standard error.
fn tell(words: &str) {
    // The exit code remains.
    let _ = io::stderr().lock().write_all(words.as_bytes());
}

/// The command's answer, on standard output.
fn print(answer: &str) -> Result<(), Failure> {
    write(answer).map_err(Failure::failed)
}

fn write(answer: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(answer.as_bytes())?;
    stdout.flush()
}
