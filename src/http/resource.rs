//! What the configured resources (channels, agents, keys, workspaces) have in common: reading members, changing the
//! rows of a registry, answering a retry, and paging through rows.

use actors::codec;
use actors::directory::{Answer, Circumstances, Refusal};
use actors::id::EntityKey;
use actors::registry::{Command, Registry, RowChange};
use actors::store::{Order, Row, Table};
use bytes::Bytes;

use super::context::render::internal_error;
use super::listing::range_behind;
use super::paging::PageRequest;
use super::problem::Problem;
use super::refusal::{problem_of, store_problem};
use crate::app::App;
use crate::json::fields::{Fields, Length, Value};
use crate::json::report::Report;

/// How often a change is decided again because what it was decided on has changed meanwhile.
pub(super) const ATTEMPTS: usize = 16;
/// A name that people give to something.
const NAME: Length = Length::chars(1, 255);
/// The longest id that a client may choose.
const MAX_ID: usize = 64;

/// A member that was given: its value, or that it was `null`. The outer `None`: it was not given.
pub(super) fn given<'a>(fields: &mut Fields<'a>, name: &'static str) -> Option<Option<Value<'a>>> {
    fields.object().has(name).then(|| fields.optional(name))
}

/// Whether this can be the id of something whose id a client may choose.
pub(super) fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The id that a client chose.
pub(super) fn chosen_id(value: &Value<'_>, report: &mut Report) -> Option<String> {
    let id = value.string(report, Length::ANY)?;
    if is_id(&id) {
        return Some(id.into_owned());
    }
    let message = format!("must be 1 to {MAX_ID} of the characters A-Z, a-z, 0-9, _ and -");
    report.fault(&value.path, "invalid_id", message);
    None
}

/// Reads `name` over the one there is; it is required where there is none.
pub(super) fn read_name(name: &mut String, fields: &mut Fields<'_>, report: &mut Report) {
    match given(fields, "name") {
        None if !name.is_empty() => {}
        None | Some(None) => fields.missing(report, "name"),
        Some(Some(value)) => {
            if let Some(text) = value.string(report, NAME) {
                *name = text.into_owned();
            }
        }
    }
}

/// Reports a member that was given with another value than the one it keeps.
pub(super) fn immutable(fields: &mut Fields<'_>, report: &mut Report, name: &'static str, kept: Option<&str>) {
    if let Some(value) = given(fields, name)
        && let Some(kept) = kept
    {
        let same = value.is_some_and(|value| crate::json::string(value.raw).is_some_and(|text| text == kept));
        if !same {
            report.fault(&fields.path().name(name), "immutable_field", format!("{name} cannot be changed"));
        }
    }
}

/// How a change went.
pub(super) enum Submitted {
    /// It is done.
    Done,
    /// It was done before, by this idempotency key.
    Repeat(Vec<RowChange>),
    /// The expected row with this number was another one.
    Unexpected(usize),
}

/// Asks a registry for a change.
///
/// # Errors
/// 422 where the idempotency key was used for another request, 429 and 503 where nothing was stored.
pub(super) async fn submit(
    app: &App,
    entity: EntityKey,
    command: Command,
    with: Circumstances,
) -> Result<Submitted, Problem> {
    match app.node().registry(entity, command, with).await {
        Ok(Answer::Done(())) => Ok(Submitted::Done),
        Ok(Answer::Repeat { first, .. }) => Ok(Submitted::Repeat(changes(app, entity, first).await?)),
        Err(Refusal::Rejected(unexpected)) => Ok(Submitted::Unexpected(unexpected.0)),
        Err(refusal) => Err(problem_of(refusal, |_| contended())),
    }
}

