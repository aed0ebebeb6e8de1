//! Waiting until a conversation has capacity for one more turn.
//!
//! A bounded number of turns may wait in a conversation. A message that would request one more waits here, with nothing
//! stored, as long as its request may wait for an agent. The requests of one contact on one channel wait in a queue,
//! and only the first of them tries again, once a turn has begun. A message that comes in the moment in which there is
//! capacity may overtake them. Each of them holds a permit of a long request, and each contact and each workspace may
//! have so many of them; a further request is refused at once.

use std::sync::Arc;
use std::time::Duration;

use actors::channel::Channel;
use actors::conversation::{Event, Rejection};
use actors::id::{Address, EntityKey};
use actors::limits;
use actors::subscriptions::Subscription;
use actors::tasks::shares::{OwnPermit, Shares};
use axum::response::Response;
use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout_at};

use super::ContactExchange;
use super::file::with_applied_wait;
use crate::http::caller::recheck_key;
use crate::http::headers::prefer::prefer;
use crate::http::idempotency::{InProgress, Waiting, in_progress};
use crate::http::long_requests::{LongRequestPermit, unless_stopping};
use crate::http::messages::find_channel;
use crate::http::refusal::channel::channel_not_found;
use crate::http::refusal::conversation::rejected;
use crate::problem::Problem;

/// How often the first in the queue tries again without an event: the turns may be running in another process.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The queues of all contacts, each by the contact's first conversation on its channel.
#[derive(Debug)]
pub(crate) struct WaitQueues {
    /// The idempotency keys of those that wait.
    keys: InProgress,
    /// One permit for each queue.
    first: Shares<EntityKey>,
    positions: Shares<EntityKey>,
    of_workspaces: Shares,
}

impl Default for WaitQueues {
    fn default() -> Self {
        let positions = limits::WAITING_FOR_ROOM;
        let of_workspaces = limits::WAITING_FOR_ROOM_IN_WORKSPACE;
        Self {
            keys: InProgress::default(),
            first: Shares::of(1),
            positions: Shares::of(positions),
            of_workspaces: Shares::of(of_workspaces),
        }
    }
}

/// The first position in a queue.
pub(super) struct QueuePosition<'a> {
    since: Instant,
    deadline: Instant,
    _key: Option<Waiting<'a>>,
    _long: LongRequestPermit,
    _position: OwnPermit<EntityKey>,
    _of_workspace: OwnPermit<Address>,
    _first: OwnPermit<EntityKey>,
}

/// How a wait for capacity went on.
pub(super) enum CapacityWait<'a> {
    /// It is worth trying again: in this position, on the channel as it is now.
    TryAgain(Box<QueuePosition<'a>>, Arc<Channel>),
    /// The request waits no longer.
    Over(NotWaiting),
}

/// A request that does not wait for capacity, or no longer does.
pub(super) struct NotWaiting {
    refusal: CapacityRefusal,
    /// How long it has waited.
    waited: Duration,
}

/// Why a request does not wait for capacity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CapacityRefusal {
    /// Too many wait already.
    Crowded,
    /// It has waited as long as it may, which may be not at all.
    TimeOver,
}

impl QueuePosition<'_> {
    /// How long the request has waited.
    pub(super) fn waited(&self) -> Duration {
        self.since.elapsed()
    }
}

