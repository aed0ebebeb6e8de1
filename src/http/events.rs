//! The event log of a conversation or a human channel: in pages, or live.
//!
//! A stream sends every event once, in order: what is announced while it was reading is compared with the sequence
//! that comes next, and what was missed is read from the store. So a slow reader costs reads, and memory for
//! [so many bytes](actors::limits::SUBSCRIBER_BYTES) at most; and a reader that comes back with `Last-Event-ID` goes on
//! where it was. An event is written once for all its readers.
//!
//! Between the events a stream tells what agents are saying (`turn.delta`), if it was asked for `deltas`. These pieces
//! are no events: they have no `id`, so the last event's id stays what it was, and whoever missed them gets the reply
//! as an event.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actors::channel::Channel;
use actors::conversation::{Conversation, Event as Happened};
use actors::deltas::{Delta, Listener};
use actors::id::{Address, ConversationId, EntityKey, TurnId};
use actors::key::ApiKey;
use actors::machine::Record;
use actors::store::{Order, StoreError};
use actors::subscriptions::{Missed, Notice, Subscription};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, header};
use tokio::time::{Instant, sleep, timeout_at};

use super::caller::{Allowed, Read};
use super::context::RequestContext;
use super::context::render::internal_error;
use super::conversations;
use super::headers::prefers_event_stream;
use super::lasting::LastingPermit;
use super::log::{CHUNK_BYTES, FIRST_CHUNK, FIRST_OF_PAGE, behind, chunk_of};
use super::messages::human_channel;
use super::paging::{PAGE_BYTES, Page, PageRequest};
use super::problem::Problem;
use super::query::Query;
use super::refusal::store_problem;
use crate::app::App;
use crate::wire::event::{Source, event_value};
use crate::wire::json_view::RawOwned;

mod frame;
mod standing;

use standing::{Found, Standing};

/// Events read at once.
const CHUNK: usize = 128;
/// Bytes of events that a stream keeps before they are sent, or one event; what else was read is read again.
const READY_BYTES: usize = 512 * 1024;
/// After which a store that could not be read is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often a comment is sent where nothing happens, so that nobody between takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `GET /conversations/{id}/events`.
pub(super) async fn of_conversation(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    context: RequestContext,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Problem> {
    let list = format!("conversations/{}/{id}/events", caller.workspace);
    let (asked, page) = Problem::both(Asked::of(&headers, &query), PageRequest::from_query(&query, &list))?;
    let (state, _) = conversations::find(&app, &caller, &id).await?;
    let log = Log {
        entity: state.entity(caller.address),
        workspace: Arc::clone(&caller.workspace),
        channel: state.origin.channel().map(Into::into),
        of_channel: None,
        is_human: state.origin.human_channel().is_some(),
        conversation: Some(state.id),
        newest: state.last_seq,
    };
    answer(&app, &context, (caller.key, log), asked, page, &list).await
}

/// `GET /channels/{id}/events`.
pub(super) async fn of_channel(
    State(app): State<App>,
    Allowed(caller, ..): Allowed<Read>,
    context: RequestContext,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Query,
) -> Result<Response, Problem> {
    let asked = |name: &str| {
        let list = format!("channels/{}/{name}/events", caller.workspace);
        let (asked, page) = Problem::both(Asked::of(&headers, &query), PageRequest::from_query(&query, &list))?;
        Ok((asked, page, list))
    };
    let (channel, (mut asked, page, list)) = human_channel(&app, &caller, (&id, ""), asked).await?;
    let entity = channel.conversation(caller.address);
    let state = app.node().state::<Conversation>(entity).await.map_err(store_problem)?;
    let log = Log {
        entity,
        workspace: Arc::clone(&caller.workspace),
        channel: Some(channel.id.as_str().into()),
        is_human: true,
        conversation: state.as_ref().map(|state| state.id),
        newest: state.map_or(0, |state| state.last_seq),
        of_channel: Some((caller.address, channel)),
    };
    if log.is_beyond(&asked, &page) {
        asked.after = Some(0);
    }
    answer(&app, &context, (caller.key, log), asked, page, &list).await
}

/// A log to read.
struct Log {
    entity: EntityKey,
    workspace: Arc<str>,
    channel: Option<Arc<str>>,
    /// The channel whose log it was asked for as, and its workspace.
    of_channel: Option<(Address, Arc<Channel>)>,
    is_human: bool,
    /// Whose log it is; `None`: nothing had been said on the channel when the request came.
    conversation: Option<ConversationId>,
    /// Its newest sequence when the request came.
    newest: u64,
}

impl Log {
    /// Whether what is asked for comes after an event of another channel, that had the id before. A page that goes on
    /// below where it was to begin goes on in a list that was begun so.
    fn is_beyond(&self, asked: &Asked, page: &PageRequest) -> bool {
        let is_another = self.of_channel.as_ref().is_some_and(|(_, channel)| channel.life.unwrap_or_default() > 0);
        let is_beyond = |after| after > self.newest || page.seq().is_some_and(|at| at <= after);
        is_another && asked.after.is_some_and(is_beyond)
    }

    /// Finds out which conversation's it is, once there is one.
    async fn look_up(&mut self, app: &App) -> Result<(), StoreError> {
        if self.conversation.is_none() {
            // On the heap while it lasts: nearly nobody needs a place for it.
            let state = Box::pin(app.node().state::<Conversation>(self.entity)).await?;
            self.conversation = state.map(|state| state.id);
        }
        Ok(())
    }

    /// Where its events come from; `None`: that was not looked up.
    fn source(&self) -> Option<Source<'_>> {
        Some(Source {
            workspace: &self.workspace,
            conversation: self.conversation?,
            channel: self.channel.as_deref(),
            is_human: self.is_human,
        })
    }
}

