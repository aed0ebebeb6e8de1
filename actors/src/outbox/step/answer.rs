//! Evaluates an attempt's result: the receiver's health, and which lanes are notified.

use super::{Intent, Permits, Route, Verdict};
use crate::clock::Millis;
use crate::outbox::circuit_breaker::{Health, HealthChange};
use crate::outbox::lane::Receiver;
use crate::outbox::port::{Answer, Undelivered};
use crate::outbox::receivers::{Subject, is_still_due, is_unsubscribed, off, url_of};
use crate::outbox::{resume, settings};

/// The verdict on the delivery.
pub(super) fn judge(outcome: Result<Answer, Undelivered>) -> Verdict {
    match outcome {
        Ok(Answer { status: 200..=299, .. }) => Verdict::Arrived,
        Ok(Answer { status: 410, .. }) => Verdict::Gone,
        Ok(answer) => Verdict::Refused { retry_after: answer.retry_after_millis },
        Err(_) => Verdict::Refused { retry_after: None },
    }
}

/// Whether the receiver no longer wants the event at the tried URL: it has another URL or, as an endpoint, was deleted,
/// disabled or, unless the retry of the event was requested, given another subscription. `false` if the settings cannot
/// be read.
pub(super) async fn wants_no_more(
    route: &Route,
    receiver: Receiver,
    subject: &Subject,
    tried: &str,
    intent: Intent,
) -> bool {
    let Ok(settings) = settings::read(&route.node, route.entity, &route.scope).await else { return false };
    let configured = settings.configured();
    let is_off = || receiver.endpoint().is_some() && off(receiver, &configured).is_some();
    let is_meant = || is_still_due(receiver, subject, &configured) && !is_unsubscribed(receiver, subject, &configured);
    let is_unwanted = is_off() || intent == Intent::Scheduled && !is_meant();
    is_unwanted || url_of(receiver, &configured, None).is_some_and(|url| url != tried)
}

/// The receiver's health by an attempt.
pub(super) fn health(receiver: Receiver, verdict: Verdict, outcome: Result<Answer, Undelivered>) -> Health {
    match (verdict, receiver) {
        (Verdict::Arrived | Verdict::Gone, _) => Health::Well,
        (Verdict::Moved, _) => Health::Unknown,
        // These URLs share the breaker of their host; one that refuses, or that a server answers for, shows nothing
        // about the others.
        (Verdict::Refused { .. }, Receiver::Message(_) | Receiver::Callback(_)) => match outcome {
            Ok(_) => Health::Answers,
            Err(Undelivered::Timeout | Undelivered::BrokenAnswer) => Health::Silent,
            Err(Undelivered::Other(_)) => Health::Down,
        },
        (Verdict::Refused { .. }, Receiver::Endpoint(_) | Receiver::Channel) => Health::Down,
    }
}

/// The result of an attempt.
pub(super) struct Judged<'a> {
    pub(super) verdict: Verdict,
    pub(super) health: Health,
    /// The URL.
    pub(super) url: &'a str,
    /// When it began.
    pub(super) at: Millis,
}

/// Reports the receiver's health to its breaker, and resumes the lanes waiting for an endpoint that is back. Returns
/// what that has changed.
pub(super) async fn report_outcome(
    route: &Route,
    receiver: Receiver,
    judged: Judged<'_>,
    permits: Option<Permits>,
) -> HealthChange {
    let Judged { verdict, health, url, at } = judged;
    let node = &route.node;
    let change = permits.map_or(HealthChange::Nothing, |Permits { pass, permit }| {
        if verdict == Verdict::Arrived {
            permit.arrived();
        }
        pass.end(health, node.clock.now())
    });
    if let Receiver::Endpoint(id) = receiver {
        if verdict == Verdict::Gone {
            resume::disable(node, route.entity.workspace, id, url, at).await;
        }
        if change == HealthChange::Recovered || verdict == Verdict::Gone {
            resume::resume_endpoint(node, route.entity.workspace, id);
        }
    }
    change
}
