//! Reading one message.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actors::conversation::{Origin, message_of};
use actors::id::{EntityKey, MessageId};
use actors::message::{Message, Overlay};
use actors::store::{Order, SeqRange};
use axum::extract::Path;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use tokio::time::{Instant, timeout_at};

use crate::http::answer::{json, json_text};
use crate::http::call::{Allowed, Call};
use crate::http::caller::{Caller, Read};
use crate::http::headers::{tag_of, unless_known};
use crate::http::history::PartPermits;
use crate::http::log;
use crate::http::paging::{Page, PageItems, PageRequest, position_of};
use crate::http::query::Query;
use crate::http::refusal::conversation::message_not_found;
use crate::problem::Problem;
use crate::wire::channel_message::view::channel_view;
use crate::wire::conversation_message::view::{checksum, conversation_view, view_bytes};

/// A message with the data needed to show it.
pub(crate) struct StoredMessage {
    pub(crate) message: Message,
    pub(crate) overlay: Overlay,
    /// Its conversation.
    pub(crate) entity: EntityKey,
    /// The conversation's origin.
    pub(crate) origin: Arc<Origin>,
}

/// The API that a message belongs to, which decides its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// A message of a human channel.
    Channel,
    /// A message of any other conversation.
    Conversation,
}

impl StoredMessage {
    /// The API that the message belongs to.
    pub(super) fn family(&self) -> Family {
        match self.origin.human_channel() {
            Some(_) => Family::Channel,
            None => Family::Conversation,
        }
    }

    /// About how many bytes it has in a list.
    pub(crate) fn weight(&self) -> usize {
        self.message.content.weight() + self.overlay.rendered_weight()
    }

    /// With its review settled; see [`settled`].
    pub(crate) async fn settled(self, call: &Call, until: Instant) -> Self {
        let overlay = settled(call, until, self.entity, &self.message, self.overlay).await;
        Self { overlay, ..self }
    }
}

/// Until when a request waits for the ends of overdue reviews: a store that hangs must not keep lists waiting.
pub(crate) fn settle_deadline() -> Instant {
    Instant::now() + Duration::from_secs(2)
}

/// The overlay of a message with its review settled, so that no reader sees a review expire that is then completed
/// ([`Node::settled_review`](actors::node::Node::settled_review)). A review that cannot be ended in time is shown as it
/// is stored, pending.
pub(super) async fn settled(
    call: &Call,
    until: Instant,
    entity: EntityKey,
    message: &Message,
    overlay: Overlay,
) -> Overlay {
    let Some(review) = &message.content.review else { return overlay };
    let stored = overlay.review.as_ref();
    let settled = call.node().settled_review(entity, message.id, review, stored, call.without_key().trace);
    match timeout_at(until, settled).await {
        Ok(Ok(review)) => Overlay { review, ..overlay },
        Ok(Err(refusal)) => {
            tracing::debug!(?entity, %refusal, "a review past its deadline cannot be ended now");
            overlay
        }
        Err(_) => overlay,
    }
}

/// A message of the caller's workspace by its id, as text.
pub(super) async fn find_by_text(call: &Call, id: &str) -> Result<StoredMessage, Problem> {
    find(call, MessageId::parse(id).ok_or_else(message_not_found)?).await
}

/// A message of the caller's workspace; 404 if there is none.
pub(super) async fn find(call: &Call, id: MessageId) -> Result<StoredMessage, Problem> {
    look_up(call, id).await?.ok_or_else(message_not_found)
}

/// A message of the caller's workspace, or `None` if there is none.
pub(crate) async fn look_up(call: &Call, id: MessageId) -> Result<Option<StoredMessage>, Problem> {
    let entity = call.caller.conversation(id.entity);
    let events = log::between(call.node(), entity, SeqRange::one(id.number)).await?;
    let message = events.iter().find_map(message_of).filter(|message| message.id == id);
    let Some(message) = message else { return Ok(None) };
    let overlay = call.node().overlay(entity, id.number).await?.unwrap_or_default();
    let origin = call.node().origin(entity).await?;
    Ok(origin.map(|origin| StoredMessage { message, overlay, entity, origin }))
}

