//! `/webhook-deliveries`: what became of each event that somebody was to be told of.
//!
//! Those that have ended stand in lists. What is still to be sent is written nowhere; it is worked out from the logs
//! that have something to send, which are listed. So a page of both shows first those that have ended, by the time of
//! their event, and then what is pending, by endpoint and log.

use actors::clock::Millis;
use actors::directory::{Answer, Circumstances};
use actors::id::{DeliveryId, EndpointId, EntityKey, EventId, Kind};
use actors::outbox::lane::TAG_BYTES;
use actors::outbox::pending::{self, DeliveryState, Status};
use actors::outbox::state::{KEPT_MILLIS, ended_from, ended_of, parse_ended_key, parse_pending_key};
use actors::outbox::{Attempt, DeliveryKey, Sending, Waiting};
use actors::store::{KeyHash, Order, Scan, View};
use actors::tables::{ENDED, ENDED_BY_ENDPOINT, FAILED, PENDING, WEBHOOK_ENDPOINTS};
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::answer::{ignoring, json, located, replayed};
use super::body::OptionalJsonBytes;
use super::caller::{Admin, Allowed, Caller};
use super::context::RequestContext;
use super::incoming::Incoming;
use super::listing::range_behind;
use super::paging::{Page, PageRequest};
use super::problem::Problem;
use super::query::Query;
use super::refusal::{problem_of, store_problem, untold};
use super::resource;
use crate::app::App;
use crate::wire::json_view::Shown;
use crate::wire::time::Time;

mod place;

use place::{Place, behind, is_behind, tag_of};

/// Entries looked at for one page; a filter that matches little gives a short page with a cursor behind it.
const SCANNED_MAX: usize = 1_000;

const STATUSES: [(&str, Status); 3] =
    [("pending", Status::Pending), ("delivered", Status::Delivered), ("failed", Status::Failed)];

/// 404: no such delivery in the workspace.
fn delivery_not_found() -> Problem {
    Problem::not_found("delivery_not_found", "this workspace has no such delivery")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DeliveryView {
    id: Shown<DeliveryId>,
    endpoint_id: Option<Shown<EndpointId>>,
    /// Whose URL it is.
    receiver: &'static str,
    event_id: Shown<EventId>,
    event_type: String,
    url: String,
    status: &'static str,
    attempts: Vec<AttemptView>,
    next_attempt_at: Option<Time>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AttemptView {
    at: Time,
    status_code: Option<u16>,
    error: Option<String>,
    duration_ms: u64,
}

impl DeliveryView {
    fn of(delivery: DeliveryState) -> Self {
        let status = STATUSES.iter().find(|(_, status)| *status == delivery.status);
        let attempt = |attempt: Attempt| AttemptView {
            at: Time(attempt.at),
            status_code: attempt.status,
            error: attempt.error,
            duration_ms: attempt.duration_millis,
        };
        Self {
            id: Shown(delivery.id),
            endpoint_id: delivery.receiver.endpoint().map(Shown),
            receiver: delivery.receiver.word(),
            event_id: Shown(delivery.event),
            event_type: delivery.event_type,
            url: delivery.url,
            status: status.map_or("pending", |(word, _)| word),
            attempts: delivery.attempts.into_iter().map(attempt).collect(),
            next_attempt_at: delivery.next_at.map(Time),
        }
    }
}

/// Which deliveries a list shows.
struct Filter {
    status: Option<Status>,
    /// The inner `None`: an id that no endpoint has.
    endpoint: Option<Option<EndpointId>>,
    /// The inner `None`: an id that no event has.
    event: Option<Option<EventId>>,
}

impl Filter {
    fn of(query: &Query) -> Result<Self, Problem> {
        Ok(Self {
            status: query.choice("status", &STATUSES)?,
            endpoint: query.given("endpointId").map(EndpointId::parse),
            event: query.given("eventId").map(EventId::parse),
        })
    }

    fn shows(&self, delivery: &DeliveryState) -> bool {
        self.status.is_none_or(|status| status == delivery.status)
            && self.endpoint.is_none_or(|endpoint| endpoint.is_some() && endpoint == delivery.receiver.endpoint())
            && self.event.is_none_or(|event| event == Some(delivery.event))
    }

    fn has_ended(&self) -> bool {
        self.status != Some(Status::Pending)
    }

    fn has_pending(&self) -> bool {
        matches!(self.status, None | Some(Status::Pending))
    }
}

/// Where a page of the list begins: in which part, and behind what there.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Position {
    /// Behind this entry of those that have ended; empty: at the first.
    Ended(Vec<u8>),
    /// Behind this entry of what is pending, empty for the first; or within it, behind that delivery.
    Pending(Vec<u8>, Option<Place>),
}

impl Position {
    fn parse(cursor: &[u8]) -> Option<Self> {
        match cursor.split_first()? {
            (0, key) => Some(Self::Ended(key.to_vec())),
            (1, key) => Some(Self::Pending(key.to_vec(), None)),
            (2, rest) => {
                let (seq, rest) = rest.split_at_checked(8)?;
                let (tag, key) = rest.split_at_checked(TAG_BYTES)?;
                let place = (u64::from_be_bytes(seq.try_into().ok()?), tag.try_into().ok()?);
                Some(Self::Pending(key.to_vec(), Some(place)))
            }
            _ => None,
        }
    }

    fn cursor(&self) -> Vec<u8> {
        match self {
            Self::Ended(key) => [&[0], &key[..]].concat(),
            Self::Pending(key, None) => [&[1], &key[..]].concat(),
            Self::Pending(key, Some((seq, tag))) => [&[2], &seq.to_be_bytes()[..], tag, &key[..]].concat(),
        }
    }
}

/// A page as it is put together.
struct Gathering<'a> {
    app: &'a App,
    caller: &'a Caller,
    request: &'a PageRequest,
    filter: Filter,
    data: Vec<DeliveryState>,
    scanned: usize,
}

