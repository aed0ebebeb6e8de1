//! API keys as rows of the installation: by their hash, for authentication, and by workspace and id, for lists.
//!
//! Unless a function says otherwise, it fails with a `StoreError` if the store, or the stored data, cannot be read.

use std::sync::Arc;

use actors::codec;
use actors::id::{EntityKey, KeyId};
use actors::key::ApiKey;
use actors::node::Node;
use actors::registry::RowChange;
use actors::store::{KeyRange, StoreError};
use actors::tables::{KEYS_BY_HASH, KEYS_BY_ID};
use actors::workspace::address_of;
use bytes::Bytes;

use crate::secret::Pepper;

/// The length of the hash prefix by which a key is found.
const HASH_PREFIX_BYTES: usize = 16;
/// Ids that a search reads at once; they are short.
const IDS_AT_ONCE: usize = 1_000;

/// A new key's id.
pub fn new_id(node: &Node) -> KeyId {
    let (at, address) = node.new_id();
    KeyId::new(at, address)
}

/// The row key of a presented key.
#[must_use]
pub fn hash_key(hash: &[u8; 32]) -> Bytes {
    Bytes::copy_from_slice(&hash[..HASH_PREFIX_BYTES])
}

/// The row key of a named key: a workspace's keys are adjacent, oldest first.
#[must_use]
pub fn id_key(workspace: &str, id: KeyId) -> Bytes {
    [address_of(workspace).0.as_slice(), &id.to_bytes()].concat().into()
}

/// The rows that make a key valid.
#[must_use]
pub fn put(key: &ApiKey) -> [RowChange; 2] {
    [
        RowChange::put(KEYS_BY_HASH, &hash_key(&key.hash), &codec::encode(key)),
        RowChange::put(KEYS_BY_ID, &id_key(&key.workspace, key.id), &Bytes::copy_from_slice(&key.hash)),
    ]
}

/// The rows to delete to revoke a key.
#[must_use]
pub fn delete(key: &ApiKey) -> [RowChange; 2] {
    [
        RowChange::delete(KEYS_BY_HASH, &hash_key(&key.hash)),
        RowChange::delete(KEYS_BY_ID, &id_key(&key.workspace, key.id)),
    ]
}

/// The key with this hash.
pub async fn by_hash(node: &Node, hash: &[u8; 32]) -> Result<Option<Arc<ApiKey>>, StoreError> {
    let known = node.configured::<ApiKey>(EntityKey::INSTALLATION, KEYS_BY_HASH, &hash[..HASH_PREFIX_BYTES]).await?;
    Ok(known.filter(|known| Pepper::same(hash, &known.hash)))
}

/// The key that a row of the list by id refers to; `None` if it was revoked meanwhile.
pub async fn of_row(node: &Node, hash: &[u8]) -> Result<Option<(Bytes, ApiKey)>, StoreError> {
    let hash: [u8; 32] = hash.try_into().map_err(|_| StoreError::Corrupt("a key's hash has 32 bytes".into()))?;
    let row = node.row(EntityKey::INSTALLATION, KEYS_BY_HASH, hash_key(&hash)).await?;
    row.map(|row| codec::decode(&row).map(|key| (row, key))).transpose()
}

/// The key with this id, in any workspace. The search may read all ids, since they are ordered by workspace: only for
/// operators of the whole installation.
pub async fn of_any_workspace(node: &Node, id: KeyId) -> Result<Option<(Bytes, ApiKey)>, StoreError> {
    let id = id.to_bytes();
    let mut pages = node.pages(EntityKey::INSTALLATION, KEYS_BY_ID, KeyRange::default(), IDS_AT_ONCE);
    while let Some(rows) = pages.next().await? {
        if let Some(row) = rows.iter().find(|row| row.key.ends_with(&id)) {
            return of_row(node, &row.value).await;
        }
    }
    Ok(None)
}
