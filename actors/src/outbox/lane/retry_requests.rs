//! Requested retries on a lane, by event.

use minicbor::{Decode, Encode};

use super::LaneRow;
use crate::clock::Millis;

/// The most requests kept of one lane. Forgotten ones are for events before the newest requested one, so the lane sends
/// those on the way to it.
pub const RETRY_REQUESTS_KEPT: usize = 16;
/// About how many bytes one adds to a commit.
pub(in crate::outbox) const RETRY_REQUEST_BYTES: usize = 16;

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
    pub(crate) fn add_to(self, all: &mut Vec<Self>) {
        all.retain(|asked| asked.seq != self.seq);
        all.push(self);
        let newest = all.iter().map(|asked| asked.seq).max();
        if all.len() > RETRY_REQUESTS_KEPT
            && let Some(oldest) = all.iter().position(|asked| Some(asked.seq) < newest)
        {
            all.remove(oldest);
        }
    }
}

impl LaneRow {
    /// Requests an event: it is tried as soon as those before it have ended, and the lane's first event at this time.
    #[must_use]
    pub fn asked(self, seq: u64, at: Millis) -> Self {
        self.with_asked(RetryRequest { seq, at }, at)
    }

    /// The same for earlier requests.
    pub(crate) fn with_asked(self, asked: RetryRequest, next_at: Millis) -> Self {
        let mut all = self.retry_requests.unwrap_or_default();
        asked.add_to(&mut all);
        Self { next_at, retry_requested: true, deferred_until: None, retry_requests: Some(all), ..self }
    }

    /// The requests made since the state `known`.
    pub(crate) fn asked_since(&self, known: Option<&Self>) -> Vec<RetryRequest> {
        let before = known.and_then(|known| known.retry_requests.as_deref()).unwrap_or_default();
        match &self.retry_requests {
            _ if !self.retry_requested => Vec::new(),
            Some(all) => all.iter().filter(|asked| !before.contains(asked)).copied().collect(),
            // Rows of an earlier build could only request the next event.
            None => vec![RetryRequest { seq: self.next, at: self.next_at }],
        }
    }

    /// Whether `later` equals this, except for newer events behind it and retries requested since.
    #[must_use]
    pub fn was_asked_for(&self, later: &Self) -> bool {
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
    fn of_many_requests_the_last_ones_are_kept_and_the_one_for_the_newest_event() {
        let mut row = LaneRow::fresh(1, 100, NOW);
        for seq in [100, 7].into_iter().chain(1..=30) {
            row = row.asked(seq, NOW.plus(seq));
        }
        let kept: Vec<_> = row.retry_requests.iter().flatten().map(|asked| asked.seq).collect();
        assert_eq!(kept, [100].into_iter().chain(16..=30).collect::<Vec<_>>());
    }

    #[test]
    fn who_knows_of_a_request_knows_nothing_of_one_for_the_same_event_that_comes_later() {
        let known = LaneRow::fresh(5, 7, NOW).asked(6, NOW);
        let later = known.clone().asked(5, NOW.plus(1)).asked(6, NOW.plus(2));
        let news: Vec<_> = later.asked_since(Some(&known)).iter().map(|asked| (asked.seq, asked.at)).collect();
        assert_eq!(news, [(5, NOW.plus(1)), (6, NOW.plus(2))]);
        assert_eq!(later.asked_since(Some(&later)), []);
        assert!(known.was_asked_for(&later) && !known.was_asked_for(&known));
        let of_an_earlier_build = LaneRow { retry_requests: None, ..later };
        assert_eq!(of_an_earlier_build.asked_since(Some(&known)), [RetryRequest { seq: 5, at: NOW.plus(2) }]);
    }
}
