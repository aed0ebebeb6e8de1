//! Conversations: opening, reading and changing them.

use actors::conversation::update::Seen;
use actors::conversation::{self, Conversation, Details, Event, Opening, Origin, Update};
use actors::directory::Answer;
use actors::id::{ContactId, ConversationId, EntityKey};
use actors::machine::Record;
use actors::message::Json;
use actors::node::Node;
use actors::patch::Patch;
use actors::store::SeqRange;
use actors::tables::{CONTACT_CONVERSATIONS, CONVERSATIONS};
use actors::workflows::claims::MAX_LIVES;
use axum::extract::Path;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::answer::{json, mark_replayed, with_ignored_fields, with_location};
use super::body::{JsonBytes, OptionalJsonBytes};
use super::call::{Allowed, Call};
use super::caller::{Read, Write};
use super::headers::if_match::IfMatch;
use super::headers::{if_match, tag_of, unless_known};
use super::listing::Listing;
use super::log;
use super::messages::new_id;
use super::paging::{Page, PageRequest};
use super::query::Query;
use super::refusal::{broken, problem_of};
use crate::app::App;
use crate::http::refusal::conversation::{conversation_not_found, rejected};
use crate::json::fields::{Fields, Length};
use crate::json::report::Report;
use crate::problem::Problem;
use crate::wire::bounds::{METADATA, NAME_OR_EMPTY, PRINCIPAL_ID};
use crate::wire::json_view::{AsText, Raw};
use crate::wire::time::Time;

pub mod fork;

/// The longest summary, in bytes of UTF-8.
const SUMMARY_BYTES: usize = 16 * 1024;
/// Whether a conversation is closed, by name.
const STATUSES: [(&str, bool); 2] = [OPEN, ("closed", true)];
/// The status of a new conversation.
const OPEN: (&str, bool) = ("open", false);

/// A conversation as clients see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationView<'a> {
    id: AsText<ConversationId>,
    title: Option<&'a str>,
    status: &'static str,
    summary: Option<&'a str>,
    metadata: Option<Raw<'a>>,
    owner_id: Option<&'a str>,
    channel_id: Option<&'a str>,
    contact_id: Option<AsText<ContactId>>,
    created_at: Time,
    updated_at: Time,
    last_message_at: Option<Time>,
    message_count: u64,
    forked_from: Option<AsText<ConversationId>>,
}

/// A conversation with its details.
#[derive(Debug)]
pub(super) struct StoredConversation {
    pub(super) state: conversation::State,
    pub(super) details: Details,
}

impl StoredConversation {
    /// The conversation as it was opened, by the event that began it.
    fn opened(event: &Record<Event>) -> Result<Self, Problem> {
        let Event::ConversationCreated { details, .. } = &event.event else {
            return Err(broken("the event of an opening is a creation"));
        };
        let state = conversation::State::begun(event);
        let state = state.ok_or_else(|| broken("a conversation begins with its creation"))?;
        Ok(Self { state, details: details.clone() })
    }

    pub(super) fn view(&self) -> ConversationView<'_> {
        let Self { state, details } = self;
        ConversationView {
            id: AsText(state.id),
            title: details.title.as_deref(),
            status: if state.closed { "closed" } else { "open" },
            summary: details.summary.as_deref(),
            metadata: details.metadata.as_ref().map(Raw),
            owner_id: state.owner.as_deref(),
            channel_id: state.origin.channel(),
            contact_id: state.origin.contact().map(AsText),
            created_at: Time(state.created_at()),
            updated_at: Time(state.updated_at),
            last_message_at: state.last_message_at.map(Time),
            message_count: state.messages,
            forked_from: state.fork.map(|fork| AsText(fork.of.source)),
        }
    }

    /// A tag of the changeable members, which `If-Match` compares. Messages do not change it.
    fn tag(&self) -> String {
        let Self { state, details } = self;
        let metadata = details.metadata.as_ref().map(Json::as_str);
        tag_of(&(&details.title, &details.summary, metadata, &state.owner, state.closed))
    }

    /// The `ETag`: the tag of the changeable members, then the number of messages and the time of the last change.
    fn etag(&self) -> String {
        format!("\"{}-{:x}-{:x}\"", self.tag(), self.state.messages, self.state.updated_at.0)
    }

    /// An answer with the conversation and its `ETag`.
    fn response(&self, status: StatusCode) -> Response {
        let mut response = json(status, &self.view());
        if let Ok(etag) = HeaderValue::try_from(self.etag()) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        response
    }

    /// An answer to the request that opened the conversation, with its `Location`.
    fn created(&self, status: StatusCode) -> Response {
        with_location(self.response(status), &format!("/conversations/{}", self.state.id))
    }
}

