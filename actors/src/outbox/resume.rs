//! Resuming lanes: those that wait for an endpoint that was changed, deleted or has recovered, or for the `webhookUrl`
//! of a channel that was changed.
//!
//! Many conversations may wait for one receiver, so they are taken from the workspace's list page by page, no faster
//! than the receiver accepts their events.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::circuit_breaker::{BreakerKey, channel_key, endpoint_key};
use super::keys::{PendingKey, parse_pending_key, pending_prefix};
use super::port::{LogScope, Sends};
use super::{Lane, Receiver};
use crate::channel::{Channel, ChannelKind};
use crate::clock::Millis;
use crate::codec;
use crate::contact::Contact;
use crate::conversation::Conversation;
use crate::directory::{CommandContext, Refusal};
use crate::id::{Address, EndpointId, EntityKey, Kind};
use crate::limits;
use crate::node::Node;
use crate::registry::{self, RowChange};
use crate::store::{KeyRange, Pages, Row, StoreError};
use crate::tables::{PENDING, WEBHOOK_ENDPOINTS};
use crate::tasks::backoff::{Backoff, retry_transient};
use crate::webhook::{DisabledReason, WebhookEndpoint};

/// Entries of the list read at once.
const ENTRIES_PER_PAGE: usize = 100;
/// How often it is checked whether there is room for more.
const ROOM_CHECK_INTERVAL: Duration = Duration::from_millis(20);
/// The pause before a failed page is read again; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause: otherwise lanes wait for their own times, which may be hours away.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// How long reading a log is retried: others wait for it.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// How often disabling an endpoint is tried while others change it.
const MAX_ATTEMPTS: usize = 8;

/// The receiver whose lanes wait.
enum WaitingReceiver {
    Endpoint(EndpointId),
    /// At its `webhookUrl`.
    Channel(Box<Channel>),
}

impl WaitingReceiver {
    /// Its id.
    fn id(&self) -> String {
        match self {
            Self::Endpoint(id) => id.to_string(),
            Self::Channel(channel) => channel.id.clone(),
        }
    }

    /// The prefix of list entries that may include its lanes.
    fn prefix(&self, workspace: Address) -> Bytes {
        match self {
            Self::Endpoint(id) => Bytes::copy_from_slice(&pending_prefix(Some(Lane::to(Receiver::Endpoint(*id))))),
            Self::Channel(channel) => {
                let all = pending_prefix(Some(Lane::to(Receiver::Channel)));
                match channel.kind {
                    // It has one log.
                    ChannelKind::Human => {
                        let log = channel.conversation(workspace);
                        [&all[..], &[log.kind as u8], &log.id.0].concat().into()
                    }
                    ChannelKind::Api => Bytes::copy_from_slice(&all),
                }
            }
        }
    }

    /// Whether a lane may be one of its lanes.
    fn may_have(&self, lane: Lane) -> bool {
        match self {
            Self::Endpoint(id) => lane.receiver == Receiver::Endpoint(*id),
            Self::Channel(_) => lane.receiver == Receiver::Channel,
        }
    }

    /// Whether such a lane waits for it, if the lane's log has this scope.
    fn has(&self, log: EntityKey, scope: &LogScope) -> bool {
        match self {
            Self::Endpoint(_) => true,
            Self::Channel(channel) => {
                let began = scope.conversation().map(|id| id.at);
                scope.channel.as_ref().is_some_and(|own| own.is(channel, log, began))
            }
        }
    }
}

/// Resumes all lanes waiting for an endpoint, in a task of its own.
pub(crate) fn resume_endpoint(node: &Arc<Node>, workspace: Address, endpoint: EndpointId) {
    start_resuming(node, workspace, endpoint_key(workspace, endpoint), WaitingReceiver::Endpoint(endpoint));
}

/// Resumes all lanes waiting for the `webhookUrl` of a channel, in a task of its own.
pub(super) fn resume_channel(node: &Arc<Node>, workspace: Address, channel: Channel) {
    // A channel made again with the id of a deleted one has other waiting logs.
    let key = channel_key(workspace, &channel.incarnation());
    start_resuming(node, workspace, key, WaitingReceiver::Channel(Box::new(channel)));
}

