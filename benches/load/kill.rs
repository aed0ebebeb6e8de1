//! The kill run: what a server had acknowledged and does not know any more after a SIGKILL in the middle of a load.
//!
//! Every acknowledged request is sent again with its idempotency key. A server that has kept it answers with the same
//! message; one that has lost it makes another one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::append::{KEY, conversations};
use crate::connection::Connection;
use crate::scenario::append::Appends;
use crate::scenario::for_each;
use crate::server::data_dir;
use crate::target::{Programs, Target};
use crate::{Error, report, say};

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Kills of each target
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Clients at work when the server is killed
    #[arg(long, default_value_t = 64)]
    pub(crate) clients: u32,
    /// Conversations that they write to
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) conversations: u32,
    /// Seconds until the kill
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
    /// What is killed
    #[arg(long, value_delimiter = ',', default_values_t = [Target::Tertulia, Target::Postgres])]
    pub(crate) targets: Vec<Target>,
}

/// An acknowledged request: its number, and the message that it became.
type Acked = (u64, String);

/// Runs every case and prints what is missing.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut programs = Programs::new(options.server.clone(), None);
    say(&format!("\n{} clients, killed after {} s, {}\n", options.clients, options.seconds, report::machine()))?;
    say("| target | acknowledged | missing after SIGKILL |\n|---|---:|---:|")?;
    for _ in 0..options.rounds {
        for target in &options.targets {
            let dir = data_dir()?;
            let server = programs.start_in(*target, &dir)?;
            let ids = runtime.block_on(conversations(*target, &server, options.conversations))?;
            let appends = Arc::new(Appends::new(server.address, KEY, &ids));
            let over = Arc::new(AtomicBool::new(false));
            let acked = runtime.block_on(async {
                let mut clients = JoinSet::new();
                for _ in 0..options.clients {
                    let connection = Connection::new(server.address);
                    clients.spawn(client(connection, Arc::clone(&appends), Arc::clone(&over)));
                }
                sleep(Duration::from_secs(options.seconds.into())).await;
                server.kill()?;
                over.store(true, Ordering::Relaxed);
                let mut acked = Vec::new();
                while let Some(ended) = clients.join_next().await {
                    acked.extend(ended?);
                }
                Ok::<Vec<Acked>, Error>(acked)
            })?;
            let server = programs.start_in(*target, &dir)?;
            let count = acked.len();
            let checked = for_each(server.address, count as u32, async move |connection: &mut Connection, nth| {
                let (number, id) = &acked[nth as usize];
                Ok(send(connection, &appends, *number).await?.as_ref() == Some(id))
            });
            let missing = runtime.block_on(checked)?.into_iter().filter(|is_there| !is_there).count();
            say(&format!("| {} | {count} | {missing} |", target.name()))?;
        }
    }
    Ok(())
}

/// Appends until the server is gone; what it has acknowledged.
async fn client(mut connection: Connection, appends: Arc<Appends>, over: Arc<AtomicBool>) -> Vec<Acked> {
    let mut acked = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let nth = appends.number();
        match send(&mut connection, &appends, nth).await {
            Ok(Some(id)) => acked.push((nth, id)),
            Ok(None) | Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
    acked
}

/// Sends a request; the message that it became.
async fn send(connection: &mut Connection, appends: &Appends, nth: u64) -> Result<Option<String>, Error> {
    appends.write_into(nth, &mut connection.request);
    let status = connection.exchange().await?;
    if !matches!(status, 200..=299) {
        return Ok(None);
    }
    let answer: Value = serde_json::from_slice(connection.body())?;
    Ok(answer[0]["id"].as_str().map(ToOwned::to_owned))
}
