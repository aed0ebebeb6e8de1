//! Changing the rows of a registry by compare-and-set: decided on the rows as read, stored if they are unchanged,
//! decided again if not.

use std::future::Future;

use actors::directory::{Answer, CommandContext, Refusal, Reply};
use actors::id::EntityKey;
use actors::registry::{Command, Expect, Registry, Rejection, RowChange};
use actors::store::{Order, SeqRange};
use axum::extract::Path;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use super::{Found, HasSecret, Resource, decode, find, secret};
use crate::app::App;
use crate::http::answer::{self, Replay, json, with_location};
use crate::http::body::OptionalJsonBytes;
use crate::http::call::Allowed;
use crate::http::caller::RequiredScope;
use crate::http::context::render::internal_error;
use crate::http::refusal::contended;
use crate::http::refusal::{broken, problem_of};
use crate::problem::Problem;

/// How often a change is decided again because its expected rows have changed. In one process changes of a registry go
/// one after the other, so only another server's can intervene.
const MAX_ATTEMPTS: usize = 16;

/// A change of one resource.
pub(in crate::http) struct Change<R> {
    /// The rows. The resource's own row is the first expectation.
    command: Command,
    /// The new resource, or the former one if it is deleted.
    value: R,
    /// Members of the request that had no effect.
    ignored: Vec<String>,
}

impl<R: Resource> Change<R> {
    /// A new resource, whose id must be free.
    pub(in crate::http) fn create(value: R) -> Self {
        Self::new(None, value.put(), value)
    }

    /// Updates the resource to `value`. Nothing is stored if it is unchanged.
    pub(in crate::http) fn update(before: Found<R>, value: R) -> Self {
        let changes = if before.value == value { Vec::new() } else { value.put() };
        Self::new(Some(before.row), changes, value)
    }

    /// Deletes the resource.
    pub(in crate::http) fn delete(before: Found<R>) -> Self {
        Self::new(Some(before.row), before.value.delete(), before.value)
    }

    fn new(row: Option<Bytes>, changes: Vec<RowChange>, value: R) -> Self {
        let expected = vec![Expect::new(R::TABLE, &value.key(), row)];
        Self { command: Command { expected, changes }, value, ignored: Vec::new() }
    }

    /// Also expects other rows to be unchanged.
    pub(in crate::http) fn expecting(mut self, others: impl IntoIterator<Item = Expect>) -> Self {
        self.command.expected.extend(others);
        self
    }

    /// Notes the ignored members of the request.
    pub(in crate::http) fn ignoring(mut self, ignored: Vec<String>) -> Self {
        self.ignored = ignored;
        self
    }
}

/// A resource as this request, or an earlier one with its idempotency key, has left it.
pub(in crate::http) struct Changed<R> {
    /// The resource; a deleted one as it was.
    pub(in crate::http) value: R,
    ignored: Vec<String>,
    replay: Replay,
}

impl<R: Resource> Changed<R> {
    /// 201 with its secret and its `Location`.
    pub(in crate::http) fn created(&self) -> Response {
        self.created_as(&self.value.view_with_secret())
    }

    /// 201 with `view` and the resource's `Location`.
    pub(in crate::http) fn created_as(&self, view: &impl Serialize) -> Response {
        with_location(self.answer(StatusCode::CREATED, view), &format!("/{}/{}", R::LIST, self.value.id()))
    }

    /// 200, without its secret.
    pub(in crate::http) fn updated(&self) -> Response {
        self.answer(StatusCode::OK, &self.value.view())
    }

    /// 200, with its new secret.
    fn rotated(&self) -> Response {
        self.answer(StatusCode::OK, &self.value.view_with_secret())
    }

    fn answer(&self, status: StatusCode, view: &impl Serialize) -> Response {
        self.replay.mark(answer::with_ignored_fields(json(status, view), &self.ignored))
    }

