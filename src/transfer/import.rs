//! Reading an export into a store.

use std::collections::BTreeMap;
use std::io::{BufRead, Read as _};
use std::sync::Arc;

use actors::clock::Millis;
use actors::codec;
use actors::id::{EntityKey, half};
use actors::machine::Record;
use actors::registry::{Event, RowChange};
use actors::store::{
    AlarmChange, Cause, Commit, CommitId, Head, NewRecord, Outcome, ReadLevel, RowWrite, Store, StoreError, Table,
    View, ViewWrite,
};
use actors::tables::{KEYS_BY_HASH, KEYS_BY_ID, SETTINGS, WORKSPACES};
use actors::tasks::backoff::retry_transient;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::export::is_own;
use super::line::{Blob, FORMAT, Line, Step, VERSION};
use super::promises;
use super::{RETRY_TIMEOUT, TransferError};
use crate::bootstrap::{BOOTSTRAPPED, PEPPER, PLACED};

/// Entities written at once: each waits for the store, and the store commits many together.
const WORKERS: usize = 32;
/// Lines waiting for each worker, about 256 KiB each if an export wrote them.
const LINES_PER_WORKER: usize = 2;
/// The longest line that is read, far above any written one: it is held in memory.
pub(super) const LINE_BYTES: u64 = 256 * 1024 * 1024;
/// How often a change of the installation is repeated if another process has changed it meanwhile.
const MAX_ATTEMPTS: u32 = 8;

/// The options of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Leave out the API keys, because the target hashes keys under another secret.
    pub without_keys: bool,
}

/// The result of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Entities that the export has.
    pub entities: u64,
    /// Commits made now.
    pub commits: u64,
    /// Commits made by an earlier import.
    pub skipped: u64,
}

impl Imported {
    fn add(&mut self, other: Self) {
        self.entities += other.entities;
        self.commits += other.commits;
        self.skipped += other.skipped;
    }
}

/// Imports an export, as far as it is not done already.
///
/// # Errors
/// See [`TransferError`]. Finished work stays; the import can be run again.
pub async fn import(store: Arc<dyn Store>, options: Options, from: impl BufRead) -> Result<Imported, TransferError> {
    let mut workers = Workers::start(&store);
    let read = read(&store, options, from, &mut workers).await;
    let worked = workers.end().await;
    // The first cause is a worker's: a worker that fails stops the reading.
    let mut done = worked?;
    done.add(read?);
    Ok(done)
}

async fn read(
    store: &Arc<dyn Store>,
    options: Options,
    mut from: impl BufRead,
    workers: &mut Workers,
) -> Result<Imported, TransferError> {
    let mut hasher = blake3::Hasher::new();
    let mut text = Vec::new();
    let mut number = 0;
    let mut began = Millis(0);
    loop {
        text.clear();
        from.by_ref().take(LINE_BYTES).read_until(b'\n', &mut text)?;
        let malformed = |what: String| TransferError::Malformed { line: number + 1, what };
        if text.len() as u64 == LINE_BYTES {
            return Err(malformed(format!("a line has at most {LINE_BYTES} bytes")));
        }
        if text.last() != Some(&b'\n') {
            return Err(malformed(
                "the export is incomplete: its last line is missing; import the whole file".to_owned(),
            ));
        }
        let line: Line = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        match line {
            Line::Header { format, version, at, .. } if number == 0 => {
                if format != FORMAT || version != VERSION {
                    return Err(malformed(format!("{format} {version} is not {FORMAT} {VERSION}")));
                }
                began = Millis(at);
            }
            _ if number == 0 => return Err(malformed("this is not the start of an export".to_owned())),
            Line::Header { .. } => return Err(malformed("a second start of an export".to_owned())),
            Line::Installation { rows, promises } => {
                change_installation(store, |head| installation(store, options, &rows, (head, began))).await?;
                // Without the keys their requests cannot be retried.
                if !options.without_keys {
                    promises::import(store, &promises, began, number + 1).await?;
                }
            }
            Line::Commit(step) => {
                let id = commit_id(&text);
                // A missing worker has failed; its error is reported at the end.
                if !workers.dispatch(step, id, began, number + 1).await {
                    return Ok(Imported::default());
                }
            }
            Line::End { lines, hash } => {
                if lines != number || hash != hasher.finalize().to_hex().to_string() {
                    return Err(malformed("lines are missing or were changed".to_owned()));
                }
                if !from.fill_buf()?.is_empty() {
                    let what = "there are lines after the end of the export; import each export separately";
                    return Err(TransferError::Malformed { line: number + 2, what: what.to_owned() });
                }
                return Ok(Imported::default());
            }
        }
        hasher.update(&text);
        number += 1;
    }
}

