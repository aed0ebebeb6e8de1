//! Reviews: the inbox, waiting for an outcome, and deciding.

use std::pin::pin;
use std::time::Duration;

use actors::conversation::post::parse_review_key;
use actors::conversation::review::{Response as Given, standing};
use actors::conversation::{Command, Event, Rejection, Reply};
use actors::directory::{Answer, Circumstances, Refusal};
use actors::id::MessageId;
use actors::message::{Alike, Gone, Json, Message, Overlay, Review, ReviewState, ReviewStatus};
use actors::tables::{PENDING_REVIEWS, REVIEWS};
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use super::answer::{ignoring, json, replayed};
use super::body::{JsonBytes, OptionalJsonBytes};
use super::caller::{Allowed, Caller, Read, Respond, Write, still_known};
use super::context::RequestContext;
use super::context::render::internal_error;
use super::headers::prefer;
use super::headers::prefer::applying;
use super::incoming::Incoming;
use super::listing::Listing;
use super::log;
use super::messages::one::{StoredMessage, look_up};
use super::messages::{find_channel, sender, shown_to};
use super::paging::{Page, PageRequest};
use super::passing::Whole;
use super::problem::{Fault, Problem};
use super::query::Query;
use super::refusal::{problem_of, store_problem};
use crate::app::App;
use crate::http::refusal::channel::channel_not_found;
use crate::http::refusal::conversation::{rejected, review_not_found};
use crate::json::canonical::canonical;
use crate::json::fields::{Fields, Length};
use crate::json::report::Report;
use crate::wire::bounds::ANSWER;
use crate::wire::channel_message::view::{ReviewView, review_view};
use crate::wire::fingerprint;
use crate::wire::json_view::{Shown, sender_type};
use crate::wire::review_response::{self, RESPONSE_SCHEMA};
use crate::wire::time::Time;

/// The longest wait for an outcome, in seconds.
pub(crate) const WAIT_MAX_SECONDS: u32 = 55;
/// How long is waited where nothing is said, in seconds.
pub(crate) const WAIT_DEFAULT_SECONDS: u32 = 30;
/// How often the store is asked while nothing is heard, where the review may be decided in another process.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// The longest feedback, in bytes of UTF-8.
const FEEDBACK_BYTES: usize = 16 * 1024;
/// A payload and an answer that are not longer than this and have no schema are compared within microseconds.
const QUICK_BYTES: usize = 4 * 1024;
/// How a review stands, by its word.
const STATUSES: [(&str, ReviewStatus); 4] = [
    ("pending", ReviewStatus::Pending),
    ("completed", ReviewStatus::Completed),
    ("expired", ReviewStatus::Expired),
    ("cancelled", ReviewStatus::Cancelled),
];

/// A review as whoever answers it sees it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InboxView<'a> {
    id: Shown<MessageId>,
    message_id: Shown<MessageId>,
    channel_id: Option<&'a str>,
    sender_type: &'static str,
    sender_id: &'a str,
    created_at: Time,
    text: Option<&'a str>,
    #[serde(flatten)]
    review: ReviewView<'a>,
}

/// A review with its message.
struct Asked {
    found: StoredMessage,
    review: Review,
    state: ReviewState,
}

impl Asked {
    fn of(found: StoredMessage, app: &App) -> Option<Self> {
        let review = found.message.content.review.clone()?;
        let state = standing(&review, found.overlay.review.as_ref(), app.now());
        Some(Self { found, review, state })
    }

    fn message(&self) -> &Message {
        &self.found.message
    }

    /// 403 for who may not answer. The decision checks it again.
    fn refuse_strangers(&self, caller: &Caller) -> Result<(), Problem> {
        match &self.review.quorum {
            Some(quorum) if !quorum.allows(&caller.key.principal.id) => Err(rejected(Rejection::NotAllowed)),
            Some(_) | None => Ok(()),
        }
    }

    fn view(&self) -> InboxView<'_> {
        let StoredMessage { message, overlay, origin, .. } = &self.found;
        InboxView {
            id: Shown(message.id),
            message_id: Shown(message.id),
            channel_id: origin.channel(),
            sender_type: sender_type(message.content.sender.kind),
            sender_id: match origin.human_channel() {
                Some(channel) => message.content.sender.id_on(channel),
                None => &message.content.sender.id,
            },
            created_at: Time(message.id.at),
            text: overlay.text.as_deref().or(message.content.text.as_deref()).filter(|_| !self.is_gone()),
            review: self.review(),
        }
    }

    /// The review alone, as its message shows it.
    fn review(&self) -> ReviewView<'_> {
        review_view(&self.review, Some(&self.state), self.is_gone())
    }

    /// A decision outlives its message: only a reader of the message as it is now, or of an erased one, sees none.
    fn is_gone(&self) -> bool {
        let StoredMessage { message, overlay, .. } = &self.found;
        overlay.deleted || message.gone(overlay) == Some(Gone::Erased)
    }
}