/// Whether a part of the list was read to its end, or where to go on.
type Next = Option<Position>;

/// `GET /webhook-deliveries?status=&endpointId=&eventId=`.
///
/// # Errors
/// 400 for a wrong page or filter.
pub(super) async fn list(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Admin>,
    context: RequestContext,
    query: Query,
) -> Result<Response, Problem> {
    let asked = |name: &str| query.get(name).unwrap_or_default().to_owned();
    let filters = ["status", "endpointId", "eventId"].map(asked).join("/");
    let list = format!("deliveries/{}/{filters}", caller.workspace);
    let (filter, request) = Problem::both(Filter::of(&query), PageRequest::from_query(&query, &list))?;
    let mut gathering =
        Gathering { app: &app, caller: &caller, request: &request, filter, data: Vec::new(), scanned: 0 };
    let next = gathering.run().await?;
    let data = gathering.data.into_iter().map(DeliveryView::of).collect();
    Ok(Page { data, next: next.map(|next| next.cursor()) }.into_response(&list, &context.uri))
}

impl Gathering<'_> {
    async fn run(&mut self) -> Result<Next, Problem> {
        let at = self.request.cursor.as_deref().and_then(Position::parse);
        let (ended, pending) = (self.filter.has_ended(), self.filter.has_pending());
        // What is pending is newer than what has ended, as good as always.
        let parts = match self.request.order {
            Order::Asc => [(true, ended), (false, pending)],
            Order::Desc => [(false, pending), (true, ended)],
        };
        let begins_ended = at.as_ref().map(|at| matches!(at, Position::Ended(_)));
        let passed = |is_ended: bool| begins_ended.is_some_and(|begins| begins != is_ended);
        for (is_ended, is_wanted) in parts.into_iter().skip_while(|(is_ended, _)| passed(*is_ended)) {
            let at = at.clone().filter(|at| matches!(at, Position::Ended(_)) == is_ended);
            let next = match (is_wanted, is_ended) {
                (false, _) => None,
                (true, true) => self.ended(at).await?,
                (true, false) => self.pending(at).await?,
            };
            if next.is_some() {
                return Ok(next);
            }
        }
        Ok(None)
    }

    /// Takes one, unless the page is full.
    fn take(&mut self, delivery: DeliveryState) -> bool {
        if !self.filter.shows(&delivery) {
            return true;
        }
        if self.data.len() == self.request.limit {
            return false;
        }
        self.data.push(delivery);
        true
    }

    async fn ended(&mut self, at: Option<Position>) -> Result<Next, Problem> {
        let all = if self.filter.status == Some(Status::Failed) { FAILED } else { ENDED };
        let kept_from = Millis(self.app.now().0.saturating_sub(KEPT_MILLIS));
        // Before an entry's own key stands an endpoint's id, where it is of the endpoint's list.
        let (view, before, prefix): (View, usize, Vec<u8>) = match (self.filter.event, self.filter.endpoint) {
            (Some(None), _) | (_, Some(None)) => return Ok(None),
            (Some(Some(event)), _) if event.at < kept_from => return Ok(None),
            (Some(Some(event)), _) => (all, 0, ended_of(event).to_vec()),
            (None, Some(Some(endpoint))) if all == ENDED => {
                let of_endpoint = endpoint.to_bytes();
                (ENDED_BY_ENDPOINT, of_endpoint.len(), of_endpoint.to_vec())
            }
            (None, _) => (all, 0, Vec::new()),
        };
        // Those past their time are not shown, whether they were taken away already or not.
        let oldest = [&prefix[..before], &ended_from(kept_from)].concat();
        let mut behind = match at {
            Some(Position::Ended(key)) if !key.is_empty() => Some(key),
            _ => None,
        };
        loop {
            let mut range = range_behind(&prefix, behind.as_deref(), self.request.order);
            if range.after.as_ref().is_none_or(|after| after[..] < oldest[..]) {
                range.after = Some(oldest.clone().into());
            }
            let limit = self.request.limit + 1;
            let rows =
                self.app.node().view(self.caller.address, view, Scan::new(range, self.request.order, limit)).await;
            let rows = rows.map_err(store_problem)?;
            for row in &rows {
                let key = parse_ended_key(self.caller.address, &row.key[before.min(row.key.len())..]);
                let Some((_, entity, key)) = key else { continue };
                let delivery = pending::ended(self.app.node(), entity, key).await.map_err(store_problem)?;
                if let Some(delivery) = delivery
                    && !self.take(delivery)
                {
                    return Ok(Some(Position::Ended(behind.unwrap_or_default())));
                }
                behind = Some(row.key.to_vec());
            }
            self.scanned += rows.len();
            if rows.len() < limit {
                return Ok(None);
            }
            if self.scanned >= SCANNED_MAX {
                return Ok(behind.map(Position::Ended));
            }
        }
    }

    async fn pending(&mut self, at: Option<Position>) -> Result<Next, Problem> {
        if self.filter.endpoint == Some(None) {
            return Ok(None);
        }
        if let Some(event) = self.filter.event {
            return self.pending_of(event, at).await;
        }
        let (mut behind, mut within) = match at {
            Some(Position::Pending(key, within)) if !key.is_empty() => (Some(key), within),
            _ => (None, None),
        };
        loop {
            // An entry that was begun is looked at again, from where it was left.
            let inside = behind.clone().filter(|_| within.is_some());
            let limit = self.request.limit + 1;
            let rows = match &inside {
                Some(key) => vec![key.clone()],
                None => {
                    let range = range_behind(&[], behind.as_deref(), self.request.order);
                    let rows =
                        self.app.node().view(self.caller.address, PENDING, Scan::new(range, self.request.order, limit));
                    rows.await.map_err(store_problem)?.into_iter().map(|row| row.key.to_vec()).collect()
                }
            };
            for key in &rows {
                match self.entry(key, within.take()).await? {
                    Entry::Read => behind = Some(key.clone()),
                    Entry::Full(Some(place)) => return Ok(Some(Position::Pending(key.clone(), Some(place)))),
                    Entry::Full(None) => return Ok(Some(Position::Pending(behind.unwrap_or_default(), None))),
                }
            }
            self.scanned += rows.len();
            if inside.is_none() && rows.len() < limit {
                return Ok(None);
            }
            if self.scanned >= SCANNED_MAX {
                return Ok(behind.map(|key| Position::Pending(key, None)));
            }
        }
    }

    /// Takes what is pending of one event.
    async fn pending_of(&mut self, event: Option<EventId>, at: Option<Position>) -> Result<Next, Problem> {
        let Some(event) = event else { return Ok(None) };
        let found = pending::pending_of_event(self.app.node(), self.caller.address, event).await;
        let mut found = found.map_err(store_problem)?;
        if self.request.order == Order::Desc {
            found.reverse();
        }
        let mut passed = match at {
            Some(Position::Pending(_, within)) => within.map(|(_, tag)| tag),
            Some(Position::Ended(_)) | None => None,
        };
        for delivery in found {
            let tag = tag_of(&delivery);
            if passed.is_some_and(|passed| !is_behind(tag, passed, self.request.order)) {
                continue;
            }
            if !self.take(delivery) {
                return Ok(Some(Position::Pending(Vec::new(), passed.map(|tag| (event.number, tag)))));
            }
            passed = Some(tag);
        }
        Ok(None)
    }

    /// Takes what one entry has to send, behind the delivery `within`.
    async fn entry(&mut self, key: &[u8], within: Option<Place>) -> Result<Entry, Problem> {
        let Some(of) = parse_pending_key(self.caller.address, key) else { return Ok(Entry::Read) };
        let other = |endpoint| of.lane.is_some_and(|lane| lane.receiver.endpoint() != endpoint);
        if self.filter.endpoint.is_some_and(other) {
            return Ok(Entry::Read);
        }
        let order = self.request.order;
        let before = |seq: u64| if order == Order::Asc { seq.saturating_sub(1) } else { seq.saturating_add(1) };
        let (mut after, mut passed) = (within.map(|(seq, _)| before(seq)), within);
        loop {
            let found = pending::pending(self.app.node(), of, order, after, self.request.limit + 1).await;
            let found = found.map_err(store_problem)?;
            for (place, delivery) in behind(found.deliveries, within, order) {
                if !self.take(delivery) {
                    return Ok(Entry::Full(passed));
                }
                passed = Some(place);
            }
            let Some(upto) = found.upto else { return Ok(Entry::Read) };
            after = Some(upto);
            self.scanned += self.request.limit;
            if self.scanned >= SCANNED_MAX {
                let last = if order == Order::Asc { u8::MAX } else { 0 };
                return Ok(Entry::Full(Some((upto, [last; TAG_BYTES]))));
            }
        }
    }
}