/// The id of a line's commit, the same however often it is sent.
pub(super) fn commit_id(line: &[u8]) -> CommitId {
    CommitId(half(&blake3::hash(line)))
}

/// A line for a worker.
struct Work {
    step: Step,
    id: CommitId,
    at: Millis,
    line: u64,
}

/// Tasks that each write some of the entities, every entity in the order of its lines.
struct Workers {
    /// The queue of each.
    workers: Vec<mpsc::Sender<Work>>,
    tasks: JoinSet<Result<Imported, TransferError>>,
}

impl Workers {
    fn start(store: &Arc<dyn Store>) -> Self {
        let mut tasks = JoinSet::new();
        let workers = (0..WORKERS).map(|_| {
            let (worker, work) = mpsc::channel(LINES_PER_WORKER);
            tasks.spawn(write(Arc::clone(store), work));
            worker
        });
        Self { workers: workers.collect(), tasks }
    }

    /// Passes a line to its worker; `false` if that is gone.
    async fn dispatch(&mut self, step: Step, id: CommitId, at: Millis, line: u64) -> bool {
        let name = blake3::hash(&step.entity.0.to_bytes());
        let worker = &self.workers[usize::from(name.as_bytes()[0]) % WORKERS];
        worker.send(Work { step, id, at, line }).await.is_ok()
    }

    async fn end(mut self) -> Result<Imported, TransferError> {
        self.workers.clear();
        let mut done = Imported::default();
        let mut failed = None;
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(Ok(part)) => done.add(part),
                Ok(Err(error)) => failed = failed.or(Some(error)),
                Err(error) => {
                    let lost = StoreError::Unavailable(Cause::of("a worker failed", error));
                    failed = failed.or(Some(TransferError::Store(lost)));
                }
            }
        }
        failed.map_or(Ok(done), Err)
    }
}

/// The head of the entity that a worker is importing.
struct Progress {
    entity: EntityKey,
    /// The head after the lines so far.
    head: Option<Head>,
    /// The store's head before.
    found: Option<Head>,
}

async fn write(store: Arc<dyn Store>, mut work: mpsc::Receiver<Work>) -> Result<Imported, TransferError> {
    let mut done = Imported::default();
    let mut unfinished: Option<Progress> = None;
    while let Some(Work { step, id, at, line }) = work.recv().await {
        let malformed = |what: &str| TransferError::Malformed { line, what: what.to_owned() };
        let entity = step.entity.0;
        let last = step.last;
        let mut progress = match unfinished.take() {
            Some(progress) if progress.entity == entity => progress,
            Some(_) => return Err(malformed("an entity ends before its last line")),
            None => {
                let loaded = retry_transient(RETRY_TIMEOUT, || store.load(entity, ReadLevel::Settled)).await?;
                Progress { entity, head: None, found: loaded.map(|loaded| loaded.head) }
            }
        };
        let before = progress.head.map_or(0, |head| head.commit);
        if step.number != before + 1 {
            return Err(malformed("an entity's lines are out of order"));
        }
        let commit = commit(step, id, at, progress.head).ok_or_else(|| malformed("a hash has the wrong length"))?;
        let next = commit.next_head();
        let has = progress.found.map_or(0, |head| head.commit);
        if next.commit < has {
            done.skipped += 1;
        } else {
            // The newest existing one is sent too: the store knows whether it is this one.
            send(&*store, commit).await?;
            if next.commit == has { done.skipped += 1 } else { done.commits += 1 }
        }
        progress.head = Some(next);
        if !last {
            unfinished = Some(progress);
            continue;
        }
        if has > next.commit {
            return Err(TransferError::Occupied(entity));
        }
        done.entities += 1;
    }
    Ok(done)
}

/// Makes a commit that must be its entity's next one, or already be applied.
pub(super) async fn send(store: &dyn Store, commit: Commit) -> Result<(), TransferError> {
    let entity = commit.entity;
    let sent = retry_transient(RETRY_TIMEOUT, || async {
        let (answer, answered) = oneshot::channel();
        store.commit(commit.clone(), Box::new(move |outcome| drop(answer.send(outcome))));
        answered.await.unwrap_or_else(|_| Err(StoreError::Indeterminate("no answer".into())))
    });
    match sent.await? {
        Outcome::Committed(_) => Ok(()),
        Outcome::Conflict => Err(TransferError::Occupied(entity)),
    }
}