/// What this very request has done before, so that a retry is answered however the world has changed since.
///
/// # Errors
/// `StoreError` where the store cannot be read, or holds what cannot be.
pub(super) async fn repeated(
    app: &App,
    entity: EntityKey,
    with: &Circumstances,
) -> Result<Option<Vec<RowChange>>, Problem> {
    let Some(used) = with.key else { return Ok(None) };
    let row = app.node().key(entity, used.hash).await.map_err(store_problem)?;
    match row.filter(|row| row.fingerprint == used.fingerprint) {
        Some(row) => changes(app, entity, row.first).await.map(Some),
        None => Ok(None),
    }
}

async fn changes(app: &App, entity: EntityKey, seq: u64) -> Result<Vec<RowChange>, Problem> {
    let events = app.node().events::<Registry>(entity, (seq, seq), Order::Asc, 1).await;
    let events = events.map_err(store_problem)?;
    events.into_iter().next().map(|record| record.event.changes).ok_or_else(|| {
        tracing::error!(?entity, seq, "an idempotency key names an event that is not there");
        internal_error()
    })
}

/// The row that changes put into `table`.
///
/// # Errors
/// 500 where there is none.
pub(super) fn put_into<T: for<'b> minicbor::Decode<'b, ()>>(changes: &[RowChange], table: Table) -> Result<T, Problem> {
    let value = changes.iter().find(|change| change.table() == table).and_then(RowChange::value);
    decode(value.ok_or_else(internal_error)?)
}

/// A row's value.
///
/// # Errors
/// 500 where it is damaged.
pub(super) fn decode<T: for<'b> minicbor::Decode<'b, ()>>(value: &[u8]) -> Result<T, Problem> {
    codec::decode(value).map_err(store_problem)
}

/// What rows hold.
///
/// # Errors
/// 500 where one is damaged.
pub(super) fn values<T: for<'b> minicbor::Decode<'b, ()>>(rows: &[Row]) -> Result<Vec<T>, Problem> {
    rows.iter().map(|row| decode(&row.value)).collect()
}

/// What the row of an id holds now.
///
/// # Errors
/// `StoreError` where the store cannot be read, or holds what cannot be.
pub(super) async fn find<T: for<'b> minicbor::Decode<'b, ()>>(
    app: &App,
    entity: EntityKey,
    table: Table,
    id: &str,
) -> Result<Option<T>, Problem> {
    row(app, entity, table, id).await?.map(|row| decode(&row)).transpose()
}

/// A row as it is stored now.
///
/// # Errors
/// `StoreError` where the store cannot be read, or holds what cannot be.
pub(super) async fn row(app: &App, entity: EntityKey, table: Table, key: &str) -> Result<Option<Bytes>, Problem> {
    if !is_id(key) {
        return Ok(None);
    }
    let row = app.node().row(entity, table, Bytes::copy_from_slice(key.as_bytes())).await;
    row.map_err(store_problem)
}

/// 503: others kept changing the same thing.
pub(super) fn contended() -> Problem {
    Problem::unavailable("contended", "others keep changing the same thing; nothing was stored", 1)
}

/// A page of the rows whose keys begin with `prefix`, and the position after it.
///
/// # Errors
/// 400 `invalid_cursor` where the position is not one of these rows; what the store says.
pub(super) async fn page(
    app: &App,
    entity: EntityKey,
    table: Table,
    prefix: &[u8],
    request: &PageRequest,
) -> Result<(Vec<Row>, Option<Vec<u8>>), Problem> {
    if request.cursor.as_ref().is_some_and(|cursor| !cursor.starts_with(prefix)) {
        let words = "cursor must be the nextCursor of a page of this list";
        return Err(Problem::fault("?cursor", "invalid_cursor", words));
    }
    let range = range_behind(prefix, request.cursor.as_deref(), request.order);
    let rows = app.node().rows(entity, table, range, request.order, request.limit + 1).await;
    let mut rows = rows.map_err(store_problem)?;
    let more = rows.len() > request.limit;
    rows.truncate(request.limit);
    let next = rows.last().filter(|_| more).map(|row| row.key.to_vec());
    Ok((rows, next))
}
