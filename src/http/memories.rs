//! Memories of contacts and owners.

use actors::clock::Millis;
use actors::directory::Answer;
use actors::id::{EntityKey, MemoryId};
use actors::memories::recall::{all, search as search_memories};
use actors::memories::{self, Command, Edit, ForgetAll, Memory, Remember, Subject};
use actors::store::{Order, SeqRange};
use axum::extract::Path;
use axum::response::Response;
use http::StatusCode;

use super::answer::{Replay, Replayed, json, with_ignored_fields, with_location};
use super::body::JsonBytes;
use super::call::{Allowed, Call};
use super::caller::{Read, Write};
use super::contacts::{self, contact_not_found};
use super::context::RequestContext;
use super::paging::{DEFAULT_LIMIT, MAX_LIMIT, Page, PageRequest, position_of};
use super::query::Query;
use super::refusal::{broken, problem_of};
use crate::app::App;
use crate::json::fields::{Fields, Length};
use crate::json::report::Report;
use crate::problem::{Fault, Problem};
use crate::wire::bounds::PRINCIPAL_ID;
use crate::wire::memory::memory_view;

/// The longest memory, in characters.
pub const MAX_TEXT_CHARS: usize = memories::model::TEXT_CHARS;
/// The longest question, in characters.
pub const MAX_QUERY_CHARS: usize = actors::limits::QUERY_CHARS;

fn memory_not_found() -> Problem {
    Problem::not_found("memory_not_found", "there is no such memory")
}

/// A contact of the caller's workspace, as a subject of memories.
async fn contact(call: &Call, id: &str) -> Result<Subject, Problem> {
    Ok(Subject::Contact(contacts::find(call, id).await?.id))
}

/// `GET /contacts/{id}/memories`.
pub(super) async fn of_contact(
    Allowed { call, .. }: Allowed<Read>,
    Path(id): Path<String>,
    query: Query,
) -> Result<Response, Problem> {
    let list = format!("contacts/{}/{id}/memories", call.caller.workspace);
    let request = PageRequest::from_query(&query, &list)?;
    let subject = contact(&call, &id).await?;
    page(&call, &subject, &request).await.map(|page| page_response(&page, &subject, &list, &call.context))
}

/// `GET /memories?contactId=` or `?ownerId=`.
pub(super) async fn list(Allowed { call, .. }: Allowed<Read>, query: Query) -> Result<Response, Problem> {
    let subject_ref = SubjectRef::of(query.given("contactId"), query.given("ownerId"), ["/contactId", "/ownerId"]);
    let list = SubjectRef::list(subject_ref.as_ref().ok(), &call.caller.workspace);
    let (subject_ref, request) = Problem::both(subject_ref, PageRequest::from_query(&query, &list))?;
    let subject = subject_ref.subject(&call).await?;
    page(&call, &subject, &request).await.map(|page| page_response(&page, &subject, &list, &call.context))
}

fn page_response(page: &Page<Memory>, subject: &Subject, list: &str, context: &RequestContext) -> Response {
    let data = page.data.iter().map(|memory| memory_view(memory, subject, None)).collect();
    Page { data, next: page.next.clone() }.into_response(list, &context.uri)
}

/// One page of a subject's memories, oldest first.
async fn page(call: &Call, subject: &Subject, request: &PageRequest) -> Result<Page<Memory>, Problem> {
    let mut all = all(call.node(), subject.entity(call.caller.address), subject).await?;
    if request.order == Order::Desc {
        all.reverse();
    }
    let is_after = |memory: &Memory| request.seq().is_none_or(|at| request.order.is_after(memory.id.number, at));
    let data = all.into_iter().filter(is_after).take(request.limit + 1).collect();
    Ok(Page::cut(data, request.limit, |memory: &Memory| position_of(memory.id.number)))
}

/// The subject that a request names, before it is looked up.
enum SubjectRef {
    Contact(String),
    Owner(String),
}

