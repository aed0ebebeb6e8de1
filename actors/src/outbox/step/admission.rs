//! Admits an event: waits for the permits to send it.

use super::Route;
use crate::clock::Millis;
use crate::outbox::circuit_breaker::{Admitted, BreakerKey, Pass, SendRequest, breaker_key, channel_key, endpoint_key};
use crate::outbox::lane::{Receiver, mark};
use crate::outbox::port::LogChannel;
use crate::outbox::receivers::{Hooks, off};
use crate::outbox::retry_signal::RetryOf;
use crate::outbox::send_permits::{SendPermit, Urgency};
use crate::outbox::settings::Settings;
use crate::url::origin;

/// The admission of an event.
pub(super) struct Admission {
    /// `None`: there is nowhere to send it, which is found out without permits.
    pub(super) permits: Option<Permits>,
    /// The retry that was requested since the step began.
    pub(super) requested: Option<RetryOf>,
}

/// The permits to send one event.
pub(super) struct Permits {
    /// At the receiver.
    pub(super) pass: Pass,
    /// Of the workspace, on this node.
    pub(super) permit: SendPermit,
}

/// Waits for the permits to send: at the receiver, of the workspace and on this node. `Err`: not before this time.
pub(super) async fn admit(
    route: &Route,
    receiver: Receiver,
    settings: &Settings,
    hooks: Option<&Hooks>,
    mut send_request: SendRequest,
) -> Result<Admission, Millis> {
    let node = &route.node;
    let mut permits = None;
    let mut requested = None;
    if off(receiver, &settings.configured()).is_none() {
        let breaker = node.outbox.breakers.of(key_of(route, receiver, hooks));
        send_request.url = hooks.and_then(|hooks| hooks.url_of(receiver)).map(mark);
        let entered = tokio::select! {
            biased;
            retry = route.retry_signal.received() => {
                requested = Some(retry);
                None
            }
            entered = breaker.enter(node.clock.now(), send_request) => Some(entered),
        };
        let entered = match entered {
            Some(entered) => entered,
            None => {
                send_request.retry_requested = true;
                breaker.enter(node.clock.now(), send_request).await
            }
        };
        permits = match entered {
            Admitted::Later(at) => return Err(at),
            Admitted::Now(pass) => {
                let is_urgent = send_request.retry_requested || pass.is_probe();
                let urgency = if is_urgent { Urgency::Urgent } else { Urgency::Normal };
                let permit = node.outbox.send_permits.enter(route.entity.workspace, urgency, node.clock.now()).await?;
                Some(Permits { pass, permit })
            }
        };
    }
    // The node may have begun to stop meanwhile; then nothing is begun.
    if node.outbox.is_stopping() {
        return Err(node.clock.now());
    }
    Ok(Admission { permits, requested: requested.max(route.retry_signal.take()) })
}

/// The key of a receiver's breaker: one for each endpoint or channel, and one for each host of the URLs of messages,
/// since each message may have its own URL.
fn key_of(route: &Route, receiver: Receiver, hooks: Option<&Hooks>) -> BreakerKey {
    let workspace = route.entity.workspace;
    match receiver {
        Receiver::Endpoint(id) => endpoint_key(workspace, id),
        Receiver::Channel => {
            let channel = route.scope.channel.as_ref().map_or("", LogChannel::id);
            channel_key(workspace, channel)
        }
        Receiver::Message(_) | Receiver::Callback(_) => {
            let url = hooks.and_then(|hooks| hooks.url_of(receiver)).unwrap_or_default();
            breaker_key(workspace, "origin", origin(url).as_bytes())
        }
    }
}
