//! A courier: sends the events of one log, and notes its progress.
//!
//! There is at most one per log in a process, and only while there is something to send. It reads each new event
//! once, puts it on the lanes of its receivers, works on all lanes concurrently, each in order, and notes the results
//! in one commit for everything done since the last. A lane whose receiver fails gets a row and an alarm, and leaves
//! memory; so does one whose event cannot be read. A lane whose row is damaged is left as it is, and new events for its
//! receiver go to separate lanes.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until, timeout};

use super::lane::{Lane, LaneRow, mark};
use super::note::{Ended, note};
use super::port::{LogScope, Sends};
use super::receivers::{Hooks, receivers, url_of};
use super::run::{Resume, Run};
use super::settings::SKEW_MILLIS;
use super::state::{LOST_SEND_CHECK_DELAY_MILLIS, LaneChange, Settlement};
use super::step::{ATTEMPT_TIMEOUT, EndedStep, FoundEvent, Route, hooks_of, step};
use super::{CourierSignal, read_log, settings};
use crate::clock::Millis;
use crate::id::EntityKey;
use crate::limits;
use crate::node::Node;
use crate::store::{KeyRange, Order, Scan, SeqRange, StoreError};
use crate::tables::{LANE_TIMES, LANES};
use crate::tasks::backoff::retry_transient;
use crate::tasks::log_limiter::Line;

mod ended;
mod hand_over;
mod loading;

/// Events read at once.
const EVENTS_PER_PAGE: usize = 64;
/// Returning lanes that are worked on at once: the rest of the room is for new events, which many returning lanes would
/// otherwise keep out, and for requested retries.
const MAX_RETURNING_LANES: usize = limits::COURIER_LANES / 4 * 3;
/// The same bound for lanes with requested retries: they go before lanes that come back by themselves, but not before
/// new events.
const MAX_RETRIED_LANES: usize = limits::COURIER_LANES / 8 * 7;
/// How long finished steps wait to be noted together with more, when nothing is in flight.
const NOTE_DELAY: Duration = Duration::from_millis(20);
/// The longest such wait, while other lanes are in flight.
const MAX_NOTE_DELAY: Duration = Duration::from_secs(1);
/// After how long other nodes check running work: not before an attempt has ended, so that no attempt is made twice.
const LEFT_ALONE_MILLIS: u64 = ATTEMPT_TIMEOUT.as_millis() as u64 + LOST_SEND_CHECK_DELAY_MILLIS;
/// How often that check is postponed while the work continues.
const POSTPONE_INTERVAL: Duration = Duration::from_millis(LEFT_ALONE_MILLIS / 3);

/// How long finding the first event is retried.
const FIND_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause before new events are read again after a failed read.
const REREAD_PAUSE: Duration = Duration::from_millis(LOST_SEND_CHECK_DELAY_MILLIS);

/// The courier of one log.
pub(super) struct Courier<M: Sends> {
    node: Arc<Node>,
    entity: EntityKey,
    signal: Arc<CourierSignal>,
    scope: Arc<LogScope>,
    workspace: Arc<str>,
    /// The first event that was not read.
    unread_from: u64,
    /// The value of `unread_from` that was noted last.
    noted_from: u64,
    runs: HashMap<Lane, Run>,
    /// Lanes to resume before their time that have found no room so far, or could not be read.
    to_resume: HashSet<Lane>,
    /// Lanes of `to_resume` that were resumed, and whose stored rows still say that they wait.
    resumed: HashSet<Lane>,
    steps: FuturesUnordered<BoxFuture<'static, EndedStep>>,
    ended: Ended,
    /// When the first step that is not noted yet ended.
    unnoted_since: Option<Instant>,
    /// When the last note was made, or the courier began.
    noted_at: Instant,
    /// A note is due although nothing may have changed: an alarm rang.
    check: bool,
    /// The error of the last failed read of new work, and when it is retried.
    failed_read: Option<(StoreError, Instant)>,
    machine: std::marker::PhantomData<fn() -> M>,
}

