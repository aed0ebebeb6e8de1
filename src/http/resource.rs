//! Common code of the configured resources (channels, agents, webhook endpoints, keys, workspaces): the trait
//! [`Resource`], reading members, finding and listing rows, and the handlers of resources without rules of their own.
//! `change` has the changes.

use std::fmt::Display;

use actors::clock::Millis;
use actors::codec;
use actors::id::{Address, EntityKey};
use actors::registry::{RowChange, places};
use actors::store::{Row, Scan, Table};
use actors::tables::IN_ORDER;
use axum::extract::Path;
use axum::response::Response;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::StatusCode;
use minicbor::{Decode, Encode};
use serde::Serialize;

use super::answer::json;
use super::call::Allowed;
use super::caller::RequiredScope;
use super::context::render::internal_error;
use super::listing::range_after;
use super::paging::{Page, PageRequest, invalid_cursor};
use super::query::Query;
use crate::app::App;
use crate::http::refusal::contended;
use crate::json::fields::{Fields, Length, Value};
use crate::json::report::Report;
use crate::problem::Problem;
use crate::secret::webhook_secret;
use crate::wire::bounds::NAME;

mod change;

pub(super) use self::change::{
    Change, ChangeOutcome, Changed, commit, create, delete, repeated, rotate_secret, submit,
};

/// Resources of a page that are read at the same time.
const MAX_CONCURRENT_READS: usize = 16;
/// The longest id that a client may choose.
const MAX_ID: usize = 64;

/// One kind of configured resource: rows of a registry, each with an id.
pub(super) trait Resource: Encode<()> + for<'b> Decode<'b, ()> + Clone + PartialEq {
    /// The table of such resources.
    const TABLE: Table;
    /// Its list's name in paths.
    const LIST: &'static str;

    /// 404: the workspace has no such resource.
    fn not_found() -> Problem;

    /// Refuses a new resource whose id is taken. Where clients choose no ids, that practically never happens.
    fn taken(&self) -> Problem {
        contended()
    }

    /// Refuses a new resource when the limit of its kind is reached. Most kinds have no limit.
    fn limit_reached() -> Problem {
        contended()
    }

    /// Its id.
    fn id(&self) -> String;

    /// The key of its row.
    fn key(&self) -> Bytes {
        self.id().into()
    }

    /// The rows that store it.
    fn put(&self) -> Vec<RowChange> {
        vec![RowChange::put(Self::TABLE, &self.key(), &codec::encode(self))]
    }

    /// The rows to change to delete it.
    fn delete(&self) -> Vec<RowChange> {
        vec![RowChange::delete(Self::TABLE, &self.key())]
    }

    /// Its view for clients.
    fn view(&self) -> impl Serialize;

    /// Its view in the answers that show its secret, if it has one.
    fn view_with_secret(&self) -> impl Serialize {
        self.view()
    }
}

/// A resource whose deliveries are signed.
pub(super) trait HasSecret: Resource {
    /// Replaces its secret. The previous one also signs for a while.
    fn renewed(self, secret: String, now: Millis) -> Self;
}

/// A new secret to sign deliveries with.
///
/// # Errors
/// 500 if the system has no randomness.
pub(super) fn secret() -> Result<String, Problem> {
    webhook_secret().map_err(|error| {
        tracing::error!(%error, "could not generate a secret");
        internal_error()
    })
}

/// A new id of this kind, after all existing ones.
pub(super) fn new_id<I: Display>(app: &App, id: impl FnOnce(Millis, Address) -> I) -> String {
    let (at, address) = app.node().new_id();
    id(at, address).to_string()
}

/// A given member: its value, or `None` for `null`. The outer `None`: it was not given.
pub(super) fn given<'a>(fields: &mut Fields<'a>, name: &'static str) -> Option<Option<Value<'a>>> {
    fields.object().has(name).then(|| fields.optional(name))
}

/// Whether a client may choose this id.
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

/// Reads `name` over the existing one; it is required if there is none.
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

/// Reports a given member whose value differs from its fixed one.
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