/// How an entry of what is pending was read.
enum Entry {
    /// To its end.
    Read,
    /// The page is full; it ends behind that delivery, or before the entry.
    Full(Option<Place>),
}

async fn find(app: &App, caller: &Caller, id: &str) -> Result<DeliveryState, Problem> {
    let id = DeliveryId::parse(id).ok_or_else(delivery_not_found)?;
    let found = pending::find(app.node(), caller.address, id).await.map_err(store_problem)?;
    found.ok_or_else(delivery_not_found)
}

/// `GET /webhook-deliveries/{id}`.
///
/// # Errors
/// 404 `delivery_not_found`.
pub(super) async fn get(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Admin>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    Ok(json(StatusCode::OK, &DeliveryView::of(find(&app, &caller, &id).await?)))
}

/// `POST /webhook-deliveries/{id}/retry`: one that has ended is sent once more, one that waits is tried now.
///
/// # Errors
/// 400, 404 `delivery_not_found`, also where the endpoint that it was for is gone, 422.
pub(super) async fn retry(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Admin>,
    context: RequestContext,
    Path(id): Path<String>,
    headers: HeaderMap,
    OptionalJsonBytes(body): OptionalJsonBytes,
) -> Result<Response, Problem> {
    let (with, ignored) = Incoming::bare(&context, &caller, &headers, body.as_ref())?;
    let delivery = find(&app, &caller, &id).await?;
    let key = parse_ended_key(caller.address, &delivery.id.0).ok_or_else(delivery_not_found)?;
    let (_, entity, key) = key;
    // What is asked for would take the place of what is known of it, and could go nowhere.
    if let Some(id) = delivery.receiver.endpoint()
        && resource::row(&app, caller.registry(), WEBHOOK_ENDPOINTS, &id.to_string()).await?.is_none()
        && !was_asked(&app, entity, key, with.key.as_ref().map(|key| key.hash)).await?
    {
        return Err(delivery_not_found());
    }
    let asked = again(&app, entity, Sending::Again { key, receiver: delivery.receiver }, with).await?;
    let waiting = match (&asked, with.key) {
        (Asked::Repeat, Some(with)) => {
            pending::retried(app.node(), entity, key, with.hash).await.map_err(store_problem)?
        }
        (Asked::Repeat, None) => None,
        (Asked::Now(waiting), _) => waiting.clone(),
    };
    let delivery = match waiting {
        Some(waiting) => delivery.asked_for(waiting),
        // It is being sent already, or somebody else has asked for it since.
        None => find(&app, &caller, &id).await.map_err(untold)?,
    };
    let response = json(StatusCode::ACCEPTED, &DeliveryView::of(delivery));
    let response = if matches!(asked, Asked::Repeat) { replayed(response) } else { response };
    Ok(ignoring(located(response, &format!("/webhook-deliveries/{id}")), &ignored))
}