/// Sends until nothing is left.
pub(super) async fn run_until_idle<M: Sends>(
    node: Arc<Node>,
    entity: EntityKey,
    signal: Arc<CourierSignal>,
    scope: LogScope,
) {
    // However it ends, it must not count as running.
    let _registered = Registered { node: &node, entity, signal: &signal };
    let mut from = signal.from;
    while let Err(error) = deliver_until_idle::<M>(&node, entity, &signal, &scope, from.take()).await {
        log_failed_read(&node, entity, &error);
        // The log's alarm finds durable work again, but it may be hours away for a lane that is to be resumed now.
        let is_over = || !signal.has_lanes_to_resume() || node.outbox.is_stopping();
        if !error.is_transient() || is_over() {
            return;
        }
        // A notification meanwhile causes an earlier retry.
        let _ = timeout(REREAD_PAUSE, signal.raised()).await;
        if is_over() {
            return;
        }
    }
}

async fn deliver_until_idle<M: Sends>(
    node: &Arc<Node>,
    entity: EntityKey,
    signal: &Arc<CourierSignal>,
    scope: &LogScope,
    from: Option<u64>,
) -> Result<(), StoreError> {
    let mut unread_from = match from {
        Some(from) => from,
        None => first_event::<M>(node, entity, signal).await?,
    };
    loop {
        unread_from = deliver_pending::<M>(node, entity, signal, scope, unread_from).await?;
        if node.outbox.remove_idle(entity, signal) {
            return Ok(());
        }
    }
}

/// The first event to be read. While the signal exists only this courier reads events.
async fn first_event<M: Sends>(node: &Node, entity: EntityKey, signal: &CourierSignal) -> Result<u64, StoreError> {
    let state = retry_transient(FIND_TIMEOUT, || node.state::<M>(entity)).await?;
    let upto = state.as_ref().map_or(signal.upto(), |state| M::log(entity, state).last_seq);
    signal.upto.fetch_max(upto, Ordering::SeqCst);
    let from = state.as_ref().and_then(M::outbox).and_then(|outbox| outbox.from);
    Ok(from.unwrap_or(upto + 1))
}

/// Reports that events cannot be sent from a log, each time that is tried.
fn log_failed_read(node: &Node, entity: EntityKey, error: &StoreError) {
    let now = Instant::now();
    if error.is_transient() {
        if let Some(Line { left_out }) = node.outbox.unread.line(now) {
            tracing::warn!(?entity, %error, left_out, "could not send events; retrying");
        }
    } else if let Some(Line { left_out }) = node.outbox.damaged.line(now) {
        tracing::error!(?entity, %error, left_out, "could not send events because one is damaged; retrying");
    }
}

struct Registered<'a> {
    node: &'a Node,
    entity: EntityKey,
    signal: &'a Arc<CourierSignal>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.node.outbox.remove_ended(self.entity, self.signal);
    }
}

async fn deliver_pending<M: Sends>(
    node: &Arc<Node>,
    entity: EntityKey,
    signal: &Arc<CourierSignal>,
    scope: &LogScope,
    unread_from: u64,
) -> Result<u64, StoreError> {
    let mut courier = Courier::<M> {
        node: Arc::clone(node),
        entity,
        signal: Arc::clone(signal),
        scope: Arc::new(scope.clone()),
        workspace: node.outbox.workspace_id(node.store.as_ref(), entity.workspace).await?,
        unread_from,
        noted_from: unread_from,
        runs: HashMap::new(),
        to_resume: HashSet::new(),
        resumed: HashSet::new(),
        steps: FuturesUnordered::new(),
        ended: Ended::default(),
        unnoted_since: None,
        noted_at: Instant::now(),
        check: false,
        failed_read: None,
        machine: std::marker::PhantomData,
    };
    let done = courier.work_until_settled().await;
    if done.is_err() {
        signal.resume_again(courier.to_resume.iter().chain(&courier.resumed));
    }
    done.map(|()| courier.unread_from)
}

