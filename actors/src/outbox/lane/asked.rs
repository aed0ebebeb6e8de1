//! Requested retries on a lane, by event.

use minicbor::{Decode, Encode};

use super::Waiting;
use crate::clock::Millis;

/// The most requests kept of one lane. Forgotten ones are for events before the newest requested one, so the lane sends
/// those on the way to it.
pub const ASKED_KEPT: usize = 16;
/// About how many bytes one adds to a commit.
pub(in crate::outbox) const ASKED_BYTES: usize = 16;

/// A request to try an event of a lane now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Asked {
    /// Which event.
    #[n(0)]
    pub seq: u64,
    /// When it was last requested.
    #[n(1)]
    pub at: Millis,
}

impl Asked {
    /// Adds it to the kept requests, which are ordered by time. An event is among them once.
    pub(crate) fn add_to(self, all: &mut Vec<Self>) {
        all.retain(|asked| asked.seq != self.seq);
        all.push(self);
        let newest = all.iter().map(|asked| asked.seq).max();
        if all.len() > ASKED_KEPT
            && let Some(oldest) = all.iter().position(|asked| Some(asked.seq) < newest)
        {
            all.remove(oldest);
        }
    }
}

impl Waiting {
    /// Requests an event: it is tried as soon as those before it have ended, and the lane's first event at this time.
    #[must_use]
    pub fn asked(self, seq: u64, at: Millis) -> Self {
        self.with_asked(Asked { seq, at }, at)
    }

    /// The same for earlier requests.
    pub(crate) fn with_asked(self, asked: Asked, next_at: Millis) -> Self {
        let mut all = self.asked.unwrap_or_default();
        asked.add_to(&mut all);
        Self { next_at, asked_for: true, not_before: None, asked: Some(all), ..self }
    }

    /// The requests made since the state `known`.
    pub(crate) fn asked_since(&self, known: Option<&Self>) -> Vec<Asked> {
        let before = known.and_then(|known| known.asked.as_deref()).unwrap_or_default();
        match &self.asked {
            _ if !self.asked_for => Vec::new(),
            Some(all) => all.iter().filter(|asked| !before.contains(asked)).copied().collect(),
            // Rows of an earlier build could only request the next event.
            None => vec![Asked { seq: self.next, at: self.next_at }],
        }
    }

    /// Whether `later` equals this, except for newer events behind it and retries requested since.
    #[must_use]
    pub fn was_asked_for(&self, later: &Self) -> bool {
        let Self { until, next_at, asked_for, not_before, .. } = *self;
        let like_this = || Self { until, next_at, asked_for, not_before, asked: self.asked.clone(), ..later.clone() };
        later.asked_for
            && until <= later.until
            && (next_at, asked_for, &self.asked) != (later.next_at, true, &later.asked)
            && *self == like_this()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_000_000);

    #[test]
    fn of_many_requests_the_last_ones_are_kept_and_the_one_for_the_newest_event() {
        let mut row = Waiting::fresh(1, 100, NOW);
        for seq in [100, 7].into_iter().chain(1..=30) {
            row = row.asked(seq, NOW.plus(seq));
        }
        let kept: Vec<_> = row.asked.iter().flatten().map(|asked| asked.seq).collect();
        assert_eq!(kept, [100].into_iter().chain(16..=30).collect::<Vec<_>>());
    }

    #[test]
    fn who_knows_of_a_request_knows_nothing_of_one_for_the_same_event_that_comes_later() {
        let known = Waiting::fresh(5, 7, NOW).asked(6, NOW);
        let later = known.clone().asked(5, NOW.plus(1)).asked(6, NOW.plus(2));
        let news: Vec<_> = later.asked_since(Some(&known)).iter().map(|asked| (asked.seq, asked.at)).collect();
        assert_eq!(news, [(5, NOW.plus(1)), (6, NOW.plus(2))]);
        assert_eq!(later.asked_since(Some(&later)), []);
        assert!(known.was_asked_for(&later) && !known.was_asked_for(&known));
        let of_an_earlier_build = Waiting { asked: None, ..later };
        assert_eq!(of_an_earlier_build.asked_since(Some(&known)), [Asked { seq: 5, at: NOW.plus(2) }]);
    }
}
