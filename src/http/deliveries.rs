//! `/webhook-deliveries`: the state of each event's delivery to each receiver.
//!
//! Ended deliveries are in lists. Pending ones are not stored; they follow from the logs that have events to send, and
//! those logs are listed. So a page of both shows first the ended ones, by the time of their event, and then the
//! pending ones, by endpoint and log.

use actors::directory::{Answer, CommandContext};
use actors::id::{DeliveryId, EntityKey, Kind};
use actors::outbox::keys::parse_ended_key;
use actors::outbox::pending::{self, DeliveryState};
use actors::outbox::{LaneRow, Sending};
use actors::tables::WEBHOOK_ENDPOINTS;
use axum::extract::Path;
use axum::response::Response;
use http::StatusCode;

use super::answer::{json, mark_replayed, with_ignored_fields, with_location};
use super::body::OptionalJsonBytes;
use super::call::{Allowed, Call};
use super::caller::Admin;
use super::paging::{Page, PageRequest};
use super::query::Query;
use super::refusal::{problem_of, unreadable_outcome};
use super::resource;
use crate::app::App;
use crate::problem::Problem;

mod filter;
mod found;
mod page;
mod place;
mod position;
mod view;

use filter::Filter;
use page::PageBuilder;
use view::DeliveryView;

/// 404: no such delivery in the workspace.
fn delivery_not_found() -> Problem {
    Problem::not_found("delivery_not_found", "this workspace has no such delivery")
}

/// 409: its receiver does not exist any more.
fn endpoint_deleted() -> Problem {
    let detail = "the endpoint of this delivery was deleted; the delivery is unchanged and nothing is sent";
    Problem::conflict("endpoint_deleted", detail)
}

/// `GET /webhook-deliveries?status=&endpointId=&eventId=`.
///
/// # Errors
/// 400 for a wrong page or filter.
pub(super) async fn list(Allowed { call, .. }: Allowed<Admin>, query: Query) -> Result<Response, Problem> {
    let value_of = |name: &str| query.get(name).unwrap_or_default().to_owned();
    let filters = ["status", "endpointId", "eventId"].map(value_of).join("/");
    let list = format!("deliveries/{}/{filters}", call.caller.workspace);
    let (filter, request) = Problem::both(Filter::of(&query), PageRequest::from_query(&query, &list))?;
    let Page { data, next } = PageBuilder::of(&call, &request, filter).page().await?;
    let data = data.into_iter().map(DeliveryView::of).collect();
    Ok(Page { data, next }.into_response(&list, &call.context.uri))
}

async fn find(call: &Call, id: &str) -> Result<DeliveryState, Problem> {
    let id = DeliveryId::parse(id).ok_or_else(delivery_not_found)?;
    let found = pending::find(call.node(), call.caller.address, id).await?;
    found.ok_or_else(delivery_not_found)
}

/// `GET /webhook-deliveries/{id}`.
///
/// # Errors
/// 404 `delivery_not_found`.
pub(super) async fn get(Allowed { call, .. }: Allowed<Admin>, Path(id): Path<String>) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &DeliveryView::of(find(&call, &id).await?)))
}

/// `POST /webhook-deliveries/{id}/retry`: sends an ended delivery once more, and tries a waiting one now.
///
/// # Errors
/// 400, 404 `delivery_not_found`, 409 `endpoint_deleted`, 422.
pub(super) async fn retry(
    Path(id): Path<String>,
    Allowed { call, body, .. }: Allowed<Admin, OptionalJsonBytes>,
) -> Result<Response, Problem> {
    let (command_context, ignored) = call.read_without_members(body.as_ref())?;
    let delivery = find(&call, &id).await?;
    let key = parse_ended_key(call.caller.address, &delivery.id.0).ok_or_else(delivery_not_found)?;
    let (_, entity, key) = key;
    if let Some(response) = call.forward(entity, body.as_ref(), &command_context).await? {
        return Ok(response);
    }
    // The retry would replace the known delivery, and could go nowhere.
    let is_deleted = match delivery.receiver.endpoint() {
        Some(id) => {
            resource::row(&call.app, call.caller.registry(), WEBHOOK_ENDPOINTS, &id.to_string()).await?.is_none()
        }
        None => false,
    };
    let sending = if is_deleted { Sending::Nothing } else { Sending::Again { key, receiver: delivery.receiver } };
    let answer = request_delivery(&call.app, entity, sending, command_context).await?;
    if is_deleted && matches!(answer, Answer::Done(_)) {
        return Err(endpoint_deleted());
    }
    let waiting = match (&answer, command_context.key) {
        (Answer::Repeat(_), Some(with)) => pending::retried(call.node(), entity, key, with.hash).await?.map(Box::new),
        (Answer::Repeat(_), None) => None,
        (Answer::Done(waiting), _) => waiting.clone(),
    };
    let delivery = match waiting {
        Some(waiting) => delivery.retry_requested(*waiting),
        // It is being sent already, or too many other keys have requested it since.
        None => find(&call, &id).await.map_err(unreadable_outcome)?,
    };
    let response = json(StatusCode::ACCEPTED, &DeliveryView::of(delivery));
    let response = if matches!(answer, Answer::Repeat(_)) { mark_replayed(response) } else { response };
    Ok(with_ignored_fields(with_location(response, &format!("/webhook-deliveries/{id}")), &ignored))
}

/// Sends the command to the log's entity. Returns the state of the delivery's lane, if there was anything to do.
async fn request_delivery(
    app: &App,
    entity: EntityKey,
    sending: Sending,
    command_context: CommandContext,
) -> Result<Answer<Option<Box<LaneRow>>>, Problem> {
    if entity.kind == Kind::Contact {
        let answer = app.node().contact(entity, sending, command_context).await;
        answer.map_err(|refusal| problem_of(refusal, |_| delivery_not_found()))
    } else {
        let answer = app.node().conversation(entity, sending, command_context).await;
        answer.map_err(|refusal| problem_of(refusal, |_| delivery_not_found()))
    }
}
