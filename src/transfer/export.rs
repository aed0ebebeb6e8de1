//! Writing an export.

use std::io::{self, Write};

use actors::clock::Millis;
use actors::id::{Address, EntityKey, Kind};
use actors::store::inventory::Inventory;
use actors::store::{KeyRange, Loaded, LogRecord, LogScan, Order, Pages, ReadLevel, Row, SeqRange, Table, View};
use actors::tables::{IN_ORDER, KEYS_BY_HASH, KEYS_BY_ID, PLACES, SETTINGS, WORKSPACES};
use actors::tasks::backoff::retry_transient;
use actors::workspace::address_of;
use bytes::Bytes;

use super::line::{Blob, FORMAT, Key, Line, Name, Step, VERSION, sum_of};
use super::listing::{InstallationDigest, Listing, fingerprint_of};
use super::promises;
use super::{ExistingExport, RETRY_TIMEOUT, TransferError};
use crate::bootstrap::{BOOTSTRAPPED, PEPPER, PLACED};

/// Rows, records or names of one read, and at most in one line.
const ROWS_PER_PAGE: usize = 200;
/// Bytes after which a line is full; every store accepts a commit of that size.
const LINE_BYTES: usize = 128 * 1024;

/// The result of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Conversations, contacts and configurations.
    pub entities: u64,
    /// Lines, the first and the last included.
    pub lines: u64,
    /// Entities already written by an earlier export.
    pub resumed: u64,
    /// The earlier content of the file.
    pub found: ExistingExport,
}

/// The output of lines.
pub(super) struct Out<W> {
    pub(super) to: W,
    pub(super) hasher: blake3::Hasher,
    pub(super) done: Exported,
    /// The written part of the installation.
    pub(super) installation: InstallationDigest,
}

impl<W: Write> Out<W> {
    pub(super) fn new(to: W) -> Self {
        Self {
            to,
            hasher: blake3::Hasher::new(),
            done: Exported::default(),
            installation: InstallationDigest::default(),
        }
    }

    pub(super) fn line(&mut self, line: &Line) -> Result<(), TransferError> {
        let mut text = serde_json::to_vec(line).map_err(io::Error::from)?;
        text.push(b'\n');
        self.to.write_all(&text)?;
        self.count(&text);
        self.installation.note(line)
    }

    pub(super) fn count(&mut self, text: &[u8]) {
        self.hasher.update(text);
        self.done.lines += 1;
    }
}

/// Writes a workspace, or everything, to `to`.
///
/// # Errors
/// See [`TransferError`].
pub async fn export(
    store: &dyn Inventory,
    workspace: Option<&str>,
    now: Millis,
    to: impl Write,
) -> Result<Exported, TransferError> {
    let mut out = Out::new(to);
    let header = Line::Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        workspace: workspace.map(str::to_owned),
        at: now.0,
    };
    out.line(&header)?;
    installation(store, workspace, &mut out).await?;
    entities(store, Listing::new(store, workspace), out).await
}

/// The rows of the installation that belong to it.
pub(super) async fn installation<W: Write>(
    store: &dyn Inventory,
    workspace: Option<&str>,
    out: &mut Out<W>,
) -> Result<(), TransferError> {
    let all = KeyRange::default;
    let Some(workspace) = workspace else {
        if retry_transient(RETRY_TIMEOUT, || store.load(EntityKey::INSTALLATION, ReadLevel::Settled)).await?.is_none() {
            return Err(TransferError::NoInstallation);
        }
        for table in retry_transient(RETRY_TIMEOUT, || store.tables(EntityKey::INSTALLATION)).await? {
            installation_rows(store, table, all(), out).await?;
        }
        return promises::export(store, None, out).await;
    };
    let row = async |table, key: &[u8]| {
        let key = Bytes::copy_from_slice(key);
        retry_transient(RETRY_TIMEOUT, || store.row(EntityKey::INSTALLATION, table, key.clone())).await
    };
    let Some(itself) = row(WORKSPACES, workspace.as_bytes()).await? else {
        return Err(TransferError::NoWorkspace(workspace.to_owned()));
    };
    let mut rows = vec![(WORKSPACES, Bytes::copy_from_slice(workspace.as_bytes()), itself)];
    // The mark of the first start belongs to what that start has made.
    let settings = [Some(PEPPER), (workspace == actors::workspace::DEFAULT).then_some(BOOTSTRAPPED)];
    for name in settings.into_iter().flatten() {
        rows.extend(row(SETTINGS, name).await?.map(|value| (SETTINGS, Bytes::from_static(name), value)));
    }
    out.line(&of_installation(rows))?;
    // Keys of a workspace are adjacent, by its address.
    let range = KeyRange::under(&address_of(workspace).0);
    let mut pages =
        Pages::of_rows(store, EntityKey::INSTALLATION, KEYS_BY_ID, range, ROWS_PER_PAGE).patient(RETRY_TIMEOUT);
    while let Some(ids) = pages.next().await? {
        let mut rows = Vec::new();
        for id in ids {
            if let Some(key) = row(KEYS_BY_HASH, &id.value[..id.value.len().min(16)]).await? {
                rows.push((KEYS_BY_HASH, id.value.slice(..16), key));
            }
            rows.push((KEYS_BY_ID, id.key, id.value));
        }
        out.line(&of_installation(rows))?;
    }
    promises::export(store, Some(workspace), out).await
}

