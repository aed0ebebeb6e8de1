//! A page of the list of deliveries, put together from those that have ended and from what is pending.

use std::time::Duration;

use actors::clock::Millis;
use actors::id::{EndpointId, EventId};
use actors::outbox::DeliveryKey;
use actors::outbox::lane::{Lane, Receiver, TAG_BYTES};
use actors::outbox::pending::{self, DeliveryState, Status};
use actors::outbox::state::{KEPT_MILLIS, ended_from, ended_of, parse_ended_key, parse_pending_key, pending_prefix};
use actors::store::{Order, Scan, View};
use actors::tables::{ENDED, ENDED_BY_ENDPOINT, FAILED, PENDING};
use tokio::time::Instant;

use super::place::{Place, behind, is_behind, tag_of};
use super::view::STATUSES;
use crate::app::App;
use crate::http::caller::Caller;
use crate::http::listing::range_behind;
use crate::http::paging::PageRequest;
use crate::http::problem::Problem;
use crate::http::query::Query;
use crate::http::refusal::store_problem;

/// Entries looked at for one page; a filter that matches little gives a short page with a cursor behind it.
const SCANNED_MAX: usize = 50_000;
/// As many are looked at however long it takes.
const SCANNED_MIN: usize = 1_000;
/// For how long more than that are.
const SCANNED_FOR: Duration = Duration::from_secs(1);
/// Entries read at once, once those that fill a page have turned out not to be wanted.
const CHUNK: usize = 256;

/// Which deliveries a list shows.
pub(super) struct Filter {
    status: Option<Status>,
    /// The inner `None`: an id that no endpoint has.
    endpoint: Option<Option<EndpointId>>,
    /// The inner `None`: an id that no event has.
    event: Option<Option<EventId>>,
}

impl Filter {
    pub(super) fn of(query: &Query) -> Result<Self, Problem> {
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

    /// Whether a delivery may be to the wanted endpoint, as its key says.
    fn may_show(&self, key: DeliveryKey) -> bool {
        let is_to = |endpoint| key.tag == Receiver::Endpoint(endpoint).tag();
        self.endpoint.is_none_or(|endpoint| endpoint.is_some_and(is_to))
    }

    /// What the entries of what is pending begin with among which there may be wanted ones, in this order.
    fn pending_parts(&self, order: Order) -> Vec<Vec<u8>> {
        let Some(Some(endpoint)) = self.endpoint else { return vec![Vec::new()] };
        let lanes = [None, Some(Lane::to(Receiver::Endpoint(endpoint)))];
        let mut parts = lanes.map(|lane| pending_prefix(lane).to_vec());
        if order == Order::Desc {
            parts.reverse();
        }
        parts.into()
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
pub(super) struct Gathering<'a> {
    app: &'a App,
    caller: &'a Caller,
    request: &'a PageRequest,
    filter: Filter,
    data: Vec<DeliveryState>,
    scanned: usize,
    began: Instant,
}

/// Whether a part of the list was read to its end, or where to go on.
type Next = Option<Position>;

impl<'a> Gathering<'a> {
    pub(super) fn of(app: &'a App, caller: &'a Caller, request: &'a PageRequest, filter: Filter) -> Self {
        Self { app, caller, request, filter, data: Vec::new(), scanned: 0, began: Instant::now() }
    }

    /// The page, and the position of the next one.
    pub(super) async fn page(mut self) -> Result<(Vec<DeliveryState>, Option<Vec<u8>>), Problem> {
        let next = self.run().await?;
        Ok((self.data, next.map(|next| next.cursor())))
    }

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

    fn is_enough(&self) -> bool {
        let is_late = self.began.elapsed() >= SCANNED_FOR;
        self.scanned >= if is_late { SCANNED_MIN } else { SCANNED_MAX }
    }

    /// How many entries to read next.
    fn chunk(&self) -> usize {
        let page = self.request.limit + 1;
        if self.scanned == 0 { page } else { page.max(CHUNK) }
    }

    /// Takes one, unless the page is full.
    fn take(&mut self, delivery: DeliveryState) -> bool {
        // One that moves on while the page is put together may be met in two parts of the list.
        let is_taken = self.data.iter().any(|taken| taken.id == delivery.id);
        if is_taken || !self.filter.shows(&delivery) {
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
            let limit = self.chunk();
            let rows =
                self.app.node().view(self.caller.address, view, Scan::new(range, self.request.order, limit)).await;
            let rows = rows.map_err(store_problem)?;
            for row in &rows {
                let key = parse_ended_key(self.caller.address, &row.key[before.min(row.key.len())..]);
                let Some((_, entity, key)) = key else { continue };
                let delivery = match self.filter.may_show(key) {
                    true => pending::ended(self.app.node(), entity, key).await.map_err(store_problem)?,
                    false => None,
                };
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
            if self.is_enough() {
                return Ok(behind.map(Position::Ended));
            }
            tokio::task::yield_now().await;
        }
    }

    async fn pending(&mut self, at: Option<Position>) -> Result<Next, Problem> {
        if self.filter.endpoint == Some(None) {
            return Ok(None);
        }
        if let Some(event) = self.filter.event {
            return self.pending_of(event, at).await;
        }
        let order = self.request.order;
        let (mut behind, mut within) = match at {
            Some(Position::Pending(key, within)) if !key.is_empty() => (Some(key), within),
            _ => (None, None),
        };
        for part in self.filter.pending_parts(order) {
            // The page before has ended in one that comes later.
            if behind.as_ref().is_some_and(|key| is_behind(&key[..part.len().min(key.len())], &part[..], order)) {
                continue;
            }
            let next = self.pending_part(&part, &mut behind, within.take()).await?;
            if next.is_some() {
                return Ok(next);
            }
        }
        Ok(None)
    }

    /// Takes what the entries have to send that begin so, behind the last one that was read.
    async fn pending_part(
        &mut self,
        part: &[u8],
        behind: &mut Option<Vec<u8>>,
        mut within: Option<Place>,
    ) -> Result<Next, Problem> {
        loop {
            // An entry that was begun is looked at again, from where it was left.
            let inside = behind.clone().filter(|_| within.is_some());
            let limit = self.chunk();
            let rows = match &inside {
                Some(key) => vec![key.clone()],
                None => {
                    let last = behind.as_deref().filter(|key| key.starts_with(part));
                    let range = range_behind(part, last, self.request.order);
                    let rows =
                        self.app.node().view(self.caller.address, PENDING, Scan::new(range, self.request.order, limit));
                    rows.await.map_err(store_problem)?.into_iter().map(|row| row.key.to_vec()).collect()
                }
            };
            for key in &rows {
                match self.entry(key, within.take()).await? {
                    Entry::Read => *behind = Some(key.clone()),
                    Entry::Full(Some(place)) => return Ok(Some(Position::Pending(key.clone(), Some(place)))),
                    Entry::Full(None) => return Ok(Some(Position::Pending(behind.clone().unwrap_or_default(), None))),
                }
            }
            self.scanned += rows.len();
            if inside.is_none() && rows.len() < limit {
                return Ok(None);
            }
            if self.is_enough() {
                return Ok(behind.clone().map(|key| Position::Pending(key, None)));
            }
            tokio::task::yield_now().await;
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
            if self.is_enough() {
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
