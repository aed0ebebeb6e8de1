//! Messages: one path for two shapes, the channel routes that share it, and reading them back.

use actors::channel::{CHANNELS, Channel, ChannelKind};
use actors::conversation::{Event, Rejection};
use actors::directory::{Circumstances, KeyUse};
use actors::id::{Address, EntityKey};
use actors::machine::Record;
use actors::message::{Json, ReviewState};
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};

use super::answer;
use super::attachments::link::already_linked;
use super::body::JsonRequest;
use super::caller::{Allowed, Caller, Write};
use super::context::RequestContext;
use super::headers::idempotency_key;
use super::headers::key::{IDEMPOTENCY_KEY, X_IDEMPOTENCY_KEY};
use super::idempotency;
use super::incoming::report;
use super::log;
use super::problem::Problem;
use super::refusal::{key_reused, store_problem};
use crate::app::App;
use crate::json::Object;
use crate::json::report::Report;
use crate::wire::Rules;
use crate::wire::fingerprint::fingerprint;
use crate::wire::json_view::review_status;
use crate::wire::shape::{self, Shape};
use crate::wire::time;

pub(super) mod change;
mod channel;
mod contact;
mod conversation;
mod exchange;
pub(crate) mod list;
pub(crate) mod media;
pub(super) mod one;

pub(super) use change::shown_to;
pub(super) use channel::sender;
pub(super) use conversation::new_address;
pub(super) use exchange::{replies, trigger, turn_of};

/// A request that carries a message, before its body's shape is known.
struct Inbound<'a> {
    app: &'a App,
    caller: &'a Caller,
    context: &'a RequestContext,
    headers: &'a HeaderMap,
    body: Object<'a>,
    report: Report,
}

impl<'a> Inbound<'a> {
    fn new(
        app: &'a App,
        caller: &'a Caller,
        context: &'a RequestContext,
        headers: &'a HeaderMap,
        bytes: &'a [u8],
    ) -> Result<Self, Problem> {
        let body = Object::parse(bytes)?;
        Ok(Self { app, caller, context, headers, body, report: report(context) })
    }

    /// Reads the body as one shape; the rest of the request goes on without it.
    fn read<T>(
        mut self,
        read: impl FnOnce(Object<'a>, Rules<'_>, &mut Report) -> T,
        client_id: impl FnOnce(&T) -> Option<&str>,
    ) -> (T, Accepting<'a>) {
        // Hashing a body is only worth it where somebody may ask for it again.
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
        let Self { caller, context, headers, report, .. } = self;
        (post, Accepting { app, caller, context, headers, report, keyed })
    }
}

/// An idempotency key and the request that it came with.
struct Keyed {
    key: String,
    fingerprint: [u8; 16],
}

impl Keyed {
    fn used(&self, scope: &str) -> KeyUse {
        KeyUse::within(idempotency::key_hash(scope, &self.key), self.fingerprint)
    }

    /// Where the scope is the workspace. The conversation that the key opens is its home, so it needs no claim there.
    fn used_in(&self, workspace: Address) -> KeyUse {
        KeyUse::within(idempotency::workspace_key_hash(workspace, &self.key), self.fingerprint)
    }
}

/// A request whose body has been read.
pub(in crate::http) struct Accepting<'a> {
    pub(in crate::http) app: &'a App,
    pub(in crate::http) caller: &'a Caller,
    pub(in crate::http) context: &'a RequestContext,
    headers: &'a HeaderMap,
    report: Report,
    keyed: Option<Keyed>,
}