/// Whether a delivery was asked for with this idempotency key, so that the answer is given again.
async fn was_asked(app: &App, entity: EntityKey, key: DeliveryKey, with: Option<KeyHash>) -> Result<bool, Problem> {
    let Some(with) = with else { return Ok(false) };
    Ok(pending::retried(app.node(), entity, key, with).await.map_err(store_problem)?.is_some())
}

/// What came of asking for a delivery.
enum Asked {
    /// So its lane stands now, if there was anything to do.
    Now(Option<Waiting>),
    /// It was asked for before with the same idempotency key.
    Repeat,
}

async fn again(app: &App, entity: EntityKey, sending: Sending, with: Circumstances) -> Result<Asked, Problem> {
    use actors::{contact, conversation};
    let waiting = if entity.kind == Kind::Contact {
        match app.node().contact(entity, contact::Command::Outbox(sending), with).await {
            Ok(Answer::Done(contact::Reply::Again(waiting))) => Some(*waiting),
            Ok(Answer::Done(_)) => None,
            Ok(Answer::Repeat { .. }) => return Ok(Asked::Repeat),
            Err(refusal) => return Err(problem_of(refusal, |_| delivery_not_found())),
        }
    } else {
        match app.node().conversation(entity, conversation::Command::Outbox(sending), with).await {
            Ok(Answer::Done(conversation::Reply::Again(waiting))) => Some(*waiting),
            Ok(Answer::Done(_)) => None,
            Ok(Answer::Repeat { .. }) => return Ok(Asked::Repeat),
            Err(refusal) => return Err(problem_of(refusal, |_| delivery_not_found())),
        }
    };
    Ok(Asked::Now(waiting))
}
