//! `/workspaces`: isolated parts of the installation, made by its operators.

use actors::id::{EntityKey, WorkspaceId};
use actors::key::Scope;
use actors::store::Table;
use actors::tables::WORKSPACES;
use actors::workspace::Workspace;
use axum::extract::Path;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;

use super::answer::json;
use super::body::JsonBytes;
use super::call::Allowed;
use super::caller::{Admin, Caller, RequiredScope};
use super::headers::auth::NO_WORKSPACE;
use super::paging::{Page, PageRequest};
use super::query::Query;
use super::resource::{self, Resource};
use crate::app::App;
use crate::problem::Problem;
use crate::wire::time::Time;

/// Managing the installation: a key with the scope `admin` of the first workspace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operator;

impl RequiredScope for Operator {
    const SCOPES: &'static [Scope] = Admin::SCOPES;

    fn check(caller: &Caller) -> Result<(), Problem> {
        if caller.is_operator() {
            return Ok(());
        }
        let detail = "a key of the workspace default with the scope admin is required";
        Err(Problem::new(StatusCode::FORBIDDEN, "insufficient_scope", detail))
    }
}

/// 404: no such workspace, or none that this key may see.
pub(super) fn workspace_not_found() -> Problem {
    Problem::not_found("workspace_not_found", "workspace not found, or this key has no access to it")
}

impl Resource for Workspace {
    const TABLE: Table = WORKSPACES;
    const LIST: &'static str = "workspaces";

    fn not_found() -> Problem {
        workspace_not_found()
    }

    fn taken(&self) -> Problem {
        Problem::conflict("workspace_exists", format!("a workspace {} already exists", self.id))
    }

    fn id(&self) -> String {
        self.id.clone()
    }

    fn view(&self) -> impl Serialize {
        WorkspaceView::new(self)
    }
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
pub(super) async fn create(Allowed { call, body, .. }: Allowed<Operator, JsonBytes>) -> Result<Response, Problem> {
    let mut incoming = call.read(&body)?;
    let command_context = incoming.command_context();
    let mut fields = incoming.fields();
    let id = fields.optional("id").and_then(|value| resource::chosen_id(&value, &mut incoming.report));
    if id.as_deref() == Some(NO_WORKSPACE) {
        let path = fields.path().name("id");
        incoming.report.fault(&path, "invalid_id", "`null` is reserved and cannot be a workspace id");
    }
    let mut name = String::new();
    resource::read_name(&mut name, &mut fields, &mut incoming.report);
    fields.finish(&mut incoming.report);
    let ignored = incoming.report.check()?;
    let now = call.app.now();
    let id = id.unwrap_or_else(|| resource::new_id(&call.app, WorkspaceId::new));
    let workspace = Workspace { id, name, created_at: now };
    Ok(resource::create(&call.app, EntityKey::INSTALLATION, command_context, workspace, ignored).await?.created())
}

/// `GET /workspaces`: all of them for an operator, only their own for others.
///
/// # Errors
/// 400 for a wrong page.
pub(super) async fn list(Allowed { call, .. }: Allowed<Admin>, query: Query) -> Result<Response, Problem> {
    let list = if call.caller.is_operator() {
        "workspaces".to_owned()
    } else {
        format!("workspaces/{}", call.caller.workspace)
    };
    let request = PageRequest::from_query(&query, &list)?;
    let page: Page<Workspace> = if call.caller.is_operator() {
        resource::list_in_order(&call.app, EntityKey::INSTALLATION, &request).await?
    } else {
        Page { data: find(&call.app, &call.caller.workspace).await?.into_iter().collect(), next: None }
    };
    let data = page.data.iter().map(WorkspaceView::new).collect();
    Ok(Page { data, next: page.next }.into_response(&list, &call.context.uri))
}

/// `GET /workspaces/{id}`.
///
/// # Errors
/// 404 `workspace_not_found`.
pub(super) async fn get(Allowed { call, .. }: Allowed<Admin>, Path(id): Path<String>) -> Result<Response, Problem> {
    if !call.caller.is_operator() && *id != *call.caller.workspace {
        return Err(workspace_not_found());
    }
    let workspace = find(&call.app, &id).await?.ok_or_else(workspace_not_found)?;
    Ok(json(StatusCode::OK, &WorkspaceView::new(&workspace)))
}

/// The workspace with this id.
pub(super) async fn find(app: &App, id: &str) -> Result<Option<Workspace>, Problem> {
    Ok(resource::find(app, EntityKey::INSTALLATION, id).await?.map(|found| found.value))
}
