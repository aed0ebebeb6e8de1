//! Requested retries on a lane, by event.

use minicbor::{Decode, Encode};

use super::LaneRow;
use crate::clock::Millis;

/// The most requests kept of one lane. Forgotten ones are for events before the newest requested one, so the lane sends
/// those on the way to it.
const RETRY_REQUESTS_KEPT: usize = 16;
/// About how many bytes one adds to a commit.
const RETRY_REQUEST_BYTES: usize = 16;

/// A request to try an event of a lane now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RetryRequest {
    /// Which event.
    #[n(0)]
    pub seq: u64,
    /// When it was last requested.
    #[n(1)]
    pub at: Millis,
}

impl RetryRequest {
    /// Adds it to the kept requests, which are ordered by time. An event is among them once.
    fn add_to(self, all: &mut Vec<Self>) {
        all.retain(|request| request.seq != self.seq);
        all.push(self);
        let newest = all.iter().map(|request| request.seq).max();
        if all.len() > RETRY_REQUESTS_KEPT
            && let Some(oldest) = all.iter().position(|request| Some(request.seq) < newest)
        {
            all.remove(oldest);
        }
    }
}

/// The retries requested on a lane and not made since. Its row stores them as [`LaneRow::retry_requested`] and
/// [`LaneRow::retry_requests`], which only this module reads and writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::outbox) struct RetryRequests {
    /// The lane's next attempt does not wait: its event was requested, or is on the way to one that was. `false` while
    /// the first event was tried for a later one, and failed.
    is_due: bool,
    /// In the order of the requests. Empty though the next attempt is due: an earlier build noted that, for the first
    /// event.
    by_event: Vec<RetryRequest>,
}

impl RetryRequests {
    /// Whether the lane's next attempt does not wait.
    pub(in crate::outbox) fn any(&self) -> bool {
        self.is_due
    }

    /// Whether the lane's first event itself was requested.
    pub(in crate::outbox) fn of_head(&self, head: Option<u64>) -> bool {
        self.is_due && (self.by_event.is_empty() || self.by_event.iter().any(|request| Some(request.seq) == head))
    }

    /// Adds a request.
    pub(in crate::outbox) fn add(&mut self, request: RetryRequest) {
        request.add_to(&mut self.by_event);
        self.is_due = true;
    }

    /// The lane's first event was tried, which answers the requests for it. Later ones stay requested until they are
    /// tried themselves, and cause the next attempt only if something was requested meanwhile (`since`).
    pub(in crate::outbox) fn answered(&mut self, head: Option<u64>, since: bool) {
        self.by_event.retain(|request| Some(request.seq) != head);
        self.is_due = since;
    }

    /// The lane's first event has ended, and `head` is the next one. It does not wait if it or a later one was
    /// requested.
    pub(in crate::outbox) fn moved_on(&mut self, head: Option<u64>) {
        self.forget_before(head);
        self.is_due = !self.by_event.is_empty();
    }

    /// The lane's first event was found to be `head`; `was_lost`: it had another one, which was tried.
    pub(in crate::outbox) fn found(&mut self, head: Option<u64>, was_lost: bool) {
        // An earlier build's request is for whichever event is the first.
        if !self.by_event.is_empty() {
            self.forget_before(head);
            self.is_due = !self.by_event.is_empty() && (self.is_due || was_lost);
        }
    }

    /// Drops requests for events that are no longer on the lane.
    fn forget_before(&mut self, head: Option<u64>) {
        self.by_event.retain(|request| head.is_some_and(|head| head <= request.seq));
    }
}

impl LaneRow {
    /// The requested retries.
    pub(in crate::outbox) fn retries(&self) -> RetryRequests {
        RetryRequests { is_due: self.retry_requested, by_event: self.retry_requests.clone().unwrap_or_default() }
    }

