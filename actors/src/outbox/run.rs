//! A lane while a courier works on it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::circuit_breaker::SendRequest;
use super::lane::{Attempt, Lane, LaneRow, RetryRequests, keep};
use super::retry_signal::{RetryOf, RetrySignal};
use super::step::{FoundEvent, Intent, KnownEvent, NextEvent, TriedEvent};
use crate::clock::Millis;
use crate::store::{Order, SeqRange};

/// The most events of one lane kept by number; the rest are found again in the log.
const MAX_KNOWN_EVENTS: usize = 256;

/// The position of an event on a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LanePosition {
    /// It is already on the lane.
    Has,
    /// The lane's events are just being searched in a range that includes this one.
    Searched,
    /// Before its first event.
    Before,
    /// Between its events.
    Within,
    /// After all of them.
    After,
}

/// When a waiting lane resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resume {
    /// At its time.
    WhenDue,
    /// Now, though its time may not have come.
    Early,
}

/// An event to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct QueuedEvent {
    seq: u64,
    why: Queued,
}

/// Why an event is on a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queued {
    /// It happened then, and the receiver wants it.
    New { at: Millis },
    /// Its retry was requested.
    RetryRequested,
}

impl From<FoundEvent> for QueuedEvent {
    fn from(FoundEvent { seq, at }: FoundEvent) -> Self {
        Self { seq, why: Queued::New { at } }
    }
}

/// An event that was tried and is no longer for the receiver.
#[derive(Debug)]
pub(super) struct LostEvent {
    pub(super) seq: u64,
    pub(super) attempts: Vec<Attempt>,
}

/// The state of a lane that is in memory.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Events to send, ascending.
    queue: VecDeque<QueuedEvent>,
    /// A range of the log after those, which contains more.
    unread: Option<SeqRange>,
    /// Its row as it is now, except for which events it has, when it resumes and which retries were requested.
    pub(super) row: LaneRow,
    pub(super) retries: RetryRequests,
    /// The lane waits until then.
    parked: Option<Millis>,
    /// Its stored row.
    pub(super) stored: Option<LaneRow>,
    /// The first event was handed to the other receivers that it was on this lane for.
    pub(super) is_handed_over: bool,
    /// A step is under way.
    has_step: bool,
    /// Notifies that step of a request.
    retry_signal: Arc<RetrySignal>,
}

impl Run {
    /// A lane that resumes. Its receiver's events are searched again, since they may have changed; only an event that
    /// is sent again is sent in any case.
    pub(super) fn of(lane: Lane, stored: LaneRow) -> Self {
        let again = stored.is_again(lane);
        let requested = QueuedEvent { seq: stored.next, why: Queued::RetryRequested };
        Self {
            queue: again.then_some(requested).into_iter().collect(),
            unread: (!again).then_some(SeqRange::new(stored.next, stored.until)),
            row: stored.clone(),
            retries: stored.retries(),
            parked: None,
            stored: Some(stored),
            is_handed_over: false,
            has_step: false,
            retry_signal: Arc::default(),
        }
    }

    /// A lane that keeps waiting for its time.
    pub(super) fn waiting(lane: Lane, stored: LaneRow) -> Self {
        Self { parked: Some(stored.next_at), ..Self::of(lane, stored) }
    }

    /// A separate lane for an event that is treated like those on the usual one.
    pub(super) fn separate() -> Self {
        Self { row: LaneRow { handed: Some(true), ..LaneRow::default() }, ..Self::default() }
    }

    /// The lane whose rules apply: a handed-over event is on a separate lane, but treated like those on the usual one.
    pub(super) fn effective_lane(&self, lane: Lane) -> Lane {
        if self.row.handed == Some(true) { Lane::to(lane.receiver) } else { lane }
    }

    /// Whether an attempt at its receiver may be made now.
    pub(super) fn may_send(&self, now: Millis) -> bool {
        self.retries.any() || self.row.deferred_until.is_none_or(|deferred_until| deferred_until <= now)
    }