/// `None` if a key's hash has the wrong length.
fn commit(step: Step, id: CommitId, at: Millis, expected: Option<Head>) -> Option<Commit> {
    let records = step.records.into_iter().map(|(event, Blob(payload))| NewRecord { event, payload });
    let row = |(table, Blob(key), Blob(value))| RowWrite { table: Table(table), key, value: Some(value) };
    let entry = |(view, Blob(key), Blob(value))| ViewWrite { view: View(view), key, value: Some(value) };
    Some(Commit {
        entity: step.entity.0,
        expected,
        id,
        at,
        records: records.collect(),
        keys: step.keys.iter().map(super::line::Key::read).collect::<Option<_>>()?,
        rows: step.rows.into_iter().map(row).collect(),
        views: step.views.into_iter().map(entry).collect(),
        state: step.state.map(|Blob(state)| state),
        alarm: step.alarm.map(|at| AlarmChange { previous: None, next: Some(Millis(at)) }),
        redactions: Vec::new(),
        erases: false,
        watch: None,
    })
}

/// Changes the installation by the commit that `decide` makes from its current state; `None`: there is nothing to do.
/// Other processes may change it meanwhile, and each time they do, they have made progress.
pub(super) async fn change_installation<F: Future<Output = Result<Option<Commit>, TransferError>>>(
    store: &Arc<dyn Store>,
    decide: impl Fn(Option<Head>) -> F,
) -> Result<(), TransferError> {
    for _ in 0..MAX_ATTEMPTS {
        let loaded = retry_transient(RETRY_TIMEOUT, || store.load(EntityKey::INSTALLATION, ReadLevel::Settled)).await?;
        let Some(commit) = decide(loaded.map(|loaded| loaded.head)).await? else { return Ok(()) };
        match send(&**store, commit).await {
            Err(TransferError::Occupied(_)) => {}
            other => return other,
        }
    }
    Err(TransferError::Occupied(EntityKey::INSTALLATION))
}

/// The commit that adds missing rows of the installation.
async fn installation(
    store: &Arc<dyn Store>,
    options: Options,
    rows: &[(u8, Blob, Blob)],
    (expected, at): (Option<Head>, Millis),
) -> Result<Option<Commit>, TransferError> {
    let mut changes = BTreeMap::new();
    // Imported resources have no list positions yet; the next start assigns them.
    if retry_transient(RETRY_TIMEOUT, || store.row(EntityKey::INSTALLATION, SETTINGS, PLACED.into())).await?.is_some() {
        changes.insert((SETTINGS, Bytes::from_static(PLACED)), None);
    }
    for (table, Blob(key), Blob(value)) in rows {
        let table = Table(*table);
        if is_own(table, key) {
            continue;
        }
        let is_key = [KEYS_BY_HASH, KEYS_BY_ID].contains(&table);
        let is_pepper = (table, &key[..]) == (SETTINGS, PEPPER);
        if options.without_keys && is_key {
            continue;
        }
        match retry_transient(RETRY_TIMEOUT, || store.row(EntityKey::INSTALLATION, table, key.clone())).await? {
            None => {
                changes.insert((table, key.clone()), Some(value.clone()));
            }
            Some(found) if found == *value => {}
            Some(_) if is_pepper && options.without_keys => {}
            Some(_) if is_pepper => return Err(TransferError::OtherPepper),
            Some(_) if table == WORKSPACES => {
                return Err(TransferError::WorkspaceTaken(String::from_utf8_lossy(key).into_owned()));
            }
            // The first start of both is over.
            Some(_) if (table, &key[..]) == (SETTINGS, BOOTSTRAPPED) => {}
            Some(_) => return Err(TransferError::Occupied(EntityKey::INSTALLATION)),
        }
    }
    Ok(Some(changes).filter(|changes| !changes.is_empty()).map(|changes| registry(expected, changes, at)))
}

/// The commit by which the installation's own machine would change these rows.
fn registry(expected: Option<Head>, rows: BTreeMap<(Table, Bytes), Option<Bytes>>, at: Millis) -> Commit {
    let change = |((table, key), value): (&(Table, Bytes), &Option<Bytes>)| match value {
        Some(value) => RowChange::put(*table, key, value),
        None => RowChange::delete(*table, key),
    };
    let changes = rows.iter().map(change).collect();
    let seq = expected.map_or(0, |head| head.seq) + 1;
    let payload = codec::encode_record(&Record { seq, at, trace: None, event: Event { changes } });
    let rows = rows.into_iter().map(|((table, key), value)| RowWrite { table, key, value });
    let place = [&payload[..], &expected.map_or(0, |head| head.commit).to_le_bytes()].concat();
    Commit {
        entity: EntityKey::INSTALLATION,
        expected,
        id: commit_id(&place),
        at,
        records: vec![NewRecord { event: true, payload }],
        keys: Vec::new(),
        rows: rows.collect(),
        views: Vec::new(),
        state: None,
        alarm: None,
        redactions: Vec::new(),
        erases: false,
        watch: None,
    }
}
