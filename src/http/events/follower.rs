//! A reader of a live log, and its next event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actors::conversation::{AttemptId, Conversation, Event};
use actors::deltas::{Delta, Listener};
use actors::machine::Record;
use actors::store::{Order, SeqRange, StoreError};
use actors::subscriptions::{Missed, Notice, Subscription};
use actors::tasks::shares::SharedPermit;
use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep, timeout_at};

use super::access::{AccessCheck, StreamAccess};
use super::{EVENTS_PER_READ, EventsQuery, Log, frame};
use crate::app::App;
use crate::http::call::Call;
use crate::http::history::PlaceInLine;
use crate::http::log::{FIRST_CHUNK, chunk_of};
use crate::http::long_requests::LongRequestPermit;

/// Bytes of rendered events that a stream keeps before they are sent, or one event; others are read again.
const READY_BYTES: usize = 512 * 1024;
/// The pause before an unreadable store is read again.
const REREAD_PAUSE: Duration = Duration::from_secs(1);
/// How often an idle stream sends a comment, so that no proxy takes the connection as dead.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// A reader of a live log.
pub(super) struct Follower {
    app: App,
    access: AccessCheck,
    /// Its channel is deleted, and its reader has got the position to begin at.
    has_ended: bool,
    log: Log,
    subscription: Subscription,
    /// The next sequence.
    next: u64,
    /// Events rendered and not sent yet.
    ready: VecDeque<ReadyEvent>,
    /// The store has more events than were read.
    is_behind: bool,
    /// The place in the line for a permit to read them, while it waits for one.
    place: Option<PlaceInLine>,
    /// How many events to read next, by the length of those before.
    chunk: usize,
    /// Pieces of agents' replies, if the client requested them.
    listener: Option<Listener>,
    /// A piece that must wait for earlier events.
    delta: Option<Arc<Delta>>,
    /// The attempt whose end was sent last: later pieces of it are dropped.
    ended_attempt: Option<AttemptId>,
    _permit: LongRequestPermit,
}

/// An event as it is sent.
struct ReadyEvent {
    seq: u64,
    /// The attempt that it ends.
    ended: Option<AttemptId>,
    /// Empty: clients do not see this record.
    frame: Bytes,
}

impl ReadyEvent {
    fn new(record: &Record<Event>, frame: Bytes) -> Self {
        Self { seq: record.seq, ended: ended(&record.event), frame }
    }
}

/// An item of a stream.
enum StreamItem {
    Event(Bytes),
    Delta(Arc<Delta>),
}

/// The next piece; never, if the client requested none.
async fn next_delta(listener: &mut Option<Listener>) -> Arc<Delta> {
    match listener {
        Some(listener) => listener.recv().await,
        None => std::future::pending().await,
    }
}

impl Follower {
    /// The follower of a stream that was just admitted.
    pub(super) fn new(call: &Call, mut log: Log, query: &EventsQuery, permit: LongRequestPermit) -> Self {
        let app = call.app.clone();
        let subscription = app.node().subscribe(log.entity);
        let listener = query.deltas.then(|| app.node().listen(log.entity));
        let next = query.after.unwrap_or(log.newest).saturating_add(1);
        let ready = VecDeque::new();
        let access = AccessCheck::new(Arc::clone(&call.caller.key), log.of_channel.take());
        // Events may have happened between the read of the log and the subscription.
        let is_behind = true;
        let place = None;
        let chunk = FIRST_CHUNK;
        let delta = None;
        let ended_attempt = None;
        Self {
            app,
            access,
            has_ended: false,
            log,
            subscription,
            next,
            ready,
            is_behind,
            place,
            chunk,
            listener,
            delta,
            ended_attempt,
            _permit: permit,
        }
    }

    /// The next item; `None` when the stream ends: the node stops, or the log is damaged. The reader reconnects.
    async fn next(&mut self) -> Option<StreamItem> {
        loop {
            if let Some(delta) = self.due_delta() {
                return Some(StreamItem::Delta(delta));
            }
            if let Some(event) = self.ready.pop_front() {
                if event.seq >= self.next {
                    self.next = event.seq + 1;
                    self.ended_attempt = event.ended.or(self.ended_attempt);
                    return Some(StreamItem::Event(event.frame));
                }
                continue;
            }
            if self.is_behind {
                let stopping = self.app.stopping();
                let read = tokio::select! {
                    biased;
                    () = stopping => return None,
                    // On the heap while it lasts: a reader that is up to date does not need it.
                    read = Box::pin(self.read_next()) => read,
                };
                if let Err(error) = read {
                    self.wait_for_store(&error).await?;
                }
                continue;
            }
            let received = tokio::select! {
                received = self.subscription.recv() => received,
                delta = next_delta(&mut self.listener), if self.delta.is_none() => {
                    self.delta = Some(delta);
                    continue;
                }
                () = self.app.stopping() => return None,
            };
            match received {
                Ok(event) if event.seq == self.next => {
                    if let Err(error) = self.render(&event).await {
                        self.wait_for_store(&error).await?;
                    }
                }
                Ok(event) => self.is_behind = event.seq > self.next,
                Err(Missed(_)) => self.is_behind = true,
            }
        }
    }

