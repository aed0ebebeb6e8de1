//! The receivers of an event and the form of its requests, by the current configuration.

use crate::channel::Channel;
use crate::clock::Millis;
use crate::id::EndpointId;
use crate::message::Callback;
use crate::url::is_same;
use crate::webhook::{DisabledReason, Format, MAX_SIGNATURES, WebhookEndpoint};

use super::lane::Receiver;

/// A change of a receiver is timed before it is stored. It is stored at most this much later.
const STORED_MILLIS: u64 = 5_000;

/// The webhooks that a message names for its own events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Gets all of them.
    pub webhook_url: Option<String>,
    /// Gets the outcome of its review.
    pub callback: Option<Callback>,
}

/// The properties of an event that decide its receivers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its type.
    pub event: &'static str,
    /// When it happened.
    pub at: Millis,
    /// The message that it is about.
    pub message: Option<u64>,
    /// It ends that message's review.
    pub is_outcome: bool,
}

/// The configuration that events of one log are sent by.
#[derive(Clone, Debug)]
pub(crate) struct Configured<'a> {
    /// The channel that the log belongs to.
    pub(crate) channel_id: Option<&'a str>,
    /// The channel, if it still exists.
    pub(crate) channel: Option<&'a Channel>,
    /// The workspace's endpoints.
    pub(crate) endpoints: &'a [WebhookEndpoint],
    /// How much the clocks of nodes may differ.
    pub(crate) skew_millis: u64,
    /// The time.
    pub(crate) now: Millis,
}

impl<'a> Configured<'a> {
    fn endpoint(&self, id: EndpointId) -> Option<&'a WebhookEndpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.id == id)
    }

    /// Whether this time is in the future: the clock was set back since it was written, at an unknown moment.
    fn is_ahead(&self, at: Millis) -> bool {
        at > self.now.plus(self.skew_millis)
    }

    /// Since when a receiver has the same subscription and URL.
    fn routed_at(&self, receiver: Receiver) -> Millis {
        let routed_at = match receiver {
            Receiver::Endpoint(id) => self.endpoint(id).map(WebhookEndpoint::routed_at),
            Receiver::Channel => self.channel.map(Channel::routed_at),
            Receiver::Message(_) | Receiver::Callback(_) => None,
        };
        routed_at.unwrap_or_default()
    }

    /// Whether a receiver's subscription or URL may have changed since this time.
    pub(crate) fn was_changed(&self, receiver: Receiver, since: Millis) -> bool {
        self.is_changed_within(receiver, since, self.skew_millis)
    }

    /// Whether a receiver's subscription or URL may have changed since this time, or was being changed then: events
    /// that happened while a change was being stored were sent as before it.
    pub(crate) fn may_have_changed(&self, receiver: Receiver, since: Millis) -> bool {
        self.is_changed_within(receiver, since, self.skew_millis.max(STORED_MILLIS))
    }

    fn is_changed_within(&self, receiver: Receiver, since: Millis, millis: u64) -> bool {
        let routed_at = self.routed_at(receiver);
        routed_at > Millis(0) && routed_at.plus(millis) >= since
    }
}

/// Why an event is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsendable {
    /// The endpoint was deleted; its waiting events are dropped.
    Deleted,
    /// The receiver gets nothing now; its waiting events have failed, for this reason in one word.
    Off(&'static str),
}

/// The endpoint is disabled, or was when the event waited for it.
pub(crate) const DISABLED: Unsendable = Unsendable::Off("endpoint_disabled");
/// The channel that has the URL, or whose secret would sign, was deleted.
const CHANNEL_DELETED: Unsendable = Unsendable::Off("channel_deleted");
/// Why an event has failed whose receiver was deleted, in one word.
pub(crate) const RECEIVER_DELETED: &str = "receiver_deleted";
/// Why an event has failed to which its endpoint no longer subscribes, in one word.
pub(crate) const UNSUBSCRIBED: &str = "unsubscribed";

/// How an event is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) url: String,
    pub(crate) method: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) secrets: Vec<String>,
    pub(crate) format: Format,
}