impl<M: Sends> Courier<M> {
    async fn work_until_settled(&mut self) -> Result<(), StoreError> {
        loop {
            if self.ended.is_full() {
                self.note().await?;
            }
            if self.failed_read.as_ref().is_none_or(|(_, again)| *again <= Instant::now()) {
                self.take_new_work().await;
            }
            let stopping = self.node.outbox.is_stopping();
            if !stopping {
                self.start_steps();
            }
            if self.steps.is_empty() && self.unnoted_since.is_none() {
                let has_to_resume = !stopping && (!self.to_resume.is_empty() || self.signal.has_lanes_to_resume());
                // The alarm of such a lane may be hours away: nothing else would resume it soon.
                match self.failed_read.take_if(|_| !has_to_resume) {
                    Some((error, _)) => return Err(error),
                    None if self.failed_read.is_some() => {}
                    None if has_to_resume || !stopping && self.has_news() => {
                        // Everything is noted. Lanes at rest that a failed read left here would only take room.
                        self.runs.retain(|_, run| !run.is_at_rest());
                        continue;
                    }
                    None => return if self.check { self.note().await } else { Ok(()) },
                }
            }
            let noted_at = self.unnoted_since.map(|unnoted_since| match self.steps.is_empty() {
                true => (Instant::now() + NOTE_DELAY).min(unnoted_since + MAX_NOTE_DELAY),
                false => unnoted_since + MAX_NOTE_DELAY,
            });
            let again_at = self.failed_read.as_ref().map(|(_, again)| *again);
            let put_off_at = self.node.store.is_shared().then_some(self.noted_at + POSTPONE_INTERVAL);
            tokio::select! {
                Some(ended) = self.steps.next() => self.apply_step(ended).await,
                () = self.signal.raised() => {}
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {}
                () = sleep_until(put_off_at.unwrap_or_else(Instant::now)), if put_off_at.is_some() => self.note().await?,
                () = sleep_until(noted_at.unwrap_or_else(Instant::now)), if noted_at.is_some() => self.note().await?,
            }
        }
    }

    /// Takes up new work: lanes that are due, and events. Work that cannot be read delays nothing in flight: it is
    /// retried later, here or, once everything is at rest, when the log's alarm rings.
    async fn take_new_work(&mut self) {
        let raised = self.signal.take();
        self.check |= raised.check;
        // A lane without room here resumes at its own time.
        let room = limits::COURIER_LANES.saturating_sub(self.to_resume.len());
        self.to_resume.extend(raised.resume.into_iter().take(room));
        let had_failed = self.failed_read.take().is_some();
        let has_found_room = !self.to_resume.is_empty() && self.runs.len() < MAX_RETURNING_LANES;
        let has_room_for_unread = self.unread_from <= self.signal.upto() && self.has_room();
        if raised.is_raised || had_failed || has_found_room || has_room_for_unread {
            let due = self.take_due_lanes().await;
            let new_events = self.take_new_events().await;
            let again = Instant::now() + REREAD_PAUSE;
            self.failed_read = due.and(new_events).err().map(|error| (error, again));
        }
    }

    /// Whether there are unread events or notifications.
    fn has_news(&self) -> bool {
        self.signal.is_raised() || self.unread_from <= self.signal.upto()
    }

    /// Whether there is room to read more events before earlier ones have been sent.
    fn has_room(&self) -> bool {
        self.runs.len() < limits::COURIER_LANES
    }

    /// Takes up the due lanes and those to resume before their time: all that can be read.
    async fn take_due_lanes(&mut self) -> Result<(), StoreError> {
        let now = self.node.clock.now();
        let before = Some(now.plus(1).0.to_be_bytes().to_vec().into());
        let range = KeyRange { after: None, before };
        let rows =
            self.node.store.rows(self.entity, LANE_TIMES, Scan::new(range, Order::Asc, limits::COURIER_LANES)).await?;
        let due = rows.iter().filter_map(|row| Lane::parse_time_key(&row.key)).map(|(_, lane)| lane);
        let mut all = Ok(());
        for lane in due.chain(self.to_resume.iter().copied()).collect::<HashSet<_>>() {
            let resume = if self.to_resume.contains(&lane) { Resume::Early } else { Resume::WhenDue };
            let is_done = match self.take_lane(lane, resume, now).await {
                Ok(is_done) => is_done,
                Err(error) => {
                    let is_damaged = !error.is_transient();
                    all = Err(error);
                    is_damaged
                }
            };
            if is_done && self.to_resume.remove(&lane) && self.runs.get(&lane).is_some_and(Run::is_active) {
                self.resumed.insert(lane);
            }
        }
        all
    }

