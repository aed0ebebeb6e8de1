//! Requests that carry messages, from their bytes to their answer.
//!
//! Every family of messages judges a request in this order, and the first answer stands:
//!
//! 1. The query, the idempotency key and the body are read ([`UnparsedMessage::read`]). Their faults are collected.
//! 2. What the body names is looked up. A file that does not exist is one more fault, but none of a retry: if nothing
//!    else is wrong, the key's first request answers, which was accepted while the file existed
//!    ([`MessageRequest::replay_before_refusal`]).
//! 3. All faults are refused at once, whatever the key was used for: 400. The conversation itself finds a parent that
//!    does not exist, when it decides; where something else refuses the request before, parents are looked up for that.
//! 4. A channel that does not exist is refused, 404. Nothing was accepted there, so late faults come before it.
//! 5. The server that owns the conversation takes over ([`MessageRequest::forwarded`]).
//! 6. The key's first request answers before anything that may have changed since it was accepted: a deadline that has
//!    passed ([`Report::late`]), a channel that was disabled ([`MessageRequest::replay_before_late_faults`]).
//! 7. Late faults are refused, 400; then a key that was used for another request, 422; then a disabled channel, 409.
//! 8. The conversation decides ([`MessageRequest::submit`]). It knows its keys, so most retries need no look-up before.
//!
//! A contact's message names no files and has no late faults. On a disabled channel it is judged by 6 and 7 before 5:
//! its key may be in any of the contact's conversations, and every server can look there.
//!
//! A store that cannot be read is 503 at each step: no outage turns the retry of an accepted request into a refusal.

use std::time::Duration;

use actors::conversation::{Post, Posted, Rejection, Turn, message_of};
use actors::directory::{Answer, CommandContext, KeyUse, Refusal};
use actors::id::{Address, EntityKey};
use actors::message::Message;
use actors::store::{Fingerprint, SeqRange};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::http::answer::{self, Replay};
use crate::http::call::Call;
use crate::http::forwarding::ForwardableRequest;
use crate::http::headers::idempotency_key;
use crate::http::headers::key::{IDEMPOTENCY_KEY, X_IDEMPOTENCY_KEY};
use crate::http::idempotency;
use crate::http::incoming::report;
use crate::http::log;
use crate::http::refusal::{broken, key_reused, problem_of};
use crate::json::Object;
use crate::json::report::Report;
use crate::problem::{Fault, Problem};
use crate::wire::Rules;
use crate::wire::fingerprint::fingerprint;

/// A request that carries a message, before its body's shape is known.
pub(super) struct UnparsedMessage<'a> {
    call: &'a Call,
    bytes: &'a Bytes,
    pub(super) body: Object<'a>,
    report: Report,
}

impl<'a> UnparsedMessage<'a> {
    pub(super) fn new(call: &'a Call, bytes: &'a Bytes) -> Result<Self, Problem> {
        let report = report(&call.context);
        let body = Object::parse(bytes).map_err(|problem| with_head_faults(&report, &call.headers, problem))?;
        Ok(Self { call, bytes, body, report })
    }

    /// Adds the faults outside the body to a refusal: those are reported whatever shape the body has.
    pub(super) fn refused(&self, problem: Problem) -> Problem {
        with_head_faults(&self.report, &self.call.headers, problem)
    }