async fn find(app: &App, caller: &Caller, id: &str) -> Result<Asked, Problem> {
    let id = MessageId::parse(id).ok_or_else(review_not_found)?;
    let found = look_up(app, caller, id).await?.ok_or_else(review_not_found)?;
    Asked::of(found, app).ok_or_else(review_not_found)
}

/// `GET /reviews/{id}`.
pub(super) async fn get(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &find(&app, &caller, &id).await?.view()))
}

/// `GET /reviews`.
pub(super) async fn list(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    context: RequestContext,
    query: Query,
) -> Result<Response, Problem> {
    let list = format!("reviews/{}", caller.workspace);
    let (request, status) = Problem::both(PageRequest::from_query(&query, &list), query.choice("status", &STATUSES))?;
    let channel = query.given("channelId");
    let channel = match channel {
        Some(id) => {
            let channel = find_channel(&app, &caller, id).await?.ok_or_else(channel_not_found)?;
            Some(channel.conversation(caller.address).id)
        }
        None => None,
    };
    let view = if status == Some(ReviewStatus::Pending) { PENDING_REVIEWS } else { REVIEWS };
    let load = async |key: Bytes| {
        let id = parse_review_key(&key).ok_or_else(internal_error)?;
        if channel.is_some_and(|channel| id.entity != channel) {
            return Ok(None);
        }
        match find(&app, &caller, &id.to_string()).await {
            Ok(asked) if status.is_some_and(|status| asked.state.status != status) => Ok(None),
            Ok(asked) => {
                let weight = asked.found.weight();
                Ok(Some((asked, weight)))
            }
            Err(problem) if problem.status == StatusCode::NOT_FOUND => Ok(None),
            Err(problem) => Err(problem),
        }
    };
    let page = Listing { workspace: caller.address, view, prefix: b"" }.page(&app, &request, load).await?;
    let data = page.data.iter().map(Asked::view).collect();
    Ok(Page { data, next: page.next }.into_response(&list, &context.uri))
}

/// How long a wait may last: as the query says, but no longer than the client prefers.
fn wait_seconds(query: &Query, preferred: Option<u32>) -> Result<u32, Problem> {
    let most = preferred.unwrap_or(WAIT_MAX_SECONDS).min(WAIT_MAX_SECONDS);
    let Some(text) = query.get("timeout") else { return Ok(preferred.map_or(WAIT_DEFAULT_SECONDS, |_| most)) };
    // The contract has one code for whatever is no number of seconds in the range. A sign is part of no number here.
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let seconds = digits.and_then(|digits| digits.parse().ok()).filter(|seconds| *seconds <= WAIT_MAX_SECONDS);
    seconds.map(|seconds: u32| seconds.min(most)).ok_or_else(|| {
        Problem::fault("/timeout", "out_of_range", format!("must be from 0 to {WAIT_MAX_SECONDS} seconds"))
    })
}

