//! The event log of a conversation or a human channel: in pages, or live.
//!
//! A stream sends every event once, in order: it compares announced events with the next sequence, and reads missing
//! ones from the store. So a slow reader costs reads, and memory for at most [this many
//! bytes](actors::limits::SUBSCRIBER_BYTES); and a reader that reconnects with `Last-Event-ID` continues where it was.
//! An event is serialized once for all its readers.
//!
//! With `deltas` a stream also sends pieces of agents' replies while they are being made (`turn.delta`). They are not
//! events: they have no `id`, so the last event's id stays, and a reader that misses them gets the reply as an event.

use std::convert::Infallible;
use std::sync::Arc;

use actors::channel::Channel;
use actors::conversation::{Conversation, Event};
use actors::id::{Address, ConversationId, EntityKey};
use actors::machine::Record;
use actors::store::StoreError;
use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, header};

use super::call::{Allowed, Call};
use super::caller::Read;
use super::conversations;
use super::headers::prefers_event_stream;
use super::log::{CHUNK_BYTES, FIRST_OF_PAGE, chunk_of, seqs_after};
use super::messages::human_channel;
use super::paging::{PAGE_BYTES, Page, PageRequest, position_of};
use super::query::Query;
use super::refusal::broken;
use crate::app::App;
use crate::problem::Problem;
use crate::wire::digits::digits;
use crate::wire::event::{Source, event_value};
use crate::wire::json_view::RawOwned;

mod access;
mod follower;
mod frame;

use follower::Follower;

/// Events read at once.
const EVENTS_PER_READ: usize = 128;

/// `GET /conversations/{id}/events`.
pub(super) async fn of_conversation(
    Allowed { call, .. }: Allowed<Read>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    let list = format!("conversations/{}/{id}/events", call.caller.workspace);
    let (events_query, page) =
        Problem::both(EventsQuery::of(&call.headers, &query), PageRequest::from_query(&query, &list))?;
    let conversations::StoredConversation { state, .. } = conversations::find(&call, &id).await?;
    let log = Log {
        entity: state.entity(call.caller.address),
        workspace: Arc::clone(&call.caller.workspace),
        channel: state.origin.channel().map(Into::into),
        of_channel: None,
        is_human: state.origin.human_channel().is_some(),
        conversation: Some(state.id),
        newest: state.last_seq,
    };
    answer(&call, log, events_query, page, &list).await
}

/// `GET /channels/{id}/events`.
pub(super) async fn of_channel(
    Allowed { call, .. }: Allowed<Read>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    let read_query = |name: &str| {
        let list = format!("channels/{}/{name}/events", call.caller.workspace);
        let (events_query, page) =
            Problem::both(EventsQuery::of(&call.headers, &query), PageRequest::from_query(&query, &list))?;
        Ok((events_query, page, list))
    };
    let (channel, (mut events_query, page, list)) = human_channel(&call, (&id, ""), read_query).await?;
    let entity = channel.conversation(call.caller.address);
    let state = call.node().state::<Conversation>(entity).await?;
    let log = Log {
        entity,
        workspace: Arc::clone(&call.caller.workspace),
        channel: Some(channel.id.as_str().into()),
        is_human: true,
        conversation: state.as_ref().map(|state| state.id),
        newest: state.map_or(0, |state| state.last_seq),
        of_channel: Some((call.caller.address, channel)),
    };
    if log.is_beyond(&events_query, &page) {
        events_query.after = Some(0);
    }
    answer(&call, log, events_query, page, &list).await
}

/// A log to read.
struct Log {
    entity: EntityKey,
    workspace: Arc<str>,
    channel: Option<Arc<str>>,
    /// The requested channel, and its workspace; `None`: a conversation's own log.
    of_channel: Option<(Address, Arc<Channel>)>,
    is_human: bool,
    /// The log's conversation; `None`: the channel had no messages when the request came.
    conversation: Option<ConversationId>,
    /// Its newest sequence when the request came.
    newest: u64,
}

impl Log {
    /// Whether the requested position belongs to an earlier channel with the same id. A page whose position is below
    /// the list's beginning continues a list that was begun there.
    fn is_beyond(&self, query: &EventsQuery, page: &PageRequest) -> bool {
        let is_another = self.of_channel.as_ref().is_some_and(|(_, channel)| channel.life.unwrap_or_default() > 0);
        let is_beyond = |after| after > self.newest || page.seq().is_some_and(|at| at <= after);
        is_another && query.after.is_some_and(is_beyond)
    }

    /// Looks up the log's conversation, once there is one.
    async fn look_up(&mut self, app: &App) -> Result<(), StoreError> {
        if self.conversation.is_none() {
            // On the heap while it lasts: almost no stream needs it.
            let state = Box::pin(app.node().state::<Conversation>(self.entity)).await?;
            self.conversation = state.map(|state| state.id);
        }
        Ok(())
    }