    /// Reads the body as one shape; returns it and the rest of the request.
    pub(super) fn read<T>(
        mut self,
        read: impl FnOnce(Object<'a>, Rules<'_>, &mut Report) -> T,
        client_id: impl FnOnce(&T) -> Option<&str>,
    ) -> (T, MessageRequest<'a>) {
        // A body is only hashed if the request may be retried.
        let Call { app, context, headers, .. } = self.call;
        let may_be_keyed = self.body.has("clientId")
            || headers.contains_key(IDEMPOTENCY_KEY)
            || headers.contains_key(X_IDEMPOTENCY_KEY);
        let print = may_be_keyed.then(|| fingerprint(context.method.as_str(), context.path(), &self.body));
        let allow = |address| app.egress_allow().contains(address);
        let rules = Rules { now: app.now(), allow: &allow };
        let post = read(self.body, rules, &mut self.report);
        let mut key = None;
        match idempotency_key(headers, client_id(&post)) {
            Ok(found) => key = found.map(str::to_owned),
            Err(faults) => self.report.faults.extend(faults),
        }
        let keyed = key.zip(print).map(|(key, fingerprint)| Keyed { key, fingerprint });
        let Self { call, bytes, report, .. } = self;
        (post, MessageRequest { call, bytes, report, keyed })
    }
}

/// A refusal of the body, with the faults of the query and the idempotency key.
fn with_head_faults(report: &Report, headers: &HeaderMap, problem: Problem) -> Problem {
    let problem = report.joined(problem);
    match idempotency_key(headers, None) {
        Err(faults) if !problem.faults.is_empty() => Problem::invalid([problem.faults, faults].concat()),
        _ => problem,
    }
}

/// An idempotency key and the request that it came with.
pub(super) struct Keyed {
    pub(super) key: String,
    fingerprint: Fingerprint,
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

/// The messages of a request.
pub(super) struct Submitted {
    pub(super) messages: Vec<Message>,
    /// The requested turn, as this request has left it.
    pub(super) turn: Option<Box<Turn>>,
    pub(super) replay: Replay,
}

impl Submitted {
    /// The message of a request that carries one.
    pub(super) fn message(&self) -> Result<&Message, Problem> {
        self.messages.first().ok_or_else(|| broken("a post has a message"))
    }
}

/// Why messages were not submitted, or why they cannot be shown.
pub(super) enum SubmitError {
    /// The conversation refused them.
    Refused(Refusal<Rejection>),
    /// Another failure, such as a file that was deleted.
    Problem(Problem),
}

impl SubmitError {
    /// The error as clients see it; `rejected` maps the conversation's own rejections.
    pub(super) fn into_problem(self, rejected: impl FnOnce(Rejection) -> Problem) -> Problem {
        match self {
            Self::Refused(refusal) => problem_of(refusal, rejected),
            Self::Problem(problem) => problem,
        }
    }
}

impl From<Problem> for SubmitError {
    fn from(problem: Problem) -> Self {
        Self::Problem(problem)
    }
}

/// What a request's key did in an entity before.
pub(super) enum Earlier {
    /// Nothing, or the request has no key.
    Nothing,
    /// It submitted these messages.
    Submitted(Submitted),
    /// It was used for another request.
    AnotherRequest,
}

impl Earlier {
    /// What the key submitted.
    ///
    /// # Errors
    /// 422 if it was used for another request.
    pub(super) fn submitted(self) -> Result<Option<Submitted>, Problem> {
        match self {
            Self::Nothing => Ok(None),
            Self::Submitted(submitted) => Ok(Some(submitted)),
            Self::AnotherRequest => Err(key_reused()),
        }
    }
}

/// A request that carries a message, once its body was read; it may still be refused.
pub(in crate::http) struct MessageRequest<'a> {
    pub(in crate::http) call: &'a Call,
    bytes: &'a Bytes,
    pub(super) report: Report,
    pub(super) keyed: Option<Keyed>,
}