impl Accepting<'_> {
    fn circumstances(&self, scope: &str) -> Circumstances {
        let key = self.keyed.as_ref().map(|keyed| keyed.used(scope));
        Circumstances { key, ..idempotency::without_key(self.context) }
    }

    fn circumstances_in_workspace(&self) -> Circumstances {
        let key = self.keyed.as_ref().map(|keyed| keyed.used_in(self.caller.address));
        Circumstances { key, ..idempotency::without_key(self.context) }
    }

    /// The events that the request's key has led to in an entity, if it was used there; for the cases in which that
    /// has to be known before the entity is asked.
    async fn earlier_effect(&self, entity: EntityKey, scope: &str) -> Result<Option<Vec<Record<Event>>>, Problem> {
        self.effect_of(entity, self.circumstances(scope)).await
    }

    /// The same for a key of any scope.
    async fn effect_of(&self, entity: EntityKey, with: Circumstances) -> Result<Option<Vec<Record<Event>>>, Problem> {
        let Some(used) = with.key else { return Ok(None) };
        let row = self.app.node().key(entity, used.hash).await.map_err(store_problem)?;
        match row {
            None => Ok(None),
            Some(row) if row.fingerprint != used.fingerprint => Err(key_reused()),
            Some(row) => self.effect(entity, row.first, row.last).await.map(Some),
        }
    }

    /// The events with these sequences.
    async fn effect(&self, entity: EntityKey, first: u64, last: u64) -> Result<Vec<Record<Event>>, Problem> {
        log::between(self.app.node(), entity, (first, last)).await.map_err(store_problem)
    }

    /// Writes an answer and finishes it.
    fn answer<T: serde::Serialize>(&self, status: StatusCode, value: &T, replay: bool) -> Response {
        self.finish(answer::json(status, value), replay)
    }

    /// Finishes an answer.
    fn finish(&self, response: Response, replay: bool) -> Response {
        let response = answer::ignoring(response, &self.report.ignored);
        if replay { answer::replayed(response) } else { response }
    }
}

/// `POST /messages`.
pub(super) async fn post_message(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Write>,
    context: RequestContext,
    JsonRequest { headers, body }: JsonRequest,
) -> Result<Response, Problem> {
    let inbound = Inbound::new(&app, &caller, &context, &headers, &body)?;
    let schema = headers.get("x-message-schema").map(|value| value.to_str().unwrap_or("?"));
    match shape::choose(&inbound.body, schema)? {
        Shape::Channel => channel::post(inbound, None).await,
        Shape::Conversation => conversation::post(inbound, None).await,
    }
}

/// `POST /conversations/{id}/messages`.
pub(super) async fn post_to_conversation(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Write>,
    context: RequestContext,
    Path(conversation): Path<String>,
    JsonRequest { headers, body }: JsonRequest,
) -> Result<Response, Problem> {
    let inbound = Inbound::new(&app, &caller, &context, &headers, &body)?;
    conversation::post(inbound, Some(&conversation)).await
}

/// The channel's kind says whose route this is; where the channel is unknown, the body does.
pub(super) async fn post_to_channel(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Write>,
    context: RequestContext,
    Path(channel): Path<String>,
    JsonRequest { headers, body }: JsonRequest,
) -> Result<Response, Problem> {
    let inbound = Inbound::new(&app, &caller, &context, &headers, &body)?;
    let known = find_channel(&app, &caller, &channel).await?;
    let of_contact = ["type", "contactIdentifier", "content"].iter().any(|name| inbound.body.has(name));
    let of_channel =
        ["channelId", "text", "status", "review", "attachmentIds"].iter().any(|name| inbound.body.has(name));
    let as_contact = match known.as_deref().map(|channel| channel.kind) {
        Some(ChannelKind::Api) => !of_channel || of_contact,
        Some(ChannelKind::Human) | None => of_contact && !of_channel,
    };
    if as_contact { contact::post(inbound, known).await } else { channel::post(inbound, Some(&channel)).await }
}

/// A channel of the caller's workspace.
pub(in crate::http) async fn find_channel(
    app: &App,
    caller: &Caller,
    channel: &str,
) -> Result<Option<std::sync::Arc<Channel>>, Problem> {
    let row = app.node().configured::<Channel>(caller.registry(), CHANNELS, channel.as_bytes()).await;
    row.map_err(store_problem)
}

/// 404 for a conversation that does not exist, here or at all.
pub(in crate::http) fn conversation_not_found() -> Problem {
    Problem::not_found("conversation_not_found", "there is no such conversation")
}

