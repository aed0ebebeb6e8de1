//! Gives list positions, once, to resources that have none (stored by an earlier build, or imported): in the order of
//! creation, and within a millisecond in the order of their ids.

use std::sync::Arc;

use actors::agent::Agent;
use actors::channel::Channel;
use actors::clock::Millis;
use actors::codec;
use actors::id::EntityKey;
use actors::node::Node;
use actors::registry::places::{KINDS, place_key};
use actors::registry::{Command, Expect, RowChange};
use actors::store::{KeyRange, Row, Table};
use actors::tables::{AGENTS, CHANNELS, PLACES, SETTINGS, WORKSPACES};
use actors::webhook::WebhookEndpoint;
use actors::workspace::{Workspace, address_of};
use bytes::Bytes;

use super::{BootstrapError, setting, submit};

/// The mark that every resource has a position.
pub(crate) const PLACED: &[u8] = b"placed";
/// Rows read at once.
const ROWS_PER_PAGE: usize = 200;

/// Gives a position to every resource without one, unless that was done before.
pub(super) async fn give(node: &Arc<Node>) -> Result<(), BootstrapError> {
    if setting(node, PLACED).await?.is_some() {
        return Ok(());
    }
    let installation = EntityKey::INSTALLATION;
    give_kind(node, installation, WORKSPACES).await?;
    let mut pages = node.pages(installation, WORKSPACES, KeyRange::default(), ROWS_PER_PAGE);
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
    let mut pages = node.pages(registry, kind, KeyRange::default(), ROWS_PER_PAGE);
    let mut without = Vec::new();
    while let Some(rows) = pages.next().await? {
        for row in rows {
            if node.row(registry, PLACES, place_key(kind, &row.key)).await?.is_none() {
                without.push((made_at(kind, &row), row.key));
            }
        }
    }
    without.sort();
    for (_, key) in without {
        let Some(value) = node.row(registry, kind, key.clone()).await? else { continue };
        // Stored unchanged. A faster process has changed it, which gave it a position, or deleted it.
        let changes = vec![RowChange::put(kind, &key, &value)];
        let expected = vec![Expect::new(kind, &key, Some(value))];
        submit(node, registry, Command { expected, changes }).await?;
    }
    Ok(())
}

/// When a resource was created; an unreadable one comes first.
fn made_at(kind: Table, row: &Row) -> Millis {
    let value = &row.value;
    let made_at = match kind {
        WORKSPACES => codec::decode::<Workspace>(value).map(|workspace| workspace.created_at),
        CHANNELS => codec::decode::<Channel>(value).map(|channel| channel.created_at),
        AGENTS => codec::decode::<Agent>(value).map(|agent| agent.created_at),
        // Its id contains the time.
        _ => codec::decode::<WebhookEndpoint>(value).map(|endpoint| endpoint.id.at),
    };
    made_at.unwrap_or_default()
}
