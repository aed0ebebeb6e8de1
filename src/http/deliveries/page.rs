//! A page of the list of deliveries, composed of ended and pending ones.

use actors::clock::Millis;
use actors::id::EventId;
use actors::outbox::keys::{ended_from, ended_of, parse_ended_key, parse_pending_key, pending_prefix};
use actors::outbox::lane::TAG_BYTES;
use actors::outbox::pending::{self, DeliveryState, Status};
use actors::outbox::state::KEPT_MILLIS;
use actors::store::{KeyRange, Order, Scan, View};
use actors::tables::{ENDED, ENDED_BY_ENDPOINT, FAILED, PENDING};
use bytes::Bytes;
use tokio::time::Instant;

use super::filter::{Filter, Part};
use super::found::PageDeliveries;
use super::place::{EntryPosition, deliveries_after, tag_of};
use super::position::Position;
use crate::http::call::Call;
use crate::http::listing::range_after;
use crate::http::paging::{Page, PageRequest, ScanBudget};
use crate::problem::Problem;

/// Entries scanned for one page.
const ENTRIES: ScanBudget = ScanBudget { at_first: 50_000, in_any_case: 1_000 };
/// Entries read at once, after the first read did not fill the page.
const ENTRIES_PER_READ: usize = 256;

/// A page under construction.
pub(super) struct PageBuilder<'a> {
    call: &'a Call,
    request: &'a PageRequest,
    filter: Filter,
    found: PageDeliveries,
    /// How many more fit.
    room: usize,
    scanned: usize,
    began: Instant,
}

/// The position of the next page; `None`: all was read.
type Next = Option<Position>;

impl<'a> PageBuilder<'a> {
    pub(super) fn of(call: &'a Call, request: &'a PageRequest, filter: Filter) -> Self {
        let found = PageDeliveries::of(request.order);
        Self { call, request, filter, found, room: 0, scanned: 0, began: Instant::now() }
    }

    /// The page.
    ///
    /// A delivery moves from part to part: it waits with all others, then on its receiver's lane, then it has ended. So
    /// it may move from an unread part to one that was read already; therefore the parts are read twice.
    pub(super) async fn page(mut self) -> Result<Page<DeliveryState>, Problem> {
        let order = self.request.order;
        let limit = self.request.limit;
        let at = self.request.cursor.as_deref().and_then(Position::parse);
        let mut parts = self.filter.parts(order);
        parts.retain(|part| !at.as_ref().is_some_and(|at| at.has_passed(part, order)));
        let (read, next) = self.search(&parts, at.as_ref()).await?;
        // In descending order deliveries move to parts that are read later, and further while those are read.
        let is_last_too = order == Order::Desc && parts.len() > 1;
        let again = if is_last_too { read + 1 } else { read };
        let (_, more) = self.search(&parts[..again], at.as_ref()).await?;
        let next = self.found.cut(limit, more.is_some()).or(next);
        Ok(Page { data: self.found.into_deliveries(), next: next.map(|next| next.cursor()) })
    }

    /// Searches for as many as fit a page. Returns how many parts were read before the last one, and the next position.
    async fn search(&mut self, parts: &[Part], at: Option<&Position>) -> Result<(usize, Next), Problem> {
        self.room = self.request.limit;
        for (read, part) in parts.iter().enumerate() {
            let next = match part {
                Part::Ended => self.ended(at).await?,
                Part::Pending(prefix) => self.pending(Some(prefix), at).await?,
                Part::Lanes => self.pending(None, at).await?,
                Part::Event(event) => self.pending_of(*event, at).await?,
            };
            if next.is_some() {
                return Ok((read, next));
            }
        }
        Ok((parts.len().saturating_sub(1), None))
    }

    fn is_spent(&self) -> bool {
        ENTRIES.is_spent(self.scanned, self.began.elapsed())
    }

    /// How many entries to read next.
    fn chunk(&self) -> usize {
        let page = self.request.limit + 1;
        if self.scanned == 0 { page } else { page.max(ENTRIES_PER_READ) }
    }

    /// Takes one, unless the page is full.
    fn take(&mut self, position: Position, delivery: DeliveryState) -> bool {
        if !self.filter.matches(&delivery) || self.found.has(&position, &delivery) {
            return true;
        }
        let Some(room) = self.room.checked_sub(1) else { return false };
        self.room = room;
        self.found.add(position, delivery);
        true
    }

    async fn ended(&mut self, at: Option<&Position>) -> Result<Next, Problem> {
        let all = if self.filter.status() == Some(Status::Failed) { FAILED } else { ENDED };
        let kept_from = Millis(self.call.app.now().0.saturating_sub(KEPT_MILLIS));
        // In an endpoint's list its id precedes an entry's own key.
        let (view, before, prefix): (View, usize, Vec<u8>) = match (self.filter.event(), self.filter.endpoint()) {
            (Some(event), _) if event.at < kept_from => return Ok(None),
            (Some(event), _) => (all, 0, ended_of(event).to_vec()),
            (None, Some(endpoint)) if all == ENDED => {
                let of_endpoint = endpoint.to_bytes();
                (ENDED_BY_ENDPOINT, of_endpoint.len(), of_endpoint.to_vec())
            }
            (None, _) => (all, 0, Vec::new()),
        };
        // Expired ones are not shown, whether or not they are removed already.
        let oldest = [&prefix[..before], &ended_from(kept_from)].concat();
        let mut after_key = match at {
            // An empty key is of an earlier build, and means the beginning.
            Some(Position::Ended(key)) if !key.is_empty() => Some(key.clone()),
            Some(_) | None => None,
        };
        loop {
            let mut range = range_after(&prefix, after_key.as_deref(), self.request.order);
            if range.after.as_ref().is_none_or(|after| after[..] < oldest[..]) {
                range.after = Some(oldest.clone().into());
            }
            let limit = self.chunk();
            let rows = self
                .call
                .node()
                .view(self.call.caller.address, view, Scan::new(range, self.request.order, limit))
                .await?;
            for row in &rows {
                let key = parse_ended_key(self.call.caller.address, &row.key[before.min(row.key.len())..]);
                let Some((_, entity, key)) = key else { continue };
                let delivery = match self.filter.may_match(key) {
                    true => pending::ended(self.call.node(), entity, key).await?,
                    false => None,
                };
                if let Some(delivery) = delivery
                    && !self.take(Position::Ended(row.key.to_vec()), delivery)
                {
                    return Ok(self.found.last());
                }
                after_key = Some(row.key.to_vec());
            }
            self.scanned += rows.len();
            if rows.len() < limit {
                return Ok(None);
            }
            if self.is_spent() {
                return Ok(after_key.map(Position::Ended));
            }
            tokio::task::yield_now().await;
        }
    }

