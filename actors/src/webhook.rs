//! Webhook endpoints of a workspace: their URLs, subscriptions and format.

use minicbor::{Decode, Encode};

use crate::clock::Millis;
use crate::id::EndpointId;

/// Every type of event: the types in logs and streams, to which an endpoint can subscribe.
pub const EVENT_TYPES: [&str; 22] = [
    "message.created",
    "message.updated",
    "message.deleted",
    "message.delivered",
    "message.read",
    "review.requested",
    "review.completed",
    "review.expired",
    "review.cancelled",
    "turn.started",
    "turn.completed",
    "turn.failed",
    "turn.cancelled",
    "memory.created",
    "memory.updated",
    "memory.failed",
    "contact.created",
    "contact.updated",
    "contact.erased",
    "conversation.created",
    "conversation.updated",
    "conversation.closed",
];

/// The pattern that every type matches.
pub const EVERYTHING: &str = "*";

/// How long a replaced secret signs together with the new one, so that receivers can be changed without losing
/// anything.
pub(crate) const ROTATION_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// The form of an event for its receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Format {
    /// Standard Webhooks: `{type, timestamp, data}`.
    #[default]
    #[n(0)]
    Standard,
    /// CloudEvents 1.0 in structured mode.
    #[n(1)]
    CloudEvents,
}

/// Why nothing is sent to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum DisabledReason {
    /// By request.
    #[n(0)]
    Manual,
    /// The receiver answered 410.
    #[n(1)]
    Gone,
}

/// A secret that was replaced.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct RetiredSecret {
    /// The secret.
    #[n(0)]
    pub secret: String,
    /// It signs before this time.
    #[n(1)]
    pub until: Millis,
}

/// A log line that shows a secret's owner does not show the secret.
impl std::fmt::Debug for RetiredSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetiredSecret").field("until", &self.until).finish_non_exhaustive()
    }
}

impl RetiredSecret {
    /// A secret, replaced at `now`.
    #[must_use]
    pub fn at(now: Millis, secret: String) -> Self {
        Self { secret, until: now.plus(ROTATION_MILLIS) }
    }
}

/// Replaced secrets that may sign at the same time; if more are replaced within their time, the oldest end early.
const RETIRED_KEPT: usize = 4;

/// The most signatures of one request to a URL that several receivers share.
pub const MAX_SIGNATURES: usize = 8;

/// The replaced secrets to keep, newest first, where `current` is replaced at `now`: the newest, and those before it
/// that were kept with it.
#[must_use]
pub fn retire(
    current: String,
    newest: Option<RetiredSecret>,
    earlier: Option<Vec<RetiredSecret>>,
    now: Millis,
) -> (RetiredSecret, Option<Vec<RetiredSecret>>) {
    let earlier = newest.into_iter().chain(earlier.into_iter().flatten());
    let earlier: Vec<_> = earlier.filter(|retired| now < retired.until).take(RETIRED_KEPT - 1).collect();
    (RetiredSecret::at(now, current), Some(earlier).filter(|earlier| !earlier.is_empty()))
}

/// The secrets that sign at `now`, the current one first.
#[must_use]
pub fn signing(
    current: &str,
    newest: Option<&RetiredSecret>,
    earlier: Option<&[RetiredSecret]>,
    now: Millis,
) -> Vec<String> {
    let retired = newest.into_iter().chain(earlier.into_iter().flatten()).filter(|retired| now < retired.until);
    std::iter::once(current.to_owned()).chain(retired.map(|retired| retired.secret.clone())).collect()
}

/// The endpoints that subscribe to a workspace's events.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct WebhookEndpoint {
    /// Its id.
    #[n(0)]
    pub id: EndpointId,
    /// The URL.
    #[n(1)]
    pub url: String,
    /// The subscribed types: exact, `family.*` or [`EVERYTHING`].
    #[n(2)]
    pub events: Vec<String>,
    /// Only events on this channel.
    #[n(3)]
    pub channel: Option<String>,
    /// The form of the events.
    #[n(4)]
    pub format: Format,
    /// Why nothing is sent to it; `None`: it is enabled.
    #[n(5)]
    pub disabled: Option<DisabledReason>,
    /// Signs its requests; shown once.
    #[n(6)]
    pub secret: String,
    /// The previous secret, while it still signs too.
    #[n(7)]
    pub retired_secret: Option<RetiredSecret>,
    /// Since when it is enabled. Earlier events are not sent to it.
    #[n(8)]
    pub since: Millis,
    /// When it was last changed.
    #[n(9)]
    pub updated_at: Option<Millis>,
    /// When its subscription or URL was last changed; `None`: when it was last changed at all, if it was.
    #[n(10)]
    pub routed_at: Option<Millis>,
    /// The secrets before `retired_secret` that still sign too, newest first.
    #[n(11)]
    pub retired_earlier: Option<Vec<RetiredSecret>>,
}