/// The condition of a change: of each `ETag` the part about the changeable members.
fn without_messages(wanted: IfMatch) -> IfMatch {
    let part = |tag: String| tag.split('-').next().unwrap_or_default().to_owned();
    match wanted {
        IfMatch::Any => IfMatch::Any,
        IfMatch::Tags(tags) => IfMatch::Tags(tags.into_iter().map(part).collect()),
    }
}

/// A conversation of the caller's workspace; 404 if there is none.
pub(super) async fn find(call: &Call, id: &str) -> Result<StoredConversation, Problem> {
    let id = ConversationId::parse(id).ok_or_else(conversation_not_found)?;
    let entity = call.caller.conversation(id.address);
    let state = state(&call.app, entity, id).await?.ok_or_else(conversation_not_found)?;
    let details = call.node().details(entity).await?;
    Ok(StoredConversation { state, details })
}

/// A conversation without its details; `None` if there is none with this id.
pub(super) async fn state(
    app: &App,
    entity: EntityKey,
    id: ConversationId,
) -> Result<Option<conversation::State>, Problem> {
    let state = app.node().state::<Conversation>(entity).await?;
    Ok(state.filter(|state| state.id == id))
}

/// Reads a body's members about a conversation.
fn read_update(fields: &mut Fields<'_>, report: &mut Report) -> Update {
    let text = |fields: &mut Fields<'_>, report: &mut Report, name, length| {
        let given = fields.object().has(name);
        let value = fields.string(report, name, length).map(std::borrow::Cow::into_owned);
        Patch::if_given(given, value)
    };
    let title = text(fields, report, "title", NAME_OR_EMPTY);
    let summary = text(fields, report, "summary", Length::bytes(0, SUMMARY_BYTES));
    let owner = text(fields, report, "ownerId", PRINCIPAL_ID);
    let has_metadata = fields.object().has("metadata");
    let metadata = fields.optional("metadata").and_then(|value| value.free_object(report, METADATA));
    let metadata = Patch::if_given(has_metadata, metadata);
    Update { title, summary, metadata, owner, closed: None, seen: None }
}

/// `POST /conversations`.
///
/// # Errors
/// 400, 422.
pub(super) async fn create(Allowed { call, body, .. }: Allowed<Write, OptionalJsonBytes>) -> Result<Response, Problem> {
    let mut incoming = call.read(body.as_ref())?;
    let key = incoming.key;
    // The conversation that the key opens is its home, so it needs no claim there.
    let command_context = incoming.command_context().without_claim();
    let mut fields = incoming.fields();
    let requested = read_update(&mut fields, &mut incoming.report);
    let _ = fields.optional("status").and_then(|value| value.choice(&mut incoming.report, &[OPEN]));
    fields.finish(&mut incoming.report);
    let ignored = incoming.report.check()?;
    let node = call.node();
    let details = Details {
        title: requested.title.new_value(),
        summary: requested.summary.new_value(),
        metadata: requested.metadata.new_value(),
    };
    let owner = requested.owner.new_value();
    for life in 0..MAX_LIVES {
        let id = new_id(&call, key, life);
        let opening = Opening { id, origin: Origin::Direct, owner: owner.clone(), details: details.clone() };
        let entity = call.caller.conversation(id.address);
        let answer = node.conversation(entity, opening, command_context).await;
        match answer.map_err(|refusal| problem_of(refusal, rejected))? {
            // The key that opened this conversation is so old that it was forgotten.
            Answer::Done((state, _)) if state.id != id => {}
            Answer::Done((state, details)) => {
                let created = StoredConversation { state: *state, details }.created(StatusCode::CREATED);
                return Ok(with_ignored_fields(created, &ignored));
            }
            Answer::Repeat(effect) => {
                let opening = opening_event(node, entity, effect.first).await?;
                let created = StoredConversation::opened(&opening)?.created(StatusCode::CREATED);
                return Ok(mark_replayed(with_ignored_fields(created, &ignored)));
            }
        }
    }
    Err(broken("a key opens a conversation in one of its lives"))
}

/// The event that opened a conversation.
async fn opening_event(node: &Node, entity: EntityKey, seq: u64) -> Result<Record<Event>, Problem> {
    let events = log::between(node, entity, SeqRange::one(seq)).await?;
    events.into_iter().next().ok_or_else(|| broken("an opening has an event"))
}

/// `GET /conversations/{id}`, or 304 if the client's copy is current.
///
/// # Errors
/// 404 `conversation_not_found`.
pub(super) async fn get(Allowed { call, .. }: Allowed<Read>, Path(id): Path<String>) -> Result<Response, Problem> {
    let found = find(&call, &id).await?;
    Ok(unless_known(&call.headers, found.response(StatusCode::OK)))
}

