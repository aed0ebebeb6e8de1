//! Verifying by one scan that every acknowledged write is present and unaltered.

use std::path::Path;
use std::sync::Arc;

use actors::clock::SystemClock;
use actors::id::EntityKey;
use actors::store::{Due, StoreError};
use fjall::Keyspace;

use super::chain::Chain;
use super::engine::{Engine, guarded};
use super::layout::{self, META, StateRow};
use super::log_row::{KnownHead, LogRow};
use super::open::{self, OpenError, OpenMode};
use super::read::ChainPosition;

/// Faults that are listed; more are only counted.
const MAX_LISTED_FAULTS: usize = 100;
/// Blocks are read once, so a small cache suffices.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// The result of [`verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Durable batches there ever were.
    pub batches: u64,
    /// Entities.
    pub entities: u64,
    /// Commits, each a row of the log.
    pub commits: u64,
    /// Events in them.
    pub events: u64,
    /// States, keyed rows, list entries, idempotency keys and due alarms.
    pub rows: u64,
    /// The first of the faults.
    pub faults: Vec<Fault>,
    /// All faults.
    pub fault_count: u64,
}

/// Data that differs from what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The entity that it belongs to, if that is known.
    pub entity: Option<EntityKey>,
    /// The fault.
    pub what: String,
}

impl Report {
    /// Whether everything is as it was written.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.fault_count == 0
    }

    fn fault(&mut self, entity: Option<EntityKey>, what: impl Into<String>) {
        self.fault_count += 1;
        if self.faults.len() < MAX_LISTED_FAULTS {
            self.faults.push(Fault { entity, what: what.into() });
        }
    }
}

/// Reads everything in the store in `dir`: every entity's log (no gap, each row following the one before, checksums),
/// the number and sum of all log rows against the chain of batches, every other row's checksum, states and due alarms
/// against the log. Takes the directory's lock, and creates no store if there is none.
///
/// # Errors
/// The error that keeps the store from opening, which is a fault of its own (see [`OpenError`]).
pub fn verify(dir: &Path) -> Result<Report, OpenError> {
    let opened = open::open(dir, OpenMode::default(), CACHE_BYTES, Arc::new(SystemClock))?;
    let mut report = Report { batches: opened.chain.batch, ..Report::default() };
    verify_log(&opened.engine, &opened.chain, &mut report);
    verify_rows(&opened.engine, &mut report);
    verify_index(&opened.engine, &mut report);
    Ok(report)
}

fn verify_log(engine: &Engine, chain: &Chain, report: &mut Report) {
    let mut counted = Chain { batch: chain.batch, hash: chain.hash, ..Chain::default() };
    let mut current: Option<(EntityKey, ChainPosition, KnownHead)> = None;
    scan(&engine.log, report, |key, value, report| {
        let Some(row) = LogRow::decode(key, value) else {
            let entity = layout::read_log_key(key).map(|(entity, _)| entity);
            return report.fault(entity, "a log row is damaged");
        };
        counted.count(row.hash);
        report.commits += 1;
        report.events += row.events;
        if row.facts.batch > chain.batch {
            report.fault(Some(row.entity), "a log row of a batch that was never written");
        }
        let mut walk = match current.take() {
            Some((entity, walk, _)) if entity == row.entity => walk,
            ended => {
                finish(engine, ended, report);
                report.entities += 1;
                ChainPosition::START
            }
        };
        if let Err(what) = walk.step(&row) {
            report.fault(Some(row.entity), what);
            walk = ChainPosition::at(&row);
        }
        current = Some((row.entity, walk, row.known_head()));
    });
    finish(engine, current, report);
    if counted != *chain {
        let what = format!("{} log rows were written and {} are there, or not the same", chain.rows, counted.rows);
        report.fault(None, what);
    }
}

/// Checks an entity's state and alarm against its newest log row.
fn finish(engine: &Engine, ended: Option<(EntityKey, ChainPosition, KnownHead)>, report: &mut Report) {
    let Some((entity, _, known)) = ended else { return };
    // Loading checks the state and the rows since.
    if let Err(error) = engine.load(entity, usize::MAX) {
        report.fault(Some(entity), error.to_string());
    }
    if let Some(at) = known.alarm {
        let key = layout::due_key(Due { at, entity });
        let contained =
            guarded(entity, || engine.index.contains_key(key).map_err(|error| layout::corrupt(entity, error)));
        match contained {
            Ok(true) => {}
            Ok(false) => report.fault(Some(entity), "its alarm is not in the index"),
            Err(error) => report.fault(Some(entity), error.to_string()),
        }
    }
}

fn verify_rows(engine: &Engine, report: &mut Report) {
    for keyspace in [&engine.rows, &engine.keys] {
        let idempotency = keyspace.name() == engine.keys.name();
        scan(keyspace, report, |key, value, report| {
            report.rows += 1;
            let entity = key.get(..EntityKey::LEN).and_then(layout::read_entity_key);
            let state = key.len() == EntityKey::LEN + 1;
            let sound = layout::unseal(key, value).is_some_and(|value| match (idempotency, state) {
                (true, _) => layout::read_key_row(value).is_some(),
                (false, true) => StateRow::decode(value).is_some(),
                (false, false) => true,
            });
            if entity.is_none() || !sound {
                report.fault(entity, "a row is damaged");
            }
        });
    }
}

fn verify_index(engine: &Engine, report: &mut Report) {
    scan(&engine.index, report, |key, value, report| {
        report.rows += 1;
        let due = layout::read_due_key(key);
        if layout::unseal(key, value).is_none() {
            return report.fault(due.map(|due| due.entity), "an index row is damaged");
        }
        if let Some(due) = due {
            match engine.known_head(due.entity) {
                Ok(known) if known.and_then(|s| s.alarm) == Some(due.at) => {}
                Ok(_) => report.fault(Some(due.entity), "the index has an alarm that the log does not have"),
                Err(error) => report.fault(Some(due.entity), error.to_string()),
            }
        }
    });
}

/// Reads every row of a keyspace except the store's own.
fn scan(keyspace: &Keyspace, report: &mut Report, mut visit: impl FnMut(&[u8], &[u8], &mut Report)) {
    let mut rows = keyspace.iter();
    loop {
        let next = guarded::<_, StoreError>(EntityKey::INSTALLATION, || Ok(rows.next().map(fjall::Guard::into_inner)));
        match next {
            Ok(Some(Ok((key, _)))) if *key == META[..] => {}
            Ok(Some(Ok((key, value)))) => visit(&key, &value, report),
            Ok(None) => return,
            // An unreadable row may be met again and again: the scan ends here.
            Ok(Some(Err(error))) => return report.fault(None, format!("{}: {error}", keyspace.name())),
            Err(error) => return report.fault(None, format!("{}: {error}", keyspace.name())),
        }
    }
}
