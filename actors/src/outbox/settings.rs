//! The current configuration by which a log's events are sent.

use std::sync::Arc;

use super::listeners::Endpoints;
use super::port::{LogChannel, LogScope};
use super::receivers::Configured;
use crate::channel::Channel;
use crate::clock::Millis;
use crate::id::EntityKey;
use crate::node::Node;
use crate::store::StoreError;

/// How much the clocks of nodes that share a store may differ: an endpoint just created by one node also gets the
/// events of another node whose clock is slow.
pub(super) const SKEW_MILLIS: u64 = 5_000;

/// The configuration by which a log's events are sent, as of one moment.
#[derive(Debug)]
pub(super) struct Settings {
    channel_id: Option<Arc<str>>,
    channel: Option<Arc<Channel>>,
    endpoints: Endpoints,
    skew_millis: u64,
    /// When they were read.
    now: Millis,
}

impl Settings {
    pub(super) fn configured(&self) -> Configured<'_> {
        Configured {
            channel_id: self.channel_id.as_deref(),
            channel: self.channel.as_deref(),
            endpoints: &self.endpoints,
            skew_millis: self.skew_millis,
            now: self.now,
        }
    }
}

/// Reads the settings for a log's scope, from memory where they are known.
///
/// # Errors
///
/// `StoreError` if the store, or the stored data, cannot be read.
pub(super) async fn read(node: &Node, entity: EntityKey, scope: &LogScope) -> Result<Settings, StoreError> {
    let workspace = entity.workspace;
    let id = scope.channel.as_ref().map(LogChannel::id);
    let mut channel = match id {
        Some(id) => node.channel(workspace, id).await?,
        None => None,
    };
    let mut channel_id = id.map(Arc::from);
    // A channel made again with the id of a deleted one is another channel, and gets no events of this log.
    if let (Some(then), Some(now)) = (&scope.channel, &channel)
        && !then.is(now, entity, scope.conversation().map(|id| id.at))
    {
        (channel, channel_id) = (None, None);
    }
    let endpoints = node.outbox.endpoints(node, workspace).await?;
    let skew_millis = if node.store.is_shared() { SKEW_MILLIS } else { 0 };
    Ok(Settings { channel_id, channel, endpoints, skew_millis, now: node.clock.now() })
}
