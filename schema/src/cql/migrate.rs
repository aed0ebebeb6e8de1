//! Migrations: the numbered files of `schema/migrations`, applied in order, once each.
//!
//! They are compiled in. The keyspace records the applied ones, with a checksum of the text. One process applies at a
//! time (a row with a time to live is the lock), always through the same node, and waits after each statement until all
//! nodes agree on the schema.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::ExecutionError;
use scylla::policies::load_balancing::{NodeIdentifier, SingleTargetLoadBalancingPolicy};
use scylla::statement::unprepared::Statement;
use scylla::value::{CqlValue, Row};
use tokio::time::{Instant, sleep};

use super::session::{self, ConnectError, Contact};

/// One migration.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its position, from 1.
    pub number: i32,
    /// Its name, as in its file's name.
    pub name: &'static str,
    /// Its statements.
    pub text: &'static str,
}

impl Migration {
    fn checksum(&self) -> String {
        blake3::hash(self.text.as_bytes()).to_hex().to_string()
    }
}

macro_rules! migrations {
    ($($number:literal: $name:literal),* $(,)?) => {
        /// All migrations, in order. Append only: a released one never changes.
        pub const MIGRATIONS: &[Migration] = &[$(Migration {
            number: $number,
            name: $name,
            text: include_str!(concat!("../../migrations/", $name, ".cql")),
        },)*];
    };
}

migrations! {
    1: "0001_entities",
    2: "0002_addresses",
}

/// The tables that the migrations themselves need.
const OWN_TABLES: &str = include_str!("../../migrations/0000_migrations.cql");
/// The lock expires after this long; it is renewed before each statement. Longer than one statement may take: its own
/// timeout ([`CHANGE_TIMEOUT`]), and twice the driver's minute for schema agreement.
const LOCK_SECONDS: i32 = 240;
/// How long to wait for another process that applies migrations: longer than the lock of a dead one lasts.
const LOCK_TIMEOUT: Duration = Duration::from_secs(300);
/// Pause between two reads of the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(500);
/// How long a change of the schema may take.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a keyspace does not fit this program, or could not be migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// There is no session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There is no such keyspace.
    #[error("the keyspace {0} does not exist; run `tertulia migrate`, or serve with --migrate")]
    NoKeyspace(String),
    /// Migrations are pending.
    #[error("the keyspace {keyspace} is out of date: {} pending; run `tertulia migrate`, or serve with --migrate",
        pending.join(", "))]
    OutOfDate {
        /// The keyspace.
        keyspace: String,
        /// Their names.
        pending: Vec<&'static str>,
    },
    /// The keyspace has migrations that this program does not know.
    #[error("the keyspace {keyspace} is newer than this program: it has {found}; this program knows {known} at most")]
    Newer {
        /// The keyspace.
        keyspace: String,
        /// The newest one in the keyspace.
        found: String,
        /// The newest one that this program knows.
        known: &'static str,
    },
    /// A migration was applied with another text.
    #[error("the keyspace {keyspace} has {name} with a different text from this program's")]
    Altered {
        /// The keyspace.
        keyspace: String,
        /// Its name.
        name: &'static str,
    },
    /// Another process has been applying migrations for too long.
    #[error("another process is applying migrations to the keyspace {0}")]
    Locked(String),
    /// The lock was lost between two statements: another process may be applying migrations. Applied ones are
    /// kept; a repetition continues from there.
    #[error(
        "the lock on migrations of the keyspace {keyspace} was lost during {migration}: another process may be \
         applying them; run it again"
    )]
    LockLost {
        /// The keyspace.
        keyspace: String,
        /// Which migration was not finished.
        migration: &'static str,
    },
    /// A statement failed.
    #[error("{what} failed: {why}")]
    Failed {
        /// Which one.
        what: String,
        /// Why.
        why: String,
    },
}

fn failed(what: &str) -> impl FnOnce(ExecutionError) -> MigrateError + '_ {
    move |error| MigrateError::Failed { what: what.to_owned(), why: error.to_string() }
}

