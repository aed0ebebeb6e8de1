//! Reviews: the inbox, waiting for an outcome, and deciding.

use actors::clock::Millis;
use actors::conversation::Rejection;
use actors::conversation::keys::parse_review_key;
use actors::conversation::review::is_unsettled;
use actors::id::MessageId;
use actors::message::{Message, Removal, Review, ReviewState, ReviewStatus};
use actors::tables::{PENDING_REVIEWS, REVIEWS};
use axum::extract::Path;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::answer::json;
use super::call::{Allowed, Call};
use super::caller::{Caller, Read};
use super::listing::Listing;
use super::messages::find_channel;
use super::messages::stored::{StoredMessage, look_up, settle_deadline};
use super::paging::{Page, PageRequest};
use super::query::Query;
use super::refusal::broken;
use crate::http::refusal::channel::channel_not_found;
use crate::http::refusal::conversation::{rejected, review_not_found};
use crate::problem::Problem;
use crate::wire::channel_message::view::{ReviewView, review_view};
use crate::wire::json_view::{AsText, sender_type};
use crate::wire::time::Time;

mod respond;
mod wait;

pub(super) use respond::{cancel, respond};
pub(super) use wait::wait;
pub(crate) use wait::{DEFAULT_WAIT_SECONDS, MAX_WAIT_SECONDS};

/// The statuses of reviews, by name.
const STATUSES: [(&str, ReviewStatus); 4] = [
    ("pending", ReviewStatus::Pending),
    ("completed", ReviewStatus::Completed),
    ("expired", ReviewStatus::Expired),
    ("cancelled", ReviewStatus::Cancelled),
];

/// A review as reviewers see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InboxView<'a> {
    id: AsText<MessageId>,
    message_id: AsText<MessageId>,
    channel_id: Option<&'a str>,
    sender_type: &'static str,
    sender_id: &'a str,
    created_at: Time,
    text: Option<&'a str>,
    #[serde(flatten)]
    review: ReviewView<'a>,
}

/// A review with its message.
struct StoredReview {
    found: StoredMessage,
    review: Review,
    state: ReviewState,
}

impl StoredReview {
    fn of(found: StoredMessage) -> Option<Self> {
        let review = found.message.content.review.clone()?;
        let state = found.overlay.review.clone().unwrap_or_default();
        Some(Self { found, review, state })
    }

    /// Whether its deadline has passed, but how it ended is not known yet.
    fn is_unsettled(&self, now: Millis) -> bool {
        is_unsettled(&self.review, Some(&self.state), now)
    }

    fn message(&self) -> &Message {
        &self.found.message
    }

    /// 403 if the caller may not answer. The decision checks it again.
    fn check_responder(&self, caller: &Caller) -> Result<(), Problem> {
        match &self.review.quorum {
            Some(quorum) if !quorum.allows(&caller.key.principal) => Err(rejected(Rejection::NotAllowed)),
            Some(_) | None => Ok(()),
        }
    }

    fn view(&self) -> InboxView<'_> {
        let StoredMessage { message, overlay, origin, .. } = &self.found;
        InboxView {
            id: AsText(message.id),
            message_id: AsText(message.id),
            channel_id: origin.channel(),
            sender_type: sender_type(message.content.sender.kind),
            sender_id: match origin.human_channel() {
                Some(channel) => message.content.sender.id_on(channel),
                None => &message.content.sender.id,
            },
            created_at: Time(message.id.at),
            text: overlay.text_of(&message.content).filter(|_| !self.is_removed()),
            review: self.review(),
        }
    }

    /// The review alone, as in its message.
    fn review(&self) -> ReviewView<'_> {
        review_view(&self.review, Some(&self.state), self.is_removed())
    }

    /// A decision survives its message: only a reader of the current message, or of an erased one, sees none.
    fn is_removed(&self) -> bool {
        let StoredMessage { message, overlay, .. } = &self.found;
        overlay.deleted || message.removal(overlay) == Some(Removal::Erased)
    }
}

/// A review's id, which is its message's.
fn parse_id(id: &str) -> Result<MessageId, Problem> {
    MessageId::parse(id).ok_or_else(review_not_found)
}

/// A review of the caller's workspace; it is settled until then, if it is overdue.
async fn find_until(call: &Call, id: MessageId, until: Instant) -> Result<StoredReview, Problem> {
    let found = look_up(call, id).await?.ok_or_else(review_not_found)?;
    StoredReview::of(found.settled(call, until).await).ok_or_else(review_not_found)
}

/// A review of the caller's workspace.
async fn find(call: &Call, id: MessageId) -> Result<StoredReview, Problem> {
    find_until(call, id, settle_deadline()).await
}

/// `GET /reviews/{id}`.
pub(super) async fn get(Allowed { call, .. }: Allowed<Read>, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &find(&call, parse_id(&id)?).await?.view()))
}

/// `GET /reviews`.
pub(super) async fn list(Allowed { call, .. }: Allowed<Read>, query: Query) -> Result<Response, Problem> {
    let list = format!("reviews/{}", call.caller.workspace);
    let (request, status) = Problem::both(PageRequest::from_query(&query, &list), query.choice("status", &STATUSES))?;
    let channel = query.given("channelId");
    let channel = match channel {
        Some(id) => {
            let channel = find_channel(&call, id).await?.ok_or_else(channel_not_found)?;
            Some(channel.conversation(call.caller.address).id)
        }
        None => None,
    };
    let view = if status == Some(ReviewStatus::Pending) { PENDING_REVIEWS } else { REVIEWS };
    let until = settle_deadline();
    // `load` shares its captures; the calls come one after the other.
    let permits = Mutex::new(call.app.history().for_parts(call.caller.address, request.limit + 1));
    // A damaged key is an error, not a review of another channel.
    let wanted = |key: &[u8]| channel.is_none_or(|channel| parse_review_key(key).is_none_or(|id| id.entity == channel));
    let load = async |key: Bytes| {
        let id = parse_review_key(&key).ok_or_else(|| broken("an entry of a list of reviews names its message"))?;
        permits.lock().await.read(1).await?;
        match find_until(&call, id, until).await {
            Ok(stored) if status.is_some_and(|status| stored.state.status != status) => Ok(None),
            Ok(stored) => {
                let weight = stored.found.weight();
                Ok(Some((stored, weight)))
            }
            Err(problem) if problem.status == StatusCode::NOT_FOUND => Ok(None),
            Err(problem) => Err(problem),
        }
    };
    let page = Listing { workspace: call.caller.address, view, prefix: b"", placed_early: false }
        .page_where(&call.app, &request, wanted, load)
        .await?;
    let data = page.data.iter().map(StoredReview::view).collect();
    Ok(Page { data, next: page.next }.into_response(&list, &call.context.uri))
}