    /// Replaces the row's requested retries.
    #[must_use]
    pub(in crate::outbox) fn with_retries(self, RetryRequests { is_due, by_event }: RetryRequests) -> Self {
        let retry_requests = Some(by_event).filter(|all| !all.is_empty());
        Self { retry_requested: is_due, retry_requests, ..self }
    }

    /// About how many bytes its requested retries add to a commit.
    pub(in crate::outbox) fn retries_weight(&self) -> usize {
        RETRY_REQUEST_BYTES * self.retry_requests.as_ref().map_or(0, Vec::len)
    }

    /// Requests an event: it is tried as soon as those before it have ended, and the lane's first event at this time.
    #[must_use]
    pub(crate) fn with_request(self, seq: u64, at: Millis) -> Self {
        self.with_earlier_request(RetryRequest { seq, at }, at)
    }

    /// Requests an event as of an earlier time: the lane's first event is tried at `next_at`.
    pub(in crate::outbox) fn with_earlier_request(self, request: RetryRequest, next_at: Millis) -> Self {
        let mut retries = self.retries();
        retries.add(request);
        Self { next_at, deferred_until: None, ..self }.with_retries(retries)
    }

    /// Adds requests that its stored row shows, and whose events do not wait for them.
    pub(in crate::outbox) fn know_requests(&mut self, known: &[RetryRequest]) {
        known.iter().for_each(|request| request.add_to(self.retry_requests.get_or_insert_default()));
    }

    /// The requests made since the state `known`.
    pub(in crate::outbox) fn requests_since(&self, known: Option<&Self>) -> Vec<RetryRequest> {
        let before = known.and_then(|known| known.retry_requests.as_deref()).unwrap_or_default();
        match &self.retry_requests {
            _ if !self.retry_requested => Vec::new(),
            Some(all) => all.iter().filter(|request| !before.contains(request)).copied().collect(),
            // Rows of an earlier build could only request the next event.
            None => vec![RetryRequest { seq: self.next, at: self.next_at }],
        }
    }

    /// Whether `later` equals this, except for newer events after it and retries requested since.
    #[must_use]
    pub(crate) fn has_requests_in(&self, later: &Self) -> bool {
        let Self { until, next_at, retry_requested, deferred_until, .. } = *self;
        let like_this = || Self {
            until,
            next_at,
            retry_requested,
            deferred_until,
            retry_requests: self.retry_requests.clone(),
            ..later.clone()
        };
        later.retry_requested
            && until <= later.until
            && (next_at, retry_requested, &self.retry_requests) != (later.next_at, true, &later.retry_requests)
            && *self == like_this()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_000_000);

    #[test]
    fn the_last_retry_requests_and_the_one_for_the_newest_event_are_kept() {
        let mut row = LaneRow::new(1, 100, NOW);
        for seq in [100, 7].into_iter().chain(1..=30) {
            row = row.with_request(seq, NOW.plus(seq));
        }
        let kept: Vec<_> = row.retry_requests.iter().flatten().map(|request| request.seq).collect();
        assert_eq!(kept, [100].into_iter().chain(16..=30).collect::<Vec<_>>());
    }

    #[test]
    fn a_known_retry_request_hides_no_later_one_for_the_same_event() {
        let known = LaneRow::new(5, 7, NOW).with_request(6, NOW);
        let later = known.clone().with_request(5, NOW.plus(1)).with_request(6, NOW.plus(2));
        let news: Vec<_> = later.requests_since(Some(&known)).iter().map(|request| (request.seq, request.at)).collect();
        assert_eq!(news, [(5, NOW.plus(1)), (6, NOW.plus(2))]);
        assert_eq!(later.requests_since(Some(&later)), []);
        assert!(known.has_requests_in(&later) && !known.has_requests_in(&known));
        let of_an_earlier_build = LaneRow { retry_requests: None, ..later };
        assert_eq!(of_an_earlier_build.requests_since(Some(&known)), [RetryRequest { seq: 5, at: NOW.plus(2) }]);
    }
}
