//! The restart run: how long a server takes to be ready, empty and after a SIGKILL with many messages.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tokio::runtime;

use crate::append::KEY;
use crate::connection::Connection;
use crate::scenario::append::WORDS;
use crate::scenario::{for_each, open_conversations};
use crate::server::{self, Server, data_dir};
use crate::target::Programs;
use crate::{Error, report, say};

/// Messages of one request; the API's own bound.
const BATCH: u32 = 100;

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Messages in the store; ten millions need about 6 GB and some minutes
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) messages: u32,
    /// Conversations that they are in
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) conversations: u32,
    /// Kills and starts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub(crate) rounds: u32,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
}

/// What was measured.
pub(crate) struct Restarts {
    /// On an empty directory, from the start of the process to its first answer.
    pub(crate) empty: Duration,
    /// After each kill.
    pub(crate) full: Vec<Duration>,
}

/// Runs and prints what was measured.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    measure(options).map(drop)
}

/// The same, and returns the times.
pub(crate) fn measure(options: &Options) -> Result<Restarts, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut programs = Programs::new(options.server.clone(), None);
    let program = programs.server()?.to_owned();
    let data = data_dir()?;
    let start = || {
        let since = Instant::now();
        let server = server::tertulia_in(&program, &data, KEY)?;
        runtime.block_on(Connection::new(server.address).ask(KEY, "GET", "/agents/echo", &json!(null)))?;
        Ok::<(Server, Duration), Error>((server, since.elapsed()))
    };
    let (mut server, empty) = start()?;
    let filled = Instant::now();
    runtime.block_on(fill(&server, options))?;
    say(&format!(
        "\n{} messages in {:.0} s, {}\n",
        options.messages,
        filled.elapsed().as_secs_f64(),
        report::machine()
    ))?;
    say("| start | ready after ms |\n|---|---:|")?;
    say(&format!("| empty | {} |", empty.as_millis()))?;
    let mut full = Vec::new();
    for _ in 0..options.rounds {
        server.kill()?;
        let (next, took) = start()?;
        server = next;
        say(&format!("| after SIGKILL | {} |", took.as_millis()))?;
        full.push(took);
    }
    Ok(Restarts { empty, full })
}

/// Appends all messages in batches.
async fn fill(server: &Server, options: &Options) -> Result<(), Error> {
    let ids = open_conversations(server.address, KEY, options.conversations).await?;
    let messages = vec![json!({"content": WORDS, "sender_id": "customer-17"}); BATCH as usize];
    for_each(server.address, options.messages.div_ceil(BATCH), async move |connection: &mut Connection, nth| {
        let body = json!({"content": messages, "conversation_id": ids[nth as usize % ids.len()]});
        connection.ask(KEY, "POST", "/messages", &body).await.map(drop)
    })
    .await?;
    Ok(())
}
