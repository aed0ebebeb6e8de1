//! `/api-keys`: keys, their principals, scopes and workspaces.

use actors::conversation::review::SYSTEM;
use actors::id::{EntityKey, KeyId};
use actors::key::{ApiKey, Principal, PrincipalKind, Scope};
use actors::registry::RowChange;
use actors::store::Table;
use actors::tables::{KEYS_BY_HASH, KEYS_BY_ID};
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;

use super::answer::json;
use super::body::JsonBytes;
use super::call::{Allowed, Call};
use super::caller::Admin;
use super::context::render::internal_error;
use super::headers::auth::workspace_forbidden;
use super::incoming::Incoming;
use super::paging::{Page, PageRequest};
use super::query::Query;
use super::resource::{self, Change, Changed, Found, Resource};
use super::workspaces::{find, workspace_not_found};
use crate::app::App;
use crate::json::fields::{Fields, Length, Value};
use crate::json::report::Report;
use crate::keys;
use crate::problem::Problem;
use crate::wire::PRINCIPAL_TYPES;
use crate::wire::bounds::PRINCIPAL_ID;
use crate::wire::json_view::AsText;
use crate::wire::time::Time;

/// 404: no such key in the workspace.
fn key_not_found() -> Problem {
    Problem::not_found("key_not_found", "this workspace has no such key")
}

impl Resource for ApiKey {
    const TABLE: Table = KEYS_BY_HASH;
    const LIST: &'static str = "api-keys";

    fn not_found() -> Problem {
        key_not_found()
    }

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn key(&self) -> Bytes {
        keys::hash_key(&self.hash)
    }

    fn put(&self) -> Vec<RowChange> {
        keys::put(self).into()
    }

    fn delete(&self) -> Vec<RowChange> {
        keys::delete(self).into()
    }

