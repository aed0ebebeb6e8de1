//! Creating contacts: one, or many at once.

use std::collections::HashMap;
use std::sync::Arc;

use actors::contact::identifier::normalize_identifier;
use actors::contact::{self, Contact, Event, entity_of};
use actors::directory::{Answer, CommandContext};
use actors::id::EntityKey;
use actors::patch::Patch;
use actors::registry;
use actors::store::SeqRange;
use axum::response::Response;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::StatusCode;
use serde::Serialize;

use super::contact_not_found;
use crate::app::App;
use crate::http::answer::{Replay, json, mark_replayed, with_ignored_fields, with_location};
use crate::http::body::JsonBytes;
use crate::http::call::{Allowed, Call};
use crate::http::caller::{Caller, Write};
use crate::http::idempotency::{KeyState, key_state};
use crate::http::refusal::{broken, outcome_unknown, problem_of};
use crate::http::resource::{ChangeOutcome, submit};
use crate::json::fields::Fields;
use crate::json::report::Report;
use crate::problem::Problem;
use crate::wire::contact::{ContactView, contact_view};
use crate::wire::contact_message::{read_contact_name, read_identifier};

/// Contacts of one request.
pub const MAX_CONTACTS: usize = 1_000;
/// Contacts of one request that are written at the same time: enough to share syncs, and a small part of the node's
/// capacity.
const MAX_CONCURRENT_SAVES: usize = 128;

/// A contact to be saved.
#[derive(Debug)]
struct ContactInput {
    identifier: String,
    name: Patch<String>,
}

impl ContactInput {
    fn read(mut fields: Fields<'_>, report: &mut Report) -> Self {
        let identifier = read_identifier(&mut fields, "identifier", report);
        let given = fields.object().has("name");
        let name = read_contact_name(&mut fields, "name", report);
        fields.finish(report);
        Self { identifier, name: Patch::if_given(given, name) }
    }

    fn entity(&self, caller: &Caller) -> EntityKey {
        entity_of(caller.address, &normalize_identifier(&self.identifier))
    }
}

/// A saved contact.
struct Saved {
    state: contact::State,
    created: bool,
    replay: Replay,
}

/// `POST /contacts`.
pub(in crate::http) async fn create(
    Allowed { call, body, .. }: Allowed<Write, JsonBytes>,
) -> Result<Response, Problem> {
    let mut incoming = call.read(&body)?;
    let command_context = incoming.command_context();
    let fields = incoming.fields();
    let wanted = ContactInput::read(fields, &mut incoming.report);
    let ignored = incoming.report.check()?;
    let Saved { state, created, replay } = save_one(&call, wanted, command_context).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let response = with_ignored_fields(json(status, &contact_view(&state)), &ignored);
    let response = with_location(response, &format!("/contacts/{}", state.id));
    Ok(replay.mark(response))
}

#[derive(Serialize)]
struct SavedView<'a> {
    #[serde(flatten)]
    contact: ContactView<'a>,
    created: bool,
}

/// `POST /contacts/bulk`.
pub(in crate::http) async fn bulk(Allowed { call, body, .. }: Allowed<Write, JsonBytes>) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Many<'a> {
        data: Vec<SavedView<'a>>,
    }
    let mut incoming = call.read(&body)?;
    let command_context = incoming.command_context();
    let mut fields = incoming.fields();
    let wanted = read_many(&mut fields, &mut incoming.report);
    fields.finish(&mut incoming.report);
    let ignored = incoming.report.check()?;
    let command_context = claim(&call, command_context).await?;
    let shared = Arc::new(call);
    let saving = wanted.into_iter().map(|wanted| {
        let call = Arc::clone(&shared);
        async move { save(&call, wanted, command_context).await }
    });
    // Contacts saved before a failure stay: a retry finds them.
    let saved =
        stream::iter(saving).buffered(MAX_CONCURRENT_SAVES).try_collect::<Vec<Saved>>().await.map_err(partly_saved)?;
    let is_replay = !saved.is_empty() && saved.iter().all(|saved| saved.replay == Replay::Repeated);
    let data =
        saved.iter().map(|saved| SavedView { contact: contact_view(&saved.state), created: saved.created }).collect();
    let response = with_ignored_fields(json(StatusCode::OK, &Many { data }), &ignored);
    Ok(if is_replay { mark_replayed(response) } else { response })
}

