//! The kill run: the messages that a server acknowledged and has lost after a SIGKILL in the middle of a load.
//!
//! Every acknowledged request is sent again with its idempotency key. A server that has kept the message answers with
//! it; one that has lost it creates another one. Where a message's id comes from its key, so that another message would
//! get the same id, the run searches for the message instead.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::append::conversations;
use crate::connection::Connection;
use crate::dialect::Dialect;
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
    /// Conversations to append to
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) conversations: u32,
    /// Seconds until the kill
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
    /// Servers to kill
    #[arg(long, value_delimiter = ',', default_values_t = [Target::Tertulia, Target::Postgres])]
    pub(crate) targets: Vec<Target>,
}

/// An acknowledged request: its number, and the message in the answer.
type Acked = (u64, Value);

/// How long a killed server may answer that it is not ready, and the pause between two requests.
const RECOVERY: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_millis(100);

/// A kill and its result.
pub(crate) struct Case {
    pub(crate) target: Target,
    pub(crate) acknowledged: usize,
    pub(crate) missing: usize,
}

/// Runs every case and prints how many messages are missing.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    measure(options).map(drop)
}

/// The same, and returns the cases.
pub(crate) fn measure(options: &Options) -> Result<Vec<Case>, Error> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let mut programs = Programs::new(options.server.clone(), None);
    say(&format!("\n{} clients, killed after {} s, {}\n", options.clients, options.seconds, report::machine()))?;
    say("| target | acknowledged | missing after SIGKILL |\n|---|---:|---:|")?;
    let mut cases = Vec::new();
    for _ in 0..options.rounds {
        for target in &options.targets {
            let dir = data_dir()?;
            let server = programs.start_in(*target, &dir)?;
            let ids = runtime.block_on(conversations(*target, &server, options.conversations))?;
            let appends = Arc::new(Appends::said(&*server.dialect, &ids));
            let over = Arc::new(AtomicBool::new(false));
            let acked = runtime.block_on(async {
                let mut clients = JoinSet::new();
                for _ in 0..options.clients {
                    let connection = Connection::new(server.address);
                    let dialect = Arc::clone(&server.dialect);
                    clients.spawn(client(connection, dialect, Arc::clone(&appends), Arc::clone(&over)));
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
            // The server may listen at another address than before.
            let count = acked.len();
            let appends = Appends::said(&*server.dialect, &ids);
            let dialect = Arc::clone(&server.dialect);
            let checked = for_each(server.address, count as u32, async move |connection: &mut Connection, nth| {
                let (number, kept) = &acked[nth as usize];
                let find = dialect.find(&ids[appends.place(*number)], kept);
                Ok(again(connection, &*dialect, &appends, *number, find).await?.as_ref() == Some(kept))
            });
            let missing = runtime.block_on(checked)?.into_iter().filter(|is_there| !is_there).count();
            say(&format!("| {} | {count} | {missing} |", target.name()))?;
            if count == 0 {
                say("  nothing was acknowledged in that time, so this says nothing: give it more --seconds")?;
            }
            cases.push(Case { target: *target, acknowledged: count, missing });
        }
    }
    Ok(cases)
}

/// Appends until the server is gone; returns what it has acknowledged.
async fn client(
    mut connection: Connection,
    dialect: Arc<dyn Dialect>,
    appends: Arc<Appends>,
    over: Arc<AtomicBool>,
) -> Vec<Acked> {
    let mut acked = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let nth = appends.number();
        appends.write_into(nth, &mut connection.request);
        match answer(&mut connection).await {
            Ok(Some(answer)) => acked.extend(dialect.kept(&answer).map(|kept| (nth, kept))),
            Ok(None) | Err(_) => sleep(Duration::from_millis(1)).await,
        }
    }
    acked
}

/// Requests the message of an acknowledged request: with `find`, or with the same request again. Returns what is
/// stored, once the server is ready to answer.
async fn again(
    connection: &mut Connection,
    dialect: &dyn Dialect,
    appends: &Appends,
    number: u64,
    find: Option<Vec<u8>>,
) -> Result<Option<Value>, Error> {
    let since = Instant::now();
    loop {
        match &find {
            Some(find) => find.clone_into(&mut connection.request),
            None => appends.write_into(number, &mut connection.request),
        }
        if let Some(answer) = answer(connection).await? {
            return Ok(dialect.kept(&answer));
        }
        if since.elapsed() > RECOVERY {
            let answer = String::from_utf8_lossy(connection.body()).into_owned();
            return Err(format!("after the kill it does not say what it has kept: {answer}").into());
        }
        sleep(AGAIN).await;
    }
}

/// Sends the request; returns its answer if that is a 2xx.
async fn answer(connection: &mut Connection) -> Result<Option<Value>, Error> {
    let status = connection.exchange().await?;
    if matches!(status, 200..=299) { Ok(Some(serde_json::from_slice(connection.body())?)) } else { Ok(None) }
}