    fn view(&self) -> impl Serialize {
        KeyView::new(self)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyView<'a> {
    id: AsText<KeyId>,
    name: &'a str,
    scopes: Vec<&'static str>,
    workspace_id: &'a str,
    principal: PrincipalView<'a>,
    created_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

#[derive(Serialize)]
struct PrincipalView<'a> {
    r#type: &'static str,
    id: &'a str,
}

impl<'a> KeyView<'a> {
    fn new(key: &'a ApiKey) -> Self {
        Self {
            id: AsText(key.id),
            name: &key.name,
            scopes: key.scopes.iter().map(|scope| scope.name()).collect(),
            workspace_id: &key.workspace,
            principal: PrincipalView { r#type: key.principal.kind.name(), id: &key.principal.id },
            created_at: Time(key.created_at),
            key: None,
        }
    }

    fn with_key(key: &'a ApiKey, text: &'a str) -> Self {
        Self { key: Some(text), ..Self::new(key) }
    }
}

/// A key to be created.
struct NewKey {
    name: String,
    scopes: Vec<Scope>,
    workspace: Option<String>,
    principal: Option<Principal>,
}

fn read(incoming: &mut Incoming<'_>) -> NewKey {
    let mut fields = incoming.fields();
    let report = &mut incoming.report;
    let mut name = String::new();
    resource::read_name(&mut name, &mut fields, report);
    let scopes = fields.required(report, "scopes").and_then(|value| scopes(&value, report)).unwrap_or_default();
    let workspace = fields.string(report, "workspaceId", Length::ANY).map(Into::into);
    let principal = fields.optional("principal").and_then(|value| principal(&value, report));
    fields.finish(report);
    NewKey { name, scopes, workspace, principal }
}

fn scopes(value: &Value<'_>, report: &mut Report) -> Option<Vec<Scope>> {
    let items = value.array(report)?;
    if items.is_empty() {
        report.fault(&value.path, "too_few", "must name at least 1 scope");
    }
    let choices = Scope::ALL.map(|scope| (scope.name(), scope));
    let mut scopes = Vec::with_capacity(items.len().min(choices.len()));
    items.each(report, |item, report| match item.choice(report, &choices) {
        Some(scope) if scopes.contains(&scope) => {
            report.fault(&item.path, "duplicate_value", format!("duplicate scope {}", scope.name()));
        }
        scope => scopes.extend(scope),
    });
    Some(scopes)
}

fn principal(value: &Value<'_>, report: &mut Report) -> Option<Principal> {
    let mut fields: Fields<'_> = value.object(report)?;
    let kind = fields.required(report, "type").and_then(|value| value.choice(report, &PRINCIPAL_TYPES));
    let id = fields.required_string(report, "id", PRINCIPAL_ID);
    if id.as_deref() == Some(SYSTEM) {
        report.fault(
            &fields.path().name("id"),
            "invalid_id",
            "`system` is reserved for automatic decisions and cannot be a principal id",
        );
    }
    fields.finish(report);
    Some(Principal { kind: kind?, id: id?.into_owned() })
}

/// `POST /api-keys`. Only this answer shows the key; a retry with the same idempotency key gets it again. Without a
/// principal the key speaks for an agent that has the key's id.
///
/// # Errors
/// 400, 403 `workspace_forbidden`, 404 `workspace_not_found`, 422.
pub(super) async fn create(Allowed { call, body, .. }: Allowed<Admin, JsonBytes>) -> Result<Response, Problem> {
    let mut incoming = call.read(&body)?;
    let command_context = incoming.command_context();
    let new = read(&mut incoming);
    let other = new.workspace.filter(|workspace| **workspace != *call.caller.workspace);
    if other.is_some() && !call.caller.is_operator() {
        return Err(workspace_forbidden());
    }
    let ignored = incoming.report.check()?;
    if let Some(first) =
        resource::repeated::<ApiKey>(&call.app, EntityKey::INSTALLATION, &command_context, &ignored).await?
    {
        return replayed_key(&call.app, &first, incoming.key);
    }
    if let Some(other) = &other {
        find(&call.app, other).await?.ok_or_else(workspace_not_found)?;
    }
    let now = call.app.now();
    let id = keys::new_id(call.node());
    let text = text_of(&call.app, id, incoming.key)?;
    let key = ApiKey {
        id,
        name: new.name,
        scopes: new.scopes,
        workspace: other.unwrap_or_else(|| call.caller.workspace.to_string()),
        principal: new.principal.unwrap_or_else(|| Principal { kind: PrincipalKind::Agent, id: id.to_string() }),
        hash: call.app.pepper().hash(&text),
        created_at: now,
    };
    let stored = resource::create(&call.app, EntityKey::INSTALLATION, command_context, key, ignored).await?;
    if stored.value.id == id {
        return Ok(stored.created_as(&KeyView::with_key(&stored.value, &text)));
    }
    replayed_key(&call.app, &stored, incoming.key)
}

/// The key itself, which is not stored: the same for a retry with the same idempotency key, else always another.
fn text_of(app: &App, id: KeyId, idempotency_key: Option<&str>) -> Result<String, Problem> {
    app.pepper().key(id, idempotency_key).map_err(|error| {
        tracing::error!(%error, "could not generate a key");
        internal_error()
    })
}

/// The answer that shows the key, rendered again for a retry.
fn replayed_key(app: &App, stored: &Changed<ApiKey>, idempotency_key: Option<&str>) -> Result<Response, Problem> {
    let text = text_of(app, stored.value.id, idempotency_key)?;
    Ok(stored.created_as(&KeyView::with_key(&stored.value, &text)))
}

/// `GET /api-keys`: those of the workspace, oldest first, without their secrets.
///
/// # Errors
/// 400 for a wrong page.
pub(super) async fn list(Allowed { call, .. }: Allowed<Admin>, query: Query) -> Result<Response, Problem> {
    let list = format!("workspaces/{}/api-keys", call.caller.workspace);
    let request = PageRequest::from_query(&query, &list)?;
    let Page { data: rows, next } =
        resource::page(&call.app, EntityKey::INSTALLATION, KEYS_BY_ID, &call.caller.address.0, &request).await?;
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        let key = keys::of_row(call.node(), &row.value).await?;
        keys.extend(key.map(|(_, key)| key));
    }
    Ok(Page { data: keys.iter().map(KeyView::new).collect(), next }.into_response(&list, &call.context.uri))
}

/// A key of the caller's workspace by its id, as text. An operator, who makes keys of all workspaces, finds any key.
async fn find_key(call: &Call, id: &str) -> Result<Found<ApiKey>, Problem> {
    let id = KeyId::parse(id).ok_or_else(key_not_found)?;
    let by_id = keys::id_key(&call.caller.workspace, id);
    let hash = call.node().row(EntityKey::INSTALLATION, KEYS_BY_ID, by_id).await?;
    let found = match hash {
        Some(hash) => keys::of_row(call.node(), &hash).await,
        None if call.caller.is_operator() => keys::of_any_workspace(call.node(), id).await,
        None => Ok(None),
    };
    let (row, value) = found?.ok_or_else(key_not_found)?;
    Ok(Found { row, value })
}

/// `GET /api-keys/{id}`, without its secret.
///
/// # Errors
/// 404 `key_not_found`.
pub(super) async fn get(Allowed { call, .. }: Allowed<Admin>, Path(id): Path<String>) -> Result<Response, Problem> {
    let found = find_key(&call, &id).await?;
    Ok(json(StatusCode::OK, &KeyView::new(&found.value)))
}

/// `DELETE /api-keys/{id}`: the key is refused from now on.
///
/// # Errors
/// 404 `key_not_found`.
pub(super) async fn delete(Allowed { call, .. }: Allowed<Admin>, Path(id): Path<String>) -> Result<Response, Problem> {
    let forget = || async { Ok(Change::delete(find_key(&call, &id).await?)) };
    let deleted = resource::commit(&call.app, EntityKey::INSTALLATION, call.without_key(), forget).await?;
    call.app.forget_meter(deleted.value.id);
    Ok(StatusCode::NO_CONTENT.into_response())
}
