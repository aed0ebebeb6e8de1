//! The CQL run: durable keyed appends through the real server, alternating with the driver alone, which does the same
//! conditional batch on the same nodes.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::closed_loop::{self, Load, MEASURING, STOPPED, WARMING};
use crate::measured::{Measured, Tally, Times};
use crate::scenario::append::Appends;
use crate::scenario::open_conversations;
use crate::server::tertulia_on_cql;
use crate::target::Programs;
use crate::{Error, append, report, say};

/// The keyspace of the server, and that of the driver alone.
const KEYSPACES: [&str; 2] = ["load_tertulia", "load_raw"];
/// A message record of the usual size, and the state of its conversation.
const PAYLOAD: [u8; 420] = [7; 420];
const STATE: [u8; 120] = [7; 120];

/// How to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Requests in flight in each case
    #[arg(long, value_delimiter = ',', default_values_t = [64])]
    pub(crate) clients: Vec<u32>,
    /// Conversations that the messages are spread over
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) conversations: u32,
    /// Seconds measured in each case
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Seconds before the measurement in each case
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=60))]
    pub(crate) warm_up: u32,
    /// Rounds over all cases; the spread between them is the run's noise
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub(crate) rounds: u32,
    /// The server's program; it is built when this is not given
    #[arg(long)]
    pub(crate) server: Option<PathBuf>,
    /// Nodes to work on, host:port each; by default the test bed starts one
    #[arg(long, value_delimiter = ',')]
    pub(crate) nodes: Vec<String>,
}

/// The server beside the driver alone.
pub(crate) struct Case {
    pub(crate) clients: u32,
    pub(crate) driver: Measured,
    pub(crate) served: Measured,
}

impl Case {
    /// The server's figure divided by the driver's; NaN where one of them says nothing. The nodes' share of the machine
    /// belongs to both cases, so other work cannot be told apart from it here.
    pub(crate) fn ratio(&self, of: impl Fn(&Measured) -> f64) -> f64 {
        let figure = |measured: &Measured| {
            let says = measured.refused().is_none() && measured.errors() == 0;
            if says { of(measured) } else { f64::NAN }
        };
        figure(&self.served) / figure(&self.driver)
    }
}

/// Runs every case and prints what was measured.
pub(crate) fn run(options: &Options) -> Result<(), Error> {
    measure(options).map(drop)
}

/// The same, and returns the cases.
pub(crate) fn measure(options: &Options) -> Result<Vec<Case>, Error> {
    let nodes = match &options.nodes[..] {
        [] => bed::server().ok_or("there is no CQL server; name one with --nodes")?.nodes().to_vec(),
        nodes => nodes.to_vec(),
    };
    let program = Programs::new(options.server.clone(), None).server()?.to_owned();
    for keyspace in KEYSPACES {
        let mut migrate = Command::new(&program);
        migrate.args(["migrate", "--store", "cql", "--cql-nodes", &nodes.join(",")]);
        let status = migrate.env("TERTULIA_CQL_KEYSPACE", keyspace).status()?;
        if !status.success() {
            return Err(format!("the keyspace {keyspace} was not made: {status}").into());
        }
    }
    let mut server = tertulia_on_cql(&program, &nodes, KEYSPACES[0], append::KEY)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    say(&format!("opening {} conversations", options.conversations))?;
    let ids = runtime.block_on(open_conversations(server.address, append::KEY, options.conversations))?;
    let appends = Arc::new(Appends::new(server.address, append::KEY, &ids));
    let raw = Arc::new(runtime.block_on(Raw::open(&nodes, options.conversations))?);
    say(&format!("\n{} conversations, {} s a case, {}\n", options.conversations, options.seconds, report::machine()))?;
    say("| target | in flight | appends/s | p50 ms | p99 ms | max ms | server CPU µs | generator cores \
         | kernel and other cores, the nodes' too | errors |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")?;
    let mut cases = Vec::new();
    for _ in 0..options.rounds {
        for clients in &options.clients {
            let load = Load {
                clients: *clients,
                warm_up: Duration::from_secs(options.warm_up.into()),
                measured: Duration::from_secs(options.seconds.into()),
            };
            let driver = runtime.block_on(raw.drive(load))?;
            say(&line("driver", *clients, &driver))?;
            let served = runtime.block_on(closed_loop::drive(&server, &appends, load))?;
            server.alive()?;
            say(&line("tertulia", *clients, &served))?;
            cases.push(Case { clients: *clients, driver, served });
        }
    }
    for case in &cases {
        let added = case.served.quantile(0.5) - case.driver.quantile(0.5);
        say(&format!(
            "\n{} in flight: throughput {} of the driver's, p50 {added:+.2} ms",
            case.clients,
            report::told(case.ratio(Measured::per_second))
        ))?;
    }
    Ok(cases)
}

fn line(target: &str, clients: u32, measured: &Measured) -> String {
    let head = format!("| {target} | {clients} |");
    if let Some(refused) = report::refused(measured, 8) {
        return head + &refused;
    }
    let [p50, p99, max] = [0.5, 0.99, 1.0].map(|share| measured.quantile(share));
    format!(
        "{head} {:.0} | {p50:.2} | {p99:.2} | {max:.2} | {:.1} | {:.2} | {:.2} | {} |{}",
        measured.per_second(),
        measured.server_micros(),
        measured.generator_share(),
        measured.kernel_share() + measured.others_share(),
        measured.errors(),
        measured.failures(),
    )
}

/// The driver, with the statements of a commit.
struct Raw {
    session: Session,
    advance: PreparedStatement,
    commit: PreparedStatement,
    key: PreparedStatement,
    conversations: u32,
}