    /// The receiver's `Retry-After` no longer counts.
    pub(super) fn drop_retry_after(&mut self) {
        self.row.deferred_until = None;
    }

    /// Whether it is running, and does not wait for its time.
    pub(super) fn is_active(&self) -> bool {
        self.has_step || self.parked.is_none()
    }

    /// Resumes a waiting lane if it is due, if it is to resume early, or if its row shows a newly requested retry.
    pub(super) fn resume(&mut self, stored: LaneRow, resume: Resume, now: Millis) {
        self.take_requests(stored);
        let is_due = self.parked.is_some_and(|at| at <= now);
        if self.retries.any() || (is_due || resume == Resume::Early) && self.may_send(now) {
            self.parked = None;
        }
    }

    /// Ends a running lane's wait for its permit if its row shows a newly requested retry.
    pub(super) fn retry_now(&mut self, stored: LaneRow) {
        if let Some(requested) = self.take_requests(stored) {
            self.retry_signal.send(requested);
        }
    }

    /// The retry that was requested since its row was last read, if any. Such a row replaces the known one, so this
    /// courier also sends the events that another node has put on the lane meanwhile.
    fn take_requests(&mut self, stored: LaneRow) -> Option<RetryOf> {
        // If all events here have ended and are not noted yet, the row is kept, and is due.
        let first = self.first().filter(|_| stored.retries().any() && self.stored.as_ref() != Some(&stored))?;
        let new_requests = stored.requests_since(self.stored.as_ref());
        let (here, ended): (Vec<_>, Vec<_>) = new_requests.into_iter().partition(|request| first <= request.seq);
        match self.stored.as_mut().filter(|known| !ended.is_empty() && known.has_requests_in(&stored)) {
            // Requested events may have ended: the step that notes them finds the request and has them sent once more.
            // The lane continues with the others.
            Some(known) => known.know_requests(&here),
            None => {
                self.extend_to(stored.next, stored.until);
                self.stored = Some(stored);
            }
        }
        // Another node may have put more events on a lane whose requests are known or answered here.
        if here.is_empty() {
            return None;
        }
        let is_of_head = here.iter().any(|request| request.seq == first);
        here.into_iter().for_each(|request| self.retries.add(request));
        self.row.deferred_until = None;
        Some(if is_of_head { RetryOf::Head } else { RetryOf::LaterEvent })
    }

    /// The log has events for it in this range. Those that it has or had already are not added again.
    fn extend_to(&mut self, next: u64, until: u64) {
        let known = self.last().max(self.stored.as_ref().map(|stored| stored.until));
        let from = known.map_or(next, |known| next.max(known + 1));
        if from <= until {
            self.unread = Some(SeqRange::new(self.unread.map_or(from, |unread| unread.first), until));
        }
    }

    /// Adds an event unless the lane already has it.
    pub(super) fn push(&mut self, event: FoundEvent) {
        let seq = event.seq;
        let last = self.last();
        if last.is_some_and(|last| seq <= last) {
            return;
        }
        match &mut self.unread {
            Some(unread) => unread.last = seq,
            None if self.queue.len() >= MAX_KNOWN_EVENTS => self.unread = Some(SeqRange::one(seq)),
            None => self.queue.push_back(event.into()),
        }
    }

    /// The position of an event on it.
    pub(super) fn position_of(&self, seq: u64) -> LanePosition {
        let first = self.first();
        let is_unread = self.unread.is_some_and(|unread| unread.contains(seq));
        match (first, self.last()) {
            (Some(_), Some(last)) if seq > last => LanePosition::After,
            // The running search may have passed the event before it was for this receiver.
            _ if is_unread && self.has_step && self.queue.is_empty() => LanePosition::Searched,
            _ if is_unread || self.queue.iter().any(|known| known.seq == seq) => LanePosition::Has,
            (Some(first), _) if seq < first => LanePosition::Before,
            (Some(_), _) => LanePosition::Within,
            (None, _) => LanePosition::After,
        }
    }

