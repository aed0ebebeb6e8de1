//! A reader of a live log, and its next event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actors::conversation::{Conversation, Event};
use actors::deltas::{Delta, Listener};
use actors::id::TurnId;
use actors::key::ApiKey;
use actors::store::{Order, SeqRange, StoreError};
use actors::subscriptions::{Missed, Notice, Subscription};
use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::standing::{Standing, StreamAccess};
use super::{EVENTS_PER_READ, EventsQuery, Log, frame};
use crate::app::App;
use crate::http::log::{FIRST_CHUNK, chunk_of};
use crate::http::long_requests::LongRequestPermit;

/// Bytes of events that a stream keeps before they are sent, or one event; others are read again.
const READY_BYTES: usize = 512 * 1024;
/// The pause before an unreadable store is read again.
const REREAD_PAUSE: Duration = Duration::from_secs(1);
/// How often an idle stream sends a comment, so that no proxy takes the connection as dead.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// A reader of a live log.
pub(super) struct Follower {
    app: App,
    standing: Standing,
    /// Its channel is deleted, and its reader has got the position to begin at.
    has_ended: bool,
    log: Log,
    subscription: Subscription,
    /// The next sequence.
    next: u64,
    /// Events read and not sent yet.
    ready: VecDeque<Notice>,
    /// The store has more events than were read.
    behind: bool,
    /// How many events to read next, by the length of those before.
    chunk: usize,
    /// Pieces of agents' replies, if the client asked for them.
    listener: Option<Listener>,
    /// A piece that must wait for earlier events.
    piece: Option<Arc<Delta>>,
    /// The attempt whose end was sent last: later pieces of it are dropped.
    over: Option<(TurnId, u32)>,
    _permit: LongRequestPermit,
}

/// An item of a stream.
enum StreamItem {
    Event(Notice),
    Piece(Arc<Delta>),
}

/// The next piece; never, if the client asked for none.
async fn next_delta(listener: &mut Option<Listener>) -> Arc<Delta> {
    match listener {
        Some(listener) => listener.recv().await,
        None => std::future::pending().await,
    }
}

impl Follower {
    /// The follower of a stream that was just admitted.
    pub(super) fn new(
        app: App,
        key: Arc<ApiKey>,
        mut log: Log,
        asked: &EventsQuery,
        permit: LongRequestPermit,
    ) -> Self {
        let subscription = app.node().subscribe(log.entity);
        let listener = asked.deltas.then(|| app.node().listen(log.entity));
        let next = asked.after.unwrap_or(log.newest).saturating_add(1);
        let ready = VecDeque::new();
        let standing = Standing::new(key, log.of_channel.take());
        // Events may have happened between the read of the log and the subscription.
        let behind = true;
        let chunk = FIRST_CHUNK;
        let piece = None;
        let over = None;
        Self {
            app,
            standing,
            has_ended: false,
            log,
            subscription,
            next,
            ready,
            behind,
            chunk,
            listener,
            piece,
            over,
            _permit: permit,
        }
    }

    /// The next item; `None` when the stream ends: the node stops, or the log is damaged. The reader reconnects.
    async fn next(&mut self) -> Option<StreamItem> {
        loop {
            if let Some(piece) = self.due_piece() {
                return Some(StreamItem::Piece(piece));
            }
            if !self.ready.is_empty()
                && let Err(error) = self.log.look_up(&self.app).await
            {
                self.outlast(&error).await?;
                continue;
            }
            if let Some(event) = self.ready.pop_front() {
                if event.seq >= self.next {
                    self.next = event.seq + 1;
                    self.over = ended(&event.event).or(self.over);
                    return Some(StreamItem::Event(event));
                }
                continue;
            }
            if self.behind {
                let range = SeqRange::from(self.next);
                // On the heap while it lasts: a reader that is up to date does not need it.
                let node = self.app.node();
                let reading = node.stretch::<Conversation>(self.log.entity, range, Order::Asc, self.chunk, READY_BYTES);
                let stretch = match Box::pin(reading).await {
                    Ok(stretch) => stretch,
                    Err(error) => {
                        self.outlast(&error).await?;
                        continue;
                    }
                };
                self.behind = !stretch.is_last;
                self.chunk = stretch.length.map_or(self.chunk, |length| chunk_of(length, READY_BYTES, EVENTS_PER_READ));
                self.ready = stretch.events.into_iter().map(|event| Notice::from(Arc::new(event))).collect();
                continue;
            }
            let heard = tokio::select! {
                heard = self.subscription.recv() => heard,
                piece = next_delta(&mut self.listener), if self.piece.is_none() => {
                    self.piece = Some(piece);
                    continue;
                }
                () = self.app.stopping() => return None,
            };
            match heard {
                Ok(event) if event.seq == self.next => self.ready.push_back(event),
                Ok(event) => self.behind = event.seq > self.next,
                Err(Missed(_)) => self.behind = true,
            }
        }
    }

    /// Pauses for a failing store; `None` if that does not help, or the node stops.
    async fn outlast(&self, error: &StoreError) -> Option<()> {
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
    fn due_piece(&mut self) -> Option<Arc<Delta>> {
        loop {
            let piece = self.piece.take().or_else(|| self.listener.as_mut()?.try_recv())?;
            let is_over = self.over.is_some_and(|(turn, attempt)| turn == piece.turn && piece.attempt <= attempt);
            if is_over {
                continue;
            }
            if piece.after < self.next {
                return Some(piece);
            }
            self.piece = Some(piece);
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
            let told = match timeout_at(quiet.min(self.standing.look_at), self.next()).await {
                Ok(told) => Some(told?),
                Err(_) => None,
            };
            match self.standing.look(&self.app).await {
                StreamAccess::Same => {}
                StreamAccess::NoKey => return None,
                StreamAccess::NoChannel => {
                    self.has_ended = true;
                    return Some(frame::anew());
                }
            }
            let Some(told) = told else {
                if Instant::now() >= quiet {
                    return Some(frame::comment());
                }
                continue;
            };
            let written = match told {
                StreamItem::Event(event) => {
                    let source = self.log.source()?;
                    event.form(|record| frame::of_event(record, &source))
                }
                StreamItem::Piece(piece) => frame::of_piece(&piece, self.app.now()),
            };
            if !written.is_empty() {
                return Some(written);
            }
        }
    }
}

/// The attempt that an event ends.
fn ended(event: &Event) -> Option<(TurnId, u32)> {
    match event {
        Event::TurnCompleted(turn) | Event::TurnFailed(turn) | Event::TurnCancelled(turn) => {
            Some((turn.id, turn.attempt))
        }
        _ => None,
    }
}