/// Answers with the outcome as soon as there is one, or with how it stands when the time is over.
pub(super) async fn wait(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Problem> {
    let preferred = prefer(&headers).wait;
    let (seconds, ()) = Problem::both(wait_seconds(&query, preferred), query.check())?;
    // Where too many wait already, it is answered as it stands.
    let permit = app.lasting().enter();
    let deadline = Instant::now() + Duration::from_secs(if permit.is_some() { seconds.into() } else { 0 });
    let asked = find(&app, &caller, &id).await?;
    let mut events = app.node().subscribe(asked.found.entity);
    // From here on nothing can be missed; what happened before the subscription is seen by looking again.
    let mut asked = find(&app, &caller, &id).await?;
    let mut stopped = pin!(app.left());
    // Where others may decide it, and where a look has failed: when the next one is, whatever is heard meanwhile.
    let look_again = || app.node().shares_its_store().then(|| Instant::now() + ASK_AGAIN);
    let (mut look_at, mut unseen) = (look_again(), false);
    while asked.state.status == ReviewStatus::Pending && Instant::now() < deadline {
        let left = Duration::from_millis(asked.review.expires_at.since(app.now()).max(1));
        // One whose time is over is looked at, unless that has just failed.
        let until = if unseen { deadline } else { deadline.min(Instant::now() + left) };
        let until = look_at.map_or(until, |look_at| until.min(look_at));
        let heard = tokio::select! {
            heard = timeout_at(until, events.recv()) => heard,
            // Whoever waits when the server stops is told how it stands, and may ask another one.
            () = &mut stopped => break,
        };
        let about_this = match &heard {
            Ok(Ok(record)) => match &record.event {
                Event::ReviewCompleted(end) | Event::ReviewExpired(end) | Event::ReviewCancelled(end) => {
                    end.message == asked.message().id
                }
                _ => false,
            },
            Ok(Err(_)) | Err(_) => true,
        };
        if about_this || look_at.is_some_and(|at| at <= Instant::now()) {
            match find(&app, &caller, &id).await {
                Ok(found) => (asked, look_at, unseen) = (found, look_again(), false),
                // The next look may find it. The one in the end tells what it fails with.
                Err(problem) if problem.status == StatusCode::SERVICE_UNAVAILABLE => {
                    (look_at, unseen) = (Some(Instant::now() + ASK_AGAIN), true);
                }
                Err(problem) => return Err(problem),
            }
        }
    }
    if unseen {
        asked = find(&app, &caller, &id).await?;
    }
    still_known(&app, &caller).await?;
    let applied = preferred.filter(|_| permit.is_some()).map(|_| format!("wait={seconds}"));
    Ok(applying(json(StatusCode::OK, &asked.view()), applied))
}

/// What a body says as an answer.
fn read_answer(fields: &mut Fields<'_>, report: &mut Report) -> (Option<Json>, Option<String>) {
    let response = fields.required(report, "response");
    let response = response.and_then(|value| {
        if !value.is_object() {
            // The contract has one code for whatever is no answer to the question.
            report.fault(&value.path, "invalid_response", "must be an object");
            return None;
        }
        value.free_object(report, ANSWER)
    });
    let feedback = fields.string(report, "feedback", Length::bytes(0, FEEDBACK_BYTES));
    (response, feedback.map(std::borrow::Cow::into_owned))
}

/// Every fault of an answer to this review.
fn faults_of(review: &Review, response: &Json) -> Vec<Fault> {
    match serde_json::from_str(response.as_str()) {
        Ok(value) => review_response::faults(review, &value, response),
        // It is JSON, so what cannot be read is a number beyond the doubles.
        Err(error) => vec![Fault::new("/response", "invalid_response", format!("cannot be read: {error}"))],
    }
}

/// The same for any answer: a client's own schema and a long answer may take a while, and nobody else waits for it.
async fn judge(review: &Review, response: Json) -> Result<Vec<Fault>, Problem> {
    let is_short = |json: &Json| json.as_str().len() <= QUICK_BYTES;
    // A name may be written with escapes.
    let has_no_schema = |json: &Json| !json.as_str().contains(RESPONSE_SCHEMA) && !json.as_str().contains('\\');
    if is_short(&response) && review.payload.as_ref().is_none_or(|payload| is_short(payload) && has_no_schema(payload))
    {
        return Ok(faults_of(review, &response));
    }
    let review = review.clone();
    tokio::task::spawn_blocking(move || faults_of(&review, &response)).await.map_err(|_| internal_error())
}

/// `POST /reviews/{id}/respond`.
pub(super) async fn respond(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Respond>,
    context: RequestContext,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<JsonBytes, Problem>,
) -> Result<Response, Problem> {
    // Who may not answer is told so whatever they say.
    let asked = find(&app, &caller, &id).await;
    if let Ok(asked) = &asked {
        asked.refuse_strangers(&caller)?;
    }
    let JsonBytes(bytes) = body?;
    let mut incoming = Incoming::read(&context, &headers, Some(&bytes))?;
    let with = incoming.circumstances(&context, &caller);
    let mut fields = incoming.fields();
    let (response, feedback) = read_answer(&mut fields, &mut incoming.report);
    fields.finish(&mut incoming.report);
    if let Ok(asked) = &asked {
        // Nobody knows any more what was asked where the message is gone. Its review is over, which the decision tells.
        if let Some(given) = response.clone().filter(|_| asked.message().gone(&asked.found.overlay).is_none()) {
            incoming.report.faults.extend(judge(&asked.review, given).await?);
        }
    }
    let ignored = incoming.report.check()?;
    let (asked, response) = (asked?, response.ok_or_else(internal_error)?);
    let whole = Whole::of(&app, &context, &headers, &bytes, with.key.is_some());
    if let Some(response) = whole.pass_on(asked.found.entity).await? {
        return Ok(response);
    }
    let alike = asked.review.quorum.as_ref().map(|_| Alike {
        print: fingerprint::of_value(response.as_str()),
        canonical: Json::from_checked(canonical(response.as_str())),
    });
    let principal = caller.key.principal.id.clone();
    let command = Command::Respond(Given { message: asked.message().id, response, alike, feedback, principal });
    let answered = decide(&app, &caller, asked, command, with).await?;
    Ok(ignoring(answered, &ignored))
}

/// `POST /reviews/{id}/cancel`.
pub(super) async fn cancel(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Write>,
    context: RequestContext,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<OptionalJsonBytes, Problem>,
) -> Result<Response, Problem> {
    let asked = find(&app, &caller, &id).await;
    if let Ok(asked) = &asked {
        let channel = asked.found.origin.human_channel().unwrap_or_default();
        if sender(&caller, channel) != asked.message().content.sender {
            let detail = "only its sender may cancel a review";
            return Err(Problem::new(StatusCode::FORBIDDEN, "not_the_sender", detail));
        }
    }
    let OptionalJsonBytes(body) = body?;
    let (with, ignored) = Incoming::bare(&context, &caller, &headers, body.as_ref())?;
    let asked = asked?;
    let whole = Whole::of(&app, &context, &headers, body.as_ref(), with.key.is_some());
    if let Some(response) = whole.pass_on(asked.found.entity).await? {
        return Ok(response);
    }
    let command = Command::CancelReview { message: asked.message().id };
    Ok(ignoring(decide(&app, &caller, asked, command, with).await?, &ignored))
}

/// How the review stood after this principal's vote, which did not decide it; as it stands where there is none.
fn after_vote(now: &ReviewState, principal: &str) -> ReviewState {
    match now.votes.iter().position(|vote| vote.principal == principal) {
        Some(at) => ReviewState {
            status: ReviewStatus::Pending,
            response: None,
            feedback: None,
            decided_by: None,
            completed_at: None,
            votes: now.votes[..=at].to_vec(),
        },
        None => now.clone(),
    }
}

/// Asks the conversation, and shows how the review stands then.
async fn decide(
    app: &App,
    caller: &Caller,
    asked: Asked,
    command: Command,
    with: Circumstances,
) -> Result<Response, Problem> {
    let entity = asked.found.entity;
    let key = with.key.map(|key| key.hash);
    let answer = match app.node().conversation(entity, command, with).await {
        Ok(answer) => answer,
        Err(refusal) => {
            let over = match &refusal {
                Refusal::Rejected(Rejection::ReviewOver(state) | Rejection::ReviewExpired(state)) => {
                    Some(state.clone())
                }
                _ => None,
            };
            let problem = problem_of(refusal, rejected);
            return Err(match over {
                Some(state) => problem.with("review", Asked { state: *state, ..asked }.review()),
                None => problem,
            });
        }
    };
    match answer {
        Answer::Done(Reply::Review(state)) => Ok(json(StatusCode::OK, &Asked { state: *state, ..asked }.view())),
        Answer::Done(_) => Err(internal_error()),
        Answer::Repeat { first, last } => {
            let events = log::between(app.node(), entity, (first, last)).await.map_err(store_problem)?;
            let ended = events.into_iter().find_map(|record| match record.event {
                Event::ReviewCompleted(end) | Event::ReviewCancelled(end) => Some(end.state),
                _ => None,
            });
            let state = match ended {
                Some(state) => state,
                // A vote that decided nothing is no event: it is found among the votes. What was read before may be
                // from before it.
                None => {
                    let id = asked.message().id.to_string();
                    after_vote(&find(app, caller, &id).await?.state, &caller.key.principal.id)
                }
            };
            // The words as they were then: edited before, or as accepted. Only what was erased stays gone.
            let overlay = shown_to(app, entity, asked.message().id.number, key).await?.unwrap_or_default();
            let overlay = Overlay { erased: asked.found.overlay.erased, ..overlay };
            let found = StoredMessage { overlay, ..asked.found };
            Ok(replayed(json(StatusCode::OK, &Asked { state, found, ..asked }.view())))
        }
    }
}
