//! A breaker's state and its decisions.
//!
//! There are three kinds of permits, each with a queue:
//!
//! - the usual ones, [`limits::BREAKER_FIRST`] of them and more with each success. While the breaker is tripped no lane
//!   waits for them, and one is given now and then as a probe;
//! - [`limits::BREAKER_FRESH`] more for URLs without unanswered attempts, one for each. So a URL waits only for others
//!   as new as itself, not for those that are known to hang, even while these keep the breaker tripped;
//! - [`limits::BREAKER_REQUESTED`] more for requested deliveries.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::super::return_times;
use super::{Health, HealthChange, Pass, SendRequest};
use crate::clock::Millis;
use crate::limits;

/// Failures in a row after which a breaker trips.
pub(super) const FAILURES: u32 = 10;
/// How long it is tripped the first time; doubled each time a probe finds the receiver still down.
pub(super) const TRIPPED_MILLIS: u64 = 5_000;
/// The longest such time.
pub(super) const MAX_TRIPPED_MILLIS: u64 = 60_000;
/// By how much a tripped breaker delays a URL for each of its unanswered attempts: more than the second in which alarms
/// ring, so that URLs with fewer unanswered attempts come first.
pub(super) const DELAY_PER_ATTEMPT_MILLIS: u64 = 2_000;
/// The most attempts that count for this: the next attempt is an hour away by then.
pub(super) const MAX_DELAY_ATTEMPTS: u32 = 5;

/// The kind of permit that a pass holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PermitKind {
    Usual,
    /// A usual one, given to find out whether the receiver is back.
    Probe,
    Fresh,
    Requested,
}

/// The queue that a lane waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Usual,
    Fresh,
    Requested,
}

/// The breaker's answer to a lane.
#[derive(Debug)]
pub(super) enum AdmitDecision {
    Admitted(PermitKind),
    Queued(Queue),
    /// It comes back at this time.
    Later(Millis),
}

/// A waiting lane.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) request: SendRequest,
    /// Notifies the lane.
    pub(super) sender: oneshot::Sender<Pass>,
}

/// The permits, queues and known health of one receiver.
#[derive(Debug)]
pub(super) struct State {
    /// How many usual permits there are.
    pub(super) limit: usize,
    /// How many usual permits are taken, those of probes included.
    taken: usize,
    /// How many permits for requested deliveries are taken.
    taken_by_requested: usize,
    /// The URLs that hold a permit for URLs without unanswered attempts.
    fresh: Vec<u64>,
    waiting: VecDeque<Waiter>,
    waiting_requested: VecDeque<Waiter>,
    waiting_fresh: VecDeque<Waiter>,
    /// Whether the newest in `waiting_fresh` is admitted next, or the oldest. It alternates, so that a newcomer need
    /// not wait for every hanging URL.
    is_newest_next: bool,
    /// URLs with unanswered attempts, and how many since their last answer, ordered by their latest unanswered one.
    pub(super) silent: VecDeque<(u64, u32)>,
    /// Failures in a row.
    pub(super) failures: u32,
    /// An event has arrived since the breaker was last tripped.
    has_succeeded: bool,
    pub(super) tripped: Option<Tripped>,
    /// When the lane that was sent away last comes back.
    last_return: Millis,
}

impl Default for State {
    fn default() -> Self {
        Self {
            limit: limits::BREAKER_FIRST,
            taken: 0,
            taken_by_requested: 0,
            fresh: Vec::new(),
            waiting: VecDeque::new(),
            waiting_requested: VecDeque::new(),
            waiting_fresh: VecDeque::new(),
            is_newest_next: false,
            silent: VecDeque::new(),
            failures: 0,
            has_succeeded: false,
            tripped: None,
            last_return: Millis(0),
        }
    }
}

#[derive(Debug)]
pub(super) struct Tripped {
    /// From then on a probe may try.
    until: Millis,
    /// How long it was tripped this time.
    millis: u64,
    /// A probe is in flight.
    probing: bool,
    /// The last failure was an unanswered URL: others may answer.
    is_silence: bool,
}