    /// Takes up one of these lanes, if it still waits. `false`: there is no room for it.
    async fn take_lane(&mut self, lane: Lane, resume: Resume, now: Millis) -> Result<bool, StoreError> {
        let known = self.runs.get(&lane);
        let is_known = known.is_some();
        let is_active = known.is_some_and(Run::is_active);
        let Some(stored) = self.node.stored::<LaneRow>(self.entity, LANES, lane.key()).await? else { return Ok(true) };
        // It belongs to the other server until its time, at which the log's alarm rings.
        if !is_known && self.node.store.is_shared() && is_left_alone(&stored, now) {
            return Ok(true);
        }
        let most = if stored.retries().any() { MAX_RETRIED_LANES } else { MAX_RETURNING_LANES };
        if !is_known && self.runs.len() >= most {
            return Ok(false);
        }
        // A running lane is not disturbed, unless a retry is requested, and a lane whose receiver sent `Retry-After` is
        // not resumed early.
        if let Some(run) = self.runs.get_mut(&lane).filter(|_| is_active) {
            run.retry_now(stored);
            return Ok(true);
        }
        // The in-memory state may be newer than the stored row.
        let deferred_by = self.runs.get(&lane).map_or(stored.deferred_by, |run| run.row.deferred_by);
        let is_released =
            resume == Resume::Early && has_other_url(&self.node, self.entity, &self.scope, lane, deferred_by).await;
        match self.runs.get_mut(&lane) {
            Some(run) => {
                if is_released {
                    run.drop_retry_after();
                }
                run.resume(stored, resume, now);
            }
            None => {
                let mut run = Run::of(lane, stored);
                if is_released {
                    run.drop_retry_after();
                }
                self.runs.extend(Some(run).filter(|run| run.may_send(now)).map(|run| (lane, run)));
            }
        }
        Ok(true)
    }

    /// Reads new events, and puts them on the lanes of their receivers.
    async fn take_new_events(&mut self) -> Result<(), StoreError> {
        let mut known: HashMap<u64, Option<Arc<Hooks>>> = HashMap::new();
        while self.unread_from <= self.signal.upto() && self.has_room() {
            let range = SeqRange::new(self.unread_from, self.signal.upto());
            let records =
                read_log::next_part::<M>(&self.node, self.entity, range, Order::Asc, EVENTS_PER_PAGE).await?.records;
            let Some(last) = records.last().map(|record| record.seq) else {
                return Err(StoreError::Unavailable("the store does not return what was committed".into()));
            };
            let settings = settings::read(&self.node, self.entity, &self.scope).await?;
            // All are read before any is put on a lane: otherwise events that were already sent would be read again
            // after a failed read.
            let mut wanted = Vec::new();
            for record in &records {
                let Some(subject) = M::subject(record) else { continue };
                if let (Some(message), Some(hooks)) = (subject.message, M::hooks(record)) {
                    known.insert(message, Some(Arc::new(hooks)));
                }
                let hooks = match subject.message {
                    Some(message) => match known.get(&message) {
                        Some(hooks) => hooks.clone(),
                        None => {
                            let hooks = hooks_of::<M>(&self.node, self.entity, message).await?;
                            known.entry(message).or_insert(hooks).clone()
                        }
                    },
                    None => None,
                };
                for (receiver, _) in receivers(&subject, &settings.configured(), hooks.as_deref(), None) {
                    wanted.push((self.load_lane(receiver, record.seq).await?, record));
                }
            }
            for (lane, record) in wanted {
                self.runs.entry(lane).or_default().push(FoundEvent { seq: record.seq, at: record.at });
            }
            self.unread_from = last + 1;
            self.note_later();
        }
        Ok(())
    }

    /// Records that there is something to note.
    fn note_later(&mut self) {
        self.unnoted_since.get_or_insert_with(Instant::now);
    }

