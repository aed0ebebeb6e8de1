//! Reading messages in pages, by sequence.

use std::collections::HashMap;
use std::time::Duration;

use actors::conversation::{Conversation, message_of};
use actors::id::{Address, ConversationId, EntityKey};
use actors::message::{Message, Overlay};
use actors::store::SeqRange;
use actors::tasks::shares::{SharedPermit, SharedPermits};
use axum::extract::Path;
use axum::response::Response;
use tokio::time::{Instant, timeout_at};

use super::human_channel;
use super::stored::{settle_deadline, settled};
use crate::app::App;
use crate::http::call::{Allowed, Call};
use crate::http::caller::Read;
use crate::http::history::PartPermits;
use crate::http::log::{CHUNK_BYTES, FIRST_CHUNK, FIRST_OF_PAGE, chunk_of, seqs_after};
use crate::http::paging::{Page, PageItems, PageRequest, ScanBudget, position_of};
use crate::http::query::Query;
use crate::http::refusal::conversation::conversation_not_found;
use crate::problem::{Fault, Problem};
use crate::wire::channel_message::view::channel_view;
use crate::wire::conversation_message::view::{conversation_view, view_bytes};

/// Events scanned for one page: `docs/decisions/0035-a-search-goes-on.md`.
const EVENTS: ScanBudget = ScanBudget { at_first: 50_000, in_any_case: 10_000 };
/// Bytes of them; of long messages fewer are scanned.
const BYTES: ScanBudget = ScanBudget { at_first: 40 * 1024 * 1024, in_any_case: 8 * 1024 * 1024 };
/// Events read at once.
const EVENTS_PER_READ: usize = 256;
/// Chunks that are searched at the same time, over all requests: a part of the threads, so that other work continues.
const MAX_SCANS: usize = 2;
/// How long a request waits for a permit to search, from its beginning. A chunk takes milliseconds, so a longer wait
/// means a long queue of searches. The number of connections bounds the queue.
const PERMIT_TIMEOUT: Duration = Duration::from_secs(5);

/// The permits of requests that search a log. One is held for a chunk at a time, and workspaces take turns.
#[derive(Debug)]
pub(crate) struct Scans(SharedPermits);

impl Default for Scans {
    fn default() -> Self {
        Self(SharedPermits::of(MAX_SCANS, MAX_SCANS))
    }
}

impl Scans {
    /// A permit for this workspace, if there is one before `until`.
    async fn enter(&self, workspace: Address, until: Instant) -> Option<SharedPermit> {
        timeout_at(until, self.0.enter(workspace)).await.ok()
    }
}

/// The filter of a list of messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Filter {
    /// Their text has each of these, in any case.
    search: Vec<String>,
    sender: Option<String>,
    /// The human channel whose messages are listed, if the sender matters.
    channel: Option<String>,
    role: Option<String>,
    message_type: Option<String>,
    tag: Option<String>,
    has_attachments: Option<bool>,
}

impl Filter {
    /// Reads a query.
    ///
    /// # Errors
    ///
    /// 400 `invalid_type` where `hasAttachments` is neither `true` nor `false`.
    fn from_query(query: &Query) -> Result<Self, Problem> {
        let text = |name| query.given(name).map(str::to_owned);
        Ok(Self {
            search: terms(query.get("search").unwrap_or_default()),
            sender: text("senderId"),
            channel: None,
            role: text("role"),
            message_type: text("messageType"),
            tag: text("tag"),
            has_attachments: query.boolean("hasAttachments")?,
        })
    }

    /// The filter for a human channel, which shows its agents as the channel itself.
    fn of_channel(self, channel: &str) -> Self {
        let channel = self.sender.is_some().then(|| channel.to_owned());
        Self { channel, ..self }
    }

    /// Whether it may exclude messages.
    fn is_some(&self) -> bool {
        *self != Self::default()
    }

    fn matches(&self, message: &Message, overlay: &Overlay) -> bool {
        let content = &message.content;
        let removed = message.removal(overlay).is_some();
        let sent = &content.sender;
        let sender = self.channel.as_ref().map_or(sent.id.as_str(), |channel| sent.id_on(channel));
        let found = |terms: &[String]| {
            let text = overlay.text_of(content).filter(|_| !removed);
            let text = text.map(str::to_lowercase).unwrap_or_default();
            terms.iter().all(|term| text.contains(term))
        };
        let tags = overlay.tags_of(content);
        let tagged = |tag: &String| !removed && tags.is_some_and(|tags| tags.contains(tag));
        let attached = !removed
            && (!content.attachments.is_empty()
                || content.references.as_ref().is_some_and(|references| references.as_str() != "[]"));
        (self.search.is_empty() || found(&self.search))
            && self.sender.as_ref().is_none_or(|wanted| sender == wanted)
            && self.role.as_ref().is_none_or(|role| content.role == *role)
            && self.message_type.as_ref().is_none_or(|kind| content.message_type == *kind)
            && self.tag.as_ref().is_none_or(tagged)
            && self.has_attachments.is_none_or(|wanted| wanted == attached)
    }
}