impl Tripped {
    /// Whether a probe that must wait `delay_millis` longer may go. Also true when `until` is implausibly far ahead:
    /// the clock was set back. The bound is twice the time, since a lane may have read the clock just before the
    /// breaker was tripped.
    fn is_over(&self, now: Millis, delay_millis: u64) -> bool {
        now >= self.until.plus(delay_millis) || self.until > now.plus(2 * self.millis)
    }
}

impl State {
    pub(super) fn is_idle(&self) -> bool {
        let nobody_waits =
            self.waiting.is_empty() && self.waiting_requested.is_empty() && self.waiting_fresh.is_empty();
        self.taken + self.taken_by_requested + self.fresh.len() == 0 && nobody_waits
    }

    pub(super) fn is_well(&self) -> bool {
        self.failures == 0 && self.tripped.is_none()
    }

    /// How many attempts in a row the URL left unanswered, as far as the breaker or the lane knows.
    fn unanswered(&self, request: SendRequest) -> u32 {
        let known = self.silent.iter().find(|(url, _)| Some(*url) == request.url).map_or(0, |(_, times)| *times);
        known.max(request.unanswered)
    }

    /// By how many milliseconds a tripped breaker delays this lane.
    fn delay_millis(&self, request: SendRequest) -> u64 {
        let times = request.url.map_or(0, |_| self.unanswered(request));
        DELAY_PER_ATTEMPT_MILLIS * u64::from(times.min(MAX_DELAY_ATTEMPTS))
    }

    /// Whether this lane may use a permit for URLs without unanswered attempts. Each URL has at most one.
    fn is_fresh(&self, request: SendRequest) -> bool {
        let Some(url) = request.url.filter(|_| self.takes_fresh() && self.unanswered(request) == 0) else {
            return false;
        };
        !self.fresh.contains(&url) && self.waiting_fresh.iter().all(|waiter| waiter.request.url != Some(url))
    }

    fn takes_fresh(&self) -> bool {
        self.tripped.as_ref().is_none_or(|tripped| tripped.is_silence)
    }

    /// Admits a lane, queues it or sends it away. An admitted lane holds the permit.
    pub(super) fn admit(&mut self, now: Millis, request: SendRequest) -> AdmitDecision {
        if request.retry_requested {
            return match self.permit_for_requested() {
                Some(kind) => AdmitDecision::Admitted(self.take(kind, request.url)),
                None => self.enqueue(Queue::Requested, now, request),
            };
        }
        let is_fresh = self.is_fresh(request);
        let delay_millis = self.delay_millis(request);
        if is_fresh && self.fresh.len() < limits::BREAKER_FRESH {
            return AdmitDecision::Admitted(self.take(PermitKind::Fresh, request.url));
        }
        match &self.tripped {
            None if self.taken < self.limit => {
                return AdmitDecision::Admitted(self.take(PermitKind::Usual, request.url));
            }
            Some(tripped) if !tripped.probing && tripped.is_over(now, delay_millis) => {
                return AdmitDecision::Admitted(self.take(PermitKind::Probe, request.url));
            }
            Some(_) if !is_fresh => return AdmitDecision::Later(self.return_time(now, request)),
            _ => {}
        }
        self.enqueue(if is_fresh { Queue::Fresh } else { Queue::Usual }, now, request)
    }

    fn permit_for_requested(&self) -> Option<PermitKind> {
        match self.taken < self.limit {
            true => Some(PermitKind::Usual),
            false => (self.taken_by_requested < limits::BREAKER_REQUESTED).then_some(PermitKind::Requested),
        }
    }