impl MessageRequest<'_> {
    /// Forwards the request to the server that owns the message's entity, if that is another one. Its answer may wait
    /// `waits` for an agent, or for a file.
    pub(super) async fn forwarded(&self, entity: EntityKey, waits: Duration) -> Result<Option<Response>, Problem> {
        let is_keyed = self.keyed.is_some();
        ForwardableRequest { call: self.call, body: Some(self.bytes), is_keyed, waits }.forward(entity).await
    }

    pub(super) fn command_context(&self, scope: &str) -> CommandContext {
        let key = self.keyed.as_ref().map(|keyed| keyed.used(scope));
        CommandContext { key, ..self.call.without_key() }
    }

    pub(super) fn context_in_workspace(&self) -> CommandContext {
        let key = self.keyed.as_ref().map(|keyed| keyed.used_in(self.call.caller.address));
        CommandContext { key, ..self.call.without_key() }
    }

    /// What the key did in an entity; for cases in which that must be known before the command is sent.
    pub(super) async fn earlier(&self, entity: EntityKey, command_context: CommandContext) -> Result<Earlier, Problem> {
        let Some(used) = command_context.key else { return Ok(Earlier::Nothing) };
        let row = self.call.node().key(entity, used.hash).await?;
        match row {
            None => Ok(Earlier::Nothing),
            Some(row) if row.fingerprint != used.fingerprint => Ok(Earlier::AnotherRequest),
            Some(row) => self.submitted_before(entity, row.events).await.map(Earlier::Submitted),
        }
    }

    /// Whether missing files are all that is wrong with the request, so that it may be a retry whose files have gone.
    pub(super) fn lacks_only(&self, missing: &[Fault]) -> bool {
        !missing.is_empty() && self.report.faults.is_empty()
    }

    /// Step 2: what the key's first request submitted, if missing files are all that is wrong with this one. Otherwise
    /// they become faults. `place`: the entity in which the key is looked up.
    pub(super) async fn replay_before_refusal(
        &mut self,
        missing: Vec<Fault>,
        place: Option<(EntityKey, CommandContext)>,
    ) -> Result<Option<Submitted>, Problem> {
        if self.lacks_only(&missing)
            && let Some((entity, with)) = place
            && let Earlier::Submitted(submitted) = self.earlier(entity, with).await?
        {
            return Ok(Some(submitted));
        }
        self.report.faults.extend(missing);
        Ok(None)
    }

    /// Steps 6 and 7: what the key's first request submitted; if there is none, late faults are refused.
    pub(super) async fn replay_before_late_faults(
        &mut self,
        entity: EntityKey,
        command_context: CommandContext,
    ) -> Result<Option<Submitted>, Problem> {
        let earlier = self.earlier(entity, command_context).await?;
        if let Earlier::Submitted(submitted) = earlier {
            return Ok(Some(submitted));
        }
        self.report.refuse_late()?;
        earlier.submitted()
    }

    /// Step 8: posts to the conversation. A retry gets the messages of its first request.
    pub(super) async fn submit(
        &self,
        entity: EntityKey,
        post: Post,
        command_context: CommandContext,
    ) -> Result<Submitted, SubmitError> {
        let answer = self.call.node().conversation(entity, post, command_context).await;
        self.submitted(entity, answer.map_err(SubmitError::Refused)?).await
    }

    /// What a conversation has answered to a post.
    pub(super) async fn submitted(&self, entity: EntityKey, answer: Answer<Posted>) -> Result<Submitted, SubmitError> {
        match answer {
            Answer::Done(Posted { messages, turn }) => Ok(Submitted { messages, turn, replay: Replay::First }),
            Answer::Repeat(effect) => Ok(self.submitted_before(entity, effect).await?),
        }
    }

    /// The messages among the events with these sequences.
    async fn submitted_before(&self, entity: EntityKey, range: SeqRange) -> Result<Submitted, Problem> {
        let events = log::between(self.call.node(), entity, range).await?;
        Ok(Submitted { messages: events.iter().filter_map(message_of).collect(), turn: None, replay: Replay::Repeated })
    }

    /// Renders an answer and finishes it.
    pub(super) fn answer<T: serde::Serialize>(&self, status: StatusCode, value: &T, replay: Replay) -> Response {
        self.finish(answer::json(status, value), replay)
    }

    /// Finishes an answer.
    pub(super) fn finish(&self, response: Response, replay: Replay) -> Response {
        replay.mark(answer::with_ignored_fields(response, &self.report.ignored))
    }
}