    /// The source of its events; `None`: not looked up yet.
    fn source(&self) -> Option<Source<'_>> {
        Some(Source {
            workspace: &self.workspace,
            conversation: self.conversation?,
            channel: self.channel.as_deref(),
            is_human: self.is_human,
        })
    }

    /// The source of its events, after [`Log::look_up`]; an error if there are events without a conversation.
    fn found_source(&self) -> Result<Source<'_>, StoreError> {
        self.source().ok_or_else(|| StoreError::Corrupt("a log with events has no owner".into()))
    }
}

/// The parameters of a request for a log.
struct EventsQuery {
    live: bool,
    /// Only events after this sequence.
    after: Option<u64>,
    /// With pieces of agents' replies, between the events.
    deltas: bool,
}

impl EventsQuery {
    fn of(headers: &HeaderMap, query: &Query) -> Result<Self, Problem> {
        let live = prefers_event_stream(headers);
        let number = |text: &str, pointer: &str| {
            let message = "must be the sequence of an event, an integer from 0";
            // No event has a number that overflows.
            let number = digits(text).and_then(|_| text.parse::<u64>().ok());
            number.ok_or_else(|| Problem::fault(pointer, "invalid_type", message))
        };
        let last = headers.get("last-event-id").filter(|_| live);
        // A non-ASCII value is no number either.
        let last = last.map(|value| value.to_str().unwrap_or("?"));
        let last = last.filter(|last| !last.is_empty()).map(|last| number(last.trim(), "/Last-Event-ID"));
        let after = query.get("after").map(|after| number(after, "/after"));
        let begin = Problem::both(last.transpose(), after.transpose());
        let ((last, after), deltas) = Problem::both(begin, query.boolean("deltas"))?;
        // A reconnecting reader repeats its first request, with its position.
        Ok(Self { live, after: last.or(after), deltas: deltas.unwrap_or_default() })
    }
}

async fn answer(
    call: &Call,
    mut log: Log,
    query: EventsQuery,
    page: PageRequest,
    list: &str,
) -> Result<Response, Problem> {
    if query.live {
        let Some(permit) = call.app.long_requests().enter(log.entity.workspace) else {
            return Err(Problem::unavailable(
                "overloaded",
                "too many requests are waiting or streaming; retry later",
                1,
            ));
        };
        return Ok(stream_response(Follower::new(call, log, &query, permit)));
    }
    let _permit = call.app.history().for_page(log.entity.workspace).await?;
    let first = query.after.map_or(1, |after| after.saturating_add(1));
    let Page { data: events, next } = page_of(&call.app, log.entity, first, &page).await?;
    let mut data = Vec::with_capacity(events.len());
    for event in &events {
        log.look_up(&call.app).await?;
        let source = log.source().ok_or_else(|| broken("a log with events has an owner"))?;
        let value = event_value(event, &source).map_err(|_| broken("an event can be written as JSON"))?;
        data.extend(value.map(RawOwned));
    }
    Ok(varying_by_accept(Page { data, next }.into_response(list, &call.context.uri)))
}

/// The streaming answer, which lasts as long as its reader follows.
fn stream_response(follower: Follower) -> Response {
    let frames = stream::unfold(follower, |mut follower| async move {
        let written = follower.write().await?;
        Some((Ok(written), follower))
    });
    let frames = stream::once(std::future::ready(Ok::<_, Infallible>(frame::opening()))).chain(frames);
    let headers =
        [("content-type", "text/event-stream"), ("cache-control", "private, no-cache"), ("x-accel-buffering", "no")];
    varying_by_accept((headers, Body::from_stream(frames)).into_response())
}

/// Marks an answer for caches as varying by `Accept`.
fn varying_by_accept(mut response: Response) -> Response {
    response.headers_mut().insert(header::VARY, HeaderValue::from_name(header::ACCEPT));
    response
}

/// A page of a log.
async fn page_of(app: &App, entity: EntityKey, first: u64, page: &PageRequest) -> Result<Page<Record<Event>>, Problem> {
    let mut events = Vec::new();
    let mut bytes = 0;
    let mut chunk = FIRST_OF_PAGE;
    let mut at = page.seq();
    loop {
        let wanted = chunk.min(page.limit + 1 - events.len());
        let range = seqs_after(first, at, page.order);
        let room = PAGE_BYTES.saturating_sub(bytes);
        let stretch = app.node().stretch::<Conversation>(entity, range, page.order, wanted, room).await?;
        at = stretch.events.last().map(|event| event.seq).or(at);
        chunk = stretch.length.map_or(chunk, |length| chunk_of(length, CHUNK_BYTES, EVENTS_PER_READ));
        bytes += stretch.bytes;
        events.extend(stretch.events);
        if events.len() > page.limit || stretch.is_last || bytes >= PAGE_BYTES {
            let continues = events.len() > page.limit || !stretch.is_last;
            events.truncate(page.limit);
            return Ok(Page::of(events, continues, |event: &Record<Event>| position_of(event.seq)));
        }
    }
}