    /// Queues a lane if there is room; a lane that comes for the first time may replace another one.
    fn enqueue(&mut self, queue: Queue, now: Millis, request: SendRequest) -> AdmitDecision {
        let is_silent = request.url.is_some() && self.unanswered(request) > 0;
        let most = match queue {
            Queue::Fresh => limits::BREAKER_FEW_WAITING,
            Queue::Usual if is_silent => limits::BREAKER_FEW_WAITING,
            Queue::Usual | Queue::Requested => limits::BREAKER_WAITING,
        };
        if self.count_waiting(queue, most) >= most {
            if queue != Queue::Fresh || request.returns {
                return AdmitDecision::Later(self.return_time(now, request));
            }
            // A first-time lane replaces the last one in the queue. Dropping that one notifies it.
            self.waiting_fresh.pop_back();
        }
        AdmitDecision::Queued(queue)
    }

    /// How many lanes wait in a queue. If that is `most` or more, those that have given up are removed first.
    fn count_waiting(&mut self, queue: Queue, most: usize) -> usize {
        let queue = self.queue(queue);
        if queue.len() >= most {
            queue.retain(|waiter| !waiter.sender.is_closed());
        }
        queue.len()
    }

    fn queue(&mut self, queue: Queue) -> &mut VecDeque<Waiter> {
        match queue {
            Queue::Usual => &mut self.waiting,
            Queue::Fresh => &mut self.waiting_fresh,
            Queue::Requested => &mut self.waiting_requested,
        }
    }

    pub(super) fn wait(&mut self, queue: Queue, waiter: Waiter) {
        let is_old = queue == Queue::Fresh && waiter.request.returns;
        let queue = self.queue(queue);
        // A returning lane goes before all first-time lanes.
        let place = queue.iter().position(|other| is_old && !other.request.returns).unwrap_or(queue.len());
        queue.insert(place, waiter);
    }

    fn take(&mut self, kind: PermitKind, url: Option<u64>) -> PermitKind {
        match kind {
            PermitKind::Usual => self.taken += 1,
            PermitKind::Probe => {
                self.taken += 1;
                if let Some(tripped) = &mut self.tripped {
                    tripped.probing = true;
                }
            }
            PermitKind::Fresh => self.fresh.extend(url),
            PermitKind::Requested => self.taken_by_requested += 1,
        }
        kind
    }

    /// A permit was returned.
    pub(super) fn free(&mut self, kind: PermitKind, url: Option<u64>) {
        match kind {
            PermitKind::Usual | PermitKind::Probe => self.taken -= 1,
            PermitKind::Fresh => self.fresh.retain(|held| Some(*held) != url),
            PermitKind::Requested => self.taken_by_requested -= 1,
        }
    }

    /// The next waiting lane for which there is a permit; it holds the permit from now on.
    pub(super) fn next(&mut self) -> Option<(PermitKind, Waiter)> {
        let (kind, next) = self.next_waiting()?;
        Some((self.take(kind, next.request.url), next))
    }

    fn next_waiting(&mut self) -> Option<(PermitKind, Waiter)> {
        if let Some(kind) = self.permit_for_requested()
            && let Some(next) = self.waiting_requested.pop_front()
        {
            return Some((kind, next));
        }
        let is_free = self.tripped.is_none() && self.taken < self.limit;
        // While the breaker is tripped this queue is empty.
        if let Some(next) = is_free.then(|| self.waiting.pop_front()).flatten() {
            return Some((PermitKind::Usual, next));
        }
        let kind = if self.fresh.len() < limits::BREAKER_FRESH { PermitKind::Fresh } else { PermitKind::Usual };
        if kind == PermitKind::Usual && !is_free {
            return None;
        }
        let next = if self.is_newest_next { self.waiting_fresh.pop_back() } else { self.waiting_fresh.pop_front() }?;
        self.is_newest_next = !self.is_newest_next;
        Some((kind, next))
    }

    /// Admits as many attempts as a new breaker does, in addition to those in flight.
    pub(super) fn renew(&mut self) {
        (self.failures, self.has_succeeded, self.tripped) = (0, false, None);
        self.silent.clear();
        self.limit = (self.taken + limits::BREAKER_FIRST).min(limits::MAX_BREAKER_PERMITS);
    }