/// Runs one task per receiver, which starts over if the receiver changes meanwhile: lanes already resumed may wait for
/// its former settings.
fn start_resuming(node: &Arc<Node>, workspace: Address, key: BreakerKey, waiting: WaitingReceiver) {
    let Some(mut flight) = node.outbox.resuming.begin(key) else { return };
    let node = Arc::clone(node);
    tokio::spawn(async move {
        loop {
            let resumed = node.stopping.run_until_cancelled(resume_all(&node, workspace, &waiting)).await;
            if let Some(Err(error)) = &resumed {
                // Each lane still resumes at its own time.
                tracing::warn!(receiver = waiting.id(), %error, "could not list the logs waiting for a receiver");
            }
            if resumed.is_none() || !flight.again() {
                return;
            }
        }
    });
}

async fn resume_all(node: &Arc<Node>, workspace: Address, waiting: &WaitingReceiver) -> Result<(), StoreError> {
    let prefix = waiting.prefix(workspace);
    let mut pages = Pages::of_view(node.store.as_ref(), workspace, PENDING, KeyRange::under(&prefix), ENTRIES_PER_PAGE);
    while let Some(rows) = next_page(&mut pages, waiting).await? {
        for row in &rows {
            let Some(PendingKey { entity, lane }) = parse_pending_key(workspace, &row.key) else { continue };
            let Some(lane) = lane.filter(|lane| waiting.may_have(*lane)) else { continue };
            while node.outbox.active() >= limits::COURIERS / 2 {
                sleep(ROOM_CHECK_INTERVAL).await;
            }
            let resumed = match entity.kind {
                Kind::Conversation => resume_lane::<Conversation>(node, entity, lane, waiting).await,
                Kind::Contact => resume_lane::<Contact>(node, entity, lane, waiting).await,
                Kind::Attachment | Kind::Memories | Kind::Workspace | Kind::Installation => Ok(()),
            };
            if let Err(error) = resumed {
                // It resumes at its own time, and delays no other.
                let receiver = waiting.id();
                tracing::warn!(?entity, receiver, %error, "could not read a log waiting for a receiver");
            }
        }
    }
    Ok(())
}

/// The next page, however long that takes.
async fn next_page(pages: &mut Pages<'_>, waiting: &WaitingReceiver) -> Result<Option<Vec<Row>>, StoreError> {
    let mut backoff = Backoff::endless(FIRST_PAUSE, MAX_PAUSE);
    loop {
        match pages.next().await {
            Err(error) if error.is_transient() => {
                let receiver = waiting.id();
                tracing::warn!(receiver, %error, "could not list the logs waiting for a receiver; retrying");
                backoff.wait().await;
            }
            other => return other,
        }
    }
}

async fn resume_lane<M: Sends>(
    node: &Arc<Node>,
    entity: EntityKey,
    lane: Lane,
    waiting: &WaitingReceiver,
) -> Result<(), StoreError> {
    let state = retry_transient(READ_TIMEOUT, || node.state::<M>(entity)).await?;
    if let Some(state) = state
        && waiting.has(entity, &M::scope(&state))
    {
        node.outbox.resume_lane::<M>(node, entity, &state, lane);
    }
    Ok(())
}

/// Disables an endpoint whose receiver answered at this URL and time that it wants no more events. If the endpoint was
/// changed since, the answer does not count.
pub(super) async fn disable(node: &Arc<Node>, workspace: Address, endpoint: EndpointId, url: &str, asked_at: Millis) {
    let registry = EntityKey::workspace(workspace);
    let key = Bytes::from(endpoint.to_string());
    for _ in 0..MAX_ATTEMPTS {
        let Ok(Some(row)) = node.store.row(registry, WEBHOOK_ENDPOINTS, key.clone()).await else { return };
        let Ok(stored) = codec::decode::<WebhookEndpoint>(&row) else { return };
        let now = node.clock.now();
        // A time in the future was written before the clock was set back.
        let was_changed = (asked_at < stored.routed_at()) && stored.routed_at() <= now;
        if stored.disabled.is_some() || stored.url != url || was_changed {
            return;
        }
        let off = WebhookEndpoint { disabled: Some(DisabledReason::Gone), ..stored.clone() };
        let off = off.changed(&stored, now);
        let changes = vec![RowChange::put(WEBHOOK_ENDPOINTS, &key, &codec::encode(&off))];
        let expected = vec![registry::Expect::new(WEBHOOK_ENDPOINTS, &key, Some(row))];
        let command = registry::Command { expected, changes };
        match node.registry(registry, command, CommandContext::default()).await {
            Err(Refusal::Rejected(_)) => {}
            Ok(_) => {
                tracing::info!(%endpoint, "an endpoint whose receiver is gone was disabled");
                return;
            }
            Err(refusal) => {
                // The next event leads to the same result.
                tracing::warn!(%endpoint, %refusal, "could not disable an endpoint whose receiver is gone");
                return;
            }
        }
    }
}
