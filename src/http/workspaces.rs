//! `/workspaces`: what may see what. Made by the operators of the installation.

use actors::codec;
use actors::id::{Address, EntityKey, WorkspaceId};
use actors::registry::{Command, RowChange};
use actors::workspace::{WORKSPACES, Workspace};
use axum::extract::{FromRequestParts, Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::answer::{ignoring, json, located, replayed};
use super::body::JsonBytes;
use super::caller::{Admin, Allowed, Caller};
use super::context::RequestContext;
use super::incoming::Incoming;
use super::paging::{Page, PageRequest};
use super::problem::Problem;
use super::query::Query;
use super::resource::{self, Submitted};
use crate::app::App;
use crate::wire::time::Time;

/// A caller who looks after the whole installation.
#[derive(Clone, Debug)]
pub struct Operator(pub Caller);

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let caller = Allowed::<Admin>::from_request_parts(parts, state).await?.0;
        if caller.is_operator() {
            return Ok(Self(caller));
        }
        let detail = "this needs a key of the workspace default with the scope admin";
        Err(Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", detail))
    }
}

/// 404: no such workspace, or none that this key may know of.
#[must_use]
pub fn workspace_not_found() -> Problem {
    Problem::not_found("workspace_not_found", "this key knows no such workspace")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkspaceView<'a> {
    id: &'a str,
    name: &'a str,
    created_at: Time,
}

impl<'a> WorkspaceView<'a> {
    fn new(workspace: &'a Workspace) -> Self {
        Self { id: &workspace.id, name: &workspace.name, created_at: Time(workspace.created_at) }
    }
}

/// `POST /workspaces`.
///
/// # Errors
/// 400, 403, 409 `workspace_exists`, 422.
pub async fn create(
    State(app): State<App>,
    Operator(caller): Operator,
    context: RequestContext,
    headers: HeaderMap,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    let mut incoming = Incoming::read(&context, &headers, Some(&body))?;
    let with = incoming.circumstances(&context, &caller);
    let mut fields = incoming.fields();
    let id = fields.optional("id").and_then(|value| resource::chosen_id(&value, &mut incoming.report));
    let mut name = String::new();
    resource::read_name(&mut name, &mut fields, &mut incoming.report);
    fields.finish(&mut incoming.report);
    let ignored = incoming.report.check()?;
    let now = app.now();
    let id = id.unwrap_or_else(|| WorkspaceId::new(now, Address::random(app.node().random())).to_string());
    let workspace = Workspace { id, name, created_at: now };
    let key = Bytes::copy_from_slice(workspace.id.as_bytes());
    let changes = vec![RowChange::put(WORKSPACES, &key, &codec::encode(&workspace))];
    let command = Command { expected: vec![(WORKSPACES, key, None)], changes };
    match resource::submit(&app, EntityKey::INSTALLATION, command, with).await? {
        Submitted::Done => Ok(created(&workspace, &ignored)),
        Submitted::Repeat(changes) => {
            let first: Workspace = resource::put_into(&changes, WORKSPACES)?;
            Ok(replayed(created(&first, &ignored)))
        }
        Submitted::Unexpected(_) => {
            let detail = format!("there is a workspace {} already", workspace.id);
            Err(Problem::conflict("workspace_exists", detail))
        }
    }
}

/// 201, saying where it is found.
fn created(workspace: &Workspace, ignored: &[String]) -> Response {
    let response = json(StatusCode::CREATED, &WorkspaceView::new(workspace));
    ignoring(located(response, &format!("/workspaces/{}", workspace.id)), ignored)
}

/// `GET /workspaces`: all of them for an operator, for others their own.
///
/// # Errors
/// 400 for a wrong page.
pub async fn list(
    State(app): State<App>,
    allowed: Allowed<Admin>,
    context: RequestContext,
    query: Query,
) -> Result<Response, Problem> {
    let caller = allowed.0;
    let list = if caller.is_operator() { "workspaces".to_owned() } else { format!("workspaces/{}", caller.workspace) };
    let request = PageRequest::from_query(&query, &list)?;
    let (workspaces, next): (Vec<Workspace>, _) = if caller.is_operator() {
        let (rows, next) = resource::page(&app, EntityKey::INSTALLATION, WORKSPACES, b"", &request).await?;
        (resource::values(&rows)?, next)
    } else {
        (find(&app, &caller.workspace).await?.into_iter().collect(), None)
    };
    Ok(Page { data: workspaces.iter().map(WorkspaceView::new).collect(), next }.into_response(&list, &context.uri))
}

/// `GET /workspaces/{id}`.
///
/// # Errors
/// 404 `workspace_not_found`.
pub async fn get(State(app): State<App>, allowed: Allowed<Admin>, Path(id): Path<String>) -> Result<Response, Problem> {
    let caller = allowed.0;
    if !caller.is_operator() && *id != *caller.workspace {
        return Err(workspace_not_found());
    }
    let workspace = find(&app, &id).await?.ok_or_else(workspace_not_found)?;
    Ok(json(StatusCode::OK, &WorkspaceView::new(&workspace)))
}

/// The workspace with this id.
pub(super) async fn find(app: &App, id: &str) -> Result<Option<Workspace>, Problem> {
    resource::find(app, EntityKey::INSTALLATION, WORKSPACES, id).await
}