    /// Takes the pending deliveries of entries with this prefix; without one, those of all lanes.
    async fn pending(&mut self, prefix: Option<&[u8]>, at: Option<&Position>) -> Result<Next, Problem> {
        let is_of_it =
            |key: &[u8]| prefix.map_or(!key.starts_with(&pending_prefix(None)), |prefix| key.starts_with(prefix));
        // The previous page may have ended in a part that comes before this one.
        let (mut after_key, mut within) = match at {
            Some(Position::Pending(key, within)) if !key.is_empty() && is_of_it(key) => (Some(key.clone()), *within),
            Some(_) | None => (None, None),
        };
        loop {
            // A partly shown entry is read again, from where the page ended.
            let inside = after_key.clone().filter(|_| within.is_some());
            let limit = self.chunk();
            let rows = match &inside {
                Some(key) => vec![key.clone()],
                None => {
                    let range = match prefix {
                        Some(prefix) => range_after(prefix, after_key.as_deref(), self.request.order),
                        None => of_lanes(after_key.as_deref(), self.request.order),
                    };
                    let rows = self.call.node().view(
                        self.call.caller.address,
                        PENDING,
                        Scan::new(range, self.request.order, limit),
                    );
                    rows.await?.into_iter().map(|row| row.key.to_vec()).collect()
                }
            };
            for key in &rows {
                let next = self.entry(key, within.take()).await?;
                if next.is_some() {
                    return Ok(next);
                }
                after_key = Some(key.clone());
            }
            self.scanned += rows.len();
            if inside.is_none() && rows.len() < limit {
                return Ok(None);
            }
            if self.is_spent() {
                return Ok(after_key.map(|key| Position::Pending(key, None)));
            }
            tokio::task::yield_now().await;
        }
    }

    /// Takes the pending deliveries of one event.
    async fn pending_of(&mut self, event: EventId, at: Option<&Position>) -> Result<Next, Problem> {
        let order = self.request.order;
        let mut found = pending::pending_of_event(self.call.node(), self.call.caller.address, event).await?;
        if order == Order::Desc {
            found.reverse();
        }
        let passed = match at {
            Some(Position::Pending(_, within)) => within.map(|(_, tag)| tag),
            Some(Position::Ended(_)) | None => None,
        };
        for delivery in found {
            let tag = tag_of(&delivery);
            let is_wanted = passed.is_none_or(|passed| order.is_after(tag, passed));
            if is_wanted && !self.take(Position::Pending(Vec::new(), Some((event.number, tag))), delivery) {
                return Ok(self.found.last());
            }
        }
        Ok(None)
    }

    /// Takes the pending deliveries of one entry, after the delivery `within`.
    async fn entry(&mut self, key: &[u8], within: Option<EntryPosition>) -> Result<Next, Problem> {
        let Some(of) = parse_pending_key(self.call.caller.address, key) else { return Ok(None) };
        let other = |endpoint| of.lane.is_some_and(|lane| lane.receiver.endpoint() != Some(endpoint));
        if self.filter.endpoint().is_some_and(other) {
            return Ok(None);
        }
        let order = self.request.order;
        let before = |seq: u64| if order == Order::Asc { seq.saturating_sub(1) } else { seq.saturating_add(1) };
        let mut after = within.map(|(seq, _)| before(seq));
        loop {
            let found = pending::pending(self.call.node(), of, order, after, self.request.limit + 1).await?;
            for (position, delivery) in deliveries_after(found.deliveries, within, order) {
                if !self.take(Position::Pending(key.to_vec(), Some(position)), delivery) {
                    return Ok(self.found.last());
                }
            }
            let Some(upto) = found.upto else { return Ok(None) };
            after = Some(upto);
            self.scanned += self.request.limit;
            if self.is_spent() {
                let last = if order == Order::Asc { u8::MAX } else { 0 };
                return Ok(Some(Position::Pending(key.to_vec(), Some((upto, [last; TAG_BYTES])))));
            }
        }
    }
}

/// The keys of all lanes after the cursor. They come after those of events that were not examined yet.
fn of_lanes(cursor: Option<&[u8]>, order: Order) -> KeyRange {
    let first = KeyRange::under(&pending_prefix(None)).before;
    let cursor = cursor.map(Bytes::copy_from_slice);
    match order {
        Order::Asc => KeyRange { after: cursor.or(first), before: None },
        Order::Desc => KeyRange { after: first, before: cursor },
    }
}