    /// Adds an event that is handed over, at [`Within`](LanePosition::Within) or [`After`](LanePosition::After).
    pub(super) fn insert(&mut self, event: FoundEvent) {
        if self.position_of(event.seq) != LanePosition::Within {
            return self.push(event);
        }
        let place = self.queue.partition_point(|known| known.seq < event.seq);
        self.queue.insert(place, event.into());
        if self.queue.len() > MAX_KNOWN_EVENTS
            && let Some(QueuedEvent { seq: from, .. }) = self.queue.pop_back()
        {
            self.unread = Some(SeqRange::new(from, self.unread.map_or(from, |unread| unread.last)));
        }
    }

    /// Searches its receiver's events again, from the first one on.
    pub(super) fn search_again(&mut self) {
        self.unread = self.first().zip(self.last()).map(|(first, last)| SeqRange::new(first, last));
        self.queue.clear();
        // It referred to the first event, which may be dropped.
        self.is_handed_over = false;
    }

    /// The next event, as far as it is known.
    fn first(&self) -> Option<u64> {
        self.queue.front().map(|event| event.seq).or(self.unread.map(|unread| unread.first))
    }

    /// The newest event that is known to be for it.
    fn last(&self) -> Option<u64> {
        self.unread.map(|unread| unread.last).or(self.queue.back().map(|event| event.seq))
    }

    /// When the first event happened, if it need not wait for its time and no attempt at it has ended.
    pub(super) fn untried_since(&self) -> Option<Millis> {
        let first = self.queue.front().filter(|_| self.parked.is_none() && self.row.tries == 0)?;
        match first.why {
            Queued::New { at } => Some(at),
            Queued::RetryRequested => None,
        }
    }

    /// Adds the events found in the unread range, which was read up to `upto`. Returns the event that was tried and is
    /// no longer for this receiver.
    pub(super) fn found(&mut self, events: Vec<FoundEvent>, upto: u64) -> Option<LostEvent> {
        let tried = self.unread.map(|unread| unread.first).filter(|_| self.row.tries > 0 && self.queue.is_empty());
        let first = events.first().map(|event| event.seq);
        let lost = tried.filter(|tried| first != Some(*tried)).map(|seq| {
            (self.row.tries, self.row.scheduled_at, self.row.url) = (0, None, None);
            LostEvent { seq, attempts: std::mem::take(&mut self.row.attempts) }
        });
        self.queue.extend(events.into_iter().map(QueuedEvent::from));
        self.unread = self.unread.map(|unread| unread.after(Some(upto), Order::Asc)).filter(|rest| !rest.is_empty());
        self.retries.found(self.first(), lost.is_some());
        lost
    }

    /// The first event was tried at the URL with this [`mark`](super::lane::mark). Attempts at another URL do not count
    /// for it, since each URL has its own schedule. A requested attempt counts only if it is the first one, so
    /// that requests during an outage do not put off the scheduled attempts.
    pub(super) fn tried(&mut self, attempt: Attempt, at: u64, lane_intent: Intent) {
        if self.row.tried_at.is_some_and(|before| before != at) {
            (self.row.tries, self.row.scheduled_at, self.row.failing_since) = (0, None, None);
        }
        self.row.tries = match lane_intent {
            Intent::Requested => self.row.tries.max(1),
            Intent::Scheduled => self.row.tries + 1,
        };
        (self.row.tried_at, self.is_handed_over, self.row.was) = (Some(at), false, None);
        keep(&mut self.row.attempts, attempt);
    }

    /// A step tried the first event, which answers earlier requests for it, but not those of which it was not notified.
    pub(super) fn answer_requests(&mut self, since: Option<RetryOf>) {
        if since != Some(RetryOf::Head) {
            self.retries.answered(self.first(), since.is_some());
        }
    }

    /// Whether the first event itself was requested.
    fn is_head_requested(&self) -> bool {
        self.retries.of_head(self.first())
    }

