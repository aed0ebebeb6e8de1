//! Requests that carry messages, from their bytes to their answer.

use std::time::Duration;

use actors::conversation::Event;
use actors::directory::{CommandContext, KeyUse};
use actors::id::{Address, EntityKey};
use actors::machine::Record;
use actors::store::SeqRange;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::app::App;
use crate::http::answer::{self, When};
use crate::http::caller::Caller;
use crate::http::context::RequestContext;
use crate::http::forwarding::ForwardableRequest;
use crate::http::headers::idempotency_key;
use crate::http::headers::key::{IDEMPOTENCY_KEY, X_IDEMPOTENCY_KEY};
use crate::http::idempotency;
use crate::http::incoming::report;
use crate::http::log;
use crate::http::refusal::{key_reused, store_problem};
use crate::json::Object;
use crate::json::report::Report;
use crate::problem::Problem;
use crate::wire::Rules;
use crate::wire::fingerprint::fingerprint;

/// A request that carries a message, before its body's shape is known.
pub(super) struct UnparsedMessage<'a> {
    app: &'a App,
    caller: &'a Caller,
    context: &'a RequestContext,
    headers: &'a HeaderMap,
    bytes: &'a Bytes,
    pub(super) body: Object<'a>,
    report: Report,
}

impl<'a> UnparsedMessage<'a> {
    pub(super) fn new(
        app: &'a App,
        caller: &'a Caller,
        context: &'a RequestContext,
        headers: &'a HeaderMap,
        bytes: &'a Bytes,
    ) -> Result<Self, Problem> {
        let report = report(context);
        let body = Object::parse(bytes).map_err(|problem| beside(&report, headers, problem))?;
        Ok(Self { app, caller, context, headers, bytes, body, report })
    }

    /// The same refusal, with the faults outside the body: those are reported whatever shape the body has.
    pub(super) fn refused(&self, problem: Problem) -> Problem {
        beside(&self.report, self.headers, problem)
    }

    /// Reads the body as one shape; returns it and the rest of the request.
    pub(super) fn read<T>(
        mut self,
        read: impl FnOnce(Object<'a>, Rules<'_>, &mut Report) -> T,
        client_id: impl FnOnce(&T) -> Option<&str>,
    ) -> (T, MessageRequest<'a>) {
        // A body is only hashed if the request may be retried.
        let may_be_keyed = self.body.has("clientId")
            || self.headers.contains_key(IDEMPOTENCY_KEY)
            || self.headers.contains_key(X_IDEMPOTENCY_KEY);
        let print = may_be_keyed.then(|| fingerprint(self.context.method.as_str(), self.context.path(), &self.body));
        let app = self.app;
        let allow = |address| app.egress_allow().contains(address);
        let rules = Rules { now: app.now(), allow: &allow };
        let post = read(self.body, rules, &mut self.report);
        let mut key = None;
        match idempotency_key(self.headers, client_id(&post)) {
            Ok(found) => key = found.map(str::to_owned),
            Err(faults) => self.report.faults.extend(faults),
        }
        let keyed = key.zip(print).map(|(key, fingerprint)| Keyed { key, fingerprint });
        let Self { caller, context, headers, bytes, report, .. } = self;
        (post, MessageRequest { app, caller, context, headers, bytes, report, keyed })
    }
}

/// A refusal of the body, with the faults of the query and the idempotency key.
fn beside(report: &Report, headers: &HeaderMap, problem: Problem) -> Problem {
    let problem = report.joined(problem);
    match idempotency_key(headers, None) {
        Err(faults) if !problem.faults.is_empty() => Problem::invalid([problem.faults, faults].concat()),
        _ => problem,
    }
}

/// An idempotency key and the request that it came with.
pub(super) struct Keyed {
    pub(super) key: String,
    fingerprint: [u8; 16],
}

impl Keyed {
    pub(super) fn used(&self, scope: &str) -> KeyUse {
        KeyUse::within(idempotency::key_hash(scope, &self.key), self.fingerprint)
    }

    /// The key in the scope of the workspace. The conversation that the key opens is its home, so it needs no claim
    /// there.
    fn used_in(&self, workspace: Address) -> KeyUse {
        KeyUse::within(idempotency::workspace_key_hash(workspace, &self.key), self.fingerprint)
    }
}

/// A request that carries a message, once its body was read; it may still be refused.
pub(in crate::http) struct MessageRequest<'a> {
    pub(in crate::http) app: &'a App,
    pub(in crate::http) caller: &'a Caller,
    pub(in crate::http) context: &'a RequestContext,
    pub(super) headers: &'a HeaderMap,
    bytes: &'a Bytes,
    pub(super) report: Report,
    pub(super) keyed: Option<Keyed>,
}

impl MessageRequest<'_> {
    /// Forwards the request to the server that owns the message's entity, if that is another one. Its answer may wait
    /// `waits` for an agent, or for a file.
    pub(super) async fn forwarded(&self, entity: EntityKey, waits: Duration) -> Result<Option<Response>, Problem> {
        let Self { app, context, headers, bytes, .. } = self;
        let whole = ForwardableRequest::of(app, context, headers, *bytes, self.keyed.is_some());
        ForwardableRequest { waits, ..whole }.forward(entity).await
    }

    pub(super) fn command_context(&self, scope: &str) -> CommandContext {
        let key = self.keyed.as_ref().map(|keyed| keyed.used(scope));
        CommandContext { key, ..idempotency::without_key(self.context) }
    }

    pub(super) fn context_in_workspace(&self) -> CommandContext {
        let key = self.keyed.as_ref().map(|keyed| keyed.used_in(self.caller.address));
        CommandContext { key, ..idempotency::without_key(self.context) }
    }

    /// The events that the request's key caused in an entity, if it was used there; for cases in which that must be
    /// known before the entity is asked.
    pub(super) async fn earlier_effect(
        &self,
        entity: EntityKey,
        scope: &str,
    ) -> Result<Option<Vec<Record<Event>>>, Problem> {
        self.effect_of(entity, self.command_context(scope)).await
    }

    /// The same for a key of any scope.
    pub(super) async fn effect_of(
        &self,
        entity: EntityKey,
        with: CommandContext,
    ) -> Result<Option<Vec<Record<Event>>>, Problem> {
        let Some(used) = with.key else { return Ok(None) };
        let row = self.app.node().key(entity, used.hash).await.map_err(store_problem)?;
        match row {
            None => Ok(None),
            Some(row) if row.fingerprint != used.fingerprint => Err(key_reused()),
            Some(row) => self.effect(entity, row.events).await.map(Some),
        }
    }

    /// The events with these sequences.
    pub(super) async fn effect(&self, entity: EntityKey, range: SeqRange) -> Result<Vec<Record<Event>>, Problem> {
        log::between(self.app.node(), entity, range).await.map_err(store_problem)
    }

    /// Renders an answer and finishes it.
    pub(super) fn answer<T: serde::Serialize>(&self, status: StatusCode, value: &T, when: When) -> Response {
        self.finish(answer::json(status, value), when)
    }

    /// Finishes an answer.
    pub(super) fn finish(&self, response: Response, when: When) -> Response {
        when.told(answer::ignoring(response, &self.report.ignored))
    }
}