/// The terms of a search: words, and phrases in quotation marks, in lower case.
fn terms(search: &str) -> Vec<String> {
    let lower = search.to_lowercase();
    let parts = lower.split('"').enumerate();
    let terms = parts.flat_map(|(i, part)| match i % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.split_whitespace().collect::<Vec<_>>().join(" ")],
    });
    terms.filter(|term| !term.is_empty()).collect()
}

/// The events that a request has scanned.
#[derive(Debug, Default)]
struct Scanned {
    events: usize,
    bytes: usize,
}

impl Scanned {
    fn is_spent(&self, after: Duration) -> bool {
        EVENTS.is_spent(self.events, after) || BYTES.is_spent(self.bytes, after)
    }

    fn take(&mut self, message: Option<&Message>) {
        self.events += 1;
        self.bytes += message.map_or(0, |message| message.content.weight());
    }

    /// How many events to read next: the first few show how long they are. Without a filter, few are enough.
    fn chunk(&self, filter: &Filter, limit: usize) -> usize {
        let (first, most) = if filter.is_some() {
            (FIRST_CHUNK, EVENTS_PER_READ)
        } else {
            (FIRST_OF_PAGE.min(limit + 1), EVENTS_PER_READ.min(limit * 2 + 2))
        };
        match self.bytes.checked_div(self.events) {
            Some(length) => chunk_of(length, CHUNK_BYTES, most),
            None => first,
        }
    }
}

/// The permit to read a chunk of a page; the last one is held until the page is rendered.
enum ChunkPermits<'a> {
    /// With a filter: one of [`Scans`] for each chunk.
    Search { scans: &'a Scans, workspace: Address, until: Instant, held: Option<SharedPermit> },
    /// Without: those of all readers of histories.
    Read(PartPermits<'a>),
}

impl<'a> ChunkPermits<'a> {
    /// Those for this page.
    fn of(call: &'a Call, request: &PageRequest, filter: &Filter) -> Self {
        let app = &call.app;
        let workspace = call.caller.address;
        if filter.is_some() {
            let until = Instant::now() + PERMIT_TIMEOUT;
            return Self::Search { scans: app.scans(), workspace, until, held: None };
        }
        // More is read where events are no messages, such as edits.
        Self::Read(app.history().for_parts(workspace, request.limit + 1))
    }

    /// Begins to read a chunk of so many events, once there is a permit for it.
    ///
    /// # Errors
    /// 503 if there is none in time.
    async fn read(&mut self, events: usize) -> Result<(), Problem> {
        match self {
            Self::Search { scans, workspace, until, held } => {
                *held = None;
                *held = Some(scans.enter(*workspace, *until).await.ok_or_else(too_many_searches)?);
                Ok(())
            }
            Self::Read(permits) => permits.read(events).await,
        }
    }
}

/// One page of a conversation's messages.
///
/// # Errors
///
/// 503 if the store cannot be read, or too many others read or search; 500 if the stored data cannot be read.
async fn page_of(
    app: &App,
    entity: EntityKey,
    request: &PageRequest,
    filter: &Filter,
    permits: &mut ChunkPermits<'_>,
) -> Result<Page<(Message, Overlay)>, Problem> {
    let began = Instant::now();
    let node = app.node();
    let mut items = PageItems::of(request.limit);
    let mut scanned = Scanned::default();
    let mut at = request.seq();
    loop {
        let range = seqs_after(1, at, request.order);
        let chunk = scanned.chunk(filter, request.limit);
        match permits.read(chunk).await {
            Ok(()) => {}
            // The scanned events are a page, if a short one.
            Err(_) if scanned.events > 0 => return Ok(items.into_page(at.map(position_of))),
            Err(none_in_time) => return Err(none_in_time),
        }
        let events = node.events::<Conversation>(entity, range, request.order, chunk).await?;
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return Ok(items.into_page(None));
        };
        let span = SeqRange::new(first.seq.min(last.seq), first.seq.max(last.seq));
        let overlays = node.overlays(entity, span).await?;
        let mut overlays: HashMap<u64, Overlay> = overlays.into_iter().collect();
        let complete = events.len() < chunk;
        for event in &events {
            let message = message_of(event);
            scanned.take(message.as_ref());
            if let Some(message) = message {
                let overlay = overlays.remove(&event.seq).unwrap_or_default();
                if filter.matches(&message, &overlay) {
                    let weight = message.content.weight() + overlay.rendered_weight();
                    if !items.push((message, overlay), weight) {
                        return Ok(items.into_page(at.map(position_of)));
                    }
                }
            }
            at = Some(event.seq);
        }
        if complete {
            return Ok(items.into_page(None));
        }
        if scanned.is_spent(began.elapsed()) {
            return Ok(items.into_page(at.map(position_of)));
        }
        tokio::task::yield_now().await;
    }
}

/// 503, before any event was scanned.
fn too_many_searches() -> Problem {
    Problem::unavailable("overloaded", "too many searches are in progress; retry later", 1)
}