    /// Removes the first event, which has ended. The next one does not wait if its retry or that of a later one was
    /// requested.
    pub(super) fn pop(&mut self) -> Option<u64> {
        (self.row.tries, self.row.scheduled_at, self.is_handed_over, self.row.url) = (0, None, false, None);
        let first = self.queue.pop_front().map(|event| event.seq);
        self.retries.moved_on(self.first());
        first
    }

    /// Drops all events.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.unread = None;
    }

    /// An attempt at the first event has failed, after which the schedule makes the next one at `at`. One that was not
    /// of the schedule moves its next one only if the receiver's `Retry-After` says so.
    pub(super) fn wait_for_schedule(&mut self, at: Millis, lane_intent: Intent, now: Millis) {
        let scheduled = self.row.scheduled_at.filter(|scheduled| lane_intent == Intent::Requested && *scheduled > now);
        let deferred_until = self.row.deferred_until.unwrap_or_default();
        let at = scheduled.map_or(at, |scheduled| scheduled.min(at).max(deferred_until));
        self.row.scheduled_at = Some(at);
        self.park(at);
    }

    /// Lets it wait until then.
    pub(super) fn park(&mut self, at: Millis) {
        self.parked = Some(at);
    }

    /// How many of the newest attempts in a row were not answered.
    fn unanswered(&self) -> u32 {
        let silence = self.row.attempts.iter().rev().take_while(|attempt| attempt.status.is_none());
        silence.count().try_into().unwrap_or(u32::MAX)
    }

    /// The next step, if one can be made, and the handle that notifies it of a requested retry.
    pub(super) fn start(&mut self) -> Option<(NextEvent, Arc<RetrySignal>)> {
        if self.has_step || self.parked.is_some() {
            return None;
        }
        let head = match (self.queue.front(), self.unread) {
            (Some(first), _) => NextEvent::Known {
                event: KnownEvent {
                    seq: first.seq,
                    attempt: self.row.tries.saturating_add(1),
                    is_handed_over: self.is_handed_over,
                    is_requested: self.is_head_requested(),
                },
                send_request: SendRequest {
                    retry_requested: self.retries.any(),
                    url: None,
                    unanswered: self.unanswered(),
                    returns: self.stored.is_some(),
                },
            },
            (None, Some(range)) => {
                let tried = TriedEvent { seq: range.first, is_requested: self.is_head_requested() };
                NextEvent::Search { range, tried: (self.row.tries > 0).then_some(tried) }
            }
            (None, None) => return None,
        };
        self.has_step = true;
        // A notification that the previous step missed is not for this one.
        self.retry_signal = Arc::default();
        Some((head, Arc::clone(&self.retry_signal)))
    }

    /// Its step has ended. Returns the requested retry of which the step was not notified, if any.
    pub(super) fn end_step(&mut self) -> Option<RetryOf> {
        self.has_step = false;
        self.retry_signal.take()
    }

    /// Whether it can be dropped from memory.
    pub(super) fn is_at_rest(&self) -> bool {
        !self.has_step && (self.parked.is_some() || self.queue.is_empty() && self.unread.is_none())
    }

    /// Its row; `None` where nothing waits. A lane in flight is to be checked `check_after` milliseconds later, and
    /// keeps its noted time while that is at least `ahead` milliseconds ahead.
    pub(super) fn row_to_store(&self, now: Millis, check_after: u64, ahead: u64) -> Option<LaneRow> {
        let next = self.first()?;
        let until = self.last()?;
        // It keeps its time so that it causes no repeated writes.
        let under_way = || {
            let stored = self.stored.as_ref().filter(|stored| stored.next == next).map(|stored| stored.next_at);
            let kept = stored.filter(|at| *at > now.plus(ahead) && *at <= now.plus(check_after));
            kept.unwrap_or_else(|| now.plus(check_after))
        };
        let next_at = self.parked.unwrap_or_else(under_way);
        let in_flight = self.parked.is_none().then_some(true);
        let row = LaneRow { next, until, next_at, in_flight, ..self.row.clone() };
        Some(row.with_retries(self.retries.clone()))
    }
}

#[cfg(test)]
mod tests;
