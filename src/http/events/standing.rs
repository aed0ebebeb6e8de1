//! Whether an open stream is still authorised, and its channel still the one that it was opened for.

use std::sync::Arc;
use std::time::Duration;

use actors::channel::Channel;
use actors::id::Address;
use actors::key::ApiKey;
use tokio::time::Instant;

use crate::app::App;
use crate::http::caller;

/// How often is looked whether the key of a stream is still known, and its channel still there, where nothing is told;
/// before anything is told it is looked too. What is known of both may be two seconds old where another process
/// changed one, so that a stream tells nothing after two seconds and has ended after fifteen.
const LOOK_EVERY: Duration = Duration::from_secs(12);
/// How long a stream continues without a check while the store cannot be read.
const TRUSTED_FOR: Duration = Duration::from_secs(2);

/// What a stream was opened with.
pub(super) struct Standing {
    key: Arc<ApiKey>,
    /// The workspace that has the channel, and the channel; `None`: a conversation's own log is followed.
    channel: Option<(Address, Arc<Channel>)>,
    /// When to check, if no event comes before.
    pub(super) look_at: Instant,
    /// Until when not to look again.
    trusted_until: Instant,
}

/// What was found.
pub(super) enum Found {
    /// All is as it was, as far as the store says.
    Same,
    /// The key is not known any more.
    NoKey,
    /// The channel is gone, or another one has its id.
    NoChannel,
}

impl Standing {
    /// Of a stream that has just been let in.
    pub(super) fn new(key: Arc<ApiKey>, channel: Option<(Address, Arc<Channel>)>) -> Self {
        let now = Instant::now();
        Self { key, channel, look_at: now + LOOK_EVERY, trusted_until: now }
    }

    /// Looks.
    pub(super) async fn look(&mut self, app: &App) -> Found {
        let now = Instant::now();
        if now < self.trusted_until {
            return Found::Same;
        }
        let key = caller::is_known(app, &self.key).await;
        let channel = match &self.channel {
            Some((workspace, channel)) if key != Some(false) => is_there(app, *workspace, channel).await,
            _ => Some(true),
        };
        if key.is_none() || channel.is_none() {
            self.trusted_until = now + TRUSTED_FOR;
        }
        self.look_at = now + LOOK_EVERY;
        match (key, channel) {
            (Some(false), _) => Found::NoKey,
            (_, Some(false)) => Found::NoChannel,
            _ => Found::Same,
        }
    }
}

/// Whether the channel is still the one that has its id; `None`: the store does not say.
async fn is_there(app: &App, workspace: Address, channel: &Channel) -> Option<bool> {
    let found = caller::look(|| app.node().channel(workspace, &channel.id)).await?;
    Some(found.is_some_and(|found| found.life == channel.life))
}