/// `GET /messages`: of a channel in its shape, of a conversation in its own.
pub(in crate::http) async fn get(Allowed { call, .. }: Allowed<Read>, query: Query) -> Result<Response, Problem> {
    let mut faults = match (query.given("channelId"), query.given("conversationId")) {
        (Some(channel), None) => return of_channel(&call, &query, channel).await,
        (None, Some(conversation)) => {
            return conversation_page(&call, &query, conversation).await;
        }
        (Some(_), Some(_)) => {
            vec![Fault::new("/conversationId", "invalid_query", "give channelId or conversationId, not both")]
        }
        (None, None) => ["/channelId", "/conversationId"]
            .map(|pointer| Fault::new(pointer, "required", "channelId or conversationId is required"))
            .into(),
    };
    if let Err(problem) = Problem::both(PageRequest::from_query(&query, ""), Filter::from_query(&query)) {
        // Without a list, no cursor can be valid.
        faults.extend(problem.faults.into_iter().filter(|fault| fault.pointer != "/cursor"));
    }
    Err(Problem::invalid(faults))
}

/// `GET /conversations/{id}/messages`.
pub(in crate::http) async fn of_conversation(
    Allowed { call, .. }: Allowed<Read>,
    Path(conversation): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    conversation_page(&call, &query, &conversation).await
}

async fn of_channel(call: &Call, query: &Query, channel: &str) -> Result<Response, Problem> {
    let read_query = |name: &str| {
        let list = format!("channels/{}/{name}/messages", call.caller.workspace);
        let (request, filter) = Problem::both(PageRequest::from_query(query, &list), Filter::from_query(query))?;
        Ok((request, filter, list))
    };
    let (channel, (request, filter, list)) = human_channel(call, (channel, "/channelId"), read_query).await?;
    let entity = channel.conversation(call.caller.address);
    let filter = filter.of_channel(&channel.id);
    let mut permits = ChunkPermits::of(call, &request, &filter);
    let page = page_of(&call.app, entity, &request, &filter, &mut permits).await?;
    let until = settle_deadline();
    let mut data = Vec::with_capacity(page.data.len());
    for (message, overlay) in page.data {
        let overlay = settled(call, until, entity, &message, overlay).await;
        data.push((message, overlay));
    }
    let data = data.iter().map(|(message, overlay)| channel_view(&channel.id, message, overlay)).collect();
    Ok(Page { data, next: page.next }.into_response(&list, &call.context.uri))
}

async fn conversation_page(call: &Call, query: &Query, conversation: &str) -> Result<Response, Problem> {
    let list = format!("conversations/{}/{conversation}/messages", call.caller.workspace);
    let (request, filter) = Problem::both(PageRequest::from_query(query, &list), Filter::from_query(query))?;
    let id = ConversationId::parse(conversation).ok_or_else(conversation_not_found)?;
    let entity = call.caller.conversation(id.address);
    let found = call.node().conversation_id(entity).await?;
    found.filter(|found| *found == id).ok_or_else(conversation_not_found)?;
    let mut permits = ChunkPermits::of(call, &request, &filter);
    let page = page_of(&call.app, entity, &request, &filter, &mut permits).await?;
    let bytes = page.data.iter().map(|(message, overlay)| view_bytes(message, overlay)).sum();
    Ok(page.render_with(&list, &call.context.uri, bytes, |out, (message, overlay)| {
        conversation_view(&call.caller.workspace, message, overlay).write(out);
    }))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_search_waits_for_one_chunk_of_another_workspace_at_most() {
        let scans = Scans::default();
        let [crowded, quiet] = [1, 2].map(|n| Address([n; 10]));
        let until = Instant::now() + PERMIT_TIMEOUT;
        let enter = |workspace| Box::pin(scans.enter(workspace, until));
        let mut held: Vec<_> = (0..MAX_SCANS).map(|_| enter(crowded).now_or_never().unwrap()).collect();
        let mut many: Vec<_> = (0..300).map(|_| enter(crowded)).collect();
        assert!(many.iter_mut().all(|waits| waits.now_or_never().is_none()));
        let mut one = enter(quiet);
        assert!((&mut one).now_or_never().is_none());
        held.pop();
        assert!(many.iter_mut().all(|waits| waits.now_or_never().is_none()));
        assert!(one.now_or_never().unwrap().is_some());
    }

    #[test]
    fn a_search_stops_after_its_most_or_a_fifth_of_it_past_a_second() {
        let megabytes = |bytes: usize| bytes * 1024 * 1024;
        for (events, bytes, seconds, is_spent) in [
            (49_999, 0, 0, false),
            (50_000, 0, 0, true),
            (1, megabytes(39), 0, false),
            (1, megabytes(40), 0, true),
            (9_999, megabytes(7), 60, false),
            (10_000, 0, 1, true),
            (1, megabytes(8), 1, true),
        ] {
            let after = Duration::from_secs(seconds);
            assert_eq!(Scanned { events, bytes }.is_spent(after), is_spent, "{events} {bytes} {seconds}");
        }
    }
}