impl Raw {
    /// Opens as many conversations as the server has.
    async fn open(nodes: &[String], conversations: u32) -> Result<Self, Error> {
        let session = SessionBuilder::new().known_nodes(nodes).tcp_nodelay(true).build().await?;
        let keyspace = KEYSPACES[1];
        let prepare = async |text: &str| session.prepare(text.replace("KS", keyspace)).await;
        let open = prepare(
            "INSERT INTO KS.entity (entity, bucket, kind, n, k, seq, commit, id, closed, state) \
             VALUES (?, 0, 0, 0, 0x00, 1, 0, ?, false, ?)",
        );
        let open = open.await?;
        let raw = Self {
            advance: prepare(
                "UPDATE KS.entity SET seq = ?, commit = ?, id = ?, stamp = ?, closed = false, listed = false, \
                 records = 1, bytes = 600, state = ?, state_seq = ?, state_commit = ? \
                 WHERE entity = ? AND bucket = 0 AND kind = 0 AND n = 0 AND k = 0x00 \
                 IF seq = ? AND commit = ? AND closed = false",
            )
            .await?,
            commit: prepare(
                "INSERT INTO KS.entity (entity, bucket, kind, n, k, id, stamp, at, payload) \
                 VALUES (?, 0, 1, ?, ?, ?, ?, ?, ?)",
            )
            .await?,
            key: prepare(
                "INSERT INTO KS.entity (entity, bucket, kind, n, k, fingerprint, first, last, at) \
                 VALUES (?, 0, 2, 0, ?, ?, ?, ?, ?) USING TTL 172800",
            )
            .await?,
            session,
            conversations,
        };
        for conversation in 0..conversations {
            raw.session.execute_unpaged(&open, (&name(conversation)[..], &id(0, 0)[..], &STATE[..])).await?;
        }
        Ok(raw)
    }

    async fn drive(self: &Arc<Self>, load: Load) -> Result<Measured, Error> {
        let phase = Arc::new(AtomicU8::new(WARMING));
        let mut clients = JoinSet::new();
        for client in 0..load.clients {
            clients.spawn(Arc::clone(self).client(client, load.clients, Arc::clone(&phase)));
        }
        sleep(load.warm_up).await;
        let before = Times::alone()?;
        phase.store(MEASURING, Ordering::Relaxed);
        sleep(load.measured).await;
        phase.store(STOPPED, Ordering::Relaxed);
        let after = Times::alone()?;
        let mut tally = Tally::new()?;
        while let Some(client) = clients.join_next().await {
            tally.add(client??)?;
        }
        Ok(Measured::between(&before, &after, tally))
    }

    /// Appends to its share of the conversations in turn.
    async fn client(self: Arc<Self>, client: u32, clients: u32, phase: Arc<AtomicU8>) -> Result<Tally, Error> {
        let own = (0..self.conversations).filter(|n| n % clients == client);
        let mut heads = Vec::new();
        for conversation in own {
            heads.push((conversation, self.head(conversation).await?));
        }
        let mut tally = Tally::new()?;
        let mut next = 0;
        while phase.load(Ordering::Relaxed) != STOPPED && !heads.is_empty() {
            let at = next % heads.len();
            let (conversation, head) = heads[at];
            next += 1;
            let started = Instant::now();
            let outcome = self.append(conversation, head).await;
            let took = started.elapsed();
            let is_measuring = phase.load(Ordering::Relaxed) == MEASURING;
            match outcome {
                Ok(()) => {
                    heads[at].1 = (head.0 + 1, head.1 + 1);
                    if is_measuring {
                        tally.count(&Ok(200), took);
                    }
                }
                Err(error) => {
                    if is_measuring {
                        tally.failed(error.to_string());
                    }
                    // The outcome is read back, as the store does.
                    heads[at].1 = self.head(conversation).await?;
                }
            }
        }
        Ok(tally)
    }

    /// The head's sequence and commit.
    async fn head(&self, conversation: u32) -> Result<(i64, i64), Error> {
        let text =
            format!("SELECT seq, commit FROM {}.entity WHERE entity = ? AND bucket = 0 AND kind = 0", KEYSPACES[1]);
        let rows = self.session.query_unpaged(text, (&name(conversation)[..],)).await?.into_rows_result()?;
        Ok(rows.single_row::<(i64, i64)>()?)
    }

    /// One commit: the head, if it is still this one, a record and a key.
    async fn append(&self, conversation: u32, (seq, commit): (i64, i64)) -> Result<(), Error> {
        let name = name(conversation);
        let id = id(conversation, commit);
        let name = &name[..];
        let id = &id[..];
        let next = seq + 1;
        let number = commit + 1;
        let k = number.to_be_bytes();
        let statements = [&self.advance, &self.commit, &self.key];
        let statements = statements.map(|statement| BatchStatement::from(statement.clone())).to_vec();
        let batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        let values = (
            (next, number, id, number, &STATE[..], next, number, name, seq, commit),
            (name, next, &k[..], id, number, number, &PAYLOAD[..]),
            (name, id, id, next, next, number),
        );
        let result = self.session.batch(&batch, values).await?.into_rows_result()?;
        let rows = result.rows::<scylla::value::Row>()?;
        let applied =
            rows.flatten().any(|row| row.columns.first() == Some(&Some(scylla::value::CqlValue::Boolean(true))));
        if applied { Ok(()) } else { Err("the head stood elsewhere".into()) }
    }
}

/// An entity's name; random in its first bytes, as addresses are.
fn name(conversation: u32) -> [u8; 21] {
    let mut name = [1; 21];
    name[..8].copy_from_slice(&(u64::from(conversation) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    name
}

fn id(conversation: u32, commit: i64) -> [u8; 16] {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&conversation.to_le_bytes());
    id[8..].copy_from_slice(&commit.to_le_bytes());
    id
}