/// A line of rows of the installation.
fn of_installation(rows: Vec<(Table, Bytes, Bytes)>) -> Line {
    Line::Installation { rows: rows.into_iter().map(line_row).collect(), promises: Vec::new() }
}

fn line_row((table, key, value): (Table, Bytes, Bytes)) -> (u8, Blob, Blob) {
    (table.0, Blob(key), Blob(value))
}

/// Whether this row of an installation is about the creation order of its workspaces, which applies to no other
/// installation.
pub(super) fn is_own(table: Table, key: &[u8]) -> bool {
    [IN_ORDER, PLACES].contains(&table) || (table, key) == (SETTINGS, PLACED)
}

async fn installation_rows<W: Write>(
    store: &dyn Inventory,
    table: Table,
    range: KeyRange,
    out: &mut Out<W>,
) -> Result<(), TransferError> {
    let mut pages = Pages::of_rows(store, EntityKey::INSTALLATION, table, range, ROWS_PER_PAGE).patient(RETRY_TIMEOUT);
    while let Some(rows) = pages.next().await? {
        let rows = rows.into_iter().filter(|row| !is_own(table, &row.key));
        let rows: Vec<_> = rows.map(|row| line_row((table, row.key, row.value))).collect();
        if !rows.is_empty() {
            out.line(&Line::Installation { rows, promises: Vec::new() })?;
        }
    }
    Ok(())
}

/// Every entity that is not listed yet, and the end.
pub(super) async fn entities<W: Write>(
    store: &dyn Inventory,
    mut listing: Listing<'_>,
    mut out: Out<W>,
) -> Result<Exported, TransferError> {
    while let Some(entity) = listing.next().await? {
        one(store, entity, &mut out).await?;
    }
    for (workspace, is_configured) in listing.workspaces {
        let entity = EntityKey::workspace(workspace);
        if !is_configured || !one(store, entity, &mut out).await? {
            // A workspace that was never configured still has lists.
            let mut steps = Steps::new(entity, &mut out);
            views(store, workspace, &mut steps).await?;
            steps.end()?;
        }
    }
    let hash = out.hasher.finalize().to_hex().to_string();
    out.line(&Line::End { lines: out.done.lines, hash })?;
    out.to.flush()?;
    Ok(out.done)
}

/// An entity's lines being written.
struct Steps<'a, W> {
    out: &'a mut Out<W>,
    step: Step,
    bytes: usize,
    /// The hash over its lines.
    sum: blake3::Hasher,
}

impl<'a, W: Write> Steps<'a, W> {
    fn new(entity: EntityKey, out: &'a mut Out<W>) -> Self {
        Self { out, step: blank(entity, 1), bytes: 0, sum: blake3::Hasher::new() }
    }

    /// Counts the bytes of the line, and begins the next one if it is full.
    fn put(&mut self, bytes: usize) -> Result<(), TransferError> {
        self.bytes += bytes + 64;
        let step = &self.step;
        let items = step.records.len() + step.keys.len() + step.rows.len() + step.views.len();
        if self.bytes >= LINE_BYTES || items >= ROWS_PER_PAGE { self.next() } else { Ok(()) }
    }

    fn next(&mut self) -> Result<(), TransferError> {
        self.bytes = 0;
        let next = blank(self.step.entity.0, self.step.number + 1);
        let mut step = std::mem::replace(&mut self.step, next);
        step.sum_up(&mut self.sum).map_err(io::Error::from)?;
        step.sum = step.last.then(|| sum_of(&self.sum));
        self.out.line(&Line::Commit(step))
    }

