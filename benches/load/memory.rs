//! The memory run: what a resident conversation takes, and what is left of it when it was let go.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::runtime;
use tokio::time::sleep;

use crate::append::KEY;
use crate::connection::Connection;
use crate::scenario::open_conversations;
use crate::server::Server;
use crate::target::{Programs, Target};
use crate::{Error, proc_stat, report, say};

/// How often the server is asked whether its conversations have gone.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long they may take: two minutes of idleness, and sweeps.
const GONE_WITHIN: Duration = Duration::from_secs(300);

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Conversations, one case each
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000])]
    pub(crate) conversations: Vec<u32>,
    /// Waits until they have left memory, which they do after two idle minutes
    #[arg(long)]
    pub(crate) passivate: bool,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
}

/// A case: conversations, and the server's memory with them resident, in bytes.
pub(crate) type Case = (u32, u64);

/// Runs every case and prints what was measured.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    measure(options).map(drop)
}

/// The same, with what was measured.
pub(crate) fn measure(options: &Options) -> Result<Vec<Case>, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut programs = Programs::new(options.server.clone(), None);
    say(&format!("\n{}\n", report::machine()))?;
    say("| conversations | empty MiB | resident | MiB | KiB each | after passivation: resident | MiB |\n\
         |---:|---:|---:|---:|---:|---:|---:|")?;
    let mut cases = Vec::new();
    for conversations in &options.conversations {
        // A server of its own: an allocator gives little back.
        let server = programs.start(Target::Tertulia)?;
        let memory = || proc_stat::resident(server.pid());
        let empty = memory()?;
        runtime.block_on(open_conversations(server.address, KEY, *conversations))?;
        let (actors, full) = (runtime.block_on(resident(&server))?, memory()?);
        let each = full.saturating_sub(empty) as f64 / 1024.0 / f64::from(*conversations);
        let left = if options.passivate {
            let left = runtime.block_on(passivated(&server))?;
            format!("{left} | {}", mebibytes(memory()?))
        } else {
            "not waited for | ".to_owned()
        };
        say(&format!(
            "| {conversations} | {} | {actors} | {} | {each:.1} | {left} |",
            mebibytes(empty),
            mebibytes(full)
        ))?;
        cases.push((*conversations, full));
    }
    Ok(cases)
}

fn mebibytes(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}

/// How many conversations the server says that it has in memory.
async fn resident(server: &Server) -> Result<u64, Error> {
    let metrics = server.metrics.ok_or("the server does not tell of itself")?;
    let census = Connection::new(metrics).look("/admin/runtime").await?;
    Ok(census["resident"]["conversation"].as_u64().ok_or("the server does not say how many are resident")?)
}

/// Waits until conversations have gone; how many are left.
async fn passivated(server: &Server) -> Result<u64, Error> {
    let since = tokio::time::Instant::now();
    loop {
        let left = resident(server).await?;
        if left < 100 || since.elapsed() > GONE_WITHIN {
            return Ok(left);
        }
        sleep(LOOK_EVERY).await;
    }
}