/// The message in the form of the API that it belongs to.
pub(super) fn message_response(caller: &Caller, found: &StoredMessage) -> Response {
    let StoredMessage { message, overlay, origin, .. } = found;
    let mut response = match origin.human_channel() {
        Some(channel) => json(StatusCode::OK, &channel_view(channel, message, overlay)),
        None => {
            let mut text = Vec::with_capacity(view_bytes(message, overlay));
            conversation_view(&caller.workspace, message, overlay).write(&mut text);
            json_text(StatusCode::OK, text)
        }
    };
    if let Ok(etag) = HeaderValue::try_from(format!("\"{}\"", tag(found))) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// The message's `ETag`, without quotes: its checksum, which covers its content. On a human channel, whose messages
/// show no checksum, the tag of an edited message also covers its labels.
pub(super) fn tag(found: &StoredMessage) -> String {
    let StoredMessage { message, overlay, .. } = found;
    let checksum = checksum(message, overlay);
    if found.family() == Family::Conversation || overlay.updated_at.is_none() {
        return checksum;
    }
    tag_of(&(checksum, overlay.labels()))
}

/// Whether the message's tag covers everything shown of it. The tag does not cover later changes, such as an answered
/// review, nor the labels of a conversation's message. (A conversation's message that was edited back to its first
/// content has its first tag again, and is the same but for `updated_at`.)
fn etag_covers(found: &StoredMessage) -> bool {
    let Overlay { metadata, tags, untagged, deleted, erased, review, delivered_at, read_at, .. } = &found.overlay;
    let is_as_labelled = metadata.is_none() && tags.is_none() && untagged.is_none();
    let is_unchanged = !(*deleted || *erased || review.is_some());
    // A channel's message shows its receipts, and its tag also covers its labels.
    is_unchanged
        && match found.family() {
            Family::Channel => delivered_at.is_none() && read_at.is_none(),
            Family::Conversation => is_as_labelled,
        }
}

/// `GET /messages/{id}`, or 304 if the client's copy is current.
pub(in crate::http) async fn get(
    Allowed { call, .. }: Allowed<Read>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let found = find_by_text(&call, &id).await?.settled(&call, settle_deadline()).await;
    let answer = message_response(&call.caller, &found);
    Ok(if etag_covers(&found) { unless_known(&call.headers, answer) } else { answer })
}

/// The most messages followed from a revision to what it revises, and the most other revisions; of a longer chain the
/// nearest are shown. Each costs a read: tens of microseconds on the embedded store, a millisecond on a cluster.
const MAX_ITERATIONS: usize = 1_000;

/// `GET /messages/{id}/iterations`: the revision chain that the message is part of, in the order of the channel.
pub(in crate::http) async fn iterations(
    Allowed { call, .. }: Allowed<Read>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    let list = format!("iterations/{}/{id}", call.caller.workspace);
    let request = PageRequest::from_query(&query, &list)?;
    let mut permits = call.app.history().for_parts(call.caller.address, request.limit + 1);
    let chain = chain(&call, &id, &mut permits).await?;
    let Page { data, next } = page_of(&call, chain, &request, &mut permits).await?;
    let channel = data.first().and_then(|found| found.origin.human_channel()).map(str::to_owned);
    if let Some(channel) = channel {
        let until = settle_deadline();
        let mut settled = Vec::with_capacity(data.len());
        for found in data {
            settled.push(found.settled(&call, until).await);
        }
        let data = settled.iter().map(|found| channel_view(&channel, &found.message, &found.overlay)).collect();
        return Ok(Page { data, next }.into_response(&list, &call.context.uri));
    }
    let workspace = &call.caller.workspace;
    let data = data.iter().map(|found| conversation_view(workspace, &found.message, &found.overlay)).collect();
    Ok(Page { data, next }.into_response(&list, &call.context.uri))
}

/// The chain of revisions around a message, as far as it was read.
struct Chain {
    /// The number of the message that was asked for.
    asked: u64,
    /// Its messages, by number.
    found: BTreeMap<u64, MessageId>,
    /// Revisions that those name, by their distance from the message that was asked for.
    named: BTreeMap<(u64, u64), MessageId>,
}

impl Chain {
    fn add(&mut self, read: &StoredMessage) {
        let StoredMessage { message, overlay, .. } = read;
        self.found.insert(message.id.number, message.id);
        for id in [overlay.superseded_by, overlay.revised_before].into_iter().flatten() {
            self.named.insert((id.number.abs_diff(self.asked), id.number), id);
        }
    }
}

/// The chain of revisions around a message, oldest first: what it revises, up to the first message, and every revision
/// of these.
async fn chain(call: &Call, id: &str, permits: &mut PartPermits<'_>) -> Result<Vec<MessageId>, Problem> {
    permits.read(1).await?;
    let start = find_by_text(call, id).await?;
    let mut chain = Chain { asked: start.message.id.number, found: BTreeMap::new(), named: BTreeMap::new() };
    chain.add(&start);
    let mut next = start.message.content.iteration_of;
    while let Some(id) = next.filter(|_| chain.found.len() <= MAX_ITERATIONS) {
        permits.read(1).await?;
        let revised = find(call, id).await?;
        next = revised.message.content.iteration_of;
        chain.add(&revised);
    }
    let most = chain.found.len() + MAX_ITERATIONS;
    while let Some((_, id)) = chain.named.pop_first()
        && chain.found.len() < most
    {
        if !chain.found.contains_key(&id.number) {
            permits.read(1).await?;
            chain.add(&find(call, id).await?);
        }
    }
    Ok(chain.found.into_values().collect())
}

/// The requested page of a chain; a position is the number of the message before it.
async fn page_of(
    call: &Call,
    mut chain: Vec<MessageId>,
    request: &PageRequest,
    permits: &mut PartPermits<'_>,
) -> Result<Page<StoredMessage>, Problem> {
    if request.order == Order::Desc {
        chain.reverse();
    }
    if let Some(seen) = request.seq() {
        chain.retain(|id| request.order.is_after(id.number, seen));
    }
    let mut items = PageItems::of(request.limit);
    let mut last = None;
    for id in chain.iter().take(request.limit) {
        permits.read(1).await?;
        let found = find(call, *id).await?;
        let weight = found.weight();
        if !items.push(found, weight) {
            break;
        }
        last = Some(id);
    }
    let next = last.filter(|last| Some(*last) != chain.last()).map(|last| position_of(last.number));
    Ok(items.into_page(next))
}
