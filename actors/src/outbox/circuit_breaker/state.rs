//! A breaker's state and its decisions.
//!
//! There are three kinds of permits, each with a queue:
//!
//! - the usual ones, [`limits::BREAKER_FIRST`] of them and more with each success. While the breaker is tripped no lane
//!   waits for them, and one is given now and then as a probe;
//! - [`limits::BREAKER_FRESH`] more for URLs without unanswered attempts, one for each. So a URL waits only for others
//!   as new as itself, not for those that are known to hang, even while these keep the breaker tripped;
//! - [`limits::BREAKER_ASKED`] more for requested deliveries.

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
/// How much later a tripped breaker admits a URL, for each of its unanswered attempts: more than the second in which
/// alarms ring, so that URLs with fewer unanswered attempts come first.
pub(super) const BEHIND_MILLIS: u64 = 2_000;
/// The most attempts that count for this: the next attempt is an hour away by then.
pub(super) const MAX_BEHIND_ATTEMPTS: u32 = 5;

/// The kind of permit that a pass holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Usual,
    /// A usual one, given to find out whether the receiver is back.
    Probe,
    Fresh,
    Asked,
}

/// The queue that a lane waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    Usual,
    Fresh,
    Asked,
}

/// The breaker's answer to a lane.
#[derive(Debug)]
pub(super) enum Entry {
    Through(Slot),
    Waits(Queue),
    /// It comes back at this time.
    Later(Millis),
}

/// A waiting lane.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) want: SendRequest,
    /// Notifies the lane.
    pub(super) sender: oneshot::Sender<Pass>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct State {
    /// How many usual permits there are.
    pub(super) limit: usize,
    /// How many of them are taken.
    through: usize,
    /// How many permits for requested deliveries are taken.
    asked: usize,
    /// The URLs that hold a permit for URLs without unanswered attempts.
    fresh: Vec<u64>,
    waiting: VecDeque<Waiter>,
    waiting_asked: VecDeque<Waiter>,
    waiting_fresh: VecDeque<Waiter>,
    /// Which end of that queue is served next; alternates, so a newcomer need not wait behind every hanging URL.
    newest: bool,
    /// URLs with unanswered attempts, and how many since their last answer, ordered by their latest unanswered one.
    pub(super) silent: VecDeque<(u64, u32)>,
    /// In a row.
    pub(super) failures: u32,
    /// Something has arrived since it was last tripped.
    proven: bool,
    pub(super) tripped: Option<Tripped>,
    /// When the lane that was sent away last comes back.
    last_return: Millis,
}

