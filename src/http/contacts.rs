//! Contacts: the people who write on api channels.

use std::time::Duration;

use actors::contact::identifier::normalize_identifier;
use actors::contact::{self, Contact, entity_of, name_key};
use actors::directory::{Answer, Refusal};
use actors::id::{ContactId, EntityKey};
use actors::patch::Patch;
use actors::tables::{CONTACT_CONVERSATIONS, CONTACTS, CONTACTS_BY_NAME};
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::StatusCode;

use super::answer::{json, with_ignored_fields, with_location};
use super::background::ends_within;
use super::body::JsonBytes;
use super::call::{Allowed, Call};
use super::caller::{Read, Write};
use super::conversations::{self, StoredConversation};
use super::headers::prefer;
use super::listing::Listing;
use super::log::seqs_after;
use super::paging::{Page, PageRequest, position_of};
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
pub(super) async fn find(call: &Call, id: &str) -> Result<contact::State, Problem> {
    let id = ContactId::parse(id).ok_or_else(contact_not_found)?;
    let state = load(&call.app, call.caller.contact(id.address)).await?;
    state.filter(|state| state.id == id).ok_or_else(contact_not_found)
}

/// `GET /contacts/{id}`.
pub(super) async fn get(Allowed { call, .. }: Allowed<Read>, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &contact_view(&find(&call, &id).await?)))
}

/// `PATCH /contacts/{id}`.
pub(super) async fn update(
    Path(id): Path<String>,
    Allowed { call, body, .. }: Allowed<Write, JsonBytes>,
) -> Result<Response, Problem> {
    let mut incoming = call.read_unkeyed(&body)?;
    let mut fields = incoming.fields();
    let report = &mut incoming.report;
    let given = fields.object().has("name");
    let name = read_contact_name(&mut fields, "name", report);
    let known = find(&call, &id).await;
    // Another identifier is another contact: a change never merges two people.
    immutable(&mut fields, report, "identifier", known.as_ref().ok().map(|state| state.identifier.as_str()));
    fields.finish(report);
    let ignored = incoming.report.check()?;
    let state = known?;
    let entity = call.caller.contact(state.id.address);
    let update = contact::Update { id: state.id, name: Patch::if_given(given, name) };
    let updated = call.node().contact(entity, update, call.without_key()).await.and_then(Answer::unkeyed);
    let state = updated.map_err(|refusal| problem_of(refusal, |_| contact_not_found()))?;
    Ok(with_ignored_fields(json(StatusCode::OK, &contact_view(&state)), &ignored))
}

/// `GET /contacts`.
pub(super) async fn list(Allowed { call, .. }: Allowed<Read>, query: Query) -> Result<Response, Problem> {
    let list = match query.given("name") {
        Some(name) => format!("contacts/{}?name={name}", call.caller.workspace),
        None => format!("contacts/{}", call.caller.workspace),
    };
    let request = PageRequest::from_query(&query, &list)?;
    let named = query.given("name").map(str::to_lowercase);
    let begins = |state: &contact::State| {
        let name = state.name.as_deref().unwrap_or_default().to_lowercase();
        named.as_deref().is_none_or(|named| name.starts_with(named))
    };
    if let Some(identifier) = query.given("identifier") {
        let identifier = normalize_identifier(identifier.trim());
        let found = load(&call.app, entity_of(call.caller.address, &identifier)).await?.filter(begins);
        let data = found.iter().map(contact_view).collect();
        return Ok(Page { data, next: None }.into_response(&list, &call.context.uri));
    }
    let prefix = named.as_deref().map(name_key).unwrap_or_default();
    // An entry ends in the id; in the list by name, the rest of the name precedes it.
    let load = async |key: Bytes| {
        let id = key.last_chunk().ok_or_else(|| broken("an entry of a list of contacts ends in an id"))?;
        let id = ContactId::from_bytes(id);
        let state = load(&call.app, call.caller.contact(id.address)).await?;
        // A contact's own data is bounded, and short.
        Ok(state.filter(|state| state.id == id && begins(state)).map(|state| (state, 0)))
    };
    let view = if named.is_some() { CONTACTS_BY_NAME } else { CONTACTS };
    let listing = Listing { workspace: call.caller.address, view, prefix: &prefix, placed_early: false };
    let page = listing.page(&call.app, &request, load).await?;
    Ok(Page { data: page.data.iter().map(contact_view).collect(), next: page.next }
        .into_response(&list, &call.context.uri))
}

/// `GET /contacts/{id}/conversations`.
pub(super) async fn conversations_of(
    Allowed { call, .. }: Allowed<Read>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    let list = format!("contacts/{}/{id}/conversations", call.caller.workspace);
    let request = PageRequest::from_query(&query, &list)?;
    let contact = find(&call, &id).await?;
    let prefix = contact.id.to_bytes();
    let listing =
        Listing { workspace: call.caller.address, view: CONTACT_CONVERSATIONS, prefix: &prefix, placed_early: true };
    let page = conversations::page(&call.app, listing, &request, &conversations::Filter::default()).await?;
    let data = page.data.iter().map(StoredConversation::view).collect();
    Ok(Page { data, next: page.next }.into_response(&list, &call.context.uri))
}

/// `GET /contacts/{id}/events`: the events of the contact itself.
pub(super) async fn events(
    Allowed { call, .. }: Allowed<Read>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    let list = format!("contacts/{}/{id}/events", call.caller.workspace);
    let request = PageRequest::from_query(&query, &list)?;
    let state = find(&call, &id).await?;
    let contact = state.id;
    let entity = call.caller.contact(contact.address);
    let _permit = call.app.history().for_page(entity.workspace).await?;
    let range = seqs_after(state.first_seq.unwrap_or(1), request.seq(), request.order);
    let events = call.node().events::<Contact>(entity, range, request.order, request.limit + 1).await?;
    let page = Page::cut(events, request.limit, |event| position_of(event.seq));
    let data = page.data.iter().filter_map(|event| contact_event(event, (entity.id, contact))).collect();
    Ok(Page { data, next: page.next }.into_response(&list, &call.context.uri))
}

/// Whether data of an erased contact remains.
async fn is_being_erased(app: &App, entity: EntityKey, id: ContactId) -> Result<bool, Problem> {
    let state = app.node().state::<Contact>(entity).await?;
    Ok(state.and_then(|state| state.erasing).is_some_and(|erasing| erasing.id == id))
}

/// `DELETE /contacts/{id}`: erases the contact and the content of its conversations. Until the erasure is complete a
/// retry waits too.
pub(super) async fn erase(Allowed { call, .. }: Allowed<Write>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = ContactId::parse(&id).ok_or_else(contact_not_found)?;
    let entity = call.caller.contact(id.address);
    let command = contact::Command::Erase { id };
    match call.node().contact(entity, command, call.without_key()).await {
        Err(Refusal::Rejected(_)) if is_being_erased(&call.app, entity, id).await? => {}
        erased => _ = erased.map_err(|refusal| problem_of(refusal, |_| contact_not_found()))?,
    }
    call.context.begin_wait();
    let ended = actors::workflows::erasure::begin(call.node(), entity);
    let is_erased = ends_within(&call.app, prefer(&call.headers).max_wait(ERASURE_TIMEOUT), ended).await;
    if is_erased {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    Ok(with_location(StatusCode::ACCEPTED.into_response(), &format!("/contacts/{id}")))
}
