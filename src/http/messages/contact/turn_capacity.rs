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
use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout_at};

use super::ContactExchange;
use super::file::with_applied_wait;
use crate::http::caller::recheck_key;
use crate::http::headers::prefer::prefer;
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
    /// One permit for each queue.
    first: Shares<EntityKey>,
    positions: Shares<EntityKey>,
    of_workspaces: Shares,
}

impl Default for WaitQueues {
    fn default() -> Self {
        let positions = limits::WAITING_FOR_ROOM;
        let of_workspaces = limits::WAITING_FOR_ROOM_IN_WORKSPACE;
        Self { first: Shares::of(1), positions: Shares::of(positions), of_workspaces: Shares::of(of_workspaces) }
    }
}

/// The first position in a queue.
pub(super) struct QueuePosition {
    since: Instant,
    deadline: Instant,
    _long: LongRequestPermit,
    _position: OwnPermit<EntityKey>,
    _of_workspace: OwnPermit<Address>,
    _first: OwnPermit<EntityKey>,
}

impl QueuePosition {
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
    /// 429 once the request may not wait any longer; 401, 404 or 409 if it would be refused by now for another reason.
    pub(super) async fn wait_for_capacity(
        &self,
        position: Option<QueuePosition>,
        mut events: Subscription,
    ) -> Result<(QueuePosition, Arc<Channel>), Problem> {
        let position = match position {
            None => {
                drop(events);
                self.enter_queue().await?
            }
            Some(position) => {
                let until = position.deadline.min(Instant::now() + RETRY_INTERVAL);
                let begun = timeout_at(until, turn_begun(&mut events)).map(Ok);
                let _ = unless_stopping(&self.request.call.app, begun).await?;
                position
            }
        };
        if Instant::now() >= position.deadline {
            return Err(self.at_capacity_after_wait());
        }
        Ok((position, self.recheck_channel().await?))
    }

    async fn enter_queue(&self) -> Result<QueuePosition, Problem> {
        let app = &self.request.call.app;
        let before = self.fetching.map_or(Duration::ZERO, |fetching| fetching.waited);
        let budget = self.budget(prefer(&self.request.call.headers)).saturating_sub(before);
        let long = if budget.is_zero() { None } else { app.long_requests().enter() };
        let long = long.ok_or_else(at_capacity)?;
        let queues = app.lines();
        let of_workspace = queues.of_workspaces.try_enter(self.contact.workspace).ok_or_else(at_capacity)?;
        // One server gets all messages of one contact on one channel, and knows this id whichever conversation is open.
        let queue = self.generation(1);
        let position = queues.positions.try_enter(queue).ok_or_else(at_capacity)?;
        self.request.call.context.begin_wait();
        let since = Instant::now();
        let deadline = since + budget;
        let first = timeout_at(deadline, queues.first.enter(queue));
        let first = first.map(|first| first.map_err(|_| self.at_capacity_after_wait()));
        let first = unless_stopping(app, first).await?;
        Ok(QueuePosition {
            since,
            deadline,
            _long: long,
            _position: position,
            _of_workspace: of_workspace,
            _first: first,
        })
    }

    /// The channel of a message that has waited, unless the key was revoked or the channel deleted meanwhile.
    async fn recheck_channel(&self) -> Result<Arc<Channel>, Problem> {
        recheck_key(self.request.call).await?;
        let channel = find_channel(self.request.call, &self.channel.id).await?;
        channel.filter(|channel| channel.incarnation() == self.channel.incarnation()).ok_or_else(channel_not_found)
    }

    fn at_capacity_after_wait(&self) -> Problem {
        with_applied_wait(at_capacity(), prefer(&self.request.call.headers))
    }
}

fn at_capacity() -> Problem {
    rejected(Rejection::TooManyTurns)
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