/// `PATCH /conversations/{id}`: changes the given members.
///
/// # Errors
/// 400, 404 `conversation_not_found`, 409 `conversation_erased`, 412 `precondition_failed`.
pub(super) async fn update(
    Path(id): Path<String>,
    Allowed { call, body, .. }: Allowed<Write, JsonBytes>,
) -> Result<Response, Problem> {
    let mut incoming = call.read_unkeyed(&body)?;
    let wanted = incoming.report.take(if_match(&call.headers))?.flatten();
    let mut fields = incoming.fields();
    let report = &mut incoming.report;
    let mut update = read_update(&mut fields, report);
    update.closed = fields.optional("status").and_then(|value| value.choice(report, &STATUSES));
    fields.finish(report);
    let ignored = incoming.report.check()?;
    let found = find(&call, &id).await?;
    let entity = found.state.entity(call.caller.address);
    let command_context = call.without_key();
    if let Some(response) = call.forward(entity, &body, &command_context).await? {
        return Ok(response);
    }
    if let Some(wanted) = wanted {
        let wanted = without_messages(wanted);
        wanted.check(&found.tag())?;
        let StoredConversation { state, details } = found;
        let seen = || Box::new(Seen { details, owner: state.owner.clone(), closed: state.closed });
        update.seen = wanted.is_of_versions().then(seen);
    }
    let answer = call.node().conversation(entity, update, command_context).await;
    let updated = answer.and_then(Answer::unkeyed).map_err(|refusal| problem_of(refusal, rejected));
    let (state, details) = updated?;
    let response = StoredConversation { state: *state, details }.response(StatusCode::OK);
    Ok(with_ignored_fields(response, &ignored))
}

/// The filter of a list of conversations.
#[derive(Debug, Default)]
pub(super) struct Filter {
    closed: Option<bool>,
    owner: Option<String>,
    channel: Option<String>,
    /// The inner `None`: an id that no contact has.
    contact: Option<Option<ContactId>>,
}

impl Filter {
    /// # Errors
    /// 400 `invalid_enum` for an unknown status.
    fn of(query: &Query) -> Result<Self, Problem> {
        Ok(Self {
            closed: query.choice("status", &STATUSES)?,
            owner: query.given("ownerId").map(str::to_owned),
            channel: query.given("channelId").map(str::to_owned),
            contact: query.given("contactId").map(ContactId::parse),
        })
    }

    fn matches(&self, state: &conversation::State) -> bool {
        self.closed.is_none_or(|closed| state.closed == closed)
            && self.owner.as_ref().is_none_or(|owner| state.owner.as_ref() == Some(owner))
            && self.channel.as_ref().is_none_or(|channel| state.origin.channel() == Some(channel))
            && self.contact.is_none_or(|wanted| wanted.is_some() && wanted == state.origin.contact())
    }
}

/// `GET /conversations?status=&ownerId=&channelId=&contactId=`.
///
/// # Errors
/// 400 for a wrong page or filter.
pub(super) async fn list(Allowed { call, .. }: Allowed<Read>, query: Query) -> Result<Response, Problem> {
    // A contact's conversations are a separate list, with positions of its own.
    let list = match query.given("contactId") {
        Some(contact) => format!("conversations/{}?contactId={contact}", call.caller.workspace),
        None => format!("conversations/{}", call.caller.workspace),
    };
    let (request, filter) = Problem::both(PageRequest::from_query(&query, &list), Filter::of(&query))?;
    let (view, prefix) = match filter.contact {
        None => (CONVERSATIONS, Vec::new()),
        Some(Some(contact)) => (CONTACT_CONVERSATIONS, contact.to_bytes().to_vec()),
        Some(None) => return Ok(Page::<()>::empty().into_response(&list, &call.context.uri)),
    };
    let listing = Listing { workspace: call.caller.address, view, prefix: &prefix, placed_early: true };
    let page = page(&call.app, listing, &request, &filter).await?;
    let data = page.data.iter().map(StoredConversation::view).collect();
    Ok(Page { data, next: page.next }.into_response(&list, &call.context.uri))
}

/// One page of the conversations in a list of ids that match the filter.
pub(super) async fn page(
    app: &App,
    listing: Listing<'_>,
    request: &PageRequest,
    filter: &Filter,
) -> Result<Page<StoredConversation>, Problem> {
    let load = async |key: Bytes| {
        let id = ConversationId::from_bytes(
            key.as_ref().try_into().map_err(|_| broken("an entry of a list of conversations is an id"))?,
        );
        let entity = EntityKey::conversation(listing.workspace, id.address);
        let found = state(app, entity, id).await?.filter(|state| filter.matches(state));
        let Some(state) = found else { return Ok(None) };
        let details = app.node().details(entity).await?;
        let weight = details.bytes();
        Ok(Some((StoredConversation { state, details }, weight)))
    };
    listing.page(app, request, load).await
}