    /// The answer for changes stored before. The secret was shown only in the first answer.
    fn replay(changes: &[RowChange], ignored: Vec<String>) -> Result<Self, Problem> {
        let put = changes.iter().find(|change| change.table() == R::TABLE).and_then(RowChange::value);
        Ok(Self {
            value: decode(put.ok_or_else(|| broken("what creates a resource puts its row"))?)?,
            ignored,
            replay: Replay::Repeated,
        })
    }
}

/// Stores the result of `decide`, which is called again if the rows that it saw have changed since. An unchanged or
/// deleted resource is answered once every server uses that state: an earlier request, whose client did not wait for
/// the answer, may have made the change a moment ago.
///
/// # Errors
/// The refusals of `decide`; 409 if the id of a new resource is taken or the limit of its kind is reached; 422 if the
/// idempotency key was used for another request; 429 and 503 if nothing was stored, for example because other requests
/// keep changing the same rows.
pub(in crate::http) async fn commit<R, F>(
    app: &App,
    registry: EntityKey,
    command_context: CommandContext,
    decide: impl FnMut() -> F,
) -> Result<Changed<R>, Problem>
where
    R: Resource,
    F: Future<Output = Result<Change<R>, Problem>>,
{
    let Some(lock) = app.lock_registry(registry).await else { return Err(contended()) };
    let CommitEnd { result, must_be_known } = decide_and_store(app, registry, command_context, decide).await;
    // Others need not wait until every server uses this change.
    drop(lock);
    if must_be_known {
        app.node().known_everywhere().await;
    }
    result
}

/// How a change ended.
struct CommitEnd<R> {
    result: Result<Changed<R>, Problem>,
    /// The answer is only true once every server uses the rows as stored now.
    must_be_known: bool,
}

async fn decide_and_store<R, F>(
    app: &App,
    registry: EntityKey,
    command_context: CommandContext,
    mut decide: impl FnMut() -> F,
) -> CommitEnd<R>
where
    R: Resource,
    F: Future<Output = Result<Change<R>, Problem>>,
{
    let at_once = |result| CommitEnd { result, must_be_known: false };
    for _ in 0..MAX_ATTEMPTS {
        let Change { command, value, ignored } = match decide().await {
            Ok(change) => change,
            Err(refused) => {
                return CommitEnd { must_be_known: refused.status == StatusCode::NOT_FOUND, result: Err(refused) };
            }
        };
        if command.changes.is_empty() {
            return CommitEnd { result: Ok(Changed { value, ignored, replay: Replay::First }), must_be_known: true };
        }
        let is_new = command.expected[0].is_absence();
        let must_be_known = command.may_be_known();
        match submitted(app, registry, app.node().registry_stored(registry, command, command_context).await).await {
            Ok(ChangeOutcome::Done) => {
                return CommitEnd { result: Ok(Changed { value, ignored, replay: Replay::First }), must_be_known };
            }
            Ok(ChangeOutcome::Repeat(changes)) => {
                return CommitEnd { result: Changed::replay(&changes, ignored), must_be_known };
            }
            Ok(ChangeOutcome::Rejected(Rejection::Mismatch { index: 0 })) if is_new => {
                return at_once(Err(value.taken()));
            }
            Ok(ChangeOutcome::Rejected(Rejection::TooManyEndpoints)) => return at_once(Err(R::limit_reached())),
            // A row has changed: decide again.
            Ok(ChangeOutcome::Rejected(Rejection::Mismatch { .. })) => {}
            Err(problem) => return at_once(Err(problem)),
        }
    }
    at_once(Err(contended()))
}

/// Stores a new resource that depends only on its id being free.
///
/// # Errors
/// As [`commit`].
pub(in crate::http) async fn create<R: Resource>(
    app: &App,
    registry: EntityKey,
    command_context: CommandContext,
    value: R,
    ignored: Vec<String>,
) -> Result<Changed<R>, Problem> {
    let make = || async { Ok(Change::create(value.clone()).ignoring(ignored.clone())) };
    commit(app, registry, command_context, make).await
}