/// A log line that shows an endpoint does not show its secret.
impl std::fmt::Debug for WebhookEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookEndpoint").field("id", &self.id).field("url", &self.url).finish_non_exhaustive()
    }
}

impl WebhookEndpoint {
    /// Whether it subscribed to events of this type on this channel.
    #[must_use]
    pub(crate) fn subscribes(&self, event: &str, channel: Option<&str>) -> bool {
        let here = self.channel.is_none() || self.channel.as_deref() == channel;
        here && self.events.iter().any(|pattern| matches(pattern, event))
    }

    /// Since when its subscription and URL are unchanged.
    #[must_use]
    pub fn routed_at(&self) -> Millis {
        self.routed_at.or(self.updated_at).unwrap_or_default().max(self.since)
    }

    /// This endpoint, changed at `now` from `before`.
    #[must_use]
    pub fn changed(self, before: &Self, now: Millis) -> Self {
        let route = |endpoint: &Self| {
            (endpoint.url.clone(), endpoint.events.clone(), endpoint.channel.clone(), endpoint.disabled.is_some())
        };
        let routed_at = if route(&self) == route(before) { before.routed_at() } else { now };
        Self { routed_at: Some(routed_at), updated_at: Some(now), ..self }
    }

    /// The secrets that sign at `now`.
    #[must_use]
    pub fn signing(&self, now: Millis) -> Vec<String> {
        signing(&self.secret, self.retired_secret.as_ref(), self.retired_earlier.as_deref(), now)
    }
}

/// Whether `pattern` matches an event of this type.
#[must_use]
pub fn matches(pattern: &str, event: &str) -> bool {
    let family = || pattern.strip_suffix('*').is_some_and(|family| family.ends_with('.') && event.starts_with(family));
    pattern == EVERYTHING || pattern == event || family()
}

/// Whether some event can ever match `pattern`.
#[must_use]
pub fn is_pattern(pattern: &str) -> bool {
    EVENT_TYPES.iter().any(|event| matches(pattern, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_one_type_a_family_or_everything() {
        for (pattern, event, meant) in [
            ("*", "turn.failed", true),
            ("review.*", "review.completed", true),
            ("review.*", "reviewer.completed", false),
            ("review.*", "message.created", false),
            ("review.completed", "review.completed", true),
            ("review.completed", "review.expired", false),
            ("review*", "review.completed", false),
            ("", "review.completed", false),
        ] {
            assert_eq!(matches(pattern, event), meant, "{pattern} {event}");
        }
        for wrong in ["", "review", "review.", "*.created", "review.*.x", "Review.*", ".*", "**", "review.decided"] {
            assert!(!is_pattern(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_replaced_secret_signs_beside_the_new_one_for_a_day() {
        let retired = RetiredSecret::at(Millis(1_000), "old".to_owned());
        let end = 1_000 + ROTATION_MILLIS;
        assert_eq!(signing("new", Some(&retired), None, Millis(end - 1)), ["new", "old"]);
        assert_eq!(signing("new", Some(&retired), None, Millis(end)), ["new"]);
        assert!(!format!("{retired:?}").contains("old"));
    }

    /// Also where others are replaced within that day.
    #[test]
    fn a_replaced_secret_signs_for_its_whole_day() {
        let mut newest = None;
        let mut earlier = None;
        let hour = 60 * 60 * 1000;
        for nth in 0..6 {
            let (retired, before) = retire(nth.to_string(), newest, earlier, Millis(nth * hour));
            (newest, earlier) = (Some(retired), before);
        }
        let at = |now| signing("6", newest.as_ref(), earlier.as_deref(), Millis(now));
        assert_eq!(at(5 * hour), ["6", "5", "4", "3", "2"], "no more than are kept");
        assert_eq!(at(3 * hour + ROTATION_MILLIS - 1), ["6", "5", "4", "3"]);
        assert_eq!(at(3 * hour + ROTATION_MILLIS), ["6", "5", "4"], "each for its own day");
        let (_, kept) = retire("6".to_owned(), newest, earlier, Millis(5 * hour + ROTATION_MILLIS));
        assert_eq!(kept, None, "what signs no more is forgotten");
    }
}
