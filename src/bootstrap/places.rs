//! Things that were stored before there were places get theirs, once: in the order of their ids, which is the one that
//! their lists had.

use std::sync::Arc;

use actors::id::EntityKey;
use actors::node::Node;
use actors::registry::places::{KINDS, place_key};
use actors::registry::{Command, Expect, RowChange};
use actors::store::{KeyRange, Table};
use actors::tables::{PLACES, SETTINGS, WORKSPACES};
use actors::workspace::address_of;
use bytes::Bytes;

use super::{BootstrapError, setting, submit};

/// The mark that everything has a place.
pub(crate) const PLACED: &[u8] = b"placed";
/// Rows read at once.
const PAGE: usize = 200;

/// Gives a place to everything that has none, unless that was done before.
pub(super) async fn give(node: &Arc<Node>) -> Result<(), BootstrapError> {
    if setting(node, PLACED).await?.is_some() {
        return Ok(());
    }
    let installation = EntityKey::INSTALLATION;
    give_kind(node, installation, WORKSPACES).await?;
    let mut pages = node.pages(installation, WORKSPACES, KeyRange::default(), PAGE);
    while let Some(workspaces) = pages.next().await? {
        for workspace in workspaces {
            let registry = EntityKey::workspace(address_of(&String::from_utf8_lossy(&workspace.key)));
            for kind in KINDS.into_iter().filter(|kind| *kind != WORKSPACES) {
                give_kind(node, registry, kind).await?;
            }
        }
    }
    let mark = RowChange::put(SETTINGS, PLACED, &Bytes::from_static(b"1"));
    submit(node, installation, Command { expected: Vec::new(), changes: vec![mark] }).await?;
    Ok(())
}

async fn give_kind(node: &Arc<Node>, registry: EntityKey, kind: Table) -> Result<(), BootstrapError> {
    let mut pages = node.pages(registry, kind, KeyRange::default(), PAGE);
    while let Some(rows) = pages.next().await? {
        for row in rows {
            if node.row(registry, PLACES, place_key(kind, &row.key)).await?.is_none() {
                // Stored as it is. Whoever was faster has changed it, which gave it a place, or deleted it.
                let changes = vec![RowChange::put(kind, &row.key, &row.value)];
                let expected = vec![Expect::new(kind, &row.key, Some(row.value))];
                submit(node, registry, Command { expected, changes }).await?;
            }
        }
    }
    Ok(())
}