/// The statements of a file: comments removed, one at a time.
fn statements(text: &str) -> Vec<String> {
    let code: String =
        text.lines().map(|line| line.split("--").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    code.split(';').map(str::trim).filter(|statement| !statement.is_empty()).map(str::to_owned).collect()
}

/// The applied migrations, by number: name and checksum.
type Applied = BTreeMap<i32, (String, String)>;

/// The migrations to be applied to a keyspace that has these.
fn pending(keyspace: &str, applied: &Applied, known: &[Migration]) -> Result<Vec<Migration>, MigrateError> {
    let newest = known.last();
    if let Some((_, (name, _))) =
        applied.last_key_value().filter(|(number, _)| newest.is_none_or(|newest| **number > newest.number))
    {
        let known = newest.map_or("none", |newest| newest.name);
        return Err(MigrateError::Newer { keyspace: keyspace.to_owned(), found: name.clone(), known });
    }
    let mut pending = Vec::new();
    for migration in known {
        match applied.get(&migration.number) {
            Some((_, checksum)) if *checksum != migration.checksum() => {
                return Err(MigrateError::Altered { keyspace: keyspace.to_owned(), name: migration.name });
            }
            Some(_) => {}
            None => pending.push(*migration),
        }
    }
    Ok(pending)
}

/// Checks that a keyspace fits this program.
///
/// # Errors
/// See [`MigrateError`].
pub(super) async fn check(session: &Session, keyspace: &str) -> Result<(), MigrateError> {
    let tables = tables(session, keyspace).await?.ok_or_else(|| MigrateError::NoKeyspace(keyspace.to_owned()))?;
    let applied = if tables.contains("migration") { applied(session, keyspace).await? } else { Applied::new() };
    let pending: Vec<_> = pending(keyspace, &applied, MIGRATIONS)?.iter().map(|migration| migration.name).collect();
    if pending.is_empty() { Ok(()) } else { Err(MigrateError::OutOfDate { keyspace: keyspace.to_owned(), pending }) }
}

/// The tables of a keyspace; `None` if there is no such keyspace.
async fn tables(session: &Session, keyspace: &str) -> Result<Option<BTreeSet<String>>, MigrateError> {
    let what = "reading the schema";
    let keyspaces = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?";
    if rows(session, what, keyspaces, keyspace).await?.is_empty() {
        return Ok(None);
    }
    let tables = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
    Ok(Some(rows(session, what, tables, keyspace).await?.iter().filter_map(|row| text(row, 0)).collect()))
}

async fn applied(session: &Session, keyspace: &str) -> Result<Applied, MigrateError> {
    let statement = format!("SELECT number, name, checksum FROM \"{keyspace}\".migration WHERE id = ?");
    let rows = rows(session, "reading the applied migrations", &statement, "schema").await?;
    let read = |row: &Row| {
        let number = row.columns.first()?.as_ref()?.as_int()?;
        Some((number, (text(row, 1)?, text(row, 2)?)))
    };
    Ok(rows.iter().filter_map(read).collect())
}

async fn rows(session: &Session, what: &str, statement: &str, value: &str) -> Result<Vec<Row>, MigrateError> {
    let result = session.query_unpaged(statement, (value,)).await.map_err(failed(what))?;
    let read = |why: String| MigrateError::Failed { what: what.to_owned(), why };
    let result = result.into_rows_result().map_err(|error| read(error.to_string()))?;
    let rows = result.rows::<Row>().map_err(|error| read(error.to_string()))?;
    rows.collect::<Result<_, _>>().map_err(|error| read(error.to_string()))
}

fn text(row: &Row, column: usize) -> Option<String> {
    row.columns.get(column)?.as_ref()?.as_text().cloned()
}

/// Creates the keyspace if there is none, and applies pending migrations; returns their names.
///
/// `replication`: how many copies a new keyspace has in each data centre; `None`: three in each, or as many as there
/// are nodes if there are fewer. An existing keyspace keeps its replication.
///
/// # Errors
/// See [`MigrateError`].
pub async fn migrate(
    contact: &Contact,
    replication: Option<&[(String, u32)]>,
) -> Result<Vec<&'static str>, MigrateError> {
    let (session, _) = session::connect(contact).await?;
    let keyspace = contact.keyspace.as_str();
    if tables(&session, keyspace).await?.is_none() {
        change(&session, "creating the keyspace", &create_keyspace(&session, keyspace, replication)).await?;
    }
    enter(&session, keyspace).await?;
    let existing = tables(&session, keyspace).await?.unwrap_or_default();
    if !["migration", "migration_lock"].iter().all(|table| existing.contains(*table)) {
        for statement in statements(OWN_TABLES) {
            change(&session, "0000_migrations", &statement).await?;
        }
    }
    if pending(keyspace, &applied(&session, keyspace).await?, MIGRATIONS)?.is_empty() {
        return Ok(Vec::new());
    }
    let owner = session.session_id().to_string();
    lock(&session, keyspace, &owner).await?;
    let done = apply(&session, keyspace, &owner).await;
    let unlock = "DELETE FROM migration_lock WHERE id = 'schema' IF owner = ?";
    if let Err(error) = session.query_unpaged(unlock, (&owner,)).await {
        tracing::warn!(%error, "could not release the lock on migrations; it expires");
    }
    done
}