impl ContactExchange<'_> {
    /// Waits until it is worth trying again: without a position until no other request is ahead of this one, then until
    /// a turn has begun. `events` was subscribed to before the message was refused. Returns the channel as it is then,
    /// too.
    ///
    /// # Errors
    /// 401 or 404 if the request would be refused by now for another reason; 503 `stopping`.
    pub(super) async fn wait_for_capacity<'s>(
        &'s self,
        position: Option<Box<QueuePosition<'s>>>,
        mut events: Subscription,
    ) -> Result<CapacityWait<'s>, Problem> {
        let position = match position {
            None => {
                drop(events);
                match self.enter_queue().await? {
                    Ok(position) => Box::new(position),
                    Err(over) => return Ok(CapacityWait::Over(over)),
                }
            }
            Some(position) => {
                let until = position.deadline.min(Instant::now() + RETRY_INTERVAL);
                let begun = timeout_at(until, turn_begun(&mut events)).map(Ok);
                let _ = unless_stopping(&self.request.call.app, begun).await?;
                position
            }
        };
        if Instant::now() >= position.deadline {
            let waited = position.waited();
            return Ok(CapacityWait::Over(NotWaiting { refusal: CapacityRefusal::TimeOver, waited }));
        }
        Ok(CapacityWait::TryAgain(position, self.recheck_channel().await?))
    }

    /// The first position, once this request has it, unless it does not wait for it.
    async fn enter_queue(&self) -> Result<Result<QueuePosition<'_>, NotWaiting>, Problem> {
        let app = &self.request.call.app;
        let before = self.fetching.map_or(Duration::ZERO, |fetching| fetching.waited);
        let budget = self.budget(prefer(&self.request.call.headers)).saturating_sub(before);
        if budget.is_zero() {
            return Ok(Err(NotWaiting { refusal: CapacityRefusal::TimeOver, waited: Duration::ZERO }));
        }
        let queues = app.wait_queues();
        // One server gets all messages of one contact on one channel, and knows this id whichever conversation is open.
        let queue = self.generation(1);
        let permits = || {
            let long = app.long_requests().enter(self.contact.workspace)?;
            let of_workspace = queues.of_workspaces.try_enter(self.contact.workspace)?;
            Some((long, of_workspace, queues.positions.try_enter(queue)?))
        };
        let Some((long, of_workspace, position)) = permits() else {
            return Ok(Err(NotWaiting { refusal: CapacityRefusal::Crowded, waited: Duration::ZERO }));
        };
        let key = self.key().map(|key| queues.keys.begin(key));
        self.request.call.context.begin_wait();
        let since = Instant::now();
        let deadline = since + budget;
        let first = timeout_at(deadline, queues.first.enter(queue)).map(Ok);
        let Ok(first) = unless_stopping(app, first).await? else {
            return Ok(Err(NotWaiting { refusal: CapacityRefusal::TimeOver, waited: since.elapsed() }));
        };
        Ok(Ok(QueuePosition {
            since,
            deadline,
            _key: key,
            _long: long,
            _position: position,
            _of_workspace: of_workspace,
            _first: first,
        }))
    }

    /// The answer to a message for which there is no capacity, once its request waits no longer and has left the queue:
    /// that of another request with its key which was accepted meanwhile, or which still waits.
    pub(super) async fn refuse_at_capacity(&self, over: NotWaiting) -> Result<Response, Problem> {
        let NotWaiting { refusal, waited } = over;
        let queues = self.request.call.app.wait_queues();
        let another_waits = self.key().is_some_and(|key| queues.keys.has(key));
        let problem = if another_waits { in_progress() } else { rejected(Rejection::TooManyTurns) };
        let problem = match refusal {
            CapacityRefusal::TimeOver => with_applied_wait(problem, prefer(&self.request.call.headers)),
            CapacityRefusal::Crowded => problem,
        };
        // Looked for last, since a request leaves the queue only once its message is stored.
        self.joined_or(problem, waited).await
    }

    /// The channel of a message that has waited, unless the key was revoked or the channel deleted meanwhile.
    async fn recheck_channel(&self) -> Result<Arc<Channel>, Problem> {
        recheck_key(self.request.call).await?;
        let channel = find_channel(self.request.call, &self.channel.id).await?;
        channel.filter(|channel| channel.incarnation() == self.channel.incarnation()).ok_or_else(channel_not_found)
    }
}

/// Waits for an event after which fewer turns wait, or one after which the conversation refuses the message.
async fn turn_begun(events: &mut Subscription) {
    // What was missed may be such an event.
    while let Ok(notice) = events.recv().await {
        if matches!(
            notice.event,
            Event::TurnStarted(_) | Event::TurnFailed(_) | Event::TurnCancelled(_) | Event::ConversationClosed
        ) {
            return;
        }
    }
}
