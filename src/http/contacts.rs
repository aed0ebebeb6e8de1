//! Contacts: the people who write on api channels.

use std::time::Duration;

use actors::contact::identifier::normalize_identifier;
use actors::contact::{self, Contact, entity_of, name_key};
use actors::directory::{Answer, Refusal};
use actors::id::{ContactId, EntityKey};
use actors::patch::Patch;
use actors::tables::{CONTACT_CONVERSATIONS, CONTACTS, CONTACTS_BY_NAME};
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::answer::{json, with_ignored_fields, with_location};
use super::background::ends_within;
use super::body::JsonBytes;
use super::caller::{Allowed, Caller, Read, Write};
use super::context::RequestContext;
use super::conversations;
use super::headers::prefer;
use super::idempotency::without_key;
use super::incoming::Incoming;
use super::listing::Listing;
use super::log::seqs_after;
use super::paging::{Page, PageRequest};
use super::query::Query;
use super::refusal::{broken, problem_of};
use super::resource::immutable;
use crate::app::App;
use crate::problem::Problem;
use crate::wire::contact::{contact_event, contact_view};
use crate::wire::contact_message::read_contact_name;

pub mod save;

/// The longest wait of a request for the erasure of a contact; it continues after that.
const ERASURE_TIMEOUT: Duration = Duration::from_secs(20);

/// 404 for a contact that does not exist, here or at all.
pub(super) fn contact_not_found() -> Problem {
    Problem::not_found("contact_not_found", "there is no such contact")
}

async fn load(app: &App, entity: EntityKey) -> Result<Option<contact::State>, Problem> {
    let state = app.node().state::<Contact>(entity).await?;
    Ok(state.filter(|state| state.erased_at.is_none()))
}

/// A contact of the caller's workspace.
async fn find(app: &App, caller: &Caller, id: &str) -> Result<contact::State, Problem> {
    let id = ContactId::parse(id).ok_or_else(contact_not_found)?;
    let state = load(app, EntityKey::contact(caller.address, id.address)).await?;
    state.filter(|state| state.id == id).ok_or_else(contact_not_found)
}

/// `GET /contacts/{id}`.
pub(super) async fn get(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &contact_view(&find(&app, &caller, &id).await?)))
}

/// `PATCH /contacts/{id}`.
pub(super) async fn update(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Write>,
    context: RequestContext,
    Path(id): Path<String>,
    JsonBytes(bytes): JsonBytes,
) -> Result<Response, Problem> {
    let mut incoming = Incoming::unkeyed(&context, &bytes)?;
    let mut fields = incoming.fields();
    let report = &mut incoming.report;
    let given = fields.object().has("name");
    let name = read_contact_name(&mut fields, "name", report);
    let known = find(&app, &caller, &id).await;
    // Another identifier is another contact: a change never merges two people.
    immutable(&mut fields, report, "identifier", known.as_ref().ok().map(|state| state.identifier.as_str()));
    fields.finish(report);
    let ignored = incoming.report.check()?;
    let state = known?;
    let entity = EntityKey::contact(caller.address, state.id.address);
    let update = contact::Update { id: state.id, name: Patch::if_given(given, name) };
    let updated = app.node().contact(entity, update, without_key(&context)).await.and_then(Answer::unkeyed);
    let state = updated.map_err(|refusal| problem_of(refusal, |_| contact_not_found()))?;
    Ok(with_ignored_fields(json(StatusCode::OK, &contact_view(&state)), &ignored))
}