/// Selects the keyspace. One that another process creates at this moment appears in the schema's tables slightly before
/// it can be used.
async fn enter(session: &Session, keyspace: &str) -> Result<(), MigrateError> {
    let until = Instant::now() + CHANGE_TIMEOUT;
    loop {
        match session.use_keyspace(keyspace, true).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > until => {
                let what = format!("using the keyspace {keyspace}");
                return Err(MigrateError::Failed { what, why: error.to_string() });
            }
            Err(_) => sleep(LOCK_PAUSE).await,
        }
    }
}

async fn apply(session: &Session, keyspace: &str, owner: &str) -> Result<Vec<&'static str>, MigrateError> {
    let mut done = Vec::new();
    // Another process may have applied them while this one waited for the lock.
    for migration in pending(keyspace, &applied(session, keyspace).await?, MIGRATIONS)? {
        for statement in statements(migration.text) {
            if !renewed(session, owner).await? {
                return Err(MigrateError::LockLost { keyspace: keyspace.to_owned(), migration: migration.name });
            }
            if !is_done(session, keyspace, &statement).await? {
                change(session, migration.name, &statement).await?;
            }
        }
        let insert = "INSERT INTO migration (id, number, name, checksum, applied_at) \
            VALUES ('schema', ?, ?, ?, toTimestamp(now()))";
        let values = (migration.number, migration.name, migration.checksum());
        session.query_unpaged(insert, values).await.map_err(failed(migration.name))?;
        tracing::info!(migration = migration.name, keyspace, "a migration was applied");
        done.push(migration.name);
    }
    Ok(done)
}

/// Whether a column that a statement adds exists already, from a process that died after adding it. Statements that
/// create something say `IF NOT EXISTS`, which not every server supports for a column.
async fn is_done(session: &Session, keyspace: &str, statement: &str) -> Result<bool, MigrateError> {
    let tokens: Vec<&str> = statement.split_whitespace().collect();
    let ["ALTER", "TABLE", table, "ADD", column, ..] = tokens[..] else { return Ok(false) };
    let columns = "SELECT table_name, column_name FROM system_schema.columns WHERE keyspace_name = ?";
    let columns = rows(session, "reading the existing columns", columns, keyspace).await?;
    let is_it = |row: &Row| text(row, 0).as_deref() == Some(table) && text(row, 1).as_deref() == Some(column);
    Ok(columns.iter().any(is_it))
}

async fn lock(session: &Session, keyspace: &str, owner: &str) -> Result<(), MigrateError> {
    let insert =
        format!("INSERT INTO migration_lock (id, owner) VALUES ('schema', ?) IF NOT EXISTS USING TTL {LOCK_SECONDS}");
    let until = Instant::now() + LOCK_TIMEOUT;
    while Instant::now() < until {
        match conditional(session, &insert, (owner,)).await {
            Ok(true) => return Ok(()),
            // The holder may be migrating right now; or this process's own earlier attempt did take the lock.
            Ok(false) => {
                let held = "SELECT owner FROM migration_lock WHERE id = ?";
                let rows = rows(session, "reading the lock on migrations", held, "schema").await?;
                if rows.first().and_then(|row| text(row, 0)).is_some_and(|held| held == owner) {
                    return Ok(());
                }
            }
            Err(error) => tracing::debug!(%error, "retrying to take the lock on migrations"),
        }
        sleep(LOCK_PAUSE).await;
    }
    Err(MigrateError::Locked(keyspace.to_owned()))
}

/// Renews the lock for its full time; `false` if it is no longer this process's.
async fn renewed(session: &Session, owner: &str) -> Result<bool, MigrateError> {
    let renew =
        format!("UPDATE migration_lock USING TTL {LOCK_SECONDS} SET owner = ? WHERE id = 'schema' IF owner = ?");
    conditional(session, &renew, (owner, owner)).await
}

/// Whether a conditional statement was applied.
async fn conditional(
    session: &Session,
    statement: &str,
    values: impl scylla::serialize::row::SerializeRow,
) -> Result<bool, MigrateError> {
    let what = "the lock on migrations";
    let result = session.query_unpaged(statement, values).await.map_err(failed(what))?;
    let Ok(result) = result.into_rows_result() else { return Ok(false) };
    let first = result.maybe_first_row::<Row>().ok().flatten();
    Ok(first.is_some_and(|row| row.columns.first() == Some(&Some(CqlValue::Boolean(true)))))
}