/// 400 for a channel of the other kind.
pub(in crate::http) fn kind_mismatch(pointer: &str, kind: ChannelKind) -> Problem {
    let message = match kind {
        ChannelKind::Human => "this is a human channel: it takes channel messages with text, review or status",
        ChannelKind::Api => {
            "this is an api channel: it takes messages of contacts with type, contactIdentifier and content"
        }
    };
    Problem::fault(pointer, "channel_kind_mismatch", message)
}

fn channel_disabled() -> Problem {
    Problem::conflict("channel_disabled", "this channel is disabled and takes no messages")
}

/// 412: it is not what the client saw.
pub(in crate::http) fn precondition_failed() -> Problem {
    let detail = "it is not the one that If-Match names any more; read it again";
    Problem::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail)
}

/// 404 for a review that does not exist, here or at all.
pub(in crate::http) fn review_not_found() -> Problem {
    Problem::not_found("review_not_found", "there is no such review")
}

/// How a review ended, beside the refusal of another end.
fn review_state(state: &ReviewState) -> serde_json::Value {
    let json = |json: &Json| serde_json::from_str::<serde_json::Value>(json.as_str()).unwrap_or_default();
    serde_json::json!({
        "status": review_status(state.status),
        "response": state.response.as_ref().map(json),
        "feedback": state.feedback,
        "decidedBy": state.decided_by,
        "completedAt": state.completed_at.map(|at| time::format(at).as_str().to_owned()),
    })
}

/// What a conversation's refusals mean to clients.
pub(in crate::http) fn rejected(rejection: Rejection) -> Problem {
    match rejection {
        Rejection::NotFound => conversation_not_found(),
        Rejection::Closed => Problem::conflict("conversation_closed", "this conversation is closed"),
        Rejection::Erased => Problem::conflict(
            "conversation_erased",
            "the contact of this conversation was erased, and its words with it",
        ),
        Rejection::BeingCopied => {
            Problem::unavailable("contended", "this conversation is a copy that is still being made", 1)
        }
        Rejection::ParentNotFound { .. } => {
            Problem::fault("/content/parent_message_id", "parent_not_found", "is no message of this conversation")
        }
        Rejection::IterationNotFound => {
            Problem::fault("/iterationOf", "message_not_found", "is no earlier message of this channel")
        }
        Rejection::AttachmentLinked(id) | Rejection::AttachmentLost(id) => already_linked(id),
        Rejection::TurnInProgress => {
            Problem::conflict("turn_in_progress", "a turn is running, and this channel takes no message meanwhile")
        }
        Rejection::TooManyTurns => {
            Problem::too_many("conversation_backlog", "too many turns wait in this conversation", 1)
        }
        Rejection::MessageNotFound => one::message_not_found(),
        Rejection::MessageDeleted => Problem::conflict("message_deleted", "this message was deleted"),
        Rejection::MessageChanged | Rejection::Changed => precondition_failed(),
        Rejection::ReviewNotFound => review_not_found(),
        Rejection::ReviewOver(state) => {
            Problem::conflict("review_already_completed", "this review is over; see review for how it ended")
                .with("review", review_state(&state))
        }
        Rejection::ReviewExpired(state) => {
            Problem::conflict("review_expired", "the time to answer this review is over")
                .with("review", review_state(&state))
        }
        Rejection::AlreadyVoted => Problem::conflict("already_voted", "this principal has answered this review before"),
        Rejection::TooManyVotes => {
            Problem::conflict("too_many_votes", "the votes on this review leave no room for another one")
        }
        Rejection::NotAllowed => Problem::new(
            StatusCode::FORBIDDEN,
            "responder_not_allowed",
            "this principal is not among those who may answer this review",
        ),
        Rejection::TurnNotFound => Problem::not_found("turn_not_found", "there is no such turn"),
        Rejection::TurnNotPossible(_) => Problem::conflict("turn_over", "this turn is over"),
    }
}