/// A row's value.
///
/// # Errors
/// 500 if it is damaged.
pub(super) fn decode<T: for<'b> minicbor::Decode<'b, ()>>(value: &[u8]) -> Result<T, Problem> {
    Ok(codec::decode(value)?)
}

/// A resource as stored now.
pub(super) struct Found<R> {
    /// Its row, which a change expects.
    pub(super) row: Bytes,
    /// The row's value.
    pub(super) value: R,
}

/// The resource with this id.
pub(super) async fn find<R: Resource>(app: &App, registry: EntityKey, id: &str) -> Result<Option<Found<R>>, Problem> {
    let Some(row) = row(app, registry, R::TABLE, id).await? else { return Ok(None) };
    let value = decode(&row)?;
    Ok(Some(Found { row, value }))
}

/// `GET` of one resource of the workspace.
///
/// # Errors
/// 404 if there is none; 503 if the store cannot be read, 500 if the stored data cannot.
pub(super) async fn get<R: Resource, N: RequiredScope>(
    Allowed { call, .. }: Allowed<N>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let found: Found<R> = find(&call.app, call.caller.registry(), &id).await?.ok_or_else(R::not_found)?;
    Ok(json(StatusCode::OK, &found.value.view()))
}

/// `GET` of a page of the workspace's resources of one kind.
///
/// # Errors
/// 400 for a wrong page; 503 if the store cannot be read, 500 if the stored data cannot.
pub(super) async fn list<R: Resource, N: RequiredScope>(
    Allowed { call, .. }: Allowed<N>,
    query: Query,
) -> Result<Response, Problem> {
    let list = format!("workspaces/{}/{}", call.caller.workspace, R::LIST);
    let request = PageRequest::from_query(&query, &list)?;
    let page = list_in_order::<R>(&call.app, call.caller.registry(), &request).await?;
    let data = page.data.iter().map(R::view).collect();
    Ok(Page { data, next: page.next }.into_response(&list, &call.context.uri))
}

/// A page of a registry's resources of a kind, in creation order.
///
/// # Errors
/// As [`page`].
pub(super) async fn list_in_order<R: Resource>(
    app: &App,
    registry: EntityKey,
    request: &PageRequest,
) -> Result<Page<R>, Problem> {
    let Page { data: places, next } = page(app, registry, IN_ORDER, &places::in_order(R::TABLE), request).await?;
    let reads = places.into_iter().map(|place| app.node().row(registry, R::TABLE, place.value));
    let rows: Vec<_> = stream::iter(reads).buffered(MAX_CONCURRENT_READS).try_collect().await?;
    // A resource deleted meanwhile is skipped.
    let data = rows.into_iter().flatten().map(|row| decode(&row)).collect::<Result<_, _>>()?;
    Ok(Page { data, next })
}

/// A row as stored now.
pub(super) async fn row(app: &App, entity: EntityKey, table: Table, key: &str) -> Result<Option<Bytes>, Problem> {
    if !is_id(key) {
        return Ok(None);
    }
    Ok(app.node().row(entity, table, Bytes::copy_from_slice(key.as_bytes())).await?)
}

/// A page of the rows whose keys begin with `prefix`.
///
/// # Errors
/// 400 `invalid_cursor` where the position is not one of these rows; 503 if the store cannot be read, 500 if the stored
/// data cannot.
pub(super) async fn page(
    app: &App,
    entity: EntityKey,
    table: Table,
    prefix: &[u8],
    request: &PageRequest,
) -> Result<Page<Row>, Problem> {
    if request.cursor.as_ref().is_some_and(|cursor| !cursor.starts_with(prefix)) {
        return Err(Problem::invalid(vec![invalid_cursor()]));
    }
    let range = range_after(prefix, request.cursor.as_deref(), request.order);
    let rows = app.node().rows(entity, table, Scan::new(range, request.order, request.limit + 1)).await?;
    Ok(Page::cut(rows, request.limit, |row: &Row| row.key.to_vec()))
}
