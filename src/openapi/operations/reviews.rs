//! Reviews and events.

use utoipa::openapi::HttpMethod::{Get, Post};

use super::super::examples;
use super::super::operation::OperationDoc;
use super::super::shape::{Detailed as _, integer, named, text, word};
use super::{READ, WRITE, id};
use crate::http::reviews::{DEFAULT_WAIT_SECONDS, MAX_WAIT_SECONDS};

const RESPOND: &[&str] = &["reviews:respond"];

pub(super) fn operations() -> Vec<OperationDoc> {
    vec![list(), get(), wait(), respond(), cancel()]
}

fn list() -> OperationDoc {
    let statuses = word("", &["pending", "completed", "expired", "cancelled"]);
    OperationDoc::new(
        Get,
        "/api/v1/reviews",
        ("listReviews", "List reviews"),
        "Reviews",
        READ,
        "The inbox, by time of the request.",
    )
    .query("status", "Only reviews with this status.", statuses)
    .query("channelId", "Only reviews on this channel.", text(""))
    .paged()
    .answers(200, "A page of reviews.", named("InboxReviewPage"), &[])
    .with_headers(&["Link"])
    .refused(404, &["channel_not_found"])
}

fn get() -> OperationDoc {
    OperationDoc::new(
        Get,
        "/api/v1/reviews/{id}",
        ("getReview", "Read a review"),
        "Reviews",
        READ,
        "The current state.",
    )
    .path("id", "The review: its message's id.", id())
    .answers(200, "The review.", named("InboxReview"), &[])
    .refused(404, &["review_not_found"])
}

fn wait() -> OperationDoc {
    let about = "Responds as soon as the review ends. If the time passes or the server stops first, responds with the \
                 review as it is: still `pending`.";
    OperationDoc::new(
        Get,
        "/api/v1/reviews/{id}/wait",
        ("waitForReview", "Wait for a review's outcome"),
        "Reviews",
        READ,
        about,
    )
    .path("id", "The review.", id())
    .query(
        "timeout",
        "How long to wait, in seconds.",
        integer("", 0, Some(MAX_WAIT_SECONDS.into())).or(DEFAULT_WAIT_SECONDS),
    )
    .shared("Prefer")
    .answers(200, "The outcome, or the review, still pending.", named("InboxReview"), &[])
    .with_headers(&["Preference-Applied"])
    .refused(400, &["out_of_range", "invalid_query"])
    .refused(404, &["review_not_found"])
}

fn respond() -> OperationDoc {
    let about = "The first response decides, or the quorum. At or after the deadline every response is refused, even \
                 before the expiry is announced.";
    OperationDoc::new(
        Post,
        "/api/v1/reviews/{id}/respond",
        ("respondToReview", "Answer a review"),
        "Reviews",
        RESPOND,
        about,
    )
    .path("id", "The review.", id())
    .keyed()
    .body_with_own_code(named("ReviewAnswer"), "The answer.", &[examples::ANSWER])
    .answers(200, "The review after this response.", named("InboxReview"), &[])
    .with_headers(&["Idempotent-Replayed"])
    .refused(400, &["invalid_response", "too_long", "too_large", "too_deep"])
    .refused(403, &["responder_not_allowed"])
    .refused(404, &["review_not_found"])
    .refused(409, &["review_already_completed", "review_expired", "already_voted", "too_many_votes", "message_deleted"])
    .refused(429, &["conversation_backlog"])
}

fn cancel() -> OperationDoc {
    let about = "Withdraws the question. Only its sender may.";
    OperationDoc::new(Post, "/api/v1/reviews/{id}/cancel", ("cancelReview", "Cancel a review"), "Reviews", WRITE, about)
        .path("id", "The review.", id())
        .keyed()
        .empty_body()
        .answers(200, "The cancelled review.", named("InboxReview"), &[])
        .with_headers(&["Idempotent-Replayed"])
        .refused(403, &["not_the_sender"])
        .refused(404, &["review_not_found"])
        .refused(409, &["review_already_completed", "review_expired", "message_deleted"])
        .refused(429, &["conversation_backlog"])
}