/// What a request wants of a log.
struct Asked {
    live: bool,
    /// Only what comes after this sequence.
    after: Option<u64>,
    /// With what agents are saying, between the events.
    deltas: bool,
}

impl Asked {
    fn of(headers: &HeaderMap, query: &Query) -> Result<Self, Problem> {
        let live = prefers_event_stream(headers);
        let number = |text: &str, pointer: &str| {
            let message = "must be the sequence of an event, an integer from 0";
            // A sign is part of no number here.
            let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let number = digits.and_then(|digits| digits.parse::<u64>().ok());
            number.ok_or_else(|| Problem::fault(pointer, "invalid_type", message))
        };
        let last = headers.get("last-event-id").filter(|_| live);
        // What is not ASCII is no number either.
        let last = last.map(|value| value.to_str().unwrap_or("?"));
        let last = last.filter(|last| !last.is_empty()).map(|last| number(last.trim(), "/Last-Event-ID"));
        let after = query.get("after").map(|after| number(after, "/after"));
        let begin = Problem::both(last.transpose(), after.transpose());
        let ((last, after), deltas) = Problem::both(begin, query.boolean("deltas"))?;
        // A reader that comes back asks for what it asked for first, and says how far it has come.
        Ok(Self { live, after: last.or(after), deltas: deltas.unwrap_or_default() })
    }
}

async fn answer(
    app: &App,
    context: &RequestContext,
    (key, mut log): (Arc<ApiKey>, Log),
    asked: Asked,
    page: PageRequest,
    list: &str,
) -> Result<Response, Problem> {
    if asked.live {
        let Some(permit) = app.lasting().enter() else {
            return Err(Problem::unavailable("overloaded", "too many requests wait or follow; try again", 1));
        };
        return Ok(follow(Follower::new(app.clone(), key, log, &asked, permit)));
    }
    let first = asked.after.map_or(1, |after| after.saturating_add(1));
    let (events, more) = page_of(app, log.entity, first, &page).await?;
    let next = events.last().filter(|_| more).map(|event| event.seq.to_be_bytes().to_vec());
    let mut data = Vec::with_capacity(events.len());
    for event in &events {
        log.look_up(app).await.map_err(store_problem)?;
        let source = log.source().ok_or_else(internal_error)?;
        let value = event_value(event, &source).map_err(|_| internal_error())?;
        data.extend(value.map(RawOwned));
    }
    Ok(by_accept(Page { data, next }.into_response(list, &context.uri)))
}

/// The same answer, telling caches that another `Accept` gets another one.
fn by_accept(mut response: Response) -> Response {
    response.headers_mut().insert(header::VARY, HeaderValue::from_name(header::ACCEPT));
    response
}

/// A page of a log: its events, and whether more follow.
async fn page_of(
    app: &App,
    entity: EntityKey,
    first: u64,
    page: &PageRequest,
) -> Result<(Vec<Record<Happened>>, bool), Problem> {
    let (mut events, mut bytes, mut chunk, mut at) = (Vec::new(), 0, FIRST_OF_PAGE, page.seq());
    loop {
        let wanted = chunk.min(page.limit + 1 - events.len());
        let range = behind(first, at, page.order);
        let room = PAGE_BYTES.saturating_sub(bytes);
        let stretch = app.node().stretch::<Conversation>(entity, range, page.order, wanted, room).await;
        let stretch = stretch.map_err(store_problem)?;
        at = stretch.events.last().map(|event| event.seq).or(at);
        chunk = stretch.length.map_or(chunk, |length| chunk_of(length, CHUNK_BYTES, CHUNK));
        bytes += stretch.bytes;
        events.extend(stretch.events);
        if events.len() > page.limit || stretch.is_last || bytes >= PAGE_BYTES {
            let more = events.len() > page.limit || !stretch.is_last;
            events.truncate(page.limit);
            return Ok((events, more));
        }
    }
}