/// Each receiver of an event with its URL, most general first; each URL once.
///
/// If several receivers have the same URL, the event uses the lane of the most general one, so that a URL gets a log's
/// events in order. `spare` is included although it is off, so that its waiting events are found: a disabled endpoint,
/// or the channel without a URL, which is then empty. A spare receiver also keeps its lane against one that was changed
/// after the event: that one may have had another URL then.
pub(crate) fn receivers<'a>(
    subject: &Subject,
    configured: &Configured<'a>,
    hooks: Option<&'a Hooks>,
    spare: Option<Receiver>,
) -> Vec<(Receiver, &'a str)> {
    let mut all: Vec<(Receiver, &str)> = Vec::new();
    for (receiver, url) in all_receivers(subject, configured, hooks, spare) {
        let sends = |(general, known): &(Receiver, &str)| {
            is_same(known, url) && (spare != Some(receiver) || !configured.was_changed(*general, subject.at))
        };
        if !all.iter().any(sends) {
            all.push((receiver, url));
        }
    }
    all
}

/// The receivers of an event other than `from`, whose lane now sends it to `to`, if anywhere, that do not have that
/// URL; each URL once. That lane may have carried the event for them too, while they had one URL. A receiver that got
/// its subscription or URL later never waited for it.
pub(crate) fn other_receivers<'a>(
    from: Receiver,
    to: Option<&str>,
    subject: &Subject,
    configured: &Configured<'a>,
    hooks: Option<&'a Hooks>,
) -> Vec<(Receiver, &'a str)> {
    let mut others: Vec<(Receiver, &str)> = Vec::new();
    for (receiver, url) in all_receivers(subject, configured, hooks, None) {
        let routed_at = configured.routed_at(receiver);
        let had_this_lane = receiver != from && (routed_at <= subject.at || configured.is_ahead(routed_at));
        let has_url = to.is_some_and(|to| is_same(to, url)) || others.iter().any(|(_, known)| is_same(known, url));
        if had_this_lane && !has_url {
            others.push((receiver, url));
        }
    }
    others
}

/// All receivers of an event, as in [`receivers`], including several with one URL.
fn all_receivers<'a>(
    subject: &Subject,
    configured: &Configured<'a>,
    hooks: Option<&'a Hooks>,
    spare: Option<Receiver>,
) -> Vec<(Receiver, &'a str)> {
    let mut all = Vec::new();
    let mut add = |receiver, url: &'a str| all.push((receiver, url));
    for endpoint in configured.endpoints {
        let on = endpoint.disabled.is_none() && gets_events_of(endpoint, subject, configured);
        let receiver = Receiver::Endpoint(endpoint.id);
        if (on || spare == Some(receiver)) && endpoint.subscribes(subject.event, configured.channel_id) {
            add(receiver, &endpoint.url);
        }
    }
    let of_channel = configured.channel.and_then(|channel| channel.webhook_url.as_deref());
    if let Some(url) = of_channel.or((spare == Some(Receiver::Channel)).then_some("")) {
        add(Receiver::Channel, url);
    }
    if let (Some(seq), Some(hooks)) = (subject.message, hooks) {
        if let Some(url) = &hooks.webhook_url {
            add(Receiver::Message(seq), url);
        }
        if let Some(callback) = hooks.callback.as_ref().filter(|_| subject.is_outcome) {
            add(Receiver::Callback(seq), &callback.url);
        }
    }
    all
}

/// Whether an enabled endpoint gets an event of that time: from its creation on, or since it was enabled again. If that
/// time is in the future by the clock, it gets everything, since it must miss nothing until then.
fn gets_events_of(endpoint: &WebhookEndpoint, subject: &Subject, configured: &Configured<'_>) -> bool {
    endpoint.since <= subject.at.plus(configured.skew_millis) || configured.is_ahead(endpoint.since)
}

/// Whether a waiting event was meant for the now enabled endpoint: it may have been disabled meanwhile, and events that
/// waited then have failed, however late that is found out. An endpoint that was never enabled again was never
/// disabled.
pub(crate) fn is_still_due(receiver: Receiver, subject: &Subject, configured: &Configured<'_>) -> bool {
    let endpoint = configured.endpoints.iter().find(|endpoint| receiver == Receiver::Endpoint(endpoint.id));
    endpoint.is_none_or(|endpoint| endpoint.since <= endpoint.id.at || gets_events_of(endpoint, subject, configured))
}

/// Whether a receiver is an endpoint that does not, or no longer, subscribe to such an event.
pub(crate) fn is_unsubscribed(receiver: Receiver, subject: &Subject, configured: &Configured<'_>) -> bool {
    let endpoint = receiver.endpoint().and_then(|id| configured.endpoint(id));
    endpoint.is_some_and(|endpoint| !endpoint.subscribes(subject.event, configured.channel_id))
}