/// `DELETE` of one resource of the workspace: 204.
///
/// # Errors
/// 404 if there is none; as [`commit`].
pub(in crate::http) async fn delete<R: Resource, N: RequiredScope>(
    Allowed { call, .. }: Allowed<N>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let registry = call.caller.registry();
    let forget = || async {
        let before: Option<Found<R>> = find(&call.app, registry, &id).await?;
        before.map(Change::delete).ok_or_else(R::not_found)
    };
    commit(&call.app, registry, call.without_key(), forget).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST …/rotate-secret`: a new secret for one resource of the workspace, shown in this answer only.
///
/// # Errors
/// 404 if there is none; as [`commit`].
pub(in crate::http) async fn rotate_secret<R: HasSecret, N: RequiredScope>(
    Path(id): Path<String>,
    Allowed { call, body, .. }: Allowed<N, OptionalJsonBytes>,
) -> Result<Response, Problem> {
    let (command_context, ignored) = call.read_without_members(body.as_ref())?;
    let registry = call.caller.registry();
    if let Some(first) = repeated::<R>(&call.app, registry, &command_context, &ignored).await? {
        return Ok(first.rotated());
    }
    let rotate = || async {
        let before: Found<R> = find(&call.app, registry, &id).await?.ok_or_else(R::not_found)?;
        let after = before.value.clone().renewed(secret()?, call.app.now());
        Ok(Change::update(before, after).ignoring(ignored.clone()))
    };
    Ok(commit(&call.app, registry, command_context, rotate).await?.rotated())
}

/// The change that this request has stored before, so that a retry gets the same answer whatever has changed since;
/// once every server uses the change, as for the first request.
pub(in crate::http) async fn repeated<R: Resource>(
    app: &App,
    registry: EntityKey,
    command_context: &CommandContext,
    ignored: &[String],
) -> Result<Option<Changed<R>>, Problem> {
    let Some(used) = command_context.key else { return Ok(None) };
    let row = app.node().key(registry, used.hash).await?;
    let Some(row) = row.filter(|row| row.fingerprint == used.fingerprint) else { return Ok(None) };
    let first = Changed::replay(&changes(app, registry, row.events.first).await?, ignored.to_vec())?;
    app.node().known_everywhere().await;
    Ok(Some(first))
}

/// The result of a change.
pub(in crate::http) enum ChangeOutcome {
    /// It is done.
    Done,
    /// It was done before, with this idempotency key.
    Repeat(Vec<RowChange>),
    /// It was refused.
    Rejected(Rejection),
}

/// Sends a change to a registry, once.
///
/// # Errors
/// 422 if the idempotency key was used for another request, 429 and 503 if nothing was stored.
pub(in crate::http) async fn submit(
    app: &App,
    registry: EntityKey,
    command: Command,
    command_context: CommandContext,
) -> Result<ChangeOutcome, Problem> {
    submitted(app, registry, app.node().registry(registry, command, command_context).await).await
}

/// The result of a change that was sent.
async fn submitted(app: &App, registry: EntityKey, reply: Reply<Registry>) -> Result<ChangeOutcome, Problem> {
    match reply {
        Ok(Answer::Done(())) => Ok(ChangeOutcome::Done),
        Ok(Answer::Repeat(effect)) => Ok(ChangeOutcome::Repeat(changes(app, registry, effect.first).await?)),
        Err(Refusal::Rejected(rejection)) => Ok(ChangeOutcome::Rejected(rejection)),
        Err(refusal) => Err(problem_of(refusal, |_| contended())),
    }
}

async fn changes(app: &App, registry: EntityKey, seq: u64) -> Result<Vec<RowChange>, Problem> {
    let events = app.node().events::<Registry>(registry, SeqRange::one(seq), Order::Asc, 1).await?;
    events.into_iter().next().map(|record| record.event.changes).ok_or_else(|| {
        tracing::error!(?registry, seq, "an idempotency key refers to an event that does not exist");
        internal_error()
    })
}