/// The failure of one says nothing about the others.
fn partly_saved(problem: Problem) -> Problem {
    if problem.status != StatusCode::SERVICE_UNAVAILABLE {
        return problem;
    }
    outcome_unknown("some contacts may have been saved; a retry saves the rest")
}

fn read_many(fields: &mut Fields<'_>, report: &mut Report) -> Vec<ContactInput> {
    let Some(value) = fields.required(report, "contacts") else { return Vec::new() };
    let Some(items) = value.array(report) else { return Vec::new() };
    if items.is_empty() {
        report.fault(&value.path, "empty_batch", "must have at least 1 contact");
    } else if items.len() > MAX_CONTACTS {
        let message = format!("must have at most {MAX_CONTACTS} contacts, has {}", items.len());
        report.fault(&value.path, "batch_too_large", message);
        return Vec::new();
    }
    let mut seen = HashMap::new();
    let mut wanted = Vec::with_capacity(items.len());
    let mut places = 0..items.len();
    items.each(report, |item, report| {
        let (Some(i), Some(fields)) = (places.next(), item.object(report)) else { return };
        let one = ContactInput::read(fields, report);
        // Two spellings of one identifier are one contact; choosing one of its two names would be a guess.
        let first = *seen.entry(normalize_identifier(&one.identifier)).or_insert(i);
        if first != i && !one.identifier.is_empty() {
            let message = format!("duplicates /contacts/{first}/identifier");
            report.fault(&item.path.name("identifier"), "duplicate_value", message);
        }
        wanted.push(one);
    });
    wanted
}

/// A request may contain many contacts, and each is an entity of its own: so the key first has an effect in the
/// workspace, and then another one in each contact.
async fn claim(call: &Call, command_context: CommandContext) -> Result<CommandContext, Problem> {
    if command_context.key.is_none() {
        return Ok(command_context);
    }
    let command = registry::Command { expected: Vec::new(), changes: Vec::new() };
    match submit(&call.app, call.caller.registry(), command, command_context).await? {
        ChangeOutcome::Done | ChangeOutcome::Repeat(_) => Ok(command_context.without_claim()),
        ChangeOutcome::Rejected(_) => Err(broken("a claim expects nothing of the workspace")),
    }
}

/// The key belongs to the save itself: one that fails leaves the key to any request.
async fn save_one(call: &Call, wanted: ContactInput, command_context: CommandContext) -> Result<Saved, Problem> {
    // The first release claimed the key in the workspace.
    let claimed = key_state(&call.app, call.caller.registry(), command_context).await? == KeyState::Repeat;
    save(call, wanted, if claimed { command_context.without_claim() } else { command_context }).await
}

async fn save(call: &Call, wanted: ContactInput, command_context: CommandContext) -> Result<Saved, Problem> {
    let entity = wanted.entity(&call.caller);
    let save = contact::Save { identifier: wanted.identifier, name: wanted.name };
    match call.node().contact(entity, save, command_context).await {
        Ok(Answer::Done(saved)) => Ok(Saved { state: *saved.state, created: saved.created, replay: Replay::First }),
        Ok(Answer::Repeat(effect)) => saved_before(&call.app, entity, effect).await,
        Err(refusal) => Err(problem_of(refusal, |_| contact_not_found())),
    }
}

/// The contact as the key's first request left it. A request that changed nothing has an empty effect: then the event
/// before it has the contact's state.
async fn saved_before(app: &App, entity: EntityKey, effect: SeqRange) -> Result<Saved, Problem> {
    let node = app.node();
    let state = node.state::<Contact>(entity).await?;
    let state = state.ok_or_else(|| broken("a saved contact exists"))?;
    let at = if effect.is_empty() { effect.last } else { effect.first };
    let mut last_update = None;
    let saved = node.find_back::<Contact, _>(entity, at, |event| {
        let name = match event.event {
            // The contact's identity at that time is in the event that began that life.
            Event::ContactCreated { id, identifier, name } => {
                let (name, updated_at) = last_update.take().unwrap_or((name, event.at));
                let state = contact::State { identifier, name, updated_at, ..state.clone().created(id, event.at) };
                let created = !effect.is_empty() && event.seq == at;
                return Some(Ok(Saved { state, created, replay: Replay::Repeated }));
            }
            Event::ContactUpdated { name } => name,
            _ => return Some(Err(broken("a contact is saved by creations and updates"))),
        };
        last_update.get_or_insert((name, event.at));
        None
    });
    saved.await?.ok_or_else(|| broken("a contact's log begins with its creation"))?
}