impl Default for State {
    fn default() -> Self {
        Self {
            limit: limits::BREAKER_FIRST,
            through: 0,
            asked: 0,
            fresh: Vec::new(),
            waiting: VecDeque::new(),
            waiting_asked: VecDeque::new(),
            waiting_fresh: VecDeque::new(),
            newest: false,
            silent: VecDeque::new(),
            failures: 0,
            proven: false,
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
    /// Whether a probe that must wait `behind_millis` longer may go. Also true when `until` is implausibly far ahead:
    /// the clock was set back. The bound is twice the time, since a lane may have read the clock just before the
    /// breaker was tripped.
    fn is_over(&self, now: Millis, behind_millis: u64) -> bool {
        now >= self.until.plus(behind_millis) || self.until > now.plus(2 * self.millis)
    }
}

impl State {
    pub(super) fn is_idle(&self) -> bool {
        let nobody_waits = self.waiting.is_empty() && self.waiting_asked.is_empty() && self.waiting_fresh.is_empty();
        self.through + self.asked + self.fresh.len() == 0 && nobody_waits
    }

    pub(super) fn is_well(&self) -> bool {
        self.failures == 0 && self.tripped.is_none()
    }

    /// How many attempts in a row the URL left unanswered, as far as the breaker or the lane knows.
    fn unanswered(&self, want: SendRequest) -> u32 {
        let known = self.silent.iter().find(|(url, _)| Some(*url) == want.url).map_or(0, |(_, times)| *times);
        known.max(want.unanswered)
    }

    /// How much later than the first lane a tripped breaker admits this one.
    fn behind_millis(&self, want: SendRequest) -> u64 {
        let times = want.url.map_or(0, |_| self.unanswered(want));
        BEHIND_MILLIS * u64::from(times.min(MAX_BEHIND_ATTEMPTS))
    }

    /// Whether this lane may use a permit for URLs without unanswered attempts. Each URL has at most one.
    fn is_fresh(&self, want: SendRequest) -> bool {
        let Some(url) = want.url.filter(|_| self.takes_fresh() && self.unanswered(want) == 0) else { return false };
        !self.fresh.contains(&url) && self.waiting_fresh.iter().all(|waiter| waiter.want.url != Some(url))
    }

    fn takes_fresh(&self) -> bool {
        self.tripped.as_ref().is_none_or(|tripped| tripped.is_silence)
    }

    /// Admits a lane, queues it or sends it away. An admitted lane holds the permit.
    pub(super) fn admit(&mut self, now: Millis, want: SendRequest) -> Entry {
        if want.retry_requested {
            return match self.spot_for_asked() {
                Some(spot) => Entry::Through(self.take(spot, want.url)),
                None => self.line_up(Queue::Asked, now, want),
            };
        }
        let is_fresh = self.is_fresh(want);
        let behind_millis = self.behind_millis(want);
        if is_fresh && self.fresh.len() < limits::BREAKER_FRESH {
            return Entry::Through(self.take(Slot::Fresh, want.url));
        }
        match &self.tripped {
            None if self.through < self.limit => return Entry::Through(self.take(Slot::Usual, want.url)),
            Some(tripped) if !tripped.probing && tripped.is_over(now, behind_millis) => {
                return Entry::Through(self.take(Slot::Probe, want.url));
            }
            Some(_) if !is_fresh => return Entry::Later(self.return_time(now, want)),
            _ => {}
        }
        self.line_up(if is_fresh { Queue::Fresh } else { Queue::Usual }, now, want)
    }

    fn spot_for_asked(&self) -> Option<Slot> {
        match self.through < self.limit {
            true => Some(Slot::Usual),
            false => (self.asked < limits::BREAKER_ASKED).then_some(Slot::Asked),
        }
    }

    /// Queues a lane if there is room; a lane that comes for the first time may replace another one.
    fn line_up(&mut self, queue: Queue, now: Millis, want: SendRequest) -> Entry {
        let is_silent = want.url.is_some() && self.unanswered(want) > 0;
        let most = match queue {
            Queue::Fresh => limits::BREAKER_FEW_WAITING,
            Queue::Usual if is_silent => limits::BREAKER_FEW_WAITING,
            Queue::Usual | Queue::Asked => limits::BREAKER_WAITING,
        };
        if self.crowd(queue, most) >= most {
            if queue != Queue::Fresh || want.returns {
                return Entry::Later(self.return_time(now, want));
            }
            // A first-time lane replaces the last one in the queue. Dropping that one notifies it.
            self.waiting_fresh.pop_back();
        }
        Entry::Waits(queue)
    }

    /// How many lanes wait in a queue; at `most` or more, those that have left it are removed first.
    fn crowd(&mut self, queue: Queue, most: usize) -> usize {
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
            Queue::Asked => &mut self.waiting_asked,
        }
    }

    pub(super) fn wait(&mut self, queue: Queue, waiter: Waiter) {
        let is_old = queue == Queue::Fresh && waiter.want.returns;
        let queue = self.queue(queue);
        // A returning lane goes before all first-time lanes.
        let place = queue.iter().position(|other| is_old && !other.want.returns).unwrap_or(queue.len());
        queue.insert(place, waiter);
    }

    fn take(&mut self, spot: Slot, url: Option<u64>) -> Slot {
        match spot {
            Slot::Usual => self.through += 1,
            Slot::Probe => {
                self.through += 1;
                if let Some(tripped) = &mut self.tripped {
                    tripped.probing = true;
                }
            }
            Slot::Fresh => self.fresh.extend(url),
            Slot::Asked => self.asked += 1,
        }
        spot
    }

    /// A permit was returned.
    pub(super) fn free(&mut self, spot: Slot, url: Option<u64>) {
        match spot {
            Slot::Usual | Slot::Probe => self.through -= 1,
            Slot::Fresh => self.fresh.retain(|held| Some(*held) != url),
            Slot::Asked => self.asked -= 1,
        }
    }

    /// The next waiting lane for which there is a permit; it holds the permit from now on.
    pub(super) fn next(&mut self) -> Option<(Slot, Waiter)> {
        let (spot, next) = self.next_waiting()?;
        Some((self.take(spot, next.want.url), next))
    }

    fn next_waiting(&mut self) -> Option<(Slot, Waiter)> {
        if let Some(spot) = self.spot_for_asked()
            && let Some(next) = self.waiting_asked.pop_front()
        {
            return Some((spot, next));
        }
        let is_free = self.tripped.is_none() && self.through < self.limit;
        // While the breaker is tripped this queue is empty.
        if let Some(next) = is_free.then(|| self.waiting.pop_front()).flatten() {
            return Some((Slot::Usual, next));
        }
        let spot = if self.fresh.len() < limits::BREAKER_FRESH { Slot::Fresh } else { Slot::Usual };
        if spot == Slot::Usual && !is_free {
            return None;
        }
        let next = if self.newest { self.waiting_fresh.pop_back() } else { self.waiting_fresh.pop_front() }?;
        self.newest = !self.newest;
        Some((spot, next))
    }

    /// Admits as many as a new breaker, beside the attempts in flight.
    pub(super) fn renew(&mut self) {
        (self.failures, self.proven, self.tripped) = (0, false, None);
        self.silent.clear();
        self.limit = (self.through + limits::BREAKER_FIRST).min(limits::MAX_BREAKER_PERMITS);
    }

    /// Learns from an ended attempt.
    pub(super) fn learn(&mut self, spot: Slot, url: Option<u64>, health: Health, now: Millis) -> HealthChange {
        self.remember(url, health);
        match health {
            Health::Well => {
                self.failures = 0;
                self.proven = true;
                self.limit = (self.limit + 1).min(limits::MAX_BREAKER_PERMITS);
                if self.reset(now) { HealthChange::Recovered } else { HealthChange::Nothing }
            }
            Health::Down | Health::Silent => {
                let was_working = self.tripped.is_none();
                self.failed(spot, health == Health::Silent, now);
                if was_working && self.tripped.is_some() { HealthChange::Paused } else { HealthChange::Nothing }
            }
            Health::Answers => {
                self.failures = 0;
                if self.reset(now) { HealthChange::AnswersAgain } else { HealthChange::Nothing }
            }
            Health::Unknown => {
                if let Some(tripped) = self.tripped.as_mut().filter(|_| spot == Slot::Probe) {
                    tripped.probing = false;
                }
                HealthChange::Nothing
            }
        }
    }

    /// Remembers URLs with unanswered attempts. One that is forgotten to make room is learned again.
    fn remember(&mut self, url: Option<u64>, health: Health) {
        let Some(url) = url.filter(|_| health != Health::Unknown) else { return };
        let place = self.silent.iter().position(|(known, _)| *known == url);
        let (_, times) = place.and_then(|place| self.silent.remove(place)).unwrap_or((url, 0));
        if matches!(health, Health::Down | Health::Silent) {
            if self.silent.len() >= limits::BREAKER_SILENT {
                self.silent.pop_front();
            }
            self.silent.push_back((url, times.saturating_add(1)));
            // Few lanes may queue for such a URL: those that wait are sent away.
            self.waiting.retain(|waiter| waiter.want.url != Some(url));
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

    fn failed(&mut self, spot: Slot, is_silence: bool, now: Millis) {
        self.failures = self.failures.saturating_add(1);
        self.limit = (self.limit / 2).max(limits::BREAKER_FIRST);
        let tripped = match &self.tripped {
            // Other attempts that were in flight do not change when to try again.
            Some(tripped) if spot != Slot::Probe || !tripped.probing => {
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
        (self.limit, self.proven) = (limits::BREAKER_FIRST, false);
        // Dropping them notifies them.
        self.waiting.clear();
        if !is_silence {
            self.waiting_fresh.clear();
        }
    }

    /// When a lane that comes at `now` is to come back.
    pub(super) fn return_time(&mut self, now: Millis, want: SendRequest) -> Millis {
        let is_fresh = self.is_fresh(want);
        let soonest = match &self.tripped {
            Some(tripped) if !is_fresh => match tripped.probing {
                // While a probe runs, no lane comes back before it is likely to have ended.
                true => now.plus(tripped.millis),
                false => tripped.until.max(now),
            },
            _ => now.plus(return_times::CROWDED_MILLIS),
        };
        self.last_return = return_times::next(self.last_return, soonest, self.proven, now);
        match self.tripped {
            Some(_) => self.last_return.plus(self.behind_millis(want)),
            None => self.last_return,
        }
    }
}