/// `GET /contacts`.
pub(super) async fn list(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    context: RequestContext,
    query: Query,
) -> Result<Response, Problem> {
    let list = match query.given("name") {
        Some(name) => format!("contacts/{}?name={name}", caller.workspace),
        None => format!("contacts/{}", caller.workspace),
    };
    let request = PageRequest::from_query(&query, &list)?;
    let named = query.given("name").map(str::to_lowercase);
    let begins = |state: &contact::State| {
        let name = state.name.as_deref().unwrap_or_default().to_lowercase();
        named.as_deref().is_none_or(|named| name.starts_with(named))
    };
    if let Some(identifier) = query.given("identifier") {
        let identifier = normalize_identifier(identifier.trim());
        let found = load(&app, entity_of(caller.address, &identifier)).await?.filter(begins);
        let data = found.iter().map(contact_view).collect();
        return Ok(Page { data, next: None }.into_response(&list, &context.uri));
    }
    let prefix = named.as_deref().map(name_key).unwrap_or_default();
    // An entry ends in the id; in the list by name, the rest of the name precedes it.
    let load = async |key: Bytes| {
        let id = key.last_chunk().ok_or_else(|| broken("an entry of a list of contacts ends in an id"))?;
        let id = ContactId::from_bytes(id);
        let state = load(&app, EntityKey::contact(caller.address, id.address)).await?;
        // A contact's own data is bounded, and short.
        Ok(state.filter(|state| state.id == id && begins(state)).map(|state| (state, 0)))
    };
    let view = if named.is_some() { CONTACTS_BY_NAME } else { CONTACTS };
    let listing = Listing { workspace: caller.address, view, prefix: &prefix, placed_early: false };
    let page = listing.page(&app, &request, load).await?;
    Ok(Page { data: page.data.iter().map(contact_view).collect(), next: page.next }.into_response(&list, &context.uri))
}

/// `GET /contacts/{id}/conversations`.
pub(super) async fn conversations_of(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    context: RequestContext,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    let list = format!("contacts/{}/{id}/conversations", caller.workspace);
    let request = PageRequest::from_query(&query, &list)?;
    let contact = find(&app, &caller, &id).await?;
    let prefix = contact.id.to_bytes();
    let listing =
        Listing { workspace: caller.address, view: CONTACT_CONVERSATIONS, prefix: &prefix, placed_early: true };
    let page = conversations::page(&app, listing, &request, &conversations::Filter::default()).await?;
    let data = page.data.iter().map(|(state, details)| conversations::view(state, details)).collect();
    Ok(Page { data, next: page.next }.into_response(&list, &context.uri))
}

/// `GET /contacts/{id}/events`: the events of the contact itself.
pub(super) async fn events(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    context: RequestContext,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    let list = format!("contacts/{}/{id}/events", caller.workspace);
    let request = PageRequest::from_query(&query, &list)?;
    let state = find(&app, &caller, &id).await?;
    let contact = state.id;
    let entity = EntityKey::contact(caller.address, contact.address);
    let range = seqs_after(state.first_seq.unwrap_or(1), request.seq(), request.order);
    let events = app.node().events::<Contact>(entity, range, request.order, request.limit + 1).await?;
    let next = (events.len() > request.limit).then(|| events[request.limit - 1].seq.to_be_bytes().to_vec());
    let page = events.iter().take(request.limit);
    let data = page.filter_map(|event| contact_event(event, (entity.id, contact))).collect();
    Ok(Page { data, next }.into_response(&list, &context.uri))
}

/// Whether data of an erased contact remains.
async fn is_being_erased(app: &App, entity: EntityKey, id: ContactId) -> Result<bool, Problem> {
    let state = app.node().state::<Contact>(entity).await?;
    Ok(state.and_then(|state| state.erasing).is_some_and(|erasing| erasing.id == id))
}

/// `DELETE /contacts/{id}`: erases the contact and the content of its conversations. Until the erasure is complete a
/// retry waits too.
pub(super) async fn erase(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Write>,
    context: RequestContext,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = ContactId::parse(&id).ok_or_else(contact_not_found)?;
    let entity = EntityKey::contact(caller.address, id.address);
    let command = contact::Command::Erase { id };
    match app.node().contact(entity, command, without_key(&context)).await {
        Err(Refusal::Rejected(_)) if is_being_erased(&app, entity, id).await? => {}
        erased => _ = erased.map_err(|refusal| problem_of(refusal, |_| contact_not_found()))?,
    }
    context.begin_wait();
    let ended = actors::workflows::erasure::begin(app.node(), entity);
    let is_erased = ends_within(&app, prefer(&headers).max_wait(ERASURE_TIMEOUT), ended).await;
    if is_erased {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(with_location(StatusCode::ACCEPTED.into_response(), &format!("/contacts/{id}")))
}
