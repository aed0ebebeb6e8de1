//! Conversations: opening, reading and changing them.

use actors::conversation::{
    self, CONVERSATIONS, Command, Conversation, DETAILS, Details, Event, Opening, Origin, Reply, Update,
};
use actors::directory::Answer;
use actors::id::{Address, ContactId, ConversationId, EntityKey};
use actors::store::{KeyRange, Order};
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::answer::{ignoring, json, replayed, strict};
use super::body::JsonBytes;
use super::caller::{Allowed, Caller, Read, Write};
use super::context::RequestContext;
use super::context::render::internal_error;
use super::headers::idempotency_key;
use super::idempotency::circumstances;
use super::messages::{LIVES_MAX, NEW_SCOPE, conversation_not_found, new_address, rejected};
use super::paging::{self, Page, PageRequest};
use super::problem::Problem;
use super::query::Query;
use super::refusal::{problem_of, store_problem};
use crate::app::App;
use crate::json::Object;
use crate::json::fields::{Fields, Length};
use crate::json::report::Report;
use crate::wire::json_view::{Raw, Shown};
use crate::wire::time::Time;

/// The longest title or owner id, in characters.
const TITLE_CHARS: usize = 255;
/// The longest summary, in bytes of UTF-8.
const SUMMARY_BYTES: usize = 16 * 1024;
/// The largest metadata, in bytes of compact JSON, and its depth.
const METADATA: (usize, usize) = (16 * 1024, 8);
/// Conversations looked at for one page with a filter.
const SCANNED_MAX: usize = 1_000;

/// The routes of this module.
pub fn routes() -> Router<App> {
    Router::new().route("/conversations", get(list).post(create)).route("/conversations/{id}", get(one).patch(update))
}

/// A conversation as clients see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConversationView<'a> {
    id: Shown<ConversationId>,
    title: Option<&'a str>,
    status: &'static str,
    summary: Option<&'a str>,
    metadata: Option<Raw<'a>>,
    owner_id: Option<&'a str>,
    channel_id: Option<&'a str>,
    contact_id: Option<Shown<ContactId>>,
    created_at: Time,
    updated_at: Time,
    last_message_at: Option<Time>,
    message_count: u64,
}

/// See [`ConversationView`].
#[must_use]
pub fn view<'a>(state: &'a conversation::State, details: &'a Details) -> ConversationView<'a> {
    let (channel_id, contact_id) = match &state.origin {
        Origin::Human { channel } => (Some(channel.as_str()), None),
        Origin::Api { channel, contact, .. } => (Some(channel.as_str()), Some(Shown(*contact))),
        Origin::Store => (None, None),
    };
    ConversationView {
        id: Shown(state.id),
        title: details.title.as_deref(),
        status: if state.closed { "closed" } else { "open" },
        summary: details.summary.as_deref(),
        metadata: details.metadata.as_ref().map(Raw),
        owner_id: state.owner.as_deref(),
        channel_id,
        contact_id,
        created_at: Time(state.id.at),
        updated_at: Time(state.updated_at),
        last_message_at: state.last_message_at.map(Time),
        message_count: state.messages,
    }
}

/// A conversation of the caller's workspace with its details.
pub(super) async fn find(app: &App, caller: &Caller, id: &str) -> Result<(conversation::State, Details), Problem> {
    let id = ConversationId::parse(id).ok_or_else(conversation_not_found)?;
    load(app, caller.address, id).await?.ok_or_else(conversation_not_found)
}

/// The same by its id.
pub(super) async fn load(
    app: &App,
    workspace: Address,
    id: ConversationId,
) -> Result<Option<(conversation::State, Details)>, Problem> {
    let entity = EntityKey::conversation(workspace, id.address);
    let state = app.node().state::<Conversation>(entity).await.map_err(|error| store_problem(&error))?;
    let Some(state) = state.filter(|state| state.id == id) else { return Ok(None) };
    let row = app.node().row(entity, DETAILS, Bytes::new()).await.map_err(|error| store_problem(&error))?;
    let details = row.map(|bytes| actors::codec::decode(&bytes)).transpose();
    Ok(Some((state, details.map_err(|error| store_problem(&error))?.unwrap_or_default())))
}

