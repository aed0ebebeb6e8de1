//! What waits for an endpoint, when that changes: it was changed or deleted, or it is back.
//!
//! The conversations that wait for one receiver may be many, so they are taken from the workspace's list page by page,
//! no faster than the receiver takes what they have.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use super::port::Sends;
use super::state::{parse_pending_key, pending_prefix};
use super::{Lane, Receiver};
use crate::backoff::{Backoff, patiently};
use crate::clock::Millis;
use crate::codec;
use crate::contact::Contact;
use crate::conversation::Conversation;
use crate::directory::{Circumstances, Refusal};
use crate::id::{Address, EndpointId, EntityKey, Kind};
use crate::limits;
use crate::node::Node;
use crate::registry::{self, RowChange};
use crate::store::{KeyRange, Pages, Row, StoreError};
use crate::tables::{PENDING, WEBHOOK_ENDPOINTS};
use crate::webhook::{DisabledReason, WebhookEndpoint};

/// Entries of the list read at once.
const PAGE: usize = 100;
/// How often is looked whether there is room for more.
const LOOK: Duration = Duration::from_millis(20);
/// The pause before a page is read again that could not be; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest such pause: what waits for an endpoint would else wait for its own time, which may be hours away.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// For how long a log is tried to be read: others wait behind it.
const HASTENED: Duration = Duration::from_secs(1);
/// How often disabling an endpoint is tried while others change it.
const ATTEMPTS: usize = 8;

/// Lets all that waits for an endpoint go on now, in a task of its own. One at a time for each endpoint, which begins
/// again where the endpoint has changed meanwhile: what it has let go on already may wait for what the endpoint was.
pub(crate) fn stir(node: &Arc<Node>, workspace: Address, endpoint: EndpointId) {
    let Some(mut flight) = node.outbox.stirring.begin((workspace, endpoint)) else { return };
    let node = Arc::clone(node);
    tokio::spawn(async move {
        loop {
            let stirred = node.stopping.run_until_cancelled(run(&node, workspace, endpoint)).await;
            if let Some(Err(error)) = &stirred {
                // Each goes on at its own time all the same.
                tracing::warn!(%endpoint, %error, "what waits for an endpoint could not be looked up");
            }
            if stirred.is_none() || !flight.again() {
                return;
            }
        }
    });
}

async fn run(node: &Arc<Node>, workspace: Address, endpoint: EndpointId) -> Result<(), StoreError> {
    let prefix = pending_prefix(Some(Lane::to(Receiver::Endpoint(endpoint))));
    let range = KeyRange { after: Some(Bytes::copy_from_slice(&prefix)), before: None };
    let mut pages = Pages::of_view(node.store.as_ref(), workspace, PENDING, range, PAGE);
    while let Some(rows) = next_page(&mut pages, endpoint).await? {
        for row in &rows {
            if !row.key.starts_with(&prefix) {
                return Ok(());
            }
            let Some(pending) = parse_pending_key(workspace, &row.key) else { continue };
            while node.outbox.active() >= limits::COURIERS / 2 {
                sleep(LOOK).await;
            }
            let (entity, lane) = (pending.entity, pending.lane);
            let hastened = match entity.kind {
                Kind::Conversation => hasten::<Conversation>(node, entity, lane).await,
                Kind::Contact => hasten::<Contact>(node, entity, lane).await,
                Kind::Attachment | Kind::Memories | Kind::Workspace | Kind::Installation => Ok(()),
            };
            if let Err(error) = hastened {
                // It goes on at its own time, and keeps no other waiting.
                tracing::warn!(?entity, %endpoint, %error, "a log that waits for an endpoint could not be read");
            }
        }
    }
    Ok(())
}

/// The next page, however long that takes.
async fn next_page(pages: &mut Pages<'_>, endpoint: EndpointId) -> Result<Option<Vec<Row>>, StoreError> {
    let mut backoff = Backoff::endless(PAUSE, LONGEST_PAUSE);
    loop {
        match pages.next().await {
            Err(error) if error.passes() => {
                tracing::warn!(%endpoint, %error, "what waits for an endpoint could not be looked up; trying again");
                backoff.waits().await;
            }
            other => return other,
        }
    }
}

async fn hasten<M: Sends>(node: &Arc<Node>, entity: EntityKey, lane: Option<Lane>) -> Result<(), StoreError> {
    let state = patiently(HASTENED, || node.state::<M>(entity)).await?;
    if let (Some(state), Some(lane)) = (state, lane) {
        node.outbox.ring::<M>(node, entity, &state, Some(lane));
    }
    Ok(())
}

/// The receiver of an endpoint wants nothing any more: so it said at this URL when it was asked at this time. Where the
/// endpoint was changed since, that says nothing of what it is now.
pub(super) async fn disable(
    node: &Arc<Node>,
    workspace: Address,
    endpoint: EndpointId,
    (url, asked_at): (&str, Millis),
) {
    let registry = EntityKey::workspace(workspace);
    let key = Bytes::from(endpoint.to_string());
    for _ in 0..ATTEMPTS {
        let Ok(Some(row)) = node.store.row(registry, WEBHOOK_ENDPOINTS, key.clone()).await else { return };
        let Ok(stored) = codec::decode::<WebhookEndpoint>(&row) else { return };
        let now = node.clock.now();
        // What lies ahead was written before the clock was set back.
        let was_changed = (asked_at < stored.routed_at()) && stored.routed_at() <= now;
        if stored.disabled.is_some() || stored.url != url || was_changed {
            return;
        }
        let off = WebhookEndpoint { disabled: Some(DisabledReason::Gone), ..stored.clone() };
        let off = off.changed(&stored, now);
        let changes = vec![RowChange::put(WEBHOOK_ENDPOINTS, &key, &codec::encode(&off))];
        let expected = vec![registry::Expect::new(WEBHOOK_ENDPOINTS, &key, Some(row))];
        let command = registry::Command { expected, changes };
        match node.registry(registry, command, Circumstances::default()).await {
            Err(Refusal::Rejected(_)) => {}
            Ok(_) => {
                tracing::info!(%endpoint, "an endpoint that is gone was disabled");
                return;
            }
            Err(refusal) => {
                // The next event finds out the same.
                tracing::warn!(%endpoint, %refusal, "an endpoint that is gone could not be disabled");
                return;
            }
        }
    }
}