    /// A permit to read and render. Cancelling keeps the place in the line, so that a stream that waits for long, and
    /// sends comments meanwhile, gets it in its turn.
    async fn history_permit(&mut self) -> SharedPermit {
        let workspace = self.log.entity.workspace;
        let permits = self.app.history();
        loop {
            if self.place.is_none()
                && let Some(permit) = permits.for_stream(workspace).now_or_never()
            {
                return permit;
            }
            let place = self.place.get_or_insert_with(|| permits.place(workspace));
            let permit = place.permit().await;
            self.place = None;
            if let Some(permit) = permit {
                return permit;
            }
        }
    }

    /// Reads the next events and renders them, with a permit, which is returned before the client receives them.
    /// Cancelling loses no event.
    async fn read_next(&mut self) -> Result<(), StoreError> {
        let _permit = self.history_permit().await;
        let range = SeqRange::from(self.next);
        let node = self.app.node();
        let stretch = node.stretch::<Conversation>(self.log.entity, range, Order::Asc, self.chunk, READY_BYTES).await?;
        if !stretch.events.is_empty() {
            self.log.look_up(&self.app).await?;
        }
        self.is_behind = !stretch.is_last;
        self.chunk = stretch.length.map_or(self.chunk, |length| chunk_of(length, READY_BYTES, EVENTS_PER_READ));
        let mut bytes = 0;
        // A new queue, because the former one keeps its memory after it is empty.
        let mut ready = VecDeque::new();
        for record in &stretch.events {
            // JSON may be longer than what is stored.
            if bytes >= READY_BYTES {
                self.is_behind = true;
                break;
            }
            let frame = frame::of_event(record, &self.log.found_source()?);
            bytes += frame.len();
            ready.push_back(ReadyEvent::new(record, frame));
        }
        self.ready = ready;
        Ok(())
    }

    /// Renders an announced event, which is the next one. The first of all followers does it for the others.
    async fn render(&mut self, event: &Notice) -> Result<(), StoreError> {
        // If this fails or is cancelled, the event is read from the store.
        self.is_behind = true;
        self.log.look_up(&self.app).await?;
        let source = self.log.found_source()?;
        let frame = event.form(|record| frame::of_event(record, &source));
        self.ready.push_back(ReadyEvent::new(event, frame));
        self.is_behind = false;
        Ok(())
    }

    /// Pauses for a failing store; `None` if that does not help, or the node stops.
    async fn wait_for_store(&self, error: &StoreError) -> Option<()> {
        if !error.is_transient() {
            tracing::error!(entity = ?self.log.entity, %error, "an event stream ends because its log cannot be read");
            return None;
        }
        tokio::select! {
            () = sleep(REREAD_PAUSE) => Some(()),
            () = self.app.stopping() => None,
        }
    }

    /// The next piece that may be sent: all events before it have been. Pieces older than the next event are sent
    /// first.
    fn due_delta(&mut self) -> Option<Arc<Delta>> {
        loop {
            let delta = self.delta.take().or_else(|| self.listener.as_mut()?.try_recv())?;
            let is_over = self
                .ended_attempt
                .is_some_and(|ended| ended.turn == delta.attempt.turn && delta.attempt.attempt <= ended.attempt);
            if is_over {
                continue;
            }
            if delta.after < self.next {
                return Some(delta);
            }
            self.delta = Some(delta);
            return None;
        }
    }

    /// The next frame: an event or a piece, or a comment if nothing has happened for a while. `None`: also when the
    /// stream's key is no longer valid, or its channel is deleted.
    pub(super) async fn write(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        let quiet = Instant::now() + KEEP_ALIVE_INTERVAL;
        loop {
            let item = match timeout_at(quiet.min(self.access.check_at), self.next()).await {
                Ok(item) => Some(item?),
                Err(_) => None,
            };
            match self.access.check(&self.app).await {
                StreamAccess::Granted => {}
                StreamAccess::KeyRevoked => return None,
                StreamAccess::ChannelDeleted => {
                    self.has_ended = true;
                    return Some(frame::restart());
                }
            }
            let Some(item) = item else {
                if Instant::now() >= quiet {
                    return Some(frame::comment());
                }
                continue;
            };
            let written = match item {
                StreamItem::Event(frame) => frame,
                StreamItem::Delta(delta) => frame::of_delta(&delta, self.app.now()),
            };
            if !written.is_empty() {
                return Some(written);
            }
        }
    }
}

/// The attempt that an event ends.
fn ended(event: &Event) -> Option<AttemptId> {
    match event {
        Event::TurnCompleted(turn) | Event::TurnFailed(turn) | Event::TurnCancelled(turn) => Some(turn.attempt_id()),
        _ => None,
    }
}
