//! An installation's promises to retries: which keyed requests have created workspaces and API keys, and their results.
//! An installation is not moved commit by commit, since the target has one of its own, so each promise is carried with
//! the events from which its retry is answered.

use std::io::Write;
use std::sync::Arc;

use actors::clock::Millis;
use actors::codec;
use actors::id::{Address, EntityKey};
use actors::machine::Record;
use actors::registry::Event;
use actors::store::inventory::Inventory;
use actors::store::{Commit, Fingerprint, Head, KeyHash, KeyRow, LogScan, NewRecord, Order, SeqRange, Store};
use actors::tables::{KEYS_BY_ID, WORKSPACES};
use actors::tasks::backoff::retry_transient;
use actors::workspace::address_of;
use serde::{Deserialize, Serialize};

use super::export::Out;
use super::import::{change_installation, commit_id};
use super::line::{Blob, Line};
use super::{RETRY_TIMEOUT, TransferError};

/// Promises of one line.
const PROMISES_PER_PAGE: usize = 64;
/// Events of one promise, far more than any change of an installation has.
const MAX_EVENTS: usize = 1_000;

/// The effect of one idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Promise {
    /// The key's hash.
    hash: Blob,
    /// The request's fingerprint.
    fingerprint: Blob,
    /// When.
    at: u64,
    /// Up to which claim it is held, if it had no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<u64>,
    /// The stored events of its effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    events: Vec<Blob>,
}

impl Promise {
    /// The key, and its row for events beginning with the sequence `first`; `None` if a hash has the wrong length.
    fn row(&self, first: u64) -> Option<(KeyHash, KeyRow)> {
        let fingerprint = Fingerprint(self.fingerprint.hash()?);
        let at = Millis(self.at);
        let row = match self.held {
            Some(claim) => KeyRow::held(fingerprint, claim, at),
            None => KeyRow::new(fingerprint, SeqRange::counted(first, self.events.len()), at),
        };
        Some((KeyHash(self.hash.hash()?), row))
    }
}

/// Writes an installation's promises; for one workspace, those that created it or its keys.
pub(super) async fn export<W: Write>(
    store: &dyn Inventory,
    workspace: Option<&str>,
    out: &mut Out<W>,
) -> Result<(), TransferError> {
    let mut after = None;
    loop {
        let page =
            retry_transient(RETRY_TIMEOUT, || store.keys(EntityKey::INSTALLATION, after, PROMISES_PER_PAGE)).await?;
        after = page.last().map(|(hash, _)| *hash);
        let mut promises = Vec::new();
        for (hash, row) in &page {
            promises.extend(promise(store, workspace, *hash, *row).await?);
        }
        if !promises.is_empty() {
            out.line(&Line::Installation { rows: Vec::new(), promises })?;
        }
        if page.len() < PROMISES_PER_PAGE {
            return Ok(());
        }
    }
}

async fn promise(
    store: &dyn Inventory,
    workspace: Option<&str>,
    hash: KeyHash,
    row: KeyRow,
) -> Result<Option<Promise>, TransferError> {
    let blob = |bytes: &[u8; 16]| Blob(bytes.to_vec().into());
    let mut promise = Promise {
        hash: blob(&hash.0),
        fingerprint: blob(&row.fingerprint.0),
        at: row.at.0,
        held: row.held_upto(),
        events: Vec::new(),
    };
    let Some(events) = row.events() else {
        return Ok(Some(promise).filter(|_| workspace.is_none()));
    };
    let scan = LogScan { range: events, order: Order::Asc, limit: MAX_EVENTS };
    let records = retry_transient(RETRY_TIMEOUT, || store.read_log(EntityKey::INSTALLATION, scan)).await?;
    let mut is_wanted = workspace.is_none();
    for record in records {
        if let Some(workspace) = workspace {
            let event: Record<Event> = codec::decode_record(record.seq, &record.payload)?;
            is_wanted |= is_about(&event.event, workspace, address_of(workspace));
        }
        promise.events.push(Blob(record.payload));
    }
    Ok(Some(promise).filter(|promise| is_wanted && !promise.events.is_empty()))
}

/// Whether an event has changed a workspace or its keys.
fn is_about(event: &Event, workspace: &str, address: Address) -> bool {
    event.changes.iter().any(|change| {
        (change.table() == WORKSPACES && change.key() == workspace.as_bytes())
            || (change.table() == KEYS_BY_ID && change.key().starts_with(&address.0))
    })
}

/// Adds the promises of this line that the installation does not have.
pub(super) async fn import(
    store: &Arc<dyn Store>,
    promises: &[Promise],
    at: Millis,
    line: u64,
) -> Result<(), TransferError> {
    change_installation(store, |head| commit(store, promises, head, (at, line))).await
}

/// The commit that adds the missing promises; `None`: all exist.
async fn commit(
    store: &Arc<dyn Store>,
    promises: &[Promise],
    expected: Option<Head>,
    (at, line): (Millis, u64),
) -> Result<Option<Commit>, TransferError> {
    let mut next = expected.map_or(0, |head| head.seq) + 1;
    let mut records = Vec::new();
    let mut keys = Vec::new();
    let mut name = Vec::new();
    for promise in promises {
        let Some((hash, row)) = promise.row(next) else {
            return Err(TransferError::Malformed { line, what: "a hash has the wrong length".to_owned() });
        };
        if retry_transient(RETRY_TIMEOUT, || store.find_key(EntityKey::INSTALLATION, hash)).await?.is_some() {
            continue;
        }
        keys.push((hash, row));
        name.extend_from_slice(&hash.0);
        next += promise.events.len() as u64;
        records.extend(promise.events.iter().map(|Blob(payload)| NewRecord { event: true, payload: payload.clone() }));
    }
    name.extend_from_slice(&expected.map_or(0, |head| head.commit).to_le_bytes());
    let commit = Commit { records, keys, ..Commit::on(EntityKey::INSTALLATION, expected, commit_id(&name), at) };
    Ok(Some(commit).filter(|commit| !commit.keys.is_empty()))
}