    fn end(mut self) -> Result<(), TransferError> {
        self.step.last = true;
        self.next()?;
        self.out.done.entities += 1;
        Ok(())
    }

    fn records(&mut self, records: Vec<LogRecord>) -> Result<(), TransferError> {
        for record in records {
            let bytes = record.payload.len();
            self.step.records.push((record.event, Blob(record.payload)));
            self.put(bytes)?;
        }
        Ok(())
    }
}

fn blank(entity: EntityKey, number: u64) -> Step {
    Step {
        entity: Name(entity),
        number,
        records: Vec::new(),
        state: None,
        keys: Vec::new(),
        rows: Vec::new(),
        views: Vec::new(),
        alarm: None,
        last: false,
        standing: None,
        sum: None,
    }
}

/// Writes an entity; `false`: it does not exist.
async fn one<W: Write>(store: &dyn Inventory, entity: EntityKey, out: &mut Out<W>) -> Result<bool, TransferError> {
    let Some(loaded) = retry_transient(RETRY_TIMEOUT, || store.load(entity, ReadLevel::Settled)).await? else {
        return Ok(false);
    };
    let mut steps = Steps::new(entity, out);
    log(store, entity, &loaded, &mut steps).await?;
    for table in retry_transient(RETRY_TIMEOUT, || store.tables(entity)).await? {
        let mut pages = Pages::of_rows(store, entity, table, KeyRange::default(), ROWS_PER_PAGE).patient(RETRY_TIMEOUT);
        while let Some(rows) = pages.next().await? {
            for Row { key, value } in rows {
                let bytes = key.len() + value.len();
                steps.step.rows.push((table.0, Blob(key), Blob(value)));
                steps.put(bytes)?;
            }
        }
    }
    let mut after = None;
    loop {
        let keys = retry_transient(RETRY_TIMEOUT, || store.keys(entity, after, ROWS_PER_PAGE)).await?;
        let Some((last, _)) = keys.last() else { break };
        after = Some(*last);
        for (hash, row) in keys {
            steps.step.keys.push(Key::new(hash, row));
            steps.put(48)?;
        }
    }
    if entity.kind == Kind::Workspace {
        views(store, entity.workspace, &mut steps).await?;
    }
    if retry_transient(RETRY_TIMEOUT, || store.load(entity, ReadLevel::Settled)).await?.map(|now| now.head)
        != Some(loaded.head)
    {
        return Err(TransferError::Moved(entity));
    }
    steps.step.alarm = loaded.alarm.map(|at| at.0);
    steps.step.standing = Some(fingerprint_of(&loaded));
    steps.end()?;
    Ok(true)
}

/// The log in its order: the events up to the newest state, with that state, then the records since, marks too.
async fn log<W: Write>(
    store: &dyn Inventory,
    entity: EntityKey,
    loaded: &Loaded,
    steps: &mut Steps<'_, W>,
) -> Result<(), TransferError> {
    let since = loaded.tail.iter().filter(|record| record.event).count() as u64;
    let before = loaded.head.seq - since;
    if let Some(state) = &loaded.state {
        let mut from = 1;
        while from <= before {
            let scan = LogScan { range: SeqRange::new(from, before), order: Order::Asc, limit: ROWS_PER_PAGE };
            let page = retry_transient(RETRY_TIMEOUT, || store.read_log(entity, scan)).await?;
            from = page.last().map_or(before, |record| record.seq) + 1;
            steps.records(page)?;
        }
        steps.step.state = Some(Blob(state.clone()));
        // The following records are not in the state, so they must be another commit.
        if !loaded.tail.is_empty() {
            steps.next()?;
        }
    }
    steps.records(loaded.tail.clone())
}

/// The lists of the whole workspace. They belong to no entity; its configuration brings them.
async fn views<W: Write>(
    store: &dyn Inventory,
    workspace: Address,
    steps: &mut Steps<'_, W>,
) -> Result<(), TransferError> {
    for View(view) in retry_transient(RETRY_TIMEOUT, || store.views(workspace)).await? {
        let mut pages =
            Pages::of_view(store, workspace, View(view), KeyRange::default(), ROWS_PER_PAGE).patient(RETRY_TIMEOUT);
        while let Some(entries) = pages.next().await? {
            for Row { key, value } in entries {
                let bytes = key.len() + value.len();
                steps.step.views.push((view, Blob(key), Blob(value)));
                steps.put(bytes)?;
            }
        }
    }
    Ok(())
}