    /// Starts the next step of every lane that can make one.
    fn start_steps(&mut self) {
        let mut untried_since = (self.unread_from <= self.signal.upto()).then_some(self.signal.since);
        for (lane, run) in &mut self.runs {
            untried_since = untried_since.into_iter().chain(run.untried_since()).min();
            let Some((head, retry_signal)) = run.start() else { continue };
            let node = &self.node;
            let scope = &self.scope;
            let workspace = &self.workspace;
            let route = Route {
                node: Arc::clone(node),
                entity: self.entity,
                scope: Arc::clone(scope),
                workspace: Arc::clone(workspace),
                retry_signal,
            };
            let (lane, effective_lane) = (*lane, run.effective_lane(*lane));
            self.steps.push(Box::pin(async move {
                EndedStep { lane, outcome: step::<M>(route, effective_lane, head).await }
            }));
        }
        self.signal.untried_since.store(untried_since.map_or(u64::MAX, |at| at.0), Ordering::Relaxed);
    }

    /// Notes the progress of every lane. A lane in flight gets a row too, so that it is found again if this process
    /// ends.
    async fn note(&mut self) -> Result<(), StoreError> {
        let now = self.node.clock.now();
        let (check_after, ahead) = match self.node.store.is_shared() {
            true => (LEFT_ALONE_MILLIS, LEFT_ALONE_MILLIS * 2 / 3 + 1),
            false => (LOST_SEND_CHECK_DELAY_MILLIS, 0),
        };
        let moved = |(lane, run): (&Lane, &Run)| {
            let change = LaneChange {
                lane: *lane,
                before: run.stored.clone(),
                after: run.row_to_store(now, check_after, ahead),
            };
            (change.before != change.after).then_some(change)
        };
        let mut lanes: Vec<LaneChange> = self.runs.iter().filter_map(moved).collect();
        // Lanes that received handed-over events come before the lanes that handed them over: an event is always on one
        // of the two.
        lanes.sort_unstable_by_key(|change| Reverse(change.lane));
        let ended = self.ended.take();
        let nothing = lanes.is_empty() && ended.is_empty() && self.unread_from == self.noted_from && !self.check;
        (self.check, self.unnoted_since) = (false, None);
        let afters: Vec<_> = lanes.iter().map(|change| (change.lane, change.after.clone())).collect();
        let mut steps = Vec::new();
        if !nothing {
            let settlement = Settlement { unread_from: self.unread_from, lanes, ended };
            let node = Arc::clone(&self.node);
            steps = self.outcomes_during(note::<M>(&node, self.entity, settlement)).await?;
        }
        self.noted_from = self.unread_from;
        self.noted_at = Instant::now();
        self.resumed.clear();
        for (lane, after) in afters {
            if let Some(run) = self.runs.get_mut(&lane) {
                run.stored = after;
            }
        }
        self.runs.retain(|_, run| !run.is_at_rest());
        for ended in steps {
            self.apply_step(ended).await;
        }
        Ok(())
    }

    /// Waits until a note is stored, while steps in flight end: an attempt holds one of its receiver's permits until
    /// then, and a note may take long. Returns the ended steps, at most one of each lane.
    async fn outcomes_during(
        &mut self,
        noting: impl Future<Output = Result<(), StoreError>>,
    ) -> Result<Vec<EndedStep>, StoreError> {
        let mut noting = pin!(noting);
        let mut steps = Vec::new();
        loop {
            tokio::select! {
                noted = &mut noting => return noted.map(|()| steps),
                Some(ended) = self.steps.next() => steps.push(ended),
            }
        }
    }
}

/// Whether a lane is in flight on another server, whose clock may differ. A time farther ahead was written before the
/// clock was set back.
fn is_left_alone(stored: &LaneRow, now: Millis) -> bool {
    let until = now.plus(LEFT_ALONE_MILLIS + SKEW_MILLIS);
    stored.in_flight == Some(true) && stored.next_at > now && stored.next_at <= until
}

/// Whether the receiver's URL differs from the one that sent `Retry-After`.
async fn has_other_url(node: &Node, entity: EntityKey, scope: &LogScope, lane: Lane, deferred_by: Option<u64>) -> bool {
    let Some(deferred_by) = deferred_by else { return false };
    // If the settings cannot be read, the lane keeps waiting.
    let Ok(settings) = settings::read(node, entity, scope).await else { return false };
    url_of(lane.receiver, &settings.configured(), None).is_some_and(|url| mark(url) != deferred_by)
}
