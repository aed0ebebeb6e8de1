//! Waiting for room among the turns of a conversation.
//!
//! A bounded number of turns may wait in a conversation. A message that would ask for one more waits here, with nothing
//! stored, as long as its request may wait for an agent. The requests of one contact on one channel wait in line, and
//! only the first of them asks again, once a turn has begun. A message that comes in the moment in which there is room
//! may pass them. Each of them holds a permit of a long request, and each contact and each workspace may have so many
//! of them; a further request is refused at once.

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

use super::Exchange;
use super::file::having_waited;
use crate::http::caller::still_known;
use crate::http::headers::prefer::prefer;
use crate::http::long_requests::{LongRequestPermit, unless_stopping};
use crate::http::messages::find_channel;
use crate::http::refusal::channel::channel_not_found;
use crate::http::refusal::conversation::rejected;
use crate::problem::Problem;

/// How often the first in line asks again without an event: the turns may be running in another process.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The lines of all contacts, each by the contact's first conversation on its channel.
#[derive(Debug)]
pub(crate) struct WaitQueues {
    /// One permit for each line.
    first: Shares<EntityKey>,
    places: Shares<EntityKey>,
    of_workspaces: Shares,
}

impl Default for WaitQueues {
    fn default() -> Self {
        let places = limits::WAITING_FOR_ROOM;
        let of_workspaces = limits::WAITING_FOR_ROOM_IN_WORKSPACE;
        Self { first: Shares::of(1), places: Shares::of(places), of_workspaces: Shares::of(of_workspaces) }
    }
}

/// The first place in line.
pub(super) struct QueuePosition {
    since: Instant,
    deadline: Instant,
    _long: LongRequestPermit,
    _place: OwnPermit<EntityKey>,
    _of_workspace: OwnPermit<Address>,
    _first: OwnPermit<EntityKey>,
}

impl QueuePosition {
    /// How long the request has waited.
    pub(super) fn waited(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Exchange<'_> {
    /// Waits until it is worth asking again: without a place until nobody is before this request, then until a turn has
    /// begun. `events`: those since before the conversation was asked. Returns the channel as it is then, too.
    ///
    /// # Errors
    /// 429 once the request may not wait any longer; 401, 404 or 409 if it would be refused by now for another reason.
    pub(super) async fn wait_for_room(
        &self,
        place: Option<QueuePosition>,
        mut events: Subscription,
    ) -> Result<(QueuePosition, Arc<Channel>), Problem> {
        let place = match place {
            None => {
                drop(events);
                self.first_in_line().await?
            }
            Some(place) => {
                let until = place.deadline.min(Instant::now() + RETRY_INTERVAL);
                let begun = timeout_at(until, turn_begun(&mut events)).map(Ok);
                let _ = unless_stopping(self.request.app, begun).await?;
                place
            }
        };
        if Instant::now() >= place.deadline {
            return Err(self.no_room_in_time());
        }
        Ok((place, self.still_there().await?))
    }

    async fn first_in_line(&self) -> Result<QueuePosition, Problem> {
        let app = self.request.app;
        let before = self.fetching.map_or(Duration::ZERO, |fetching| fetching.waited);
        let budget = self.budget(prefer(self.request.headers)).saturating_sub(before);
        let long = if budget.is_zero() { None } else { app.long_requests().enter() };
        let long = long.ok_or_else(no_room)?;
        let lines = app.lines();
        let of_workspace = lines.of_workspaces.try_enter(self.contact.workspace).ok_or_else(no_room)?;
        // One server gets all messages of one contact on one channel, and knows this id whichever conversation is open.
        let line = self.generation(1);
        let place = lines.places.try_enter(line).ok_or_else(no_room)?;
        self.request.context.waits();
        let since = Instant::now();
        let deadline = since + budget;
        let first = timeout_at(deadline, lines.first.enter(line));
        let first = first.map(|first| first.map_err(|_| self.no_room_in_time()));
        let first = unless_stopping(app, first).await?;
        Ok(QueuePosition { since, deadline, _long: long, _place: place, _of_workspace: of_workspace, _first: first })
    }

    /// The channel of a message that has waited, unless the key was revoked meanwhile or the channel is gone.
    async fn still_there(&self) -> Result<Arc<Channel>, Problem> {
        let app = self.request.app;
        let caller = self.request.caller;
        still_known(app, caller).await?;
        let channel = find_channel(app, caller, &self.channel.id).await?;
        channel.filter(|channel| channel.incarnation() == self.channel.incarnation()).ok_or_else(channel_not_found)
    }

    fn no_room_in_time(&self) -> Problem {
        having_waited(no_room(), prefer(self.request.headers))
    }
}

fn no_room() -> Problem {
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