/// Changes the schema, always through the same node: two nodes that create one table at once may each make its own.
async fn change(session: &Session, what: &str, text: &str) -> Result<(), MigrateError> {
    let mut statement = Statement::new(text);
    statement.set_request_timeout(Some(CHANGE_TIMEOUT));
    let state = session.get_cluster_state();
    let nodes = state.get_nodes_info().iter().filter(|node| node.is_connected());
    if let Some(node) = nodes.min_by_key(|node| node.host_id) {
        let node = NodeIdentifier::Node(Arc::clone(node));
        statement.set_load_balancing_policy(Some(SingleTargetLoadBalancingPolicy::new(node, None)));
    }
    session.query_unpaged(statement, ()).await.map_err(failed(what))?;
    let agreed = session.await_schema_agreement().await;
    agreed.map(drop).map_err(|error| MigrateError::Failed { what: what.to_owned(), why: error.to_string() })
}

fn create_keyspace(session: &Session, keyspace: &str, replication: Option<&[(String, u32)]>) -> String {
    let state = session.get_cluster_state();
    let nodes = state.get_nodes_info();
    let copies = match replication {
        Some(replication) => replication.to_vec(),
        None => {
            let mut found: BTreeMap<String, u32> = BTreeMap::new();
            for node in nodes {
                *found.entry(node.datacenter.clone().unwrap_or_default()).or_default() += 1;
            }
            found.into_iter().map(|(datacenter, nodes)| (datacenter, nodes.min(3))).collect()
        }
    };
    for (datacenter, copies) in copies.iter().filter(|(_, copies)| *copies < 3) {
        tracing::warn!(
            datacenter,
            copies,
            "a keyspace with fewer than 3 copies becomes unavailable when one node is down"
        );
    }
    // The driver knows shards only of ScyllaDB's nodes, and only ScyllaDB knows tablets.
    let is_scylla = nodes.iter().any(|node| node.sharder().is_some());
    let tablets = if is_scylla { " AND tablets = {'enabled': true}" } else { "" };
    let copies: Vec<_> =
        copies.iter().map(|(datacenter, copies)| format!("'{}': {copies}", datacenter.replace('\'', "''"))).collect();
    format!(
        "CREATE KEYSPACE IF NOT EXISTS \"{keyspace}\" WITH replication = \
         {{'class': 'NetworkTopologyStrategy', {}}}{tablets}",
        copies.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Migration] = &[
        Migration { number: 1, name: "0001_a", text: "CREATE TABLE a" },
        Migration { number: 2, name: "0002_b", text: "CREATE TABLE b" },
    ];

    fn applied(migrations: &[Migration]) -> Applied {
        let row = |migration: &Migration| (migration.number, (migration.name.to_owned(), migration.checksum()));
        migrations.iter().map(row).collect()
    }

    fn names(pending: Result<Vec<Migration>, MigrateError>) -> Vec<&'static str> {
        pending.expect("pending migrations").iter().map(|migration| migration.name).collect()
    }

    #[test]
    fn migrations_that_are_not_applied_are_pending_in_order() {
        assert_eq!(names(pending("ks", &Applied::new(), KNOWN)), ["0001_a", "0002_b"]);
        assert_eq!(names(pending("ks", &applied(&KNOWN[..1]), KNOWN)), ["0002_b"]);
        assert_eq!(names(pending("ks", &applied(KNOWN), KNOWN)), [""; 0]);
    }

    #[test]
    fn a_newer_keyspace_is_refused_by_name() {
        let error = pending("ks", &applied(KNOWN), &KNOWN[..1]).expect_err("it is newer");
        let text = error.to_string();
        assert!(text.contains("0002_b") && text.contains("0001_a") && text.contains("ks"), "{text}");
    }

    #[test]
    fn a_migration_with_another_text_is_refused_by_name() {
        let altered = [Migration { text: "CREATE TABLE other", ..KNOWN[0] }, KNOWN[1]];
        let error = pending("ks", &applied(&altered), KNOWN).expect_err("it was altered");
        assert!(matches!(error, MigrateError::Altered { name: "0001_a", .. }), "{error}");
    }

    #[test]
    fn numbers_and_names_of_migrations_ascend_and_agree() {
        for (place, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.number as usize, place + 1);
            assert!(migration.name.starts_with(&format!("{:04}_", migration.number)), "{}", migration.name);
            assert!(!statements(migration.text).is_empty());
        }
    }

    #[test]
    fn comments_are_no_statements() {
        let text = "-- one; two\nCREATE TABLE a ( -- with; words\n  k int PRIMARY KEY );\n\nDROP TABLE b;\n-- end";
        assert_eq!(statements(text), ["CREATE TABLE a ( \n  k int PRIMARY KEY )", "DROP TABLE b"]);
    }
}