/// A reader of a live log.
struct Follower {
    app: App,
    standing: Standing,
    /// Its channel is gone, and its reader has been told where to begin.
    has_ended: bool,
    log: Log,
    subscription: Subscription,
    /// The sequence that comes next.
    next: u64,
    /// Read and not sent yet.
    ready: VecDeque<Notice>,
    /// There is more in the store than was read.
    behind: bool,
    /// How many events to read next, by the length of those before.
    chunk: usize,
    /// What agents are saying, for whoever asked for it.
    listener: Option<Listener>,
    /// A piece whose turn has not come.
    piece: Option<Arc<Delta>>,
    /// The attempt that was told last to be over: what is still heard of it comes too late.
    over: Option<(TurnId, u32)>,
    _permit: LastingPermit,
}

/// What a stream tells.
enum Told {
    Event(Notice),
    Piece(Arc<Delta>),
}

/// The next piece; never, where nobody listens for any.
async fn heard_piece(listener: &mut Option<Listener>) -> Arc<Delta> {
    match listener {
        Some(listener) => listener.recv().await,
        None => std::future::pending().await,
    }
}

impl Follower {
    /// What comes next; `None` when the stream ends: the node stops, or the log is damaged. The reader comes back.
    async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some(piece) = self.due_piece() {
                return Some(Told::Piece(piece));
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
                    return Some(Told::Event(event));
                }
                continue;
            }
            if self.behind {
                let range = (self.next, u64::MAX);
                // On the heap while it lasts: who has read everything keeps no place for it.
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
                self.chunk = stretch.length.map_or(self.chunk, |length| chunk_of(length, READY_BYTES, CHUNK));
                self.ready = stretch.events.into_iter().map(|event| Notice::from(Arc::new(event))).collect();
                continue;
            }
            let heard = tokio::select! {
                heard = self.subscription.recv() => heard,
                piece = heard_piece(&mut self.listener), if self.piece.is_none() => {
                    self.piece = Some(piece);
                    continue;
                }
                () = self.app.left() => return None,
            };
            match heard {
                Ok(event) if event.seq == self.next => self.ready.push_back(event),
                Ok(event) => self.behind = event.seq > self.next,
                Err(Missed(_)) => self.behind = true,
            }
        }
    }
}

impl Follower {
    /// Lets a store that fails have a moment; `None` where that does not help, or the node stops.
    async fn outlast(&self, error: &StoreError) -> Option<()> {
        if !error.passes() {
            tracing::error!(entity = ?self.log.entity, %error, "a stream ends, as its log cannot be read");
            return None;
        }
        tokio::select! {
            () = sleep(ASK_AGAIN) => Some(()),
            () = self.app.left() => None,
        }
    }

    fn new(app: App, key: Arc<ApiKey>, mut log: Log, asked: &Asked, permit: LastingPermit) -> Self {
        let subscription = app.node().subscribe(log.entity);
        let listener = asked.deltas.then(|| app.node().listen(log.entity));
        let next = asked.after.unwrap_or(log.newest).saturating_add(1);
        let ready = VecDeque::new();
        let standing = Standing::new(key, log.of_channel.take());
        // Something may have happened between the look at the log and the subscription.
        let (behind, chunk) = (true, FIRST_CHUNK);
        let (piece, over) = (None, None);
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

    /// What is written next: an event or a piece, or a comment where nothing has happened for a while. `None`: also
    /// when the key that the stream was opened with is not known any more, or its channel is gone.
    async fn write(&mut self) -> Option<Bytes> {
        if self.has_ended {
            return None;
        }
        let quiet = Instant::now() + KEEP_ALIVE;
        loop {
            let told = match timeout_at(quiet.min(self.standing.look_at), self.next()).await {
                Ok(told) => Some(told?),
                Err(_) => None,
            };
            match self.standing.look(&self.app).await {
                Found::Same => {}
                Found::NoKey => return None,
                Found::NoChannel => {
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
                Told::Event(event) => {
                    let source = self.log.source()?;
                    event.form(|record| frame::of_event(record, &source))
                }
                Told::Piece(piece) => frame::of_piece(&piece, self.app.now()),
            };
            if !written.is_empty() {
                return Some(written);
            }
        }
    }
}

/// The attempt that an event ends.
fn ended(event: &Happened) -> Option<(TurnId, u32)> {
    match event {
        Happened::TurnCompleted(turn) | Happened::TurnFailed(turn) | Happened::TurnCancelled(turn) => {
            Some((turn.id, turn.attempt))
        }
        _ => None,
    }
}

fn follow(follower: Follower) -> Response {
    let frames = stream::unfold(follower, |mut follower| async move {
        let written = follower.write().await?;
        Some((Ok(written), follower))
    });
    let frames = stream::once(std::future::ready(Ok::<_, Infallible>(frame::opening()))).chain(frames);
    let headers =
        [("content-type", "text/event-stream"), ("cache-control", "private, no-cache"), ("x-accel-buffering", "no")];
    by_accept((headers, Body::from_stream(frames)).into_response())
}
