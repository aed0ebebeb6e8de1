//! Contacts: the people behind api channels.

use actors::contact::{self, CONTACTS, Contact, entity_of};
use actors::conversation::CONTACT_CONVERSATIONS;
use actors::directory::Answer;
use actors::id::{ContactId, EntityKey};
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use super::answer::{ignoring, json};
use super::body::JsonBytes;
use super::caller::{Allowed, Caller, Read, Write};
use super::context::RequestContext;
use super::context::render::internal_error;
use super::conversations;
use super::idempotency::without_key;
use super::incoming::Incoming;
use super::listing::Listing;
use super::paging::{Page, PageRequest};
use super::problem::Problem;
use super::query::Query;
use super::refusal::{problem_of, store_problem};
use crate::app::App;
use crate::json::fields::Length;
use crate::wire::contact_message::{MAX_NAME_CHARS, normalize_identifier};
use crate::wire::json_view::Shown;
use crate::wire::time::Time;

/// A contact as clients see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ContactView<'a> {
    id: Shown<ContactId>,
    identifier: &'a str,
    name: Option<&'a str>,
    created_at: Time,
    updated_at: Time,
}

fn view(state: &contact::State) -> ContactView<'_> {
    ContactView {
        id: Shown(state.id),
        identifier: &state.identifier,
        name: state.name.as_deref(),
        created_at: Time(state.id.at),
        updated_at: Time(state.updated_at),
    }
}

/// 404 for a contact that does not exist, here or at all.
pub(super) fn contact_not_found() -> Problem {
    Problem::not_found("contact_not_found", "there is no such contact")
}

async fn load(app: &App, entity: EntityKey) -> Result<Option<contact::State>, Problem> {
    app.node().state::<Contact>(entity).await.map_err(store_problem)
}

/// A contact of the caller's workspace.
async fn find(app: &App, caller: &Caller, id: &str) -> Result<contact::State, Problem> {
    let id = ContactId::parse(id).ok_or_else(contact_not_found)?;
    let state = load(app, EntityKey::contact(caller.address, id.address)).await?;
    state.filter(|state| state.id == id).ok_or_else(contact_not_found)
}

pub(super) async fn one(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &view(&find(&app, &caller, &id).await?)))
}

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
    let name = fields.string(report, "name", Length::chars(0, MAX_NAME_CHARS)).map(std::borrow::Cow::into_owned);
    fields.finish(report);
    let ignored = incoming.report.check()?;
    let state = find(&app, &caller, &id).await?;
    let entity = EntityKey::contact(caller.address, state.id.address);
    let command = contact::Command::Update { name: if given { name } else { state.name.clone() } };
    match app.node().contact(entity, command, without_key(&context)).await {
        Ok(Answer::Done(contact::Reply::Contact(state))) => Ok(ignoring(json(StatusCode::OK, &view(&state)), &ignored)),
        Ok(_) => Err(internal_error()),
        Err(refusal) => Err(problem_of(refusal, |_| contact_not_found())),
    }
}

pub(super) async fn list(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    context: RequestContext,
    query: Query,
) -> Result<Response, Problem> {
    let list = format!("contacts/{}", caller.workspace);
    let request = PageRequest::from_query(&query, &list)?;
    if let Some(identifier) = query.get("identifier") {
        let identifier = normalize_identifier(identifier.trim());
        let found = load(&app, entity_of(caller.address, &identifier)).await?;
        let data = found.iter().map(view).collect();
        return Ok(Page { data, next: None }.into_response(&list, &context.uri));
    }
    let load = async |key: Bytes| {
        let id = ContactId::from_bytes(key.as_ref().try_into().map_err(|_| internal_error())?);
        load(&app, EntityKey::contact(caller.address, id.address)).await
    };
    let listing = Listing { workspace: caller.address, view: CONTACTS, prefix: b"" };
    let page = listing.page(&app, &request, load).await?;
    Ok(Page { data: page.data.iter().map(view).collect(), next: page.next }.into_response(&list, &context.uri))
}

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
    let listing = Listing { workspace: caller.address, view: CONTACT_CONVERSATIONS, prefix: &prefix };
    let page = conversations::page(&app, listing, &request, None).await?;
    let data = page.data.iter().map(|(state, details)| conversations::view(state, details)).collect();
    Ok(Page { data, next: page.next }.into_response(&list, &context.uri))
}