/// Why nothing is sent to a receiver now, whatever the event.
pub(crate) fn off(receiver: Receiver, configured: &Configured<'_>) -> Option<Unsendable> {
    match receiver {
        Receiver::Endpoint(id) => {
            let endpoint = configured.endpoint(id);
            let Some(endpoint) = endpoint else { return Some(Unsendable::Deleted) };
            endpoint.disabled.map(|reason| match reason {
                DisabledReason::Gone => Unsendable::Off("endpoint_gone"),
                DisabledReason::Manual => DISABLED,
            })
        }
        Receiver::Channel => match configured.channel {
            Some(channel) => channel.webhook_url.is_none().then_some(Unsendable::Off(RECEIVER_DELETED)),
            None => Some(CHANNEL_DELETED),
        },
        Receiver::Message(_) | Receiver::Callback(_) => {
            // Its secret would sign.
            configured.channel.is_none().then_some(CHANNEL_DELETED)
        }
    }
}

/// A receiver's URL, whether or not it subscribes to anything; `None`: it no longer has one.
pub(super) fn url_of<'a>(
    receiver: Receiver,
    configured: &'a Configured<'_>,
    hooks: Option<&'a Hooks>,
) -> Option<&'a str> {
    match receiver {
        Receiver::Endpoint(id) => configured.endpoint(id).map(|endpoint| endpoint.url.as_str()),
        Receiver::Channel => configured.channel.and_then(|channel| channel.webhook_url.as_deref()),
        Receiver::Message(_) | Receiver::Callback(_) => hooks.and_then(|hooks| hooks.url_of(receiver)),
    }
}

impl Hooks {
    /// The URL of a receiver that the message itself names.
    pub(super) fn url_of(&self, receiver: Receiver) -> Option<&str> {
        match receiver {
            Receiver::Message(_) => self.webhook_url.as_deref(),
            Receiver::Callback(_) => self.callback.as_ref().map(|callback| callback.url.as_str()),
            Receiver::Endpoint(_) | Receiver::Channel => None,
        }
    }
}

/// How an event is sent to a receiver now.
///
/// # Errors
///
/// [`Unsendable`].
pub(crate) fn destination(
    receiver: Receiver,
    subject: &Subject,
    configured: &Configured<'_>,
    hooks: Option<&Hooks>,
    now: Millis,
) -> Result<Destination, Unsendable> {
    if let Some(why) = off(receiver, configured) {
        return Err(why);
    }
    let callback = hooks.and_then(|hooks| hooks.callback.as_ref()).filter(|_| subject.is_outcome);
    if matches!(receiver, Receiver::Callback(_)) && callback.is_none() {
        return Err(Unsendable::Deleted);
    }
    let url = url_of(receiver, configured, hooks).ok_or(Unsendable::Deleted)?;
    let endpoint = receiver.endpoint().and_then(|id| configured.endpoint(id));
    let sharing = all_receivers(subject, configured, hooks, None).into_iter().filter(|(_, other)| is_same(other, url));
    let mut destination = Destination {
        url: url.to_owned(),
        method: "POST".to_owned(),
        headers: Vec::new(),
        secrets: secrets(receiver, sharing.map(|(other, _)| other), configured, now),
        format: endpoint.map(|endpoint| endpoint.format).unwrap_or_default(),
    };
    // A callback gets the outcome in the form it asked for, even if its URL would get the event anyway.
    if let Some(callback) = callback.filter(|callback| is_same(&callback.url, &destination.url)) {
        destination.method.clone_from(&callback.method);
        destination.headers.clone_from(&callback.headers);
    }
    Ok(destination)
}

/// The secrets that sign a request to `receiver`, whose URL the `sharing` receivers have too: the current ones, its own
/// first, then the replaced ones in the same order.
fn secrets(
    receiver: Receiver,
    sharing: impl Iterator<Item = Receiver>,
    configured: &Configured<'_>,
    now: Millis,
) -> Vec<String> {
    let signing = |receiver| match receiver {
        Receiver::Endpoint(id) => configured.endpoint(id).map(|endpoint| endpoint.signing(now)),
        Receiver::Channel | Receiver::Message(_) | Receiver::Callback(_) => {
            configured.channel.map(|channel| channel.signing(now))
        }
    };
    let signers: Vec<Vec<String>> = std::iter::once(receiver).chain(sharing).filter_map(signing).collect();
    let current = signers.iter().flat_map(|secrets| secrets.first());
    let replaced = signers.iter().flat_map(|secrets| secrets.iter().skip(1));
    let mut all: Vec<String> = Vec::new();
    for secret in current.chain(replaced) {
        if all.len() < MAX_SIGNATURES && !all.contains(secret) {
            all.push(secret.clone());
        }
    }
    all
}