impl SubjectRef {
    fn of(contact: Option<&str>, owner: Option<&str>, pointers: [&'static str; 2]) -> Result<Self, Problem> {
        match (contact, owner) {
            (Some(contact), None) => Ok(Self::Contact(contact.to_owned())),
            (None, Some(owner)) => Ok(Self::Owner(owner.to_owned())),
            (Some(_), Some(_)) => {
                Err(Problem::fault(pointers[1], "invalid_request", "give contactId or ownerId, not both"))
            }
            (None, None) => {
                let message = "contactId or ownerId is required";
                Err(Problem::invalid(pointers.map(|pointer| Fault::new(pointer, "required", message)).into()))
            }
        }
    }

    /// The list's name in cursors.
    fn list(subject_ref: Option<&Self>, workspace: &str) -> String {
        match subject_ref {
            None => format!("memories/{workspace}"),
            Some(Self::Contact(id)) => format!("memories/{workspace}/contact/{id}"),
            Some(Self::Owner(id)) => format!("memories/{workspace}/owner/{id:?}"),
        }
    }

    async fn subject(&self, call: &Call) -> Result<Subject, Problem> {
        match self {
            Self::Contact(id) => contact(call, id).await,
            Self::Owner(owner) => Ok(Subject::Owner(owner.clone())),
        }
    }
}

/// `POST /contacts/{id}/memories`.
pub(super) async fn add(
    Path(id): Path<String>,
    Allowed { call, body, .. }: Allowed<Write, JsonBytes>,
) -> Result<Response, Problem> {
    let mut incoming = call.read(&body)?;
    let command_context = incoming.command_context();
    let mut fields = incoming.fields();
    let text = required_text(&mut fields, "text", MAX_TEXT_CHARS, &mut incoming.report);
    fields.finish(&mut incoming.report);
    let ignored = incoming.report.check()?;
    let subject = contact(&call, &id).await?;
    let entity = subject.entity(call.caller.address);
    let edits = vec![Edit::text_as_it_is(&text)];
    let remember = Remember { subject: subject.clone(), edits, source: None };
    let Replayed { value: Added { memory, created }, replay } =
        match call.node().memories(entity, remember, command_context).await {
            Ok(Answer::Done(outcomes)) => Replayed { value: Added::of(outcomes)?, replay: Replay::First },
            Ok(Answer::Repeat(effect)) => {
                Replayed { value: added_before(&call.app, entity, effect, text).await?, replay: Replay::Repeated }
            }
            Err(refusal) => return Err(problem_of(refusal, rejected)),
        };
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let response = with_ignored_fields(json(status, &memory_view(&memory, &subject, None)), &ignored);
    let response = with_location(response, &format!("/contacts/{id}/memories/{}", memory.id));
    Ok(replay.mark(response))
}

/// A memory that a client has added.
struct Added {
    memory: Memory,
    /// It is new: the subject had no memory with this text.
    created: bool,
}

impl Added {
    fn of(outcomes: Vec<memories::Outcome>) -> Result<Self, Problem> {
        let outcome = outcomes.into_iter().next().ok_or_else(|| broken("an edit of memories has an outcome"))?;
        let created = matches!(outcome, memories::Outcome::Created(_));
        let memory = outcome.memory().cloned().ok_or_else(|| broken("a memory that was added exists"))?;
        Ok(Self { memory, created })
    }
}

fn required_text(fields: &mut Fields<'_>, name: &'static str, longest: usize, report: &mut Report) -> String {
    let Some(value) = fields.required(report, name) else { return String::new() };
    let Some(text) = value.string(report, Length::chars(0, longest)) else { return String::new() };
    let text = text.trim();
    if text.is_empty() {
        report.fault(&value.path, "required", format!("{name} must not be blank"));
    }
    text.to_owned()
}

fn rejected(rejection: memories::Rejection) -> Problem {
    match rejection {
        memories::Rejection::NotFound => contact_not_found(),
        memories::Rejection::Busy => Problem::unavailable(
            "contended",
            "the previous contact with this identifier is still being erased; retry later",
            1,
        ),
    }
}

/// The memory as in the answer to the key's first request, and whether that request created it. Its text is not in the
/// log, but a retry repeats it; a forgotten memory stays forgotten.
async fn added_before(app: &App, entity: EntityKey, effect: SeqRange, text: String) -> Result<Added, Problem> {
    let had_effect = !effect.is_empty();
    // If it was known already, it was created or changed before.
    let of = if had_effect { None } else { Some(number_of(app, entity, &text).await?) };
    let Remembering { number, at, created } =
        last_remembered(app, entity, of, if had_effect { effect.first } else { effect.last }).await?;
    let memory = find(app, entity, number).await?.ok_or_else(memory_not_found)?;
    let source = if created { memory.first } else { memory.source };
    let memory = Memory { text, source, updated_at: (!created).then_some(at), ..memory };
    Ok(Added { memory, created: created && had_effect })
}

/// The number of the memory with this text.
async fn number_of(app: &App, entity: EntityKey, text: &str) -> Result<u64, Problem> {
    let number = memories::number_of(app.node(), entity, text).await?;
    number.ok_or_else(memory_not_found)
}

/// The event that gave a memory its text.
struct Remembering {
    number: u64,
    at: Millis,
    /// The memory was created by it.
    created: bool,
}

/// The last such event up to an event, of the memory with this number or of any. A memory that got its text only later
/// replaced the known one, which is forgotten.
async fn last_remembered(app: &App, entity: EntityKey, of: Option<u64>, upto: u64) -> Result<Remembering, Problem> {
    let remembered = app.node().find_back::<memories::Memories, _>(entity, upto, |event| match event.event {
        memories::Event::Remembered { number, created, .. } => {
            let is_wanted = of.is_none_or(|of| of == number);
            is_wanted.then_some(Remembering { number, at: event.at, created })
        }
        memories::Event::Forgotten { .. } | memories::Event::ManyForgotten { .. } => None,
    });
    remembered.await?.ok_or_else(memory_not_found)
}

async fn find(app: &App, entity: EntityKey, number: u64) -> Result<Option<Memory>, Problem> {
    Ok(app.node().memory(entity, number).await?)
}

/// A memory of a contact, by both ids.
async fn find_of_contact(call: &Call, id: &str, memory: &str) -> Result<(Subject, Memory), Problem> {
    let subject = contact(call, id).await?;
    let memory = MemoryId::parse(memory).ok_or_else(memory_not_found)?;
    let entity = subject.entity(call.caller.address);
    let found =
        find(&call.app, entity, memory.number).await?.filter(|found| found.id == memory && memory.entity == entity.id);
    Ok((subject, found.ok_or_else(memory_not_found)?))
}

/// `GET /contacts/{id}/memories/{memoryId}`.
pub(super) async fn get(
    Allowed { call, .. }: Allowed<Read>,
    Path((id, memory)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (subject, memory) = find_of_contact(&call, &id, &memory).await?;
    Ok(json(StatusCode::OK, &memory_view(&memory, &subject, None)))
}

/// `DELETE /contacts/{id}/memories/{memoryId}`.
pub(super) async fn forget(
    Allowed { call, .. }: Allowed<Write>,
    Path((id, memory)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let (subject, memory) = find_of_contact(&call, &id, &memory).await?;
    let command = Command::Forget { id: memory.id };
    let forgotten = call.node().memories(subject.entity(call.caller.address), command, call.without_key()).await;
    forgotten.map_err(|refusal| problem_of(refusal, |_| memory_not_found()))?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /contacts/{id}/memories`.
pub(super) async fn forget_all_of_contact(
    Allowed { call, .. }: Allowed<Write>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let subject = contact(&call, &id).await?;
    forget_all(&call, subject).await
}

/// `DELETE /memories?contactId=` or `?ownerId=`.
pub(super) async fn forget_all_named(
    Allowed { call, .. }: Allowed<Write>,
    query: Query,
) -> Result<StatusCode, Problem> {
    let subject_ref = SubjectRef::of(query.given("contactId"), query.given("ownerId"), ["/contactId", "/ownerId"]);
    let (subject_ref, ()) = Problem::both(subject_ref, query.check())?;
    let subject = subject_ref.subject(&call).await?;
    forget_all(&call, subject).await
}

async fn forget_all(call: &Call, subject: Subject) -> Result<StatusCode, Problem> {
    let entity = subject.entity(call.caller.address);
    loop {
        let forget = ForgetAll { subject: subject.clone(), for_good: false };
        let left = call.node().memories(entity, forget, call.without_key()).await.and_then(Answer::unkeyed);
        if left.map_err(|refusal| problem_of(refusal, rejected))? == 0 {
            return Ok(StatusCode::NO_CONTENT);
        }
    }
}

/// `POST /memories/search`.
pub(super) async fn search(Allowed { call, body, .. }: Allowed<Read, JsonBytes>) -> Result<Response, Problem> {
    // It changes nothing, so a key has no effect; a wrong one is still a fault, as everywhere.
    let mut incoming = call.read(&body)?;
    let mut fields = incoming.fields();
    let report = &mut incoming.report;
    let question = required_text(&mut fields, "query", MAX_QUERY_CHARS, report);
    let contact = fields.string(report, "contactId", PRINCIPAL_ID);
    let owner = fields.string(report, "ownerId", PRINCIPAL_ID);
    let most = i64::try_from(MAX_LIMIT).unwrap_or(i64::MAX);
    let limit = fields.optional("limit").and_then(|value| value.integer(report, 1..=most));
    let wrong = |name| report.faults.iter().any(|fault| fault.pointer == name);
    let subject_ref = SubjectRef::of(contact.as_deref(), owner.as_deref(), ["/contactId", "/ownerId"]);
    let subject_ref = match subject_ref {
        Ok(subject_ref) => Some(subject_ref),
        // A malformed id has its own fault.
        Err(_) if wrong("/contactId") || wrong("/ownerId") => None,
        Err(problem) => {
            report.faults.extend(problem.faults);
            None
        }
    };
    fields.finish(report);
    let ignored = incoming.report.check()?;
    let subject = subject_ref.ok_or_else(|| broken("a search without faults names a subject"))?.subject(&call).await?;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DEFAULT_LIMIT);
    let entity = subject.entity(call.caller.address);
    let found = search_memories(call.node(), entity, &subject, &question, limit).await?;
    let data = found.iter().map(|(memory, score)| memory_view(memory, &subject, Some(*score))).collect();
    let page = Page { data, next: None };
    Ok(with_ignored_fields(page.into_response("memories/search", &call.context.uri), &ignored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_belongs_to_the_list_of_one_subject() {
        let list = |subject_ref| SubjectRef::list(Some(&subject_ref), "main");
        let contact = SubjectRef::Contact("cont_06a1yabw0w0g40r40m30e20918".to_owned());
        assert_eq!(list(contact), "memories/main/contact/cont_06a1yabw0w0g40r40m30e20918");
        assert_eq!(list(SubjectRef::Owner("ana".to_owned())), "memories/main/owner/\"ana\"");
    }
}