/// What a body says about a conversation. Outer `None`: nothing.
fn read_update(fields: &mut Fields<'_>, report: &mut Report) -> Update {
    let text = |fields: &mut Fields<'_>, report: &mut Report, name, length| {
        let given = fields.object().has(name);
        let value = fields.string(report, name, length).map(std::borrow::Cow::into_owned);
        given.then_some(value)
    };
    let title = text(fields, report, "title", Length::chars(0, TITLE_CHARS));
    let summary = text(fields, report, "summary", Length::bytes(0, SUMMARY_BYTES));
    let owner = text(fields, report, "ownerId", Length::chars(1, TITLE_CHARS));
    let metadata = fields
        .object()
        .has("metadata")
        .then(|| fields.optional("metadata").and_then(|value| value.free_object(report, METADATA.0, METADATA.1)));
    Update { title, summary, metadata, owner, closed: None }
}

async fn create(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Write>,
    context: RequestContext,
    headers: HeaderMap,
    JsonBytes(bytes): JsonBytes,
) -> Result<Response, Problem> {
    let body = Object::parse(&bytes)?;
    let mut report = Report::new(strict(&Query::parse(context.uri.query())?));
    let mut fields = Fields::root(body.clone(), &mut report);
    let asked = read_update(&mut fields, &mut report);
    fields.finish(&mut report);
    let key = match idempotency_key(&headers, None) {
        Ok(key) => key,
        Err(faults) => {
            report.faults.extend(faults);
            None
        }
    };
    report.refuse()?;
    let node = app.node();
    let with = circumstances(&context, NEW_SCOPE, key, &body);
    let details =
        Details { title: asked.title.flatten(), summary: asked.summary.flatten(), metadata: asked.metadata.flatten() };
    let owner = asked.owner.flatten();
    for life in 0..LIVES_MAX {
        let address = new_address(caller.address, key, life).unwrap_or_else(|| Address::random(node.random()));
        let id = ConversationId::new(node.now(), address);
        let opening = Opening { id, origin: Origin::Store, owner: owner.clone(), details: details.clone() };
        let entity = EntityKey::conversation(caller.address, address);
        let answer = node.conversation(entity, Command::Open(opening), with).await;
        match answer.map_err(|refusal| problem_of(refusal, rejected))? {
            // The key opened this one so long ago that it is forgotten.
            Answer::Done(Reply::Conversation(state, _)) if state.id != id => {}
            Answer::Done(Reply::Conversation(state, details)) => return Ok(created(&state, &details, &report)),
            Answer::Done(_) => break,
            Answer::Repeat { first, .. } => return opened_before(&app, entity, first, &report).await,
        }
    }
    Err(internal_error())
}

