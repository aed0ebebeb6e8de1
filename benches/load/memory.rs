//! The memory run: how much a resident conversation takes, and how much of it remains after passivation.

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

/// How often the run checks whether the server's conversations are passivated.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long that may take: two minutes of idleness, and sweeps.
const GONE_WITHIN: Duration = Duration::from_secs(300);

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Conversations, one case each
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000])]
    pub(crate) conversations: Vec<u32>,
    /// Waits until they are passivated, which happens after two idle minutes, and opens as many others
    #[arg(long)]
    pub(crate) passivate: bool,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
}

/// How many may still be resident when they count as passivated.
const LEFT: u64 = 100;

/// One measured case.
pub(crate) struct Case {
    pub(crate) conversations: u32,
    /// The server's memory with all of them resident, in bytes.
    pub(crate) full: u64,
    /// What the server kept of each passivated conversation, in bytes: its additional memory once as many others are
    /// resident. `None` where the run did not wait for that, or where they were not passivated.
    pub(crate) kept: Option<f64>,
}

/// Runs every case and prints what was measured.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    measure(options).map(drop)
}

/// The same, and returns the cases.
pub(crate) fn measure(options: &Options) -> Result<Vec<Case>, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut programs = Programs::new(options.server.clone(), None);
    say(&format!("\n{}\n", report::machine()))?;
    say("| conversations | empty MiB | resident | MiB | KiB each | after passivation: resident | MiB \
         | as many others opened: MiB | KiB kept of each passivated |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|")?;
    let mut cases = Vec::new();
    for conversations in &options.conversations {
        // A new server for each case: an allocator gives little memory back.
        let server = programs.start(Target::Tertulia)?;
        let memory = || proc_stat::resident(server.pid());
        let empty = memory()?;
        runtime.block_on(open_conversations(server.address, KEY, *conversations))?;
        let actors = runtime.block_on(resident(&server))?;
        let full = memory()?;
        let each = full.saturating_sub(empty) as f64 / 1024.0 / f64::from(*conversations);
        let mut kept = None;
        let mut after = "not waited for | | |".to_owned();
        if options.passivate {
            let left = runtime.block_on(passivated(&server))?;
            let idle = memory()?;
            runtime.block_on(open_conversations(server.address, KEY, *conversations))?;
            let others = memory()?;
            kept = (left < LEFT).then(|| (others as f64 - full as f64) / f64::from(*conversations));
            let each = kept.map_or("–".to_owned(), |kept| format!("{:.2}", kept / 1024.0));
            after = format!("{left} | {} | {} | {each}", mebibytes(idle), mebibytes(others));
        }
        say(&format!(
            "| {conversations} | {} | {actors} | {} | {each:.1} | {after} |",
            mebibytes(empty),
            mebibytes(full)
        ))?;
        cases.push(Case { conversations: *conversations, full, kept });
    }
    Ok(cases)
}

fn mebibytes(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}

/// How many conversations the server reports as resident.
async fn resident(server: &Server) -> Result<u64, Error> {
    let metrics = server.metrics.ok_or("the server does not tell of itself")?;
    let census = Connection::new(metrics).look("/admin/runtime").await?;
    Ok(census["resident"]["conversation"].as_u64().ok_or("the server does not say how many are resident")?)
}

/// Waits until conversations are passivated; returns how many are left.
async fn passivated(server: &Server) -> Result<u64, Error> {
    let since = tokio::time::Instant::now();
    loop {
        let left = resident(server).await?;
        if left < LEFT || since.elapsed() > GONE_WITHIN {
            return Ok(left);
        }
        sleep(LOOK_EVERY).await;
    }
}
