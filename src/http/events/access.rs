//! Whether an open stream is still authorised, and its channel still the one that it was opened for.

use std::sync::Arc;
use std::time::Duration;

use actors::channel::Channel;
use actors::id::Address;
use actors::key::ApiKey;
use tokio::time::Instant;

use crate::app::App;
use crate::http::caller;

/// How often a silent stream checks that its key is still valid and its channel still exists; before each event or
/// piece it checks too. Cached data may be two seconds old if another process made a change, so a stream sends nothing
/// after two seconds and has ended after fifteen.
const CHECK_INTERVAL: Duration = Duration::from_secs(12);
/// How long a stream continues without a check while the store cannot be read.
const UNCHECKED_TIMEOUT: Duration = Duration::from_secs(2);

/// Checks the key and the channel with which a stream was opened.
pub(super) struct AccessCheck {
    key: Arc<ApiKey>,
    /// The channel and its workspace; `None`: the stream follows a conversation's own log.
    channel: Option<(Address, Arc<Channel>)>,
    /// When to check, if no event comes before.
    pub(super) check_at: Instant,
    /// No new check before this time.
    trusted_until: Instant,
}

/// The result of a check.
pub(super) enum StreamAccess {
    /// The stream may continue, as far as the store answers.
    Granted,
    /// The key is no longer valid.
    KeyRevoked,
    /// The channel is deleted, or another one has its id.
    ChannelDeleted,
}

impl AccessCheck {
    /// The check of a stream that was just admitted.
    pub(super) fn new(key: Arc<ApiKey>, channel: Option<(Address, Arc<Channel>)>) -> Self {
        let now = Instant::now();
        Self { key, channel, check_at: now + CHECK_INTERVAL, trusted_until: now }
    }

    /// Checks now, unless the last check was inconclusive a moment ago.
    pub(super) async fn check(&mut self, app: &App) -> StreamAccess {
        let now = Instant::now();
        if now < self.trusted_until {
            return StreamAccess::Granted;
        }
        let key = caller::is_valid(app, &self.key).await;
        let channel = match &self.channel {
            Some((workspace, channel)) if key != Some(false) => channel_exists(app, *workspace, channel).await,
            _ => Some(true),
        };
        if key.is_none() || channel.is_none() {
            self.trusted_until = now + UNCHECKED_TIMEOUT;
        }
        self.check_at = now + CHECK_INTERVAL;
        match (key, channel) {
            (Some(false), _) => StreamAccess::KeyRevoked,
            (_, Some(false)) => StreamAccess::ChannelDeleted,
            _ => StreamAccess::Granted,
        }
    }
}

/// Whether the channel still has its id; `None`: the store does not answer.
async fn channel_exists(app: &App, workspace: Address, channel: &Channel) -> Option<bool> {
    let found = caller::read_configuration(|| app.node().channel(workspace, &channel.id)).await?;
    Some(found.is_some_and(|found| found.life == channel.life))
}