    /// Records the result of an ended attempt.
    pub(super) fn record_result(
        &mut self,
        kind: PermitKind,
        url: Option<u64>,
        health: Health,
        now: Millis,
    ) -> HealthChange {
        self.record_silence(url, health);
        match health {
            Health::Well => {
                self.failures = 0;
                self.has_succeeded = true;
                self.limit = (self.limit + 1).min(limits::MAX_BREAKER_PERMITS);
                if self.reset(now) { HealthChange::Recovered } else { HealthChange::Nothing }
            }
            Health::Down | Health::Silent => {
                let was_working = self.tripped.is_none();
                self.record_failure(kind, health == Health::Silent, now);
                if was_working && self.tripped.is_some() { HealthChange::Paused } else { HealthChange::Nothing }
            }
            Health::Answers => {
                self.failures = 0;
                if self.reset(now) { HealthChange::AnswersAgain } else { HealthChange::Nothing }
            }
            Health::Unknown => {
                if let Some(tripped) = self.tripped.as_mut().filter(|_| kind == PermitKind::Probe) {
                    tripped.probing = false;
                }
                HealthChange::Nothing
            }
        }
    }

    /// Records which URLs have unanswered attempts. One that is forgotten to make room is recorded again.
    fn record_silence(&mut self, url: Option<u64>, health: Health) {
        let Some(url) = url.filter(|_| health != Health::Unknown) else { return };
        let place = self.silent.iter().position(|(known, _)| *known == url);
        let (_, times) = place.and_then(|place| self.silent.remove(place)).unwrap_or((url, 0));
        if matches!(health, Health::Down | Health::Silent) {
            if self.silent.len() >= limits::BREAKER_SILENT {
                self.silent.pop_front();
            }
            self.silent.push_back((url, times.saturating_add(1)));
            // Few lanes may queue for such a URL: those that wait are sent away.
            self.waiting.retain(|waiter| waiter.request.url != Some(url));
        }
    }

    /// Admits lanes as usual again; returns whether it was tripped.
    fn reset(&mut self, now: Millis) -> bool {
        let was_tripped = self.tripped.take().is_some();
        if was_tripped {
            self.last_return = now;
        }
        was_tripped
    }

    fn record_failure(&mut self, kind: PermitKind, is_silence: bool, now: Millis) {
        self.failures = self.failures.saturating_add(1);
        self.limit = (self.limit / 2).max(limits::BREAKER_FIRST);
        let tripped = match &self.tripped {
            // Other attempts that were in flight do not change when to try again.
            Some(tripped) if kind != PermitKind::Probe || !tripped.probing => {
                let Tripped { until, millis, probing, .. } = *tripped;
                Tripped { until, millis, probing, is_silence }
            }
            Some(tripped) => {
                let millis = (tripped.millis * 2).min(MAX_TRIPPED_MILLIS);
                Tripped { until: now.plus(millis), millis, probing: false, is_silence }
            }
            None if self.failures < FAILURES => return,
            None => Tripped { until: now.plus(TRIPPED_MILLIS), millis: TRIPPED_MILLIS, probing: false, is_silence },
        };
        self.tripped = Some(tripped);
        (self.limit, self.has_succeeded) = (limits::BREAKER_FIRST, false);
        // Dropping them notifies them.
        self.waiting.clear();
        if !is_silence {
            self.waiting_fresh.clear();
        }
    }

    /// When a lane that comes at `now` is to come back.
    pub(super) fn return_time(&mut self, now: Millis, request: SendRequest) -> Millis {
        let is_fresh = self.is_fresh(request);
        let soonest = match &self.tripped {
            Some(tripped) if !is_fresh => match tripped.probing {
                // While a probe runs, no lane comes back before it is likely to have ended.
                true => now.plus(tripped.millis),
                false => tripped.until.max(now),
            },
            _ => now.plus(return_times::CROWDED_MILLIS),
        };
        self.last_return = return_times::next(self.last_return, soonest, self.has_succeeded, now);
        match self.tripped {
            Some(_) => self.last_return.plus(self.delay_millis(request)),
            None => self.last_return,
        }
    }
}