/// 201 with a conversation as it was opened.
fn created(state: &conversation::State, details: &Details, report: &Report) -> Response {
    let mut response = ignoring(json(StatusCode::CREATED, &view(state, details)), &report.ignored);
    if let Ok(location) = HeaderValue::try_from(format!("/api/v1/conversations/{}", state.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// The same for a retry, from the event that opened it.
async fn opened_before(app: &App, entity: EntityKey, first: u64, report: &Report) -> Result<Response, Problem> {
    let events = app.node().events::<Conversation>(entity, (first, first), Order::Asc, 1).await;
    let event = events.map_err(|error| store_problem(&error))?.into_iter().next().ok_or_else(internal_error)?;
    let Event::ConversationCreated { details, .. } = &event.event else { return Err(internal_error()) };
    let state = conversation::begun(&event).ok_or_else(internal_error)?;
    Ok(replayed(created(&state, details, report)))
}

async fn one(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (state, details) = find(&app, &caller, &id).await?;
    Ok(json(StatusCode::OK, &view(&state, &details)))
}

async fn update(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Write>,
    context: RequestContext,
    Path(id): Path<String>,
    JsonBytes(bytes): JsonBytes,
) -> Result<Response, Problem> {
    let body = Object::parse(&bytes)?;
    let mut report = Report::new(strict(&Query::parse(context.uri.query())?));
    let mut fields = Fields::root(body, &mut report);
    let mut asked = read_update(&mut fields, &mut report);
    asked.closed =
        fields.optional("status").and_then(|value| value.choice(&mut report, &[("open", false), ("closed", true)]));
    fields.finish(&mut report);
    report.refuse()?;
    let (state, _) = find(&app, &caller, &id).await?;
    let with = circumstances(&context, "", None, &Object::default());
    let entity = state.entity(caller.address);
    let answer = app.node().conversation(entity, Command::Update(asked), with).await;
    match answer.map_err(|refusal| problem_of(refusal, rejected))? {
        Answer::Done(Reply::Conversation(state, details)) => {
            Ok(ignoring(json(StatusCode::OK, &view(&state, &details)), &report.ignored))
        }
        Answer::Done(_) | Answer::Repeat { .. } => Err(internal_error()),
    }
}

/// What a list of conversations is asked for.
fn status_filter(query: &Query) -> Result<Option<bool>, Problem> {
    match query.get("status") {
        None | Some("") => Ok(None),
        Some("open") => Ok(Some(false)),
        Some("closed") => Ok(Some(true)),
        Some(_) => Err(Problem::fault("?status", "invalid_enum", "must be one of open, closed")),
    }
}

async fn list(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    context: RequestContext,
    query: Query,
) -> Result<Response, Problem> {
    let list = format!("conversations/{}", caller.workspace);
    let request = PageRequest::from_query(&query, &list)?;
    let closed = status_filter(&query)?;
    let page = page(&app, &caller, &request, &[], CONVERSATIONS, closed).await?;
    let data = page.data.iter().map(|(state, details)| view(state, details)).collect();
    Ok(Page { data, next: page.next }.into_response(&list, &context.uri))
}

/// One page of the conversations whose ids stand behind `prefix` in a list of the workspace.
pub(super) async fn page(
    app: &App,
    caller: &Caller,
    request: &PageRequest,
    prefix: &[u8],
    view: actors::store::View,
    closed: Option<bool>,
) -> Result<Page<(conversation::State, Details)>, Problem> {
    let order = if request.order == paging::Order::Asc { Order::Asc } else { Order::Desc };
    let mut at = request.cursor.clone();
    let mut data = Vec::new();
    let mut scanned = 0;
    loop {
        let range = range_behind(prefix, at.as_deref(), order);
        let chunk = request.limit + 1;
        let rows = app.node().view(caller.address, view, range, order, chunk).await;
        let rows = rows.map_err(|error| store_problem(&error))?;
        for row in &rows {
            let id = row.key.get(prefix.len()..).and_then(|id| id.try_into().ok());
            let id = ConversationId::from_bytes(id.ok_or_else(internal_error)?);
            let found = load(app, caller.address, id).await?;
            if let Some(found) = found.filter(|(state, _)| closed.is_none_or(|closed| state.closed == closed)) {
                if data.len() == request.limit {
                    return Ok(Page { data, next: at });
                }
                data.push(found);
            }
            at = Some(row.key.to_vec());
        }
        scanned += rows.len();
        if rows.len() < chunk {
            return Ok(Page { data, next: None });
        }
        if scanned >= SCANNED_MAX {
            return Ok(Page { data, next: at });
        }
    }
}

/// The keys that begin with `prefix` and stand behind the cursor.
pub(super) fn range_behind(prefix: &[u8], cursor: Option<&[u8]>, order: Order) -> KeyRange {
    let start = (!prefix.is_empty()).then(|| Bytes::copy_from_slice(prefix));
    // Keys behind a prefix are shorter than this.
    let end = (!prefix.is_empty()).then(|| Bytes::from([prefix, &[0xff; 32]].concat()));
    let cursor = cursor.map(Bytes::copy_from_slice);
    match order {
        Order::Asc => KeyRange { after: cursor.or(start), before: end },
        Order::Desc => KeyRange { after: start, before: cursor.or(end) },
    }
}
