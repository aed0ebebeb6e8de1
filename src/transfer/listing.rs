//! The entities of an export and their heads in the store: for writing it, and for checking that a file is still
//! current.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use actors::id::{Address, EntityKey, Kind, hash_parts};
use actors::store::Loaded;
use actors::store::inventory::Inventory;
use actors::tasks::backoff::retry_transient;
use actors::workspace::address_of;
use bytes::Bytes;
use serde::Serialize;

use super::line::{Blob, Line};
use super::{RETRY_TIMEOUT, TransferError};

/// Entities of one read.
const ENTITIES_PER_PAGE: usize = 200;

/// The entities of an export, in the store's order.
pub(super) struct Listing<'a> {
    store: &'a dyn Inventory,
    within: Option<Address>,
    /// Read and not returned yet.
    page: std::vec::IntoIter<EntityKey>,
    /// The last one that was read.
    after: Option<EntityKey>,
    /// Nothing follows `page`.
    is_last: bool,
    /// Workspaces of the entities listed so far, and whether they are configured. They come last, with their lists,
    /// which then include everything that was listed.
    pub(super) workspaces: BTreeMap<Address, bool>,
}

impl<'a> Listing<'a> {
    /// The entities of one workspace, or of all.
    pub(super) fn new(store: &'a dyn Inventory, workspace: Option<&str>) -> Self {
        let page = Vec::new().into_iter();
        let within = workspace.map(address_of);
        Self { store, within, page, after: None, is_last: false, workspaces: BTreeMap::new() }
    }

    /// The next one that is no workspace.
    pub(super) async fn next(&mut self) -> Result<Option<EntityKey>, TransferError> {
        loop {
            let Some(entity) = self.page.next() else {
                if self.is_last {
                    return Ok(None);
                }
                let page =
                    retry_transient(RETRY_TIMEOUT, || self.store.entities(self.after, ENTITIES_PER_PAGE)).await?;
                self.is_last = page.len() < ENTITIES_PER_PAGE;
                self.after = page.last().copied();
                self.page = page.into_iter();
                continue;
            };
            // The installation's own entity is exported as rows: the target has one too.
            if entity.kind == Kind::Installation || self.within.is_some_and(|within| entity.workspace != within) {
                continue;
            }
            *self.workspaces.entry(entity.workspace).or_default() |= entity.kind == Kind::Workspace;
            if entity.kind != Kind::Workspace {
                return Ok(Some(entity));
            }
        }
    }
}

/// A hash that changes with every commit of the entity.
pub(super) fn fingerprint_of(loaded: &Loaded) -> Blob {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&loaded.head.seq.to_le_bytes()).update(&loaded.head.commit.to_le_bytes());
    // A restored store that diverged since has the same number of commits at some time, but not the same ones.
    let parts = loaded.state.iter().chain(loaded.tail.iter().map(|record| &record.payload));
    Blob(Bytes::copy_from_slice(&hash_parts(&mut hasher, parts.map(Bytes::as_ref))))
}

/// The lines' content about the installation.
#[derive(Default)]
pub(super) struct InstallationDigest {
    rows: BTreeSet<[u8; 32]>,
    promises: BTreeSet<[u8; 32]>,
}

impl InstallationDigest {
    pub(super) fn note(&mut self, line: &Line) -> Result<(), TransferError> {
        if let Line::Installation { rows, promises } = line {
            self.rows.extend(rows.iter().map(hash).collect::<Result<Vec<_>, _>>()?);
            self.promises.extend(promises.iter().map(hash).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(())
    }

    /// Whether the installation is unchanged since it `was` written; promises expire with time.
    pub(super) fn is_still(&self, was: &Self) -> bool {
        self.rows == was.rows && self.promises.is_subset(&was.promises)
    }
}

fn hash(part: &impl Serialize) -> io::Result<[u8; 32]> {
    Ok(blake3::hash(&serde_json::to_vec(part)?).into())
}
